//! One probe: a new connection or that of the probe before, and the exchange on it.

use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsConnector;

use super::grpc;
use crate::authority::{Authority, Host};
use crate::connect;
use crate::endpoint::health::Report;
use crate::endpoint_address::EndpointAddress;
use crate::http1;
use crate::listener::Socket;
use crate::tls::{self, H2, HTTP_1_1, Protocols};
use crate::upstream::members::Member;
use crate::upstream::policy::{Active, ProbeKind};

/// Longest head of an answer, in bytes.
const HEAD: usize = 16 * 1024;

/// Most bytes that are read of the body of an answer. Of a longer body the start has to be enough.
const BODY: usize = 64 * 1024;

/// Longest wait for a server to close a connection after it was asked to.
const THEIR_TURN: Duration = Duration::from_millis(100);

/// Longest wait for the end of a connection that the gateway has closed on its side.
const FAREWELL: Duration = Duration::from_secs(1);

/// Most bytes that are read and dropped before that end.
const FORGOTTEN: u64 = 1024 * 1024;

/// The outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeAnswer {
    /// A connection was made, and nothing more is checked.
    Connected,
    /// An HTTP status.
    Status(u16),
    /// The answer of the gRPC health service, a number of its `ServingStatus`.
    Serving(u64),
}

impl std::fmt::Display for ProbeAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Serving(1) => f.write_str("serving"),
            Self::Serving(status) => write!(f, "not serving: status {status}"),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("the connection broke off: {0}")]
    Broken(io::Error),
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("{0:?} is not a name for TLS")]
    Name(String),
    #[error("the answer is not HTTP: {0}")]
    NotHttp(String),
    #[error("gRPC: {0}")]
    Grpc(String),
}

impl Error {
    pub(super) fn report(&self) -> Report {
        match self {
            Self::Timeout(_) => Report::Timeout,
            Self::NotHttp(_) | Self::Grpc(_) => Report::HttpFailure,
            _ => Report::TcpFailure,
        }
    }
}

/// The connection of a probe that has ended.
pub(super) struct Left {
    stream: Box<dyn Duplex>,
    /// Whether it may serve the next probe.
    reusable: bool,
    /// Whether the server was asked to close it.
    their_turn: bool,
}

impl Left {
    fn of(stream: Box<dyn Duplex>) -> Self {
        Self {
            stream,
            reusable: false,
            their_turn: false,
        }
    }

    /// The connection of the exchange before, if it is idle and open.
    pub(super) async fn reopen(idle: &mut Option<Self>) -> Option<Box<dyn Duplex>> {
        let mut stream = idle.take()?.stream;
        (!has_unread(&mut stream).await).then_some(stream)
    }

    /// Keeps it for the next exchange if it can serve that, or closes it.
    fn settle(self, idle: &mut Option<Self>) {
        if self.reusable {
            *idle = Some(self);
        } else {
            self.close();
        }
    }

    /// Closes it in order, in a task of its own. A reset is an error in the log of most servers,
    /// and bytes that are unread when a connection is closed cause one (RFC 9112, 9.6).
    fn close(self) {
        tokio::spawn(async move {
            let Self {
                mut stream,
                their_turn,
                ..
            } = self;
            // The side that closes first cannot use its port again for a minute, so the server is
            // given the time to close first.
            if their_turn && ends_within(THEIR_TURN, &mut stream).await {
                return;
            }
            if stream.shutdown().await.is_ok() {
                ends_within(FAREWELL, &mut stream).await;
            }
        });
    }
}

/// Whether an idle connection has ended, or has brought a response to no request, such as a 408 for
/// its age. Such a response must not be taken for the answer to the next probe.
async fn has_unread(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    std::future::poll_fn(|cx| {
        let mut byte = [0];
        let read = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(read.is_ready())
    })
    .await
}

/// Reads and drops what still comes. Returns whether the stream ended in time.
async fn ends_within(patience: Duration, stream: &mut impl Duplex) -> bool {
    let (mut rest, mut nowhere) = (stream.take(FORGOTTEN), tokio::io::sink());
    let reading = tokio::io::copy(&mut rest, &mut nowhere);
    matches!(tokio::time::timeout(patience, reading).await, Ok(Ok(read)) if read < FORGOTTEN)
}

/// A stream of bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// Sends a request, and returns the status of the answer. As with [`http`]. `idle` is where the
/// connection is kept for the next request, if it can serve that; none for a request that asks for
/// it to be closed.
pub(super) async fn get(
    stream: Box<dyn Duplex>,
    request: &str,
    room: usize,
    is_wanted: impl FnMut(u16, &[u8]) -> bool,
    idle: Option<&mut Option<Left>>,
) -> Result<u16, Error> {
    let mut left = Left::of(stream);
    left.their_turn = idle.is_none();
    let answer = http(&mut left.stream, request, room, is_wanted).await;
    match idle {
        Some(idle) => {
            left.reusable = matches!(answer, Ok((_, true)));
            left.settle(idle);
        }
        None => left.close(),
    }
    answer.map(|(status, _)| status)
}

/// Where a server is reached, and whether over TLS.
pub(super) struct Server {
    address: EndpointAddress,
    /// The connector, with the name that the certificate has to be for.
    tls: Option<(Result<TlsConnector, rustls::Error>, String)>,
}

impl Server {
    /// The server of a member. `port` replaces that of its address, unless that is a Unix socket.
    pub(super) fn new(
        member: &Member,
        port: Option<u16>,
        tls: Option<(Result<TlsConnector, rustls::Error>, String)>,
    ) -> Self {
        let mut address = member.address.clone();
        if let EndpointAddress::Inet(address) = &mut address
            && let Some(port) = port
        {
            address.set_port(port);
        }
        Self { address, tls }
    }

    pub(super) fn address(&self) -> &EndpointAddress {
        &self.address
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Duplex>, Error> {
        let stream = connect::socket(&self.address).await;
        let stream = stream.map_err(Error::Connect)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            // Boxed, since it is large and rare: thousands of probes wait most of the time.
            Some((connector, name)) => Box::pin(secured(connector, name, stream)).await,
        }
    }
}

async fn secured(
    connector: &Result<TlsConnector, rustls::Error>,
    name: &str,
    stream: Socket,
) -> Result<Box<dyn Duplex>, Error> {
    let connector = connector
        .as_ref()
        .map_err(|error| Error::Tls(io::Error::other(error.clone())))?;
    let server = tls::server_name(name).ok_or_else(|| Error::Name(name.to_owned()))?;
    let stream = connector.connect(server, stream).await;
    Ok(Box::new(stream.map_err(Error::Tls)?))
}

/// The host that a member's certificate has to be for, and the `Host` that it gets. `header` is the
/// one that the upstream sets.
pub(super) fn host_of<'a>(
    member: &'a Member,
    header: Option<&'a Authority<'static>>,
    is_secure: bool,
) -> (&'a Host<'static>, String) {
    match header {
        // As it is configured. Source: Kong.
        Some(header) => (&header.host, header.to_string()),
        None => {
            let own = if is_secure { 443 } else { 80 };
            let port = member.address.port().unwrap_or(own);
            (&member.host, member.host.with_port(port, own))
        }
    }
}

/// What is probed, and how.
pub(super) struct ProbeTarget {
    server: Server,
    ask: Ask,
    /// Whether a connection is used for several probes.
    reuse: bool,
}

enum Ask {
    Nothing,
    /// The request as it is sent.
    Http(Box<str>),
    /// The `:authority`.
    Grpc(String),
}

impl ProbeTarget {
    pub(super) fn new(member: &Member, active: &Active) -> Self {
        let secure = matches!(active.kind, ProbeKind::Https | ProbeKind::Grpcs);
        let (host, authority) = host_of(member, active.server.host_header.as_ref(), secure);
        let protocols: Protocols = match active.kind {
            ProbeKind::Grpcs => &[H2],
            _ => &[HTTP_1_1],
        };
        let name = active
            .server
            .sni
            .as_deref()
            .unwrap_or(host.bare())
            .to_owned();
        let tls = secure.then(|| (active.server.tls.connector(protocols), name));
        let (own, all) = (&member.probe, &active.probe);
        let reuse = own.reuse_connection.or(all.reuse_connection);
        let reuse = reuse.unwrap_or(false);
        Self {
            server: Server::new(member, own.port.or(all.port), tls),
            reuse,
            ask: match active.kind {
                ProbeKind::Tcp => Ask::Nothing,
                ProbeKind::Http | ProbeKind::Https => {
                    let method = own.method.as_ref().or(all.method.as_ref());
                    let path = own.path.as_ref().or(all.path.as_ref());
                    let method = method.map_or("GET", String::as_str);
                    let path = path.map_or(active.path.as_str(), String::as_str);
                    let line = format!("{method} {path}");
                    let presets = [("host", &*authority), ("user-agent", AGENT)];
                    Ask::Http(request(&line, &presets, &active.server.headers, reuse))
                }
                ProbeKind::Grpc | ProbeKind::Grpcs => Ask::Grpc(authority),
            },
        }
    }

    pub(super) fn address(&self) -> &EndpointAddress {
        self.server.address()
    }

    /// `idle` is the connection of the probe before. It is replaced by the connection of this probe
    /// if that can serve again.
    pub(super) async fn probe(&self, idle: &mut Option<Left>) -> Result<ProbeAnswer, Error> {
        if let Some(stream) = Left::reopen(idle).await {
            match self.ask(stream, idle).await {
                // The server may have closed the connection for its age: this says nothing of its
                // health.
                Err(Error::Broken(_)) => {}
                answer => return answer,
            }
        }
        let stream = self.server.connect().await?;
        self.ask(stream, idle).await
    }

    async fn ask(
        &self,
        stream: Box<dyn Duplex>,
        idle: &mut Option<Left>,
    ) -> Result<ProbeAnswer, Error> {
        let mut left = Left::of(stream);
        let answer = match &self.ask {
            Ask::Nothing => Ok(ProbeAnswer::Connected),
            Ask::Http(request) => {
                left.their_turn = !self.reuse;
                let mut length = 0;
                let is_wanted = |_, piece: &[u8]| {
                    length += piece.len();
                    length < BODY
                };
                let answer = http(&mut left.stream, request, 1024, is_wanted).await;
                answer.map(|(status, reusable)| {
                    left.reusable = self.reuse && reusable;
                    ProbeAnswer::Status(status)
                })
            }
            Ask::Grpc(authority) => {
                let secure = self.server.tls.is_some();
                let scheme = if secure { "https" } else { "http" };
                let serving = Box::pin(grpc::check(left.stream, scheme, authority)).await;
                return serving.map(ProbeAnswer::Serving).map_err(Error::Grpc);
            }
        };
        left.settle(idle);
        answer
    }
}

/// The name by which probes go.
const AGENT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"), " (health check)");

/// A request over HTTP without a body. `presets` are headers that it has unless `headers` has them.
/// It asks for the connection to be closed unless that is to be used again.
pub(super) fn request(
    line: &str,
    presets: &[(&str, &str)],
    headers: &[(String, String)],
    reuse: bool,
) -> Box<str> {
    let mut text = format!("{line} HTTP/1.1\r\n");
    let has = |wanted: &str| (headers.iter()).any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let mut add = |name: &str, value: &str| {
        // A value of the Admin API that is invalid in a header must not add a header of its own.
        if !value.bytes().any(|byte| byte.is_ascii_control()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    };
    for (name, value) in presets {
        if !has(name) {
            add(name, value);
        }
    }
    for (name, value) in headers {
        add(name, value);
    }
    if !reuse {
        add("connection", "close");
    }
    text.push_str("\r\n");
    text.into()
}

/// The status that a server answers with, and whether the connection can serve another request. A
/// redirect is not followed. The answer has to be whole, as far as it is read. `is_wanted` is
/// called with the status and each piece of the body, and returns whether the rest is of use.
/// `room` is how many bytes are read at a time at least.
async fn http(
    stream: &mut impl Duplex,
    request: &str,
    room: usize,
    mut is_wanted: impl FnMut(u16, &[u8]) -> bool,
) -> Result<(u16, bool), Error> {
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Error::Broken)?;
    stream.flush().await.map_err(Error::Broken)?;
    let bodiless = request.starts_with("HEAD ");
    let malformed = |error: http1::Error| Error::NotHttp(error.to_string());
    let early = || Error::Broken(io::ErrorKind::UnexpectedEof.into());
    let mut received = BytesMut::with_capacity(room);
    let mut head = loop {
        if !received.is_empty()
            && let Some(head) =
                http1::parse_head(&mut received, HEAD, bodiless).map_err(malformed)?
        {
            if !head.is_interim() {
                break head;
            }
        } else if read(stream, &mut received, room).await? == 0 {
            return Err(early());
        }
    };
    let status = head.response.status().as_u16();
    let mut more = true;
    let mut open = true;
    loop {
        while let Some(piece) = head.framing.take(&mut received).map_err(malformed)? {
            more = more && is_wanted(status, &piece);
        }
        if head.framing.is_done() {
            let reusable = open && head.persistent && received.is_empty();
            return Ok((status, reusable));
        }
        if !more {
            return Ok((status, false));
        }
        if read(stream, &mut received, room).await? == 0 {
            head.framing.end().map_err(|_| early())?;
            open = false;
        }
    }
}

async fn read(
    stream: &mut impl Duplex,
    received: &mut BytesMut,
    room: usize,
) -> Result<usize, Error> {
    received.reserve(room);
    stream.read_buf(received).await.map_err(Error::Broken)
}
