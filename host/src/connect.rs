//! Connections to endpoints: over TCP or a Unix socket, in clear text or over TLS.

use std::io;
use std::mem::MaybeUninit;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::byte_stream::delegate_stream;
use crate::endpoint_address::EndpointAddress;
use crate::listener::{ProxyHeader, Socket};
use crate::tls::{Protocols, TlsClient};

/// Why an endpoint could not be connected to.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The limit of connections to the endpoint was reached, and none of them was closed in time.
    #[error("no connection was free in time")]
    Full,
    /// No connection was made within `connect_timeout`.
    #[error("no connection in time")]
    Timeout,
    /// An error of the system.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// The connection was made, but the TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// The connection broke off before HTTP/2 was spoken on it.
    #[error("HTTP/2 cannot be spoken: {0}")]
    Http2(io::Error),
    /// The TLS configuration could not be created.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The bytes of a connection to an endpoint.
pub(crate) enum EndpointStream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

delegate_stream!(EndpointStream { Plain, Tls });

impl EndpointStream {
    /// Whether there is something that is not read yet: bytes, the end of the stream or an error.
    /// Over TLS these may be bytes of the session alone. A caller that then takes the connection
    /// for stale only has to open a new one.
    pub(crate) fn has_unread(&self) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let socket = match socket {
            Socket::Tcp(stream) => SockRef::from(stream),
            Socket::Unix(stream) => SockRef::from(stream),
        };
        // The socket is non-blocking, so this never waits.
        let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The application protocol that a TLS handshake has agreed on.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}

/// The TLS handshake with an endpoint.
pub(crate) struct Handshake<'a> {
    pub(crate) client: &'a TlsClient,
    /// The name that the endpoint has to prove.
    pub(crate) name: ServerName<'static>,
    pub(crate) protocols: Protocols,
}

/// Connects to an endpoint. `proxied` is the header of the PROXY protocol that the connection
/// begins with, before TLS.
pub(crate) async fn connect(
    address: &EndpointAddress,
    proxied: Option<&ProxyHeader>,
    tls: Option<Handshake<'_>>,
) -> Result<EndpointStream, ConnectError> {
    let mut socket = socket(address).await?;
    if let Some(header) = proxied {
        socket.write_all(&header.bytes()).await?;
    }
    let Some(Handshake {
        client,
        name,
        protocols,
    }) = tls
    else {
        return Ok(EndpointStream::Plain(socket));
    };
    let connector = client.connector(protocols).map_err(ConnectError::Setup)?;
    let stream = connector.connect(name, socket).await;
    let stream = stream.map_err(ConnectError::Tls)?;
    Ok(EndpointStream::Tls(Box::new(stream)))
}

/// Connects to an endpoint, with nothing spoken yet.
pub(crate) async fn socket(address: &EndpointAddress) -> io::Result<Socket> {
    match address {
        EndpointAddress::Inet(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Socket::Tcp(stream))
        }
        EndpointAddress::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
    }
}
