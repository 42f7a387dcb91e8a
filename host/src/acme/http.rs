//! Requests to the authority: HTTP/1.1, over TLS with the authorities that the system trusts. Each
//! has a connection of its own; there are few.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::dns::Resolver;
use crate::tls::{HTTP_1_1, Trust, server_name};

/// Longest time for a request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest body of a response, in bytes. A chain of certificates has some thousand.
const LARGEST: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests to the authority.
pub(super) struct Http {
    /// What looks up the name of the authority.
    pub(super) resolver: Arc<Resolver>,
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let resolver = Arc::clone(&self.resolver);
        Box::pin(async move {
            let uri = request.uri().clone();
            let sent = tokio::time::timeout(REQUEST_TIMEOUT, send(request, &resolver)).await;
            let sent = sent.unwrap_or_else(|_| Err("no answer within 30 s".into()));
            sent.map_err(|why| Error::Other(format!("{uri}: {why}").into()))
        })
    }
}

async fn send(
    request: Request<BodyWrapper<Bytes>>,
    resolver: &Arc<Resolver>,
) -> Result<BytesResponse, Failure> {
    let uri = request.uri().clone();
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("a URL with http or https is expected".into()),
    };
    let host = uri.host().ok_or("the URL has no host")?;
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = resolver.connect(host, port).await?;
    if !is_tls {
        return exchange(stream, request, &uri).await;
    }
    let name = server_name(host).ok_or("the URL has no valid host")?;
    let connector = Trust::System.connector(&[HTTP_1_1])?;
    let stream = connector.connect(name, stream).await?;
    exchange(stream, request, &uri).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<BodyWrapper<Bytes>>,
    uri: &Uri,
) -> Result<BytesResponse, Failure> {
    let authority = uri.authority().ok_or("the URL has no host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    request.headers_mut().insert(HOST, host);
    let target = uri.path_and_query().ok_or("the URL has no path")?;
    *request.uri_mut() = target.as_str().parse()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    };
    // The connection is driven for as long as the exchange takes.
    tokio::select! {
        biased;
        exchanged = exchange => exchanged,
        Err(error) = connection => Err(error.into()),
        else => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}
