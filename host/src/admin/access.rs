//! Which web pages may use the Admin API from a browser.
//!
//! Without tokens (see `token.rs`), a client that reaches the port of the Admin API is an
//! administrator. A web page that an administrator visits reaches that port as well, through the
//! administrator's browser. So a page may read and write only if its origin is on this machine, is
//! the Admin API's own, or is listed. And the Admin API answers only for names that an attacker
//! cannot bind to its address (DNS rebinding). Clients other than browsers send neither `Origin`
//! nor `Sec-Fetch-Site`, and are not affected.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::{Method, Request, StatusCode, Version};
use url::Url;

use super::error::Error;
use crate::config::AdminAccess;

/// Sent by browsers with every request to `https:`, `localhost` and loopback addresses. Source:
/// W3C, Fetch Metadata.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The web page that sends a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The client is not a page, or does not say so.
    None,
    /// The page may read the answer.
    Admitted(HeaderValue),
    /// The page may neither read the answer nor change anything.
    Foreign,
}

/// Decides whether a request is answered, and which page may read the answer.
///
/// # Errors
/// 400 for a request that does not name its host exactly once, 421 for a host that the Admin API
/// does not answer for, 403 for a page that may not write, if it writes or if the answer lasts.
pub(super) fn admit<B>(settings: &AdminAccess, request: &Request<B>) -> (Page, Result<(), Error>) {
    let host = match named_host(request) {
        Ok(host) => host,
        Err(error) => return (Page::Foreign, Err(error)),
    };
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
    let reads = reads.contains(request.method());
    if let Some(host) = &host
        && !(reads && settings.reads_for_any_host)
        && !answers_for(settings, host)
    {
        let message = format!(
            "the Admin API does not answer for the host {}: use an address or localhost, or add the name to \
             the setting admin_hosts",
            host.name
        );
        let error = Error::Plain(StatusCode::MISDIRECTED_REQUEST, message);
        return (Page::Foreign, Err(error));
    }
    let headers = request.headers();
    let page = page(settings, headers, host.as_ref());
    if reads && !lasts(request.uri().path()) {
        return (page, Ok(()));
    }
    let refused_sites: &[&str] = if reads {
        &["cross-site", "same-site"]
    } else {
        &["cross-site"]
    };
    let refused = match &page {
        Page::Foreign => Some(headers.get(ORIGIN).map_or("", |o| o.to_str().unwrap_or(""))),
        // Refused only without an origin: an admitted origin may be `cross-site`, as that of a
        // listed page on another site.
        Page::None
            if headers
                .get(SEC_FETCH_SITE)
                .is_some_and(|site| refused_sites.iter().any(|refused| site == refused)) =>
        {
            Some("")
        }
        _ => None,
    };
    let Some(origin) = refused else {
        return (page, Ok(()));
    };
    let origin = match origin {
        "" | "null" => "of an unknown origin".to_owned(),
        origin => format!("of {origin}"),
    };
    let done = if reads {
        "follow live figures of"
    } else {
        "write to"
    };
    let message = format!(
        "a web page {origin} cannot {done} the Admin API: add its URL to the setting admin_gui_url to allow it"
    );
    let error = Error::Plain(StatusCode::FORBIDDEN, message);
    (page, Err(error))
}

/// Whether the answer at a path goes on until the client leaves. A page that cannot read it could
/// still take the places of other clients (see `live.rs`).
fn lasts(path: &str) -> bool {
    let of_upstream = |path: &str| {
        let key = path.strip_prefix("/upstreams/")?.strip_suffix("/live")?;
        Some(!key.contains('/'))
    };
    path == "/pointsman/live" || of_upstream(path).unwrap_or(false)
}

fn page(settings: &AdminAccess, headers: &HeaderMap, host: Option<&Host>) -> Page {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Page::None;
    };
    match origin.to_str() {
        Ok(text) if origins.next().is_none() && is_admitted(settings, text, host) => {
            Page::Admitted(origin.clone())
        }
        _ => Page::Foreign,
    }
}

fn is_admitted(settings: &AdminAccess, origin: &str, host: Option<&Host>) -> bool {
    let Ok(url) = Url::parse(origin) else {
        return false;
    };
    // In the form that browsers write (RFC 6454, 6.2), so that no text is read differently here
    // than by a browser.
    if !matches!(url.scheme(), "http" | "https") || url.origin().ascii_serialization() != origin {
        return false;
    }
    let is_local = match url.host() {
        Some(url::Host::Domain(name)) => is_localhost(name),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    is_local || settings.origins.iter().any(|listed| listed == origin) || is_own(&url, host)
}

/// Whether a page comes from the host that the request goes to. The scheme may differ, since TLS
/// may be terminated in front of the Admin API.
fn is_own(page: &Url, host: Option<&Host>) -> bool {
    host.is_some_and(|host| {
        let default = if page.scheme() == "https" { 443 } else { 80 };
        page.host_str() == Some(host.name.as_str())
            && page.port_or_known_default() == Some(host.port.unwrap_or(default))
    })
}

/// The host that `Host` or an absolute request target names.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    /// In lower case, without a dot at its end; an IPv6 address in brackets.
    name: String,
    address: Option<IpAddr>,
    port: Option<u16>,
}

/// The host that a request names; none for HTTP/1.0, where a request needs none.
fn named_host<B>(request: &Request<B>) -> Result<Option<Host>, Error> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let bad = || Error::bad_request("the header Host has to name one host");
    if second.is_some() || first.is_none() && request.version() > Version::HTTP_10 {
        return Err(bad());
    }
    let header = first.map(|host| host.to_str().map_err(|_| bad()));
    // RFC 9112, 3.2.2: a request target that names a host takes precedence.
    let text = match (request.uri().authority(), header.transpose()?) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        (None, None) => return Ok(None),
    };
    parse(text).map(Some).ok_or_else(bad)
}

/// Reads `host[:port]`.
fn parse(text: &str) -> Option<Host> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (name, port) = text.split_at(end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    if let Some(bare) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        // A zone (RFC 6874) names an interface of the client's machine.
        let bare = bare.split('%').next().unwrap_or_default();
        let address: Ipv6Addr = bare.parse().ok()?;
        return Some(Host {
            name: format!("[{address}]"),
            address: Some(address.into()),
            port,
        });
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    // RFC 3986, 3.2.2, without percent-encoding.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b);
    if name.is_empty() || !name.bytes().all(allowed) {
        return None;
    }
    Some(Host {
        address: name.parse().ok(),
        name,
        port,
    })
}

fn answers_for(settings: &AdminAccess, host: &Host) -> bool {
    host.address.is_some() || is_localhost(&host.name) || settings.hosts.contains(&host.name)
}

/// Names that resolve only to this machine (RFC 6761, 6.3).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_one_form() {
        for (text, name, port, is_address) in [
            ("Localhost:8001", "localhost", Some(8001), false),
            ("a.example.:", "a.example", None, false),
            ("127.0.0.1:1", "127.0.0.1", Some(1), true),
            ("127.1", "127.1", None, false),
            ("[0:0::1]:8001", "[::1]", Some(8001), true),
            ("[fe80::1%eth0]", "[fe80::1]", None, true),
        ] {
            let host = parse(text).unwrap_or_else(|| panic!("{text}"));
            let shown = (host.name.as_str(), host.port, host.address.is_some());
            assert_eq!(shown, (name, port, is_address), "{text}");
        }
        for wrong in [
            "", ":80", ".", "a b", "a/b", "u@a", "a:b", "a:65536", "a:1:2", "::1", "[::1", "[a]",
            "[::1]x",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn answers_with_events_last() {
        for path in [
            "/pointsman/live",
            "/upstreams/u/live",
            "/upstreams/live/live",
        ] {
            assert!(lasts(path), "{path}");
        }
        for path in [
            "/",
            "/upstreams/live",
            "/upstreams/u/targets/live",
            "/routes/x/live",
        ] {
            assert!(!lasts(path), "{path}");
        }
    }

    #[test]
    fn a_page_from_the_host_of_the_request_is_admitted() {
        for (origin, host, is_own) in [
            ("http://192.0.2.1:8001", "192.0.2.1:8001", true),
            ("http://192.0.2.1", "192.0.2.1", true),
            ("http://192.0.2.1", "192.0.2.1:80", true),
            ("https://192.0.2.1", "192.0.2.1", true),
            ("http://[2001:db8::1]:8001", "[2001:db8:0::1]:8001", true),
            ("http://192.0.2.1:8002", "192.0.2.1:8001", false),
            ("http://192.0.2.1", "192.0.2.1:8001", false),
            ("http://192.0.2.2:8001", "192.0.2.1:8001", false),
        ] {
            let settings = AdminAccess::default();
            let admitted = is_admitted(&settings, origin, parse(host).as_ref());
            assert_eq!(admitted, is_own, "{origin} {host}");
        }
    }
}
