//! What all requests of a client's connection have in common.

use std::net::SocketAddr;

use http::HeaderValue;

/// How a connection of a client came in. The words about it are made once, for all requests.
pub(super) struct ConnectionInfo {
    /// The client's address, as headers show it.
    pub(super) ip: HeaderValue,
    /// The port that it came in on.
    pub(super) port: u16,
    /// The same, as headers show it.
    pub(super) port_text: HeaderValue,
    /// The scheme of the requests that it carries.
    pub(super) scheme: Scheme,
}

/// The scheme of a request's URI (RFC 9110, 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// In clear text.
    Http,
}

impl ConnectionInfo {
    /// Of a connection from `client` that was accepted on `port`.
    pub(super) fn new(client: SocketAddr, port: u16, scheme: Scheme) -> Self {
        let ip = client.ip().to_canonical().to_string();
        Self {
            ip: HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("")),
            port,
            port_text: HeaderValue::from(port),
            scheme,
        }
    }
}

impl Scheme {
    /// As URIs and headers have it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
        }
    }
}
