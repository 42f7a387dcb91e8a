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
pub(super) enum Answer {
    /// A connection was made, and nothing more is checked.
    Connected,
    /// An HTTP status.
    Status(u16),
    /// The answer of the gRPC health service, a number of its `ServingStatus`.
    Serving(u64),
}

impl std::fmt::Display for Answer {
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
async fn has_news(stream: &mut (impl AsyncRead + Unpin)) -> bool {
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

/// What is probed, and how.
pub(super) struct Target {
    address: EndpointAddress,
    ask: Ask,
    /// Whether a connection is used for several probes.
    reuse: bool,
    /// The connector, with the name that the certificate has to be for.
    tls: Option<(Result<TlsConnector, rustls::Error>, String)>,
}

enum Ask {
    Nothing,
    /// The request as it is sent.
    Http(Box<str>),
    /// The `:authority`.
    Grpc(String),
}

impl Target {
    pub(super) fn new(member: &Member, active: &Active) -> Self {
        let mut address = member.address.clone();
        if let EndpointAddress::Inet(address) = &mut address
            && let Some(port) = member.probe.port.or(active.probe.port)
        {
            address.set_port(port);
        }
        let secure = matches!(active.kind, ProbeKind::Https | ProbeKind::Grpcs);
        let own = if secure { 443 } else { 80 };
        let (host, authority) = match &active.host_header {
            // As it is configured. Source: Kong.
            Some(header) => (&header.host, header.to_string()),
            None => {
                let port = member.address.port().unwrap_or(own);
                (&member.host, member.host.with_port(port, own))
            }
        };
        let protocols: Protocols = match active.kind {
            ProbeKind::Grpcs => &[H2],
            _ => &[HTTP_1_1],
        };
        let name = active.sni.as_deref().unwrap_or(host.bare()).to_owned();
        let reuse = (member.probe.reuse_connection)
            .or(active.probe.reuse_connection)
            .unwrap_or(false);
        Self {
            address,
            reuse,
            ask: match active.kind {
                ProbeKind::Tcp => Ask::Nothing,
                ProbeKind::Http | ProbeKind::Https => {
                    Ask::Http(request(member, active, &authority, reuse))
                }
                ProbeKind::Grpc | ProbeKind::Grpcs => Ask::Grpc(authority),
            },
            tls: secure.then(|| (active.tls.connector(protocols), name)),
        }
    }

    pub(super) fn address(&self) -> &EndpointAddress {
        &self.address
    }

    /// `idle` is the connection of the probe before. It is replaced by the connection of this probe
    /// if that can serve again.
    pub(super) async fn probe(&self, idle: &mut Option<Left>) -> Result<Answer, Error> {
        if let Some(Left { mut stream, .. }) = idle.take()
            && !has_news(&mut stream).await
        {
            match self.ask(stream, idle).await {
                // The server may have closed the connection for its age: this says nothing of its
                // health.
                Err(Error::Broken(_)) => {}
                answer => return answer,
            }
        }
        let stream = connect::socket(&self.address).await;
        let stream = stream.map_err(Error::Connect)?;
        match &self.tls {
            None => self.ask(Box::new(stream), idle).await,
            // Boxed, since it is large and rare: thousands of probes wait most of the time.
            Some((connector, name)) => {
                Box::pin(self.ask_securely(connector, name, stream, idle)).await
            }
        }
    }

    async fn ask_securely(
        &self,
        connector: &Result<TlsConnector, rustls::Error>,
        name: &str,
        stream: Socket,
        idle: &mut Option<Left>,
    ) -> Result<Answer, Error> {
        let connector = connector
            .as_ref()
            .map_err(|error| Error::Tls(io::Error::other(error.clone())))?;
        let server = tls::server_name(name).ok_or_else(|| Error::Name(name.to_owned()))?;
        let stream = connector.connect(server, stream).await;
        let stream = Box::new(stream.map_err(Error::Tls)?);
        self.ask(stream, idle).await
    }

    async fn ask(&self, stream: Box<dyn Duplex>, idle: &mut Option<Left>) -> Result<Answer, Error> {
        let mut left = Left {
            stream,
            reusable: false,
            their_turn: false,
        };
        let answer = match &self.ask {
            Ask::Nothing => Ok(Answer::Connected),
            Ask::Http(request) => {
                left.their_turn = !self.reuse;
                let answer = http(&mut left.stream, request).await;
                answer.map(|(status, reusable)| {
                    left.reusable = self.reuse && reusable;
                    Answer::Status(status)
                })
            }
            Ask::Grpc(authority) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                let serving = Box::pin(grpc::check(left.stream, scheme, authority)).await;
                return serving.map(Answer::Serving).map_err(Error::Grpc);
            }
        };
        if left.reusable {
            *idle = Some(left);
        } else {
            left.close();
        }
        answer
    }
}

/// The request of a probe over HTTP. It asks for the connection to be closed unless the next probe
/// is to use it.
fn request(member: &Member, active: &Active, host: &str, reuse: bool) -> Box<str> {
    let (own, all) = (&member.probe, &active.probe);
    let method = own.method.as_ref().or(all.method.as_ref());
    let path = own.path.as_ref().or(all.path.as_ref());
    let mut text = format!(
        "{} {} HTTP/1.1\r\n",
        method.map_or("GET", String::as_str),
        path.map_or(active.path.as_str(), String::as_str),
    );
    let has =
        |wanted: &str| (active.headers.iter()).any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let mut add = |name: &str, value: &str| {
        // A value of the Admin API that is invalid in a header must not add a header of its own.
        if !value.bytes().any(|byte| byte.is_ascii_control()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    };
    if !has("host") {
        add("host", host);
    }
    if !has("user-agent") {
        add(
            "user-agent",
            concat!("pointsman/", env!("CARGO_PKG_VERSION"), " (health check)"),
        );
    }
    for (name, value) in &active.headers {
        add(name, value);
    }
    if !reuse {
        add("connection", "close");
    }
    text.push_str("\r\n");
    text.into()
}

/// The status that a server answers with, and whether the connection can serve another probe. A
/// redirect is not followed. The answer has to be whole, as far as it is read.
async fn http(stream: &mut impl Duplex, request: &str) -> Result<(u16, bool), Error> {
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Error::Broken)?;
    stream.flush().await.map_err(Error::Broken)?;
    let bodiless = request.starts_with("HEAD ");
    let malformed = |error: http1::Error| Error::NotHttp(error.to_string());
    let early = || Error::Broken(io::ErrorKind::UnexpectedEof.into());
    let mut received = BytesMut::with_capacity(1024);
    let mut head = loop {
        if !received.is_empty()
            && let Some(head) =
                http1::parse_head(&mut received, HEAD, bodiless).map_err(malformed)?
        {
            if !head.is_interim() {
                break head;
            }
        } else if read(stream, &mut received).await? == 0 {
            return Err(early());
        }
    };
    let status = head.response.status().as_u16();
    let mut length = 0;
    let mut open = true;
    loop {
        while let Some(piece) = head.framing.take(&mut received).map_err(malformed)? {
            length += piece.len();
        }
        if head.framing.is_done() {
            let reusable = open && head.persistent && received.is_empty();
            return Ok((status, reusable));
        }
        if length >= BODY {
            return Ok((status, false));
        }
        if read(stream, &mut received).await? == 0 {
            head.framing.end().map_err(|_| early())?;
            open = false;
        }
    }
}

async fn read(stream: &mut impl Duplex, received: &mut BytesMut) -> Result<usize, Error> {
    received.reserve(1024);
    stream.read_buf(received).await.map_err(Error::Broken)
}
