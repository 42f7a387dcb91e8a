//! What all requests of a client's connection have in common.

use std::net::SocketAddr;
use std::rc::Rc;

use http::HeaderValue;

/// How a connection of a client came in. The words about it are made once, for all requests.
pub(super) struct ConnectionInfo {
    /// The client's address, as headers show it.
    pub(super) ip: HeaderValue,
    /// Where it was accepted.
    pub(super) listener: Rc<ListenerInfo>,
}

/// What all connections of a listener have in common.
pub(super) struct ListenerInfo {
    pub(super) port: u16,
    /// The same, as headers show it.
    pub(super) port_text: HeaderValue,
    /// The scheme of the requests that it accepts.
    pub(super) scheme: Scheme,
}

/// The scheme of a request's URI (RFC 9110, 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// In clear text.
    Http,
}

impl ConnectionInfo {
    /// Of a connection from `client`.
    pub(super) fn new(client: SocketAddr, listener: Rc<ListenerInfo>) -> Self {
        let ip = client.ip().to_canonical().to_string();
        Self {
            ip: HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("")),
            listener,
        }
    }
}

impl ListenerInfo {
    pub(super) fn new(port: u16, scheme: Scheme) -> Rc<Self> {
        Rc::new(Self {
            port,
            port_text: HeaderValue::from(port),
            scheme,
        })
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
