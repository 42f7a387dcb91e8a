//! The byte stream of a connection to an endpoint, in clear text or over TLS.

use std::io;
use std::mem::MaybeUninit;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::byte_stream::delegate_stream;

/// The byte stream of a connection.
pub(in crate::proxy) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether there is something that is not read yet: bytes, the end of the stream or an error.
    /// Over TLS these may be bytes of the session alone. A caller that then takes the connection
    /// for stale only has to open a new one.
    pub(in crate::proxy) fn has_news(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // The socket is non-blocking, so this never waits.
        let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

delegate_stream!(Stream { Plain, Tls });
