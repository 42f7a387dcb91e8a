//! Requests of HTTP/2 in the form of HTTP/1.1, which the router, the policies and endpoints know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{Method, StatusCode, Uri};
use hyper::ext::Protocol;

use super::super::head_size::HeadLimit;
use super::super::respond::Reject;
use crate::config;

/// Gives a request the form of HTTP/1.1.
///
/// # Errors
/// Its head is too large, its hosts contradict each other, or it asks for a protocol that is not
/// supported.
pub(in super::super) fn adopt(parts: &mut Parts, settings: &config::Proxy) -> Result<(), Reject> {
    check_size(parts, settings)?;
    if let Some(protocol) = parts.extensions.remove::<Protocol>() {
        upgrade(parts, &protocol)?;
    }
    take_authority(parts)?;
    join_cookies(&mut parts.headers);
    Ok(())
}

/// Refuses a head that is as large as it may not be over HTTP/1.1.
fn check_size(parts: &Parts, settings: &config::Proxy) -> Result<(), Reject> {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > settings.max_header_size {
        return Err(Reject::HttpServer(StatusCode::URI_TOO_LONG));
    }
    let host = parts.uri.authority().map_or(0, |host| host.as_str().len());
    let exceeded = HeadLimit::new(settings).exceeded(target + host, &parts.headers);
    exceeded.map_or(Ok(()), |excess| Err(excess.into()))
}

/// Turns the start of a WebSocket (RFC 8441) into that of HTTP/1.1 (RFC 6455, 4.1).
fn upgrade(parts: &mut Parts, protocol: &Protocol) -> Result<(), Reject> {
    if !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Err(Reject::HttpServer(StatusCode::NOT_IMPLEMENTED));
    }
    parts.method = Method::GET;
    let headers = &mut parts.headers;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // HTTP/2 does without a key, which HTTP/1.1 requires.
    let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
    if let Ok(key) = HeaderValue::try_from(key) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    Ok(())
}

/// Moves the host from the target of the request to the header `Host` (RFC 9113, 8.3.1).
fn take_authority(parts: &mut Parts) -> Result<(), Reject> {
    let Some(authority) = parts.uri.authority() else {
        return Ok(());
    };
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Reject::bad_request())?;
    let same = |sent: &HeaderValue| sent.as_bytes().eq_ignore_ascii_case(host.as_bytes());
    if !parts.headers.get_all(HOST).iter().all(same) {
        return Err(Reject::bad_request());
    }
    parts.headers.insert(HOST, host);
    // A plain `CONNECT` has no path, and is refused later.
    if let Some(target) = parts.uri.path_and_query().cloned() {
        parts.uri = Uri::from(target);
    }
    Ok(())
}

/// Joins the cookies, which a client may send in several fields (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let sent: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(|value| value.as_bytes())
        .collect();
    if sent.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&sent.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::Request;

    use super::*;

    fn settings() -> config::Proxy {
        config::Proxy {
            max_header_size: 8192,
            max_headers: 100,
            ..config::Proxy::default()
        }
    }

    fn parts(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_authority_becomes_the_host() {
        for headers in [&[][..], &[("host", "A.test:80")]] {
            let mut parts = parts("http://a.test:80/x?y=1", headers);
            adopt(&mut parts, &settings()).unwrap();
            assert_eq!(parts.headers["host"], "a.test:80");
            assert_eq!(parts.uri, "/x?y=1");
        }
        let mut both = parts("http://a.test/", &[("host", "b.test")]);
        assert!(adopt(&mut both, &settings()).is_err());
    }

    #[test]
    fn cookies_of_several_fields_become_one() {
        let mut parts = parts("http://a/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        adopt(&mut parts, &settings()).unwrap();
        let cookies: Vec<_> = parts.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }

    #[test]
    fn a_head_may_be_as_large_as_over_http1() {
        let value = "v".repeat(8192 - "x: \r\n/a".len());
        let mut fits = parts("http://a/", &[("x", &value)]);
        assert!(adopt(&mut fits, &settings()).is_ok());
        let mut too_large = parts("http://ab/", &[("x", &value)]);
        let refused = adopt(&mut too_large, &settings());
        assert_eq!(refused.unwrap_err().status(), 431);
        let mut long_target = parts(&format!("http://a/{value}"), &[]);
        assert!(adopt(&mut long_target, &settings()).is_ok());
        let mut longer = parts(&format!("http://a/{}", "t".repeat(8192)), &[]);
        assert_eq!(adopt(&mut longer, &settings()).unwrap_err().status(), 414);
        let mut too_many = parts("http://a/", &[("x", ""); 101]);
        assert!(adopt(&mut too_many, &settings()).is_err());
    }

    #[test]
    fn a_websocket_begins_as_over_http1() {
        let mut asked = parts("http://a/chat", &[("sec-websocket-version", "13")]);
        asked.method = Method::CONNECT;
        asked.extensions.insert(Protocol::from_static("websocket"));
        adopt(&mut asked, &settings()).unwrap();
        assert_eq!(
            (&asked.method, &asked.uri),
            (&Method::GET, &Uri::from_static("/chat"))
        );
        assert_eq!(asked.headers["upgrade"], "websocket");
        let key = STANDARD
            .decode(&asked.headers["sec-websocket-key"])
            .unwrap();
        assert_eq!(key.len(), 16);
        let mut other = parts("http://a/", &[]);
        other
            .extensions
            .insert(Protocol::from_static("connect-udp"));
        assert_eq!(adopt(&mut other, &settings()).unwrap_err().status(), 501);
    }
}
