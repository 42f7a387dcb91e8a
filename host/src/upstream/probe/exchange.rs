//! One probe: a connection, its own or that of the one before, and what is said on it.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::grpc;
use crate::tls;
use crate::upstream::health::Report;
use crate::upstream::members::Member;
use crate::upstream::policy::{Active, ProbeKind};

/// Longest head of an answer, in bytes.
const HEAD: usize = 16 * 1024;

/// Longest body that is read so that the connection can serve again, in bytes.
const BODY: u64 = 64 * 1024;

/// What came of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is a connection, which is all that was asked for.
    Connected,
    /// An HTTP status.
    Status(u16),
    /// What the health service of gRPC says, as a number of its `ServingStatus`.
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
    #[error("{0:?} is no name for TLS")]
    Name(String),
    #[error("the answer is no HTTP: {0}")]
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

/// A connection that the next probe may use.
pub(super) type Idle = Box<dyn Duplex>;

/// A stream of bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// What is probed, and how.
pub(super) struct Target {
    address: SocketAddr,
    ask: Ask,
    /// Whether connections are used again.
    reuse: bool,
    /// With the name that the certificate is to be for.
    tls: Option<(Result<TlsConnector, rustls::Error>, String)>,
}

enum Ask {
    Nothing,
    /// The request, as it is sent.
    Http(Box<str>),
    /// The `:authority`.
    Grpc(String),
}

impl Target {
    pub(super) fn new(member: &Member, active: &Active) -> Self {
        let mut address = member.address;
        if let Some(port) = member.probe.port.or(active.probe.port) {
            address.set_port(port);
        }
        let secure = matches!(active.kind, ProbeKind::Https | ProbeKind::Grpcs);
        let own = if secure { 443 } else { 80 };
        let (host, authority) = match &active.host_header {
            // As it is written. Source: Kong.
            Some(header) => (&header.host, header.to_string()),
            None => {
                let port = member.address.port();
                (&member.host, member.host.with_port(port, own))
            }
        };
        let alpn = match active.kind {
            ProbeKind::Grpcs => tls::H2,
            _ => tls::HTTP_1_1,
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
            tls: secure.then(|| (active.trust.connector(alpn), name)),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `idle` is the connection of an earlier probe, and takes that of this one if it can serve
    /// again.
    pub(super) async fn probe(&self, idle: &mut Option<Idle>) -> Result<Answer, Error> {
        if let Some(stream) = idle.take() {
            match self.ask(stream, idle).await {
                // The server may have closed it for its age: that says nothing yet.
                Err(Error::Broken(_)) => {}
                answer => return answer,
            }
        }
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(Error::Connect)?;
        // Closed without a farewell: ports that wait out their time would soon be used up.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        match &self.tls {
            // It writes once, which waits for nothing.
            None if !matches!(self.ask, Ask::Grpc(_)) => self.ask(stream, idle).await,
            None => {
                let _ = stream.set_nodelay(true);
                self.ask(stream, idle).await
            }
            Some((connector, name)) => {
                let _ = stream.set_nodelay(true);
                // Apart, as all that is large and rare: thousands of probes wait most of the time.
                Box::pin(self.ask_securely(connector, name, stream, idle)).await
            }
        }
    }

    async fn ask_securely(
        &self,
        connector: &Result<TlsConnector, rustls::Error>,
        name: &str,
        stream: TcpStream,
        idle: &mut Option<Idle>,
    ) -> Result<Answer, Error> {
        let connector = connector
            .as_ref()
            .map_err(|error| Error::Tls(io::Error::other(error.clone())))?;
        let server = tls::server_name(name).ok_or_else(|| Error::Name(name.to_owned()))?;
        let stream = connector.connect(server, stream).await;
        self.ask(stream.map_err(Error::Tls)?, idle).await
    }

    async fn ask<S>(&self, mut stream: S, idle: &mut Option<Idle>) -> Result<Answer, Error>
    where
        S: Duplex + 'static,
    {
        match &self.ask {
            Ask::Nothing => Ok(Answer::Connected),
            Ask::Http(request) => {
                let (status, rest) = http(&mut stream, request, self.reuse).await?;
                if self.reuse && rest.read(&mut stream).await {
                    *idle = Some(Box::new(stream));
                }
                Ok(Answer::Status(status))
            }
            Ask::Grpc(authority) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                let serving = Box::pin(grpc::check(stream, scheme, authority)).await;
                serving.map(Answer::Serving).map_err(Error::Grpc)
            }
        }
    }
}

/// The request of a probe over HTTP, which asks for the connection to be closed unless it is to be
/// used again.
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
        // A value of the Admin API that cannot stand in a header must not become a second one.
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

/// What is left of an answer once its head is read.
struct Rest {
    /// Bytes of the body that are still to come; none if the connection is of no more use.
    left: Option<u64>,
}

impl Rest {
    /// What follows a head, of which `received` came with it.
    fn of(response: &httparse::Response<'_, '_>, bodiless: bool, received: usize) -> Self {
        let mut length = None;
        let mut persistent = response.version == Some(1);
        for field in &*response.headers {
            if field.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(field.value).ok();
                length = text.and_then(|text| text.trim().parse().ok());
            }
            // Whoever says more about the connection than nothing, or sends chunks, gets a new one.
            persistent &= !field.name.eq_ignore_ascii_case("connection")
                || field.value.eq_ignore_ascii_case(b"keep-alive");
            persistent &= !field.name.eq_ignore_ascii_case("transfer-encoding");
        }
        let bodiless = bodiless || matches!(response.code, Some(204 | 304));
        let length = if bodiless { Some(0) } else { length };
        let left = length.filter(|length| persistent && *length <= BODY);
        Self {
            left: left.and_then(|left: u64| left.checked_sub(received as u64)),
        }
    }

    /// Reads it. Whether the connection can serve another probe.
    async fn read(self, stream: &mut impl Duplex) -> bool {
        match self.left {
            Some(left) => {
                let mut body = stream.take(left);
                matches!(tokio::io::copy(&mut body, &mut tokio::io::sink()).await, Ok(read) if read == left)
            }
            None => false,
        }
    }
}

/// The status that a server answers with. A redirect is not followed. The status line is enough, once
/// it is whole, unless all of the head is asked for.
async fn http(stream: &mut impl Duplex, request: &str, whole: bool) -> Result<(u16, Rest), Error> {
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Error::Broken)?;
    stream.flush().await.map_err(Error::Broken)?;
    let bodiless = request.starts_with("HEAD ");
    let mut received = Vec::with_capacity(1024);
    loop {
        if stream
            .read_buf(&mut received)
            .await
            .map_err(Error::Broken)?
            == 0
        {
            return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut fields = [MaybeUninit::uninit(); 128];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, &received, &mut fields)
            .map_err(|error| Error::NotHttp(error.to_string()))?;
        let code = response.code.filter(|code| *code >= 200);
        match (parsed, code) {
            (httparse::Status::Complete(length), Some(code)) => {
                let rest = Rest::of(&response, bodiless, received.len() - length);
                return Ok((code, rest));
            }
            // An answer of the first class comes before the one that counts.
            (httparse::Status::Complete(length), None) => {
                received.drain(..length);
            }
            (httparse::Status::Partial, Some(code)) if !whole || received.len() >= HEAD => {
                return Ok((code, Rest { left: None }));
            }
            (httparse::Status::Partial, _) if received.len() < HEAD => {}
            (httparse::Status::Partial, _) => {
                return Err(Error::NotHttp("its head is too large".into()));
            }
        }
    }
}
