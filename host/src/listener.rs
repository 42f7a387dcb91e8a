//! Sockets that accept the connections of clients: of the proxy, and of the Admin API.
//!
//! `bind.rs` opens the sockets or takes those that `inherited.rs` has, of which `passed.rs` has
//! those of a supervisor, `accept.rs` accepts connections, `proxy_protocol.rs` reads what a proxy
//! in front says of them, `tls.rs` makes the handshakes with the certificate that `certificate.rs`
//! finds, and `transport.rs` has the bytes of a connection, in clear text or over TLS.
//! `server_name.rs` looks ahead for the server name of a handshake. `proxy_header.rs` has the
//! headers that are written to endpoints.

mod accept;
mod bind;
mod certificate;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod inherited;
mod passed;
mod proxy_header;
mod proxy_protocol;
mod server_name;
mod tls;
mod transport;

pub(crate) use accept::Acceptor;
pub(crate) use bind::BoundSocket;
pub(crate) use bind::SocketFile;
pub use bind::{ListenerUser, Listeners};
pub(crate) use certificate::{client_verifier, listener_certificate, load as load_pem};
pub use inherited::Inherited;
pub(crate) use proxy_header::ProxyHeader;
pub use proxy_header::ProxyVersion;
pub(crate) use proxy_protocol::{NoHeader, ProxyProtocol};
pub use tls::TlsFigures;
pub(crate) use tls::{Refused, TlsOffer, TlsServer};
pub(crate) use transport::{Socket, Transport};
