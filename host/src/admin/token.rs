//! Who may use the Admin API: the holders of its tokens (RFC 6750), if the operator has set any.

use axum::extract::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};

use super::arguments;
use super::error::Error;
use crate::config::AdminToken;

/// What needs no token: a probe has none, and learns only whether the gateway is ready.
const OPEN: &str = "/status/ready";

/// Whether a POST to a path checks or explains input, and changes nothing.
fn only_looks(method: &Method, path: &str) -> bool {
    let explains = |path: &str| {
        let key = path.strip_prefix("/upstreams/")?.strip_suffix("/explain")?;
        Some(!key.contains('/'))
    };
    method == Method::POST
        && (path.starts_with("/schemas/")
            || path == "/pointsman/explain"
            || explains(path).unwrap_or(false))
}

/// Whether a configuration is only compared with what is stored. Components that come with it, in a
/// form, may have to be compiled, and are only for those who may write.
fn only_compares(request: &Request) -> bool {
    let uri = request.uri();
    if request.method() != Method::PUT || uri.path() != "/pointsman/config" {
        return false;
    }
    let content_type = request.headers().get(CONTENT_TYPE);
    let is_form = content_type.is_some_and(|value| value.as_bytes().starts_with(b"multipart/"));
    let query = uri.query().unwrap_or_default();
    let pairs = arguments::pairs(query.as_bytes()).unwrap_or_default();
    // The last one counts, as where the query is read.
    let last = pairs.iter().rfind(|(name, _)| name == "dry_run");
    !is_form && last.is_some_and(|(_, value)| value == "true")
}

/// The token of a request; none if the Admin API has no tokens, or the request needs none.
///
/// # Errors
/// 401 without a token that is known, 403 for a write with a token that is read-only.
pub(super) fn authorize<'a>(
    tokens: &'a [AdminToken],
    request: &Request,
) -> Result<Option<&'a AdminToken>, Error> {
    let (method, path) = (request.method(), request.uri().path());
    let reads = [Method::GET, Method::HEAD].contains(method);
    // A browser asks by OPTIONS whether a page may send a token, without sending it.
    let is_open = method == Method::OPTIONS || (reads && path == OPEN);
    if tokens.is_empty() || is_open {
        return Ok(None);
    }
    let given = bearer(request.headers()).ok_or_else(|| {
        unauthorized("the Admin API needs a token: send it as Authorization: Bearer TOKEN")
    })?;
    let known = AdminToken::find(tokens, given)
        .ok_or_else(|| unauthorized("the Admin API does not know this token"))?;
    if known.writes || reads || only_looks(method, path) || only_compares(request) {
        return Ok(Some(known));
    }
    tracing::info!(
        "{method} {:?} refused: the token {:?} is read-only",
        collection(path),
        known.name
    );
    let message = format!("the token {:?} is read-only", known.name);
    Err(Error::Plain(StatusCode::FORBIDDEN, message))
}

/// Whether the client of a request, which was admitted, may write.
pub(super) fn may_write(tokens: &[AdminToken], headers: &HeaderMap) -> bool {
    let known = bearer(headers).and_then(|given| AdminToken::find(tokens, given));
    tokens.is_empty() || known.is_some_and(|token| token.writes)
}

/// The first segment of a path, and the second one of those that are Pointsman's own. Others may be
/// secrets, such as the key of a consumer, and are not logged.
fn collection(path: &str) -> &str {
    let first = path.strip_prefix("/pointsman").unwrap_or(path);
    let rest = first.strip_prefix('/').unwrap_or(first);
    let end = rest.find('/').unwrap_or(rest.len());
    path.get(..path.len() - rest.len() + end).unwrap_or(path)
}

/// The token that a request carries. The name of the scheme may be in any case (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

fn unauthorized(message: &str) -> Error {
    Error::Plain(StatusCode::UNAUTHORIZED, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(tokens: &[AdminToken], method: &str, path: &str, authorization: &[&str]) -> u16 {
        let mut request = http::Request::builder().method(method).uri(path);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        let request = request.body(axum::body::Body::empty()).unwrap_or_default();
        match authorize(tokens, &request) {
            Ok(_) => 200,
            Err(Error::Plain(status, _)) => status.as_u16(),
            Err(_) => 0,
        }
    }

    #[test]
    fn only_the_first_segment_of_a_path_is_logged() {
        for (path, expected) in [
            ("/consumers/x/key-auth/secret", "/consumers"),
            ("/consumers/", "/consumers"),
            ("/pointsman/config/x", "/pointsman/config"),
            ("/pointsman", "/pointsman"),
            ("/pointsmans/secret", "/pointsmans"),
            ("/consumers", "/consumers"),
            ("/", "/"),
            ("*", "*"),
        ] {
            assert_eq!(collection(path), expected);
        }
    }

    #[test]
    fn a_request_needs_a_token_that_is_known_and_may_do_it() {
        let tokens = [
            AdminToken::new("ci", true, b"one"),
            AdminToken::new("graphs", false, b"two"),
        ];
        for (method, path, authorization, expected) in [
            ("GET", "/services", &[][..], 401),
            ("GET", "/services", &["Bearer three"], 401),
            ("GET", "/services", &["Basic one"], 401),
            ("GET", "/services", &["Bearer"], 401),
            ("GET", "/services", &["Bearer "], 401),
            ("GET", "/services", &["one"], 401),
            ("GET", "/services", &["Bearer one", "Bearer one"], 401),
            ("GET", "/services", &["Bearer one"], 200),
            ("HEAD", "/services", &["bearer  two "], 200),
            ("POST", "/services", &["Bearer one"], 200),
            ("POST", "/services", &["Bearer two"], 403),
            ("DELETE", "/services/x", &["Bearer two"], 403),
            ("POST", "/schemas/services/validate", &["Bearer two"], 200),
            ("POST", "/schemas/services/validate", &[], 401),
            ("POST", "/pointsman/explain", &["Bearer two"], 200),
            ("POST", "/upstreams/u/explain", &["Bearer two"], 200),
            ("POST", "/upstreams/u/targets/explain", &["Bearer two"], 403),
            ("PUT", "/upstreams/u/explain", &["Bearer two"], 403),
            ("POST", "/pointsman/simulate", &["Bearer two"], 403),
            ("PUT", "/pointsman/config", &["Bearer two"], 403),
            (
                "PUT",
                "/pointsman/config?dry_run=true",
                &["Bearer two"],
                200,
            ),
            (
                "PUT",
                "/pointsman/config?dry_run=false",
                &["Bearer two"],
                403,
            ),
            (
                "PUT",
                "/pointsman/config?dry_run=true&dry_run=false",
                &["Bearer two"],
                403,
            ),
            ("PUT", "/services?dry_run=true", &["Bearer two"], 403),
            ("OPTIONS", "/services", &[], 200),
            ("GET", "/status/ready", &[], 200),
            ("GET", "/status", &[], 401),
        ] {
            let given = status(&tokens, method, path, authorization);
            assert_eq!(given, expected, "{method} {path} {authorization:?}");
            assert_eq!(status(&[], method, path, authorization), 200);
        }
    }
}
