//! Sockets that accept the connections of clients: of the proxy, and of the Admin API.
//!
//! `bind.rs` opens the sockets, `accept.rs` accepts connections, `proxy_protocol.rs` reads what a
//! proxy in front says of them, `tls.rs` makes the handshakes with the certificate that
//! `certificate.rs` finds, and `transport.rs` has the bytes of a connection, in clear text or over
//! TLS.

mod accept;
mod bind;
mod certificate;
mod proxy_protocol;
mod tls;
mod transport;

pub(crate) use accept::Acceptor;
pub use bind::Listeners;
pub(crate) use bind::SocketFile;
pub(crate) use certificate::{client_verifier, listener_certificate, load as load_pem};
pub(crate) use proxy_protocol::{NoHeader, ProxyProtocol};
pub use tls::TlsFigures;
pub(crate) use tls::{Refused, TlsOffer, TlsServer};
pub(crate) use transport::{Socket, Transport};
