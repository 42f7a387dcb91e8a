//! New connections to endpoints, in clear text or over TLS.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::pool::Pool;
use super::wire::Connection;
use crate::authority::Host;
use crate::endpoint::Endpoint;
use crate::tls::{self, Trust};

/// Why an endpoint could not be connected to.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// The endpoint has as many connections as it may have, and none was closed in time.
    #[error("no connection was free in time")]
    Full,
    /// Not within `connect_timeout`.
    #[error("no connection in time")]
    Timeout,
    /// The system's word for it.
    #[error("cannot connect: {0}")]
    Io(io::Error),
    /// There is a connection, and no agreement on it.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// There is nothing to agree on.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// Where a connection leads: requests for the same place may share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// None in clear text.
    pub(super) tls: Option<Secure>,
    /// The identity of the endpoint whose own it is, where the endpoint's connections are limited: those of
    /// others at the same address are not counted with them. 0 otherwise.
    pub(super) owner: usize,
}

/// What is asked of the other side of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Secure {
    /// The name that is sent (SNI, RFC 6066) and, if anything is verified, that the certificate must be
    /// for.
    name: ServerName<'static>,
    /// Whose certificate is taken.
    trust: Trust,
}

impl Secure {
    /// With a name that somebody has given.
    pub(super) fn named(name: ServerName<'static>, trust: Trust) -> Self {
        Self { name, trust }
    }

    /// The name is that of the `Host`, without the port, as in Kong; where there is none, or none that
    /// TLS can name, the address of the endpoint.
    pub(super) fn new(host: Option<&Host<'_>>, address: IpAddr, trust: Trust) -> Self {
        let name = host.and_then(tls::server_name_of);
        Self {
            name: name.unwrap_or(ServerName::IpAddress(address.into())),
            trust,
        }
    }
}

/// Connects to an endpoint within `timeout`, once it has fewer than `limit` connections; with 0 it may have
/// any number. `pool` is asked for one to be closed if need be.
pub(super) async fn connect(
    place: Place,
    endpoint: Arc<Endpoint>,
    limit: u32,
    pool: &Pool,
    timeout: Duration,
    max_header_size: usize,
) -> Result<Box<Connection>, Error> {
    let end = tokio::time::Instant::now() + timeout;
    let permit = endpoint.permit(limit, || pool.reclaim());
    let mut permit = tokio::time::timeout_at(end, permit)
        .await
        .map_err(|_| Error::Full)?;
    let descriptor = tokio::time::timeout_at(end, pool.descriptor()).await;
    permit.keep(descriptor.ok().flatten().ok_or(Error::Full)?);
    let stream = tokio::time::timeout_at(end, open(&place))
        .await
        .map_err(|_| Error::Timeout)??;
    let connection = Connection::new(stream, place, endpoint, permit, max_header_size);
    Ok(Box::new(connection))
}

async fn open(place: &Place) -> Result<Stream, Error> {
    let stream = TcpStream::connect(place.address).await.map_err(Error::Io)?;
    stream.set_nodelay(true).map_err(Error::Io)?;
    let Some(Secure { name, trust }) = &place.tls else {
        return Ok(Stream::Plain(stream));
    };
    let connector = trust.connector(tls::HTTP_1_1).map_err(Error::Setup)?;
    let stream = connector.connect(name.clone(), stream).await;
    Ok(Stream::Tls(Box::new(stream.map_err(Error::Tls)?)))
}

/// The bytes of a connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether something has arrived that is not read yet: bytes, an end or an error. Over TLS
    /// these may be bytes of the session alone, which costs a new connection where the answer is
    /// taken for one.
    pub(super) fn has_news(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // The socket does not block.
        let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
        !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;

    #[test]
    fn the_name_is_the_hosts_without_its_port() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let name = |host: &str| {
            let authority = Authority::parse(host);
            let host = authority.as_ref().map(|authority| &authority.host);
            Secure::new(host, address, Trust::System)
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
        // What can stand in a header and not in a certificate.
        assert_eq!(name("a!b:80"), "10.0.0.1");
    }
}
