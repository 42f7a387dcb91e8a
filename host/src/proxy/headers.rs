//! Headers that are passed on: which are removed, and which are added, as in Kong. Source: Kong
//! 3.9.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{
    CONTENT_LENGTH, Entry, HOST, HeaderMap, HeaderName, HeaderValue, SERVER, TE, VIA,
};
use http::{Method, Request, StatusCode, Uri, Version};

use super::PRODUCT;
use super::client_address::ClientAddress;
use super::connection_info::ConnectionInfo;
use super::hops::Hops;
use super::request_id::RequestId;
use crate::config::ResponseHeaders;
use crate::http1::lists;
use crate::listener::{ProxyHeader, ProxyVersion};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_KONG_REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
const X_KONG_UPSTREAM_STATUS: HeaderName = HeaderName::from_static("x-kong-upstream-status");
const X_KONG_UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
const X_KONG_PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
const X_KONG_RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");

/// The gateway's entry in `Via`: the version of the protocol that the message was received by, and
/// the product.
const VIA_1_1: &str = concat!("1.1 pointsman/", env!("CARGO_PKG_VERSION"));
const VIA_1_0: &str = concat!("1.0 pointsman/", env!("CARGO_PKG_VERSION"));
const VIA_2: &str = concat!("2 pointsman/", env!("CARGO_PKG_VERSION"));

fn via_of(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => VIA_2,
        version if version < Version::HTTP_11 => VIA_1_0,
        _ => VIA_1_1,
    }
}

/// How the request reached the gateway; the upstream is told in headers.
#[derive(Clone, Copy)]
pub(super) struct Forwarded<'a> {
    pub(super) connection: &'a ConnectionInfo,
    /// The client that has sent it, perhaps by way of proxies.
    pub(super) client: &'a ClientAddress,
    /// Host without port, in lower case.
    pub(super) host: &'a str,
    /// Path as the client sent it, without the query.
    pub(super) path: &'a [u8],
    /// The prefix that `strip_path` removed.
    pub(super) prefix: &'a [u8],
    pub(super) id: &'a RequestId,
    /// Version of the protocol that the request was received by.
    pub(super) version: Version,
    /// The protocol that the client asks to change to.
    pub(super) upgrade: Option<&'a HeaderValue>,
    pub(super) body: BodyLength,
}

impl Forwarded<'_> {
    /// The header of the PROXY protocol that says whose request it is.
    pub(super) fn proxy_header(&self, version: ProxyVersion) -> ProxyHeader {
        let ConnectionInfo {
            local, listener, ..
        } = self.connection;
        let destination = SocketAddr::new(*local, listener.port);
        ProxyHeader::new(version, self.client.address, destination)
    }

    /// Whether the endpoint is told the id of the request. Otherwise, a header of that name that
    /// the client has sent is passed on.
    fn tells_id(&self) -> bool {
        self.connection.listener.headers.upstream_request_id
    }

    /// The headers about the client's request that a trusted peer may send itself, with the
    /// gateway's own values; `None` for a header that is not sent. The first two are the same for
    /// all requests of a connection.
    fn facts(&self) -> [(HeaderName, Option<&[u8]>); 5] {
        let listener = &self.connection.listener;
        // A decoded path may have bytes that are not allowed in a header.
        let fits = |value: &&[u8]| !value.iter().any(u8::is_ascii_control);
        let prefix = Some(self.prefix).filter(|prefix| !matches!(*prefix, b"" | b"/"));
        [
            (X_FORWARDED_PROTO, Some(listener.scheme.as_str().as_bytes())),
            (X_FORWARDED_PORT, Some(listener.port_text.as_bytes())),
            (X_FORWARDED_HOST, Some(self.host.as_bytes())),
            (X_FORWARDED_PATH, Some(self.path).filter(fits)),
            (X_FORWARDED_PREFIX, prefix.filter(fits)),
        ]
    }
}

/// How the length of a request's body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// There is no body.
    None,
    /// As a `Content-Length` in bytes.
    Known(u64),
    /// In chunks.
    Chunked,
}

/// The head of a request to an endpoint: the client's headers without the hop-by-hop ones, and the
/// headers that Kong adds. The framing is written anew and does not depend on the client's headers.
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a Method,
    /// Path and query.
    pub(super) target: &'a [u8],
    /// The `Host` that the endpoint gets.
    pub(super) host: &'a str,
    /// The client's headers.
    pub(super) headers: &'a HeaderMap,
    pub(super) forwarded: &'a Forwarded<'a>,
}

impl RequestHead<'_> {
    /// Writes the head as HTTP/1.1.
    pub(super) fn write_http1(&self, text: &mut Vec<u8>) {
        let Self {
            headers, forwarded, ..
        } = *self;
        text.extend_from_slice(self.method.as_str().as_bytes());
        text.push(b' ');
        text.extend_from_slice(self.target);
        text.extend_from_slice(b" HTTP/1.1\r\n");
        field(text, HOST.as_str(), self.host.as_bytes());
        let hops = Hops::of(headers);
        let (mut lists_for, mut lists_via, mut empty_body) = (false, false, false);
        for (name, value) in headers {
            match name.as_str() {
                name if is_rewritten(name) => {}
                "x-kong-request-id" if forwarded.tells_id() => {}
                "content-length" => empty_body = true,
                "x-forwarded-for" => lists_for = true,
                "via" => lists_via = true,
                "trailer" if forwarded.body != BodyLength::Chunked => {}
                name if hops.names(name) => {}
                name => field(text, name, value.as_bytes()),
            }
        }
        match forwarded.body {
            BodyLength::Known(length) => {
                field(text, "content-length", length.to_string().as_bytes())
            }
            BodyLength::Chunked => field(text, "transfer-encoding", b"chunked"),
            BodyLength::None if empty_body => field(text, "content-length", b"0"),
            BodyLength::None => {}
        }
        // `TE` is for the next recipient alone (RFC 9110, 10.1.4).
        let takes_trailers = lists(headers, &TE, "trailers");
        if takes_trailers {
            field(text, "te", b"trailers");
        }
        let options: &[u8] = match (forwarded.upgrade, takes_trailers) {
            (None, false) => b"connection: keep-alive\r\n",
            (None, true) => b"connection: keep-alive, TE\r\n",
            (Some(_), false) => b"connection: keep-alive, Upgrade\r\n",
            (Some(_), true) => b"connection: keep-alive, Upgrade, TE\r\n",
        };
        text.extend_from_slice(options);
        if let Some(protocol) = forwarded.upgrade {
            field(text, "upgrade", protocol.as_bytes());
        }
        let connection = forwarded.connection;
        let kept = connection.trust.keeps_forwarded.then_some(headers);
        let is_usual =
            !lists_for && kept.is_none() && std::ptr::eq(forwarded.client, connection.client());
        if is_usual {
            let lines = connection.lines.get_or_init(|| connection_lines(forwarded));
            text.extend_from_slice(lines);
        } else {
            let client = forwarded.client.ip.as_bytes();
            match lists_for {
                true => {
                    let peer = connection.peer.ip.as_bytes();
                    longer_list(text, headers, &X_FORWARDED_FOR, peer);
                }
                false => field(text, "x-forwarded-for", client),
            }
            field(text, "x-real-ip", client);
        }
        let written = if is_usual { CONNECTION_FACTS } else { 0 };
        for (name, own) in forwarded.facts().into_iter().skip(written) {
            match kept.filter(|kept| kept.contains_key(&name) && !hops.names(name.as_str())) {
                Some(kept) => {
                    for value in kept.get_all(&name) {
                        field(text, name.as_str(), value.as_bytes());
                    }
                }
                None => {
                    if let Some(own) = own {
                        field(text, name.as_str(), own);
                    }
                }
            }
        }
        if forwarded.tells_id() {
            field(text, "x-kong-request-id", forwarded.id.as_bytes());
        }
        let via = via_of(forwarded.version);
        if lists_via {
            longer_list(text, headers, &VIA, via.as_bytes());
        } else {
            field(text, "via", via.as_bytes());
        }
        text.extend_from_slice(b"\r\n");
    }

    /// The head for HTTP/2, without the headers that it does not have (RFC 9113, 8.2.2). `secure`
    /// is whether it is sent over TLS.
    ///
    /// # Errors
    /// The host or the target is not allowed in a URI.
    pub(super) fn http2(&self, secure: bool) -> Result<Request<()>, http::Error> {
        let Self {
            headers, forwarded, ..
        } = *self;
        let mut uri = Uri::builder().path_and_query(self.target);
        // Only a client of HTTP/1.0 may leave out the host.
        if !self.host.is_empty() {
            let scheme = if secure { "https" } else { "http" };
            uri = uri.scheme(scheme).authority(self.host);
        }
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.build()?;
        let sent = request.headers_mut();
        let hops = Hops::of(headers);
        for (name, value) in headers {
            match name.as_str() {
                "content-length" => {}
                "trailer" if forwarded.body == BodyLength::None => {}
                name if is_rewritten(name) || hops.names(name) => {}
                "x-kong-request-id" if forwarded.tells_id() => {}
                _ => {
                    sent.append(name, value.clone());
                }
            }
        }
        match forwarded.body {
            BodyLength::Known(length) => {
                sent.insert(CONTENT_LENGTH, length.into());
            }
            BodyLength::None if headers.contains_key(CONTENT_LENGTH) => {
                sent.insert(CONTENT_LENGTH, 0.into());
            }
            BodyLength::Chunked | BodyLength::None => {}
        }
        if lists(headers, &TE, "trailers") {
            sent.insert(TE, HeaderValue::from_static("trailers"));
        }
        let connection = forwarded.connection;
        match sent.contains_key(X_FORWARDED_FOR) {
            true => extend_list(sent, X_FORWARDED_FOR, &connection.peer.ip),
            false => drop(sent.insert(X_FORWARDED_FOR, forwarded.client.ip.clone())),
        }
        sent.insert(X_REAL_IP, forwarded.client.ip.clone());
        let kept = connection.trust.keeps_forwarded.then_some(headers);
        for (name, own) in forwarded.facts() {
            match kept.filter(|kept| kept.contains_key(&name) && !hops.names(name.as_str())) {
                Some(kept) => {
                    for value in kept.get_all(&name) {
                        sent.append(name.clone(), value.clone());
                    }
                }
                None => {
                    let own = own.and_then(|own| HeaderValue::from_bytes(own).ok());
                    sent.extend(own.map(|own| (name, own)));
                }
            }
        }
        if forwarded.tells_id()
            && let Ok(id) = HeaderValue::from_bytes(forwarded.id.as_bytes())
        {
            sent.insert(X_KONG_REQUEST_ID, id);
        }
        let via = HeaderValue::from_static(via_of(forwarded.version));
        extend_list(sent, VIA, &via);
        Ok(request)
    }
}

/// Number of facts of a request that all requests of its connection share.
const CONNECTION_FACTS: usize = 2;

/// The headers that all requests of a connection share, as HTTP/1.1, unless one of them names
/// another client.
fn connection_lines(forwarded: &Forwarded<'_>) -> Box<[u8]> {
    let mut text = Vec::new();
    let client = forwarded.connection.client().ip.as_bytes();
    field(&mut text, X_FORWARDED_FOR.as_str(), client);
    field(&mut text, X_REAL_IP.as_str(), client);
    for (name, own) in forwarded.facts().into_iter().take(CONNECTION_FACTS) {
        field(&mut text, name.as_str(), own.unwrap_or_default());
    }
    text.into()
}

/// Whether a header of the client describes its connection, or is written anew.
fn is_rewritten(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy"
            | "upgrade"
            | "transfer-encoding"
            | "te"
            | "expect"
            | "x-real-ip"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-path"
            | "x-forwarded-prefix"
            | "pointsman-debug"
    )
}

/// Writes a header field as HTTP/1.1.
pub(super) fn field(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// Adds an element to the list of a header; several headers of that name become one.
fn extend_list(headers: &mut HeaderMap, name: HeaderName, more: &HeaderValue) {
    let mut list = Vec::new();
    for sent in headers.get_all(&name) {
        list.extend_from_slice(sent.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(more.as_bytes());
    // A list of valid header values is a valid header value.
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

/// Writes the list of a header with one element added; several headers of that name become one.
fn longer_list(text: &mut Vec<u8>, headers: &HeaderMap, name: &HeaderName, more: &[u8]) {
    text.extend_from_slice(name.as_str().as_bytes());
    text.extend_from_slice(b": ");
    for sent in headers.get_all(name) {
        text.extend_from_slice(sent.as_bytes());
        text.extend_from_slice(b", ");
    }
    text.extend_from_slice(more);
    text.extend_from_slice(b"\r\n");
}

/// Adds the gateway's headers to the response of an upstream, which was received by this version of
/// the protocol. `times` are those that the upstream and the gateway took, and `status` is what the
/// upstream has answered, if it was asked.
pub(super) fn to_client(
    headers: &mut HeaderMap,
    version: Version,
    id: &RequestId,
    times: (Duration, Duration),
    status: Option<StatusCode>,
    sent: ResponseHeaders,
) {
    if sent.via {
        via(headers, via_of(version));
    }
    if sent.server {
        let entry = headers.entry(SERVER);
        entry.or_insert_with(|| HeaderValue::from_static(PRODUCT));
    }
    latencies(headers, times, sent);
    upstream_status(headers, status, sent);
    if sent.request_id {
        headers.insert(X_KONG_REQUEST_ID, id.value());
    }
}

/// Adds the headers of a response that the gateway makes itself. `upstream` is the time that the
/// upstream and the gateway took, and the status that stands for the upstream's, if one was tried.
pub(super) fn own(
    headers: &mut HeaderMap,
    id: &RequestId,
    upstream: Option<((Duration, Duration), StatusCode)>,
    total: Duration,
    sent: ResponseHeaders,
) {
    if sent.server {
        headers.insert(SERVER, HeaderValue::from_static(PRODUCT));
    }
    if sent.request_id {
        headers.insert(X_KONG_REQUEST_ID, id.value());
    }
    match upstream {
        Some((times, status)) => {
            if sent.via {
                headers.insert(VIA, HeaderValue::from_static(VIA_1_1));
            }
            latencies(headers, times, sent);
            upstream_status(headers, Some(status), sent);
        }
        None if sent.response_latency => {
            headers.insert(X_KONG_RESPONSE_LATENCY, milliseconds(total));
        }
        None => {}
    }
}

fn latencies(
    headers: &mut HeaderMap,
    (upstream, proxy): (Duration, Duration),
    sent: ResponseHeaders,
) {
    if sent.upstream_latency {
        headers.insert(X_KONG_UPSTREAM_LATENCY, milliseconds(upstream));
    }
    if sent.proxy_latency {
        headers.insert(X_KONG_PROXY_LATENCY, milliseconds(proxy));
    }
}

fn upstream_status(headers: &mut HeaderMap, status: Option<StatusCode>, sent: ResponseHeaders) {
    if let Some(status) = status.filter(|_| sent.upstream_status) {
        headers.insert(X_KONG_UPSTREAM_STATUS, status.as_u16().into());
    }
}

fn milliseconds(time: Duration) -> HeaderValue {
    // Most latencies are 0 or 1, and a static value needs no allocation.
    match time.as_millis() {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(u64::try_from(more).unwrap_or(u64::MAX)),
    }
}

fn via(headers: &mut HeaderMap, own: &'static str) {
    let own = HeaderValue::from_static(own);
    match headers.entry(VIA) {
        Entry::Vacant(none) => drop(none.insert(own)),
        Entry::Occupied(_) => extend_list(headers, VIA, &own),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests;
