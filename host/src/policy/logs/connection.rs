//! Connections to the servers that records are sent to.

use std::fmt::Display;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::client::TlsStream;

use crate::authority::Host;
use crate::dns::Resolver;
use crate::tls::{self, Protocols, Trust};

/// How long a datagram socket is used: afterwards the name of its server is looked up again.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);

/// A server, by its host and port.
#[derive(Debug, Clone)]
pub(in super::super) struct Server {
    pub(in super::super) host: String,
    pub(in super::super) port: u16,
    /// What looks its name up.
    pub(in super::super) resolver: Arc<Resolver>,
}

/// A stream to a server, encrypted or not.
pub(in super::super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The connection below it.
    fn connection(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn connection(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn connection(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Server {
    /// Connects to the first of its addresses that accepts.
    pub(in super::super) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = self.resolver.connect(&self.host, self.port).await?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Connects and encrypts. `name` is the name that the server is asked for, if it is not its
    /// host; `protocols` are named to it as in [`Trust::connector`].
    pub(in super::super) async fn connect_tls(
        &self,
        name: Option<&str>,
        trust: &Trust,
        protocols: Protocols,
    ) -> io::Result<Box<dyn Stream>> {
        let name = name.unwrap_or(&self.host);
        let server_name = tls::server_name(name).or_else(|| {
            let host = Host::parse(name)?;
            tls::server_name_of(&host)
        });
        let invalid = || io::Error::other(format!("'{name}' is no name for TLS"));
        let server_name = server_name.ok_or_else(invalid)?;
        let connector = trust.connector(protocols).map_err(io::Error::other)?;
        let stream = self.connect().await?;
        Ok(Box::new(connector.connect(server_name, stream).await?))
    }

    /// A socket that sends datagrams to it.
    async fn datagrams(&self) -> io::Result<UdpSocket> {
        let mut error = io::Error::other("the name has no address");
        for address in self.resolver.addresses(&self.host, self.port).await? {
            let own: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(own).await?;
            match socket.connect(address).await {
                Ok(()) => return Ok(socket),
                Err(refused) => error = refused,
            }
        }
        Err(error)
    }
}

/// What takes no longer than `limit`.
pub(in super::super) async fn within<T>(
    limit: Duration,
    what: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let timed_out = |_| Err(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(limit, what)
        .await
        .unwrap_or_else(timed_out)
}

/// Milliseconds of a setting.
pub(in super::super) fn millis(setting: f64) -> Duration {
    let limit = Duration::try_from_secs_f64(setting.max(0.0) / 1000.0);
    // The longest time that a timer can wait is some decades.
    limit
        .unwrap_or(Duration::MAX)
        .min(Duration::from_secs(1 << 30))
}

/// A stream that is kept from one batch to the next.
#[derive(Default)]
pub(in super::super) struct Kept(Mutex<Option<(Box<dyn Stream>, Instant)>>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

impl Kept {
    /// The stream, if it was used in the last `keepalive` and the server has neither closed it nor
    /// sent anything.
    pub(in super::super) fn take(&self, keepalive: Duration) -> Option<Box<dyn Stream>> {
        let (mut stream, since) = self.0.lock().take()?;
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // The runtime may not have been told yet that the server has closed the connection.
        let is_ended = SockRef::from(stream.connection()).peek(&mut [MaybeUninit::uninit()]);
        let is_ended = matches!(is_ended, Ok(0));
        let is_open = !is_ended
            && Pin::new(&mut stream)
                .poll_read(&mut cx, &mut byte)
                .is_pending();
        (is_open && since.elapsed() < keepalive).then_some(stream)
    }

    /// Keeps a stream.
    pub(in super::super) fn put(&self, stream: Box<dyn Stream>) {
        *self.0.lock() = Some((stream, Instant::now()));
    }
}

/// A socket that sends datagrams to a server. It is made when it is first needed, and again now and
/// then, because the name of the server may get another address.
#[derive(Debug)]
pub(in super::super) struct Datagrams {
    server: Server,
    socket: Mutex<Option<(UdpSocket, Instant)>>,
}

impl Datagrams {
    pub(in super::super) fn to(server: Server) -> Self {
        Self {
            server,
            socket: Mutex::default(),
        }
    }

    /// Sends datagrams.
    ///
    /// # Errors
    /// The first error; the datagrams after it are not sent.
    pub(in super::super) async fn send(&self, datagrams: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let kept = self.socket.lock().take();
        let kept = kept.filter(|(_, since)| since.elapsed() < LOOK_UP_AGAIN);
        let (socket, since) = match kept {
            Some(kept) => kept,
            None => (self.server.datagrams().await?, Instant::now()),
        };
        for datagram in datagrams {
            let mut sent = socket.send(datagram.as_ref()).await;
            if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused) {
                // This tells of an earlier datagram, and that the server may be there again.
                sent = socket.send(datagram.as_ref()).await;
            }
            sent?;
        }
        *self.socket.lock() = Some((socket, since));
        Ok(())
    }
}

/// An error of a server, as a sink reports it.
pub(in super::super) fn failed(server: &Server) -> impl Fn(io::Error) -> String {
    move |error| format!("{server}: {error}")
}
