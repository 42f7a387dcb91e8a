//! Headers on their way through: what is removed, and what Kong adds. Source: Kong 3.9; hop-by-hop
//! headers RFC 9110, 7.6.1.

use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

use super::PRODUCT;
use super::client::Client;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_KONG_REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
const X_KONG_UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
const X_KONG_PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
const X_KONG_RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");

/// Headers that are added to a request.
const ADDED: usize = 14;

/// What we call ourselves in `Via`, after the version of the protocol that the message came in by.
const VIA_1_1: &str = concat!("1.1 pointsman/", env!("CARGO_PKG_VERSION"));
const VIA_1_0: &str = concat!("1.0 pointsman/", env!("CARGO_PKG_VERSION"));

/// Names one request in headers, error bodies and the log: 32 hex digits.
pub(super) struct RequestId([u8; 32]);

impl RequestId {
    pub(super) fn new() -> Self {
        let mut text = [0; 32];
        let mut bits = fastrand::u128(..);
        for digit in &mut text {
            *digit = b"0123456789abcdef"[(bits & 15) as usize];
            bits >>= 4;
        }
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

/// What the upstream is told of a request's way.
#[derive(Clone, Copy)]
pub(super) struct Forwarded<'a> {
    pub(super) client: &'a Client,
    /// Host without port, in lower case.
    pub(super) host: &'a str,
    /// Path as the client sent it, without the query.
    pub(super) path: &'a [u8],
    /// What `strip_path` removed.
    pub(super) prefix: &'a [u8],
    pub(super) id: &'a RequestId,
    pub(super) http_1_0: bool,
    /// The protocol that the client asks to change to.
    pub(super) upgrade: Option<&'a HeaderValue>,
    /// Whether the length of its body is not known in advance.
    pub(super) chunked: bool,
}

/// Makes the headers of a client's request those of the request to the upstream, all but `Host`,
/// which is each target's own.
pub(super) fn to_upstream(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    // More than the map holds as it came: growing once costs less than growing often.
    headers.reserve(ADDED);
    let trailers = remove_hop_by_hop(headers, true);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    match forwarded.upgrade {
        Some(protocol) => {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
        None => {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
    }
    if forwarded.chunked {
        // hyper takes a GET without either to have no body.
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let client = forwarded.client;
    append(headers, X_FORWARDED_FOR, &client.ip);
    headers.insert(X_REAL_IP, client.ip.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    set(headers, X_FORWARDED_HOST, forwarded.host.as_bytes());
    headers.insert(X_FORWARDED_PORT, client.listen_port_text.clone());
    set(headers, X_FORWARDED_PATH, forwarded.path);
    match forwarded.prefix {
        b"" | b"/" => {
            headers.remove(X_FORWARDED_PREFIX);
        }
        prefix => set(headers, X_FORWARDED_PREFIX, prefix),
    }
    headers.insert(X_KONG_REQUEST_ID, forwarded.id.value());
    let via = if forwarded.http_1_0 { VIA_1_0 } else { VIA_1_1 };
    append(headers, VIA, &HeaderValue::from_static(via));
}

/// Makes the headers of an upstream's response those of the response to the client.
pub(super) fn to_client(
    headers: &mut HeaderMap,
    id: &RequestId,
    upstream: Duration,
    proxy: Duration,
) {
    remove_hop_by_hop(headers, false);
    append(headers, VIA, &HeaderValue::from_static(VIA_1_1));
    if !headers.contains_key(SERVER) {
        headers.insert(SERVER, HeaderValue::from_static(PRODUCT));
    }
    latencies(headers, upstream, proxy);
    headers.insert(X_KONG_REQUEST_ID, id.value());
}

/// Adds what a response of the gateway's own carries. `upstream` holds how long an upstream and the
/// gateway took, if one was asked.
pub(super) fn own(
    headers: &mut HeaderMap,
    id: &RequestId,
    upstream: Option<(Duration, Duration)>,
    total: Duration,
) {
    headers.insert(SERVER, HeaderValue::from_static(PRODUCT));
    headers.insert(X_KONG_REQUEST_ID, id.value());
    match upstream {
        Some((upstream, proxy)) => {
            headers.insert(VIA, HeaderValue::from_static(VIA_1_1));
            latencies(headers, upstream, proxy);
        }
        None => {
            headers.insert(X_KONG_RESPONSE_LATENCY, milliseconds(total));
        }
    }
}

fn latencies(headers: &mut HeaderMap, upstream: Duration, proxy: Duration) {
    headers.insert(X_KONG_UPSTREAM_LATENCY, milliseconds(upstream));
    headers.insert(X_KONG_PROXY_LATENCY, milliseconds(proxy));
}

fn milliseconds(time: Duration) -> HeaderValue {
    // Most are these, and a static value needs no memory.
    match time.as_millis() {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(u64::try_from(more).unwrap_or(u64::MAX)),
    }
}

/// Sets a header to bytes of the request. What cannot stand in a header is left out: the path of a
/// request was parsed more strictly than that.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    match HeaderValue::from_bytes(value) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}

/// Adds to the list that a header holds; several headers of the name become one.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, value.clone());
        return;
    }
    let mut list = Vec::new();
    for sent in headers.get_all(&name) {
        list.extend_from_slice(sent.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(value.as_bytes());
    set(headers, name, &list);
}

/// Removes what is meant for the next hop only. Returns whether trailers were asked for.
fn remove_hop_by_hop(headers: &mut HeaderMap, request: bool) -> bool {
    // One pass over the few names that are there costs less than a look-up for each that may be.
    let mut found: [Option<HeaderName>; 12] = Default::default();
    let mut count = 0;
    for name in headers.keys() {
        let hop_by_hop = *name == CONNECTION
            || *name == KEEP_ALIVE
            || *name == TRANSFER_ENCODING
            || *name == UPGRADE
            || *name == PROXY_CONNECTION
            || (request && (*name == TE || *name == HOST || *name == EXPECT || *name == PROXY))
            || (!request && (*name == TRAILER || *name == PROXY_AUTHENTICATE));
        if hop_by_hop && let Some(place) = found.get_mut(count) {
            *place = Some(name.clone());
            count += 1;
        }
    }
    // Read first: `Connection` names it wherever it is used rightly.
    let trailers = found.iter().flatten().any(|name| *name == TE)
        && tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    for name in found.iter().flatten() {
        if *name == CONNECTION {
            let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
                .filter_map(|token| HeaderName::try_from(token).ok())
                .collect();
            for name in named {
                headers.remove(name);
            }
        }
        headers.remove(name);
    }
    trailers
}

/// The elements of a header that holds a comma-separated list.
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Instant;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::try_from(*name).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn forwarded(headers: &mut HeaderMap, prefix: &[u8]) {
        let (open, _) = tokio::sync::mpsc::channel(1);
        let clock = Rc::new(Cell::new(Instant::now()));
        let client = Client::new("192.0.2.7:1234".parse().unwrap(), 8000, clock, open);
        to_upstream(
            headers,
            Forwarded {
                client: &client,
                host: "example.com",
                path: b"/mock/x",
                prefix,
                id: &RequestId::new(),
                http_1_0: false,
                upgrade: None,
                chunked: false,
            },
        );
    }

    #[test]
    fn hop_by_hop_headers_and_those_that_connection_names_are_removed() {
        let mut headers = map(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy", "evil"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept", "text/html"),
        ]);
        forwarded(&mut headers, b"");
        for name in [
            "x-private",
            "keep-alive",
            "proxy-connection",
            "proxy",
            "te",
            "upgrade",
        ] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert!(!headers.contains_key("transfer-encoding"));
        assert_eq!(headers["connection"], "keep-alive");
        assert_eq!(headers["accept"], "text/html");
    }

    #[test]
    fn the_way_of_a_request_is_told_as_in_kong() {
        let mut headers = map(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "forged"),
        ]);
        forwarded(&mut headers, b"/mock");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 192.0.2.7");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-host"], "example.com");
        assert_eq!(headers["x-forwarded-port"], "8000");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-path"], "/mock/x");
        assert_eq!(headers["x-forwarded-prefix"], "/mock");
        assert_eq!(headers["via"], VIA_1_1);
        assert_eq!(headers["x-kong-request-id"].len(), 32);
    }

    #[test]
    fn trailers_are_asked_for_only_if_the_client_asked() {
        let mut headers = map(&[("connection", "te"), ("te", "gzip, trailers")]);
        forwarded(&mut headers, b"");
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn a_response_keeps_its_server_and_gets_our_headers() {
        let mut headers = map(&[
            ("server", "nginx"),
            ("via", "1.1 other"),
            ("connection", "close"),
        ]);
        let ms = Duration::from_millis;
        to_client(&mut headers, &RequestId::new(), ms(12), ms(1));
        assert_eq!(headers["server"], "nginx");
        assert_eq!(headers["via"], format!("1.1 other, {VIA_1_1}"));
        assert_eq!(headers["x-kong-upstream-latency"], "12");
        assert_eq!(headers["x-kong-proxy-latency"], "1");
        assert!(!headers.contains_key("connection"));
    }
}
