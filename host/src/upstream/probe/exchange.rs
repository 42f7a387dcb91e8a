//! One probe: a connection, and what is said on it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
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

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum Error {
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
            Self::NotHttp(_) | Self::Grpc(_) => Report::HttpFailure,
            _ => Report::TcpFailure,
        }
    }
}

/// What is probed, and how.
pub(super) struct Target {
    address: SocketAddr,
    ask: Ask,
    /// With the name that the certificate is to be for.
    tls: Option<(Result<TlsConnector, rustls::Error>, String)>,
}

enum Ask {
    Nothing,
    /// The request, as it is sent.
    Http(Box<str>),
    /// The host, as `:authority`.
    Grpc(String),
}

impl Target {
    pub(super) fn new(member: &Member, active: &Active) -> Self {
        let mut address = member.address;
        if let Some(port) = member.probe.port.or(active.probe.port) {
            address.set_port(port);
        }
        let host = active.host_header.as_deref().unwrap_or(&member.host);
        let bare = host.rsplit_once(':').map_or(host, |(bare, port)| {
            let numeric = port.bytes().all(|byte| byte.is_ascii_digit());
            if numeric && !bare.contains(':') {
                bare
            } else {
                host
            }
        });
        let secure = matches!(active.kind, ProbeKind::Https | ProbeKind::Grpcs);
        let alpn = match active.kind {
            ProbeKind::Grpcs => tls::H2,
            _ => tls::HTTP_1_1,
        };
        let name = active.sni.as_deref().unwrap_or(bare).to_owned();
        Self {
            address,
            ask: match active.kind {
                ProbeKind::Tcp => Ask::Nothing,
                ProbeKind::Http | ProbeKind::Https => Ask::Http(request(member, active, host)),
                ProbeKind::Grpc | ProbeKind::Grpcs => Ask::Grpc(host.to_owned()),
            },
            tls: secure.then(|| (tls::connector(active.verify, alpn), name)),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn probe(&self) -> Result<Answer, Error> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(Error::Connect)?;
        // Closed without a farewell: ports that wait out their time would soon be used up.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.ask(stream).await,
            Some((connector, name)) => {
                let connector = connector
                    .as_ref()
                    .map_err(|error| Error::Tls(io::Error::other(error.clone())))?;
                let server = ServerName::try_from(name.clone());
                let server = server.map_err(|_| Error::Name(name.clone()))?;
                let stream = connector.connect(server, stream).await;
                self.ask(stream.map_err(Error::Tls)?).await
            }
        }
    }

    async fn ask<S>(&self, stream: S) -> Result<Answer, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match &self.ask {
            Ask::Nothing => Ok(Answer::Connected),
            Ask::Http(request) => http(stream, request).await.map(Answer::Status),
            Ask::Grpc(host) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                let serving = grpc::check(stream, scheme, host).await;
                serving.map(Answer::Serving).map_err(Error::Grpc)
            }
        }
    }
}

/// The request of a probe over HTTP, which asks for the connection to be closed.
fn request(member: &Member, active: &Active, host: &str) -> Box<str> {
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
        let bracketed = member.host.contains(':') && active.host_header.is_none();
        let host = if bracketed {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        match member.address.port() {
            _ if active.host_header.is_some() => add("host", &host),
            80 => add("host", &host),
            port => add("host", &format!("{host}:{port}")),
        }
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
    add("connection", "close");
    text.push_str("\r\n");
    text.into()
}

/// The status that a server answers with. Neither the rest of its answer nor a redirect is followed.
async fn http<S>(mut stream: S, request: &str) -> Result<u16, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Error::Broken)?;
    stream.flush().await.map_err(Error::Broken)?;
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
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&received) {
            // The status line is enough, once it is whole.
            Ok(_) if response.code.is_some_and(|code| code >= 200) => {
                return Ok(response.code.unwrap_or_default());
            }
            // An answer of the first class comes before the one that counts.
            Ok(httparse::Status::Complete(length)) => {
                received.drain(..length);
            }
            Ok(httparse::Status::Partial) if received.len() < HEAD => {}
            Ok(_) => return Err(Error::NotHttp("its head is too large".into())),
            Err(error) => return Err(Error::NotHttp(error.to_string())),
        }
    }
}
