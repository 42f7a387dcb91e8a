//! Destinations of connections to endpoints.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::authority::Host;
use crate::endpoint_address::EndpointAddress;
use crate::listener::ProxyHeader;
use crate::snapshot::Http2;
use crate::tls::{self, TlsClient};

/// The destination of a connection. Requests with the same destination may share a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) struct Destination {
    pub(in crate::proxy) address: EndpointAddress,
    /// `None` for clear text.
    pub(in crate::proxy) tls: Option<Secure>,
    /// How HTTP/2 is spoken; `None` for HTTP/1.1.
    pub(in crate::proxy) http2: Option<Http2>,
    /// The identity of the endpoint that owns the connection, if the endpoint's connections are
    /// limited: connections of other endpoints at the same address are not counted with them.
    /// Otherwise 0.
    pub(in crate::proxy) owner: usize,
    /// The header of the PROXY protocol that the connection begins with. It names a client, so only
    /// requests of that client's connection share the connection. Boxed, since it is rare.
    pub(in crate::proxy) proxied: Option<Box<ProxyHeader>>,
}

/// By hand, because each request hashes its own twice: only what clients tell apart is hashed
/// besides the address. Few destinations have the same of these.
impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.address {
            EndpointAddress::Inet(SocketAddr::V4(address)) => {
                let port = u64::from(address.port()) << 32;
                state.write_u64(port | u64::from(address.ip().to_bits()));
            }
            other => other.hash(state),
        }
        if let Some(tls) = &self.tls {
            tls.name.hash(state);
        }
        if let Some(client) = &self.proxied {
            client.hash(state);
        }
    }
}

/// What the server of a TLS connection has to prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) struct Secure {
    /// The name that is sent (SNI, RFC 6066). If certificates are verified, the certificate must be
    /// valid for it.
    pub(in crate::proxy) name: ServerName<'static>,
    /// What is accepted of the server, and what it is shown.
    pub(in crate::proxy) client: Arc<TlsClient>,
}

impl Secure {
    /// With a name from a setting.
    pub(in crate::proxy) fn named(name: ServerName<'static>, client: Arc<TlsClient>) -> Self {
        Self { name, client }
    }

    /// The name is that of the `Host` header, without the port, as in Kong. If there is no host, or
    /// TLS cannot use it as a name, the name is the address of the endpoint.
    pub(in crate::proxy) fn new(
        host: Option<&Host<'_>>,
        address: &EndpointAddress,
        client: Arc<TlsClient>,
    ) -> Self {
        let name = host.and_then(tls::server_name_of);
        Self {
            name: name.unwrap_or_else(|| tls::server_name_of_address(address.ip())),
            client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::tls::{TlsOptions, Trust};

    #[test]
    fn the_name_is_the_hosts_without_its_port() {
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 443)).into();
        let client = TlsClient::of(TlsOptions {
            trust: Trust::System,
            max_intermediates: None,
            certificate: None,
        });
        let name = |host: &str| {
            let authority = Authority::parse(host);
            let host = authority.as_ref().map(|authority| &authority.host);
            Secure::new(host, &address, Arc::clone(&client))
                .name
                .to_str()
                .into_owned()
        };
        assert_eq!(name("a.example"), "a.example");
        assert_eq!(name("a.example:8443"), "a.example");
        assert_eq!(name("[::1]:8443"), "::1");
        assert_eq!(name("[0:0::1]"), "::1");
        assert_eq!(name("A.example."), "a.example");
        assert_eq!(name(""), "10.0.0.1");
        assert_eq!(name("127.0.0.1:443"), "127.0.0.1");
        // A name that is valid in a header and not in a certificate.
        assert_eq!(name("a!b:80"), "10.0.0.1");
    }
}
