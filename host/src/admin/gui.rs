//! The page for operators: files that are part of the program, and below `/api` the Admin API that
//! they use.
//!
//! The Admin API is on the page's own origin, so the page needs neither CORS nor a second address,
//! and works as well over TLS and behind a proxy. The requests pass the same checks of host, origin
//! and token (`access.rs`, `token.rs`) as on `admin_listen`: this router is the same one.

mod files;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, SERVER, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{Method, StatusCode, Uri};
use sha2::{Digest, Sha256};

use super::error::Error;
use super::respond;
use crate::proxy::PRODUCT;
use files::FILES;

/// Where the Admin API is, below the prefix of the page.
const API: &str = "/api";

/// Scripts and styles are files of the page, so a text of an attacker that is shown in the page can
/// be neither. The page has no plugins, no frames and no forms that are sent by the browser itself.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
);

/// A document of another site that has opened the page shares no process with it, and no other site
/// can load its files.
const ISOLATION: [(HeaderName, HeaderValue); 2] = [
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// A file as it is sent.
struct Sent {
    path: &'static str,
    media_type: &'static str,
    content: Bytes,
    etag: HeaderValue,
}

/// The files of the page and the Admin API `api`. Each is at the root, and at the prefix `path` as
/// well: a proxy in front of the page may pass the prefix on or remove it.
pub(super) fn router(path: &str, api: Router) -> Router {
    let files: Arc<[Sent]> = FILES
        .iter()
        .map(|file| {
            let content = match file.path {
                "index.html" => Bytes::from(with_base(file.content, path)),
                _ => Bytes::from_static(file.content),
            };
            Sent {
                path: file.path,
                media_type: file.media_type,
                etag: etag(&content),
                content,
            }
        })
        .collect();
    let prefix = path.to_owned();
    let send = get(async move |uri: Uri, headers: HeaderMap| {
        let asked = uri.path();
        let inner = match asked.strip_prefix(&*prefix) {
            Some(inner) if inner.is_empty() || inner.starts_with('/') => inner,
            _ => asked,
        };
        send(&files, inner.trim_start_matches('/'), &headers)
    });
    let send = send.fallback(async |method: Method| match method {
        Method::OPTIONS => respond::options(&HeaderMap::new(), "GET, HEAD, OPTIONS"),
        _ => respond::method_not_allowed("GET, HEAD, OPTIONS"),
    });
    let mut router = Router::new().nest_service(API, api.clone());
    if !path.is_empty() {
        router = router.nest_service(&format!("{path}{API}"), api);
    }
    router.fallback_service(send)
}

/// The document with the address that its relative links are read against. It is that of the
/// setting, because the path of a request may lack a prefix that a proxy has removed.
fn with_base(document: &[u8], path: &str) -> String {
    let document = String::from_utf8_lossy(document);
    document.replacen("<base href=\"/\">", &format!("<base href=\"{path}/\">"), 1)
}

fn etag(content: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(content);
    let digits: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    HeaderValue::from_str(&format!("\"{digits}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn send(files: &[Sent], path: &str, request: &HeaderMap) -> Response {
    let path = if path.is_empty() { "index.html" } else { path };
    let Some(file) = files.iter().find(|file| file.path == path) else {
        let mut response = Error::not_found().into_response();
        protect(response.headers_mut());
        return response;
    };
    let known = request.get(IF_NONE_MATCH).is_some_and(|known| {
        let known = known.to_str().unwrap_or_default();
        let mut known = known.split(',').map(str::trim);
        known.any(|tag| tag == "*" || file.etag == tag.trim_start_matches("W/").as_bytes())
    });
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => file.content.clone().into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.media_type));
    if known {
        headers.remove(CONTENT_TYPE);
        headers.remove(CONTENT_LENGTH);
    }
    headers.insert(ETAG, file.etag.clone());
    // Asked for again at each visit, so that a page never mixes files of two versions.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    protect(headers);
    response
}

fn protect(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.extend(ISOLATION);
    headers.insert(SERVER, HeaderValue::from_static(PRODUCT));
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn names(folder: &Path, below: &str, into: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let name = format!("{below}{name}");
            match entry.file_type().unwrap().is_dir() {
                true => names(&entry.path(), &format!("{name}/"), into),
                false => drop(into.insert(name)),
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let mut there = BTreeSet::new();
        names(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("page"),
            "",
            &mut there,
        );
        let served: BTreeSet<String> = FILES.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(served, there);
    }

    #[test]
    fn no_file_names_another_origin_or_makes_markup_of_text() {
        for file in FILES {
            let text = std::str::from_utf8(file.content).unwrap();
            // The names of XML namespaces are no addresses that are asked.
            let text = text.replace("http://www.w3.org/", "");
            for unwanted in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "localStorage.setItem(\"token",
            ] {
                assert!(!text.contains(unwanted), "{}: {unwanted}", file.path);
            }
            if file.path.ends_with(".html") {
                for unwanted in ["<style", "style=", "onclick", "onload", "<script>"] {
                    assert!(!text.contains(unwanted), "{}: {unwanted}", file.path);
                }
            }
        }
    }

    #[test]
    fn links_are_read_against_the_prefix() {
        let index = FILES.iter().find(|file| file.path == "index.html").unwrap();
        let with = |path| with_base(index.content, path);
        assert!(with("").contains("<base href=\"/\">"));
        assert!(with("/ops/gate").contains("<base href=\"/ops/gate/\">"));
    }
}
