//! Sockets that accept the connections of clients: of the proxy, and of the Admin API.
//!
//! `bind.rs` opens the sockets, and `transport.rs` has the bytes of an accepted connection, in
//! clear text or over TLS.

mod bind;
mod transport;

pub use bind::Listeners;
pub(crate) use transport::{Socket, Transport};
