//! Properties that all requests of a client's connection share.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use http::HeaderValue;

use super::client_address::{ClientAddress, Trust};
use super::client_host::LastHost;
use crate::access_log;
use crate::config::{Listen, ResponseHeaders};
use crate::tls::NegotiatedTls;

/// The peer of a connection, and the listener that accepted it. Header values are made once for all
/// requests.
pub(super) struct ConnectionInfo {
    /// The other end of the connection: a client, or a proxy in front of it.
    pub(super) peer: ClientAddress,
    /// The client that the peer has named for the whole connection, by the PROXY protocol.
    pub(super) named: Option<Box<ClientAddress>>,
    /// What the gateway trusts the peer to say.
    pub(super) trust: Trust,
    /// The address that the client is connected to.
    pub(super) local: IpAddr,
    /// The server name that the client has asked for in its TLS handshake, in lower case; empty if
    /// it has asked for none. None for a connection in clear text.
    pub(super) server_name: Option<Box<str>>,
    /// What was agreed on in the TLS handshake; none for a connection in clear text.
    pub(super) tls: Option<NegotiatedTls>,
    /// The number of the connection, among those of this process.
    pub(super) number: u64,
    /// The headers that endpoints get with each of its requests over HTTP/1.1, once there was one.
    pub(super) lines: OnceCell<Box<[u8]>>,
    /// The host of the last request.
    pub(super) last_host: LastHost,
    /// The listener that accepted the connection.
    pub(super) listener: Rc<ListenerInfo>,
}

/// Properties that all connections of a listener share.
pub(super) struct ListenerInfo {
    pub(super) port: u16,
    /// The port, as a header value.
    pub(super) port_text: HeaderValue,
    /// The scheme of the requests that the listener accepts.
    pub(super) scheme: Scheme,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub(super) proxy_protocol: bool,
    /// Whether clients may use HTTP/2: by ALPN over TLS, otherwise by prior knowledge.
    pub(super) http2: bool,
    /// Where requests are logged, if they are.
    pub(super) access_log: Option<Rc<access_log::Writer>>,
    /// Which headers the gateway adds to responses.
    pub(super) headers: ResponseHeaders,
}

/// The scheme of a request's URI (RFC 9110, 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// In clear text.
    Http,
    /// Over TLS.
    Https,
}

impl ConnectionInfo {
    /// For a connection from `peer`.
    pub(super) fn new(peer: SocketAddr, listener: Rc<ListenerInfo>) -> Self {
        Self {
            peer: ClientAddress::new(peer),
            named: None,
            trust: Trust::default(),
            local: Ipv4Addr::UNSPECIFIED.into(),
            server_name: None,
            tls: None,
            number: 0,
            last_host: LastHost::default(),
            lines: OnceCell::new(),
            listener,
        }
    }

    /// The client of the connection, as far as a header of a request does not name another one.
    pub(super) fn client(&self) -> &ClientAddress {
        self.named.as_deref().unwrap_or(&self.peer)
    }
}

impl ListenerInfo {
    /// For an entry of `proxy_listen`. `http2` is whether an entry of it has that flag.
    pub(super) fn new(
        listen: &Listen,
        http2: bool,
        access_log: Option<Rc<access_log::Writer>>,
        headers: ResponseHeaders,
    ) -> Rc<Self> {
        let port = listen.port();
        Rc::new(Self {
            port,
            port_text: HeaderValue::from(port),
            scheme: if listen.ssl {
                Scheme::Https
            } else {
                Scheme::Http
            },
            proxy_protocol: listen.proxy_protocol,
            http2,
            access_log,
            headers,
        })
    }
}

impl Scheme {
    /// The scheme as it is written in URIs and headers.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}
