//! An HTTP server that policies post batches to, over one connection that is kept.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use url::Url;

use super::connection::{Server, failed, within};
use crate::dns::Resolver;
use crate::tls::{HTTP_1_1, Trust};

/// Most bytes of a response that are read, so that the connection can serve another request.
const MOST_READ: usize = 64 * 1024;

/// Where batches are posted, and with which head.
#[derive(Debug)]
pub(in super::super) struct PostTarget {
    host: String,
    port: u16,
    is_encrypted: bool,
    method: Method,
    /// Path and query.
    path: String,
    headers: HeaderMap,
}

impl PostTarget {
    /// The target at the URL that a setting of this name has. `headers` come before `content_type`,
    /// and before the credentials of the URL.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(in super::super) fn of<'h>(
        setting: &str,
        url: &str,
        method: &str,
        content_type: &str,
        headers: impl Iterator<Item = (&'h String, &'h String)>,
    ) -> Result<Self, String> {
        // Errors leave the URL out, because it may have credentials.
        let url = Url::parse(url).map_err(|error| format!("{setting}: {error}"))?;
        let is_encrypted = match url.scheme() {
            "http" => false,
            "https" => true,
            scheme => {
                return Err(format!(
                    "{setting}: the scheme {scheme} is not supported: use http or https"
                ));
            }
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let mut given = HeaderMap::new();
        let invalid = |name: &str| format!("the header {name} is not valid");
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|_| invalid(name))?;
            let name = HeaderName::try_from(name).map_err(|_| invalid(name))?;
            given.append(name, value);
        }
        let mut set = |name: HeaderName, value: &str| {
            let value = HeaderValue::from_str(value).map_err(|_| invalid(name.as_str()))?;
            given.entry(name).or_insert(value);
            Ok::<_, String>(())
        };
        set(
            HOST,
            &match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.clone(),
            },
        )?;
        set(CONTENT_TYPE, content_type)?;
        if !url.username().is_empty() || url.password().is_some() {
            let mut credentials: Vec<u8> = percent_decode_str(url.username()).collect();
            credentials.push(b':');
            credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
            let credentials = BASE64_STANDARD.encode(credentials);
            set(AUTHORIZATION, &format!("Basic {credentials}"))?;
        }
        let method = Method::from_bytes(method.as_bytes());
        Ok(Self {
            host,
            port,
            is_encrypted,
            method: method.map_err(|error| error.to_string())?,
            path: match url.query() {
                Some(query) => format!("{}?{query}", url.path()),
                None => url.path().to_owned(),
            },
            headers: given,
        })
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let request = Request::builder().method(&self.method).uri(&self.path);
        let request = request.body(Full::new(body));
        let mut request = request.map_err(|error| error.to_string())?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

/// How long the steps of an exchange may take.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Timeouts {
    /// Connecting, the handshake of TLS included.
    pub(in super::super) connect: Duration,
    /// Sending a batch, up to the head of the response; and then reading its body.
    pub(in super::super) answer: Duration,
    /// How long an idle connection is kept.
    pub(in super::super) keepalive: Duration,
}

/// A server that batches are posted to.
#[derive(Debug)]
pub(in super::super) struct HttpServer {
    target: PostTarget,
    server: Server,
    timeouts: Timeouts,
    /// The connection after the last request, and the time of that.
    kept: Mutex<Option<(SendRequest<Full<Bytes>>, Instant)>>,
}

impl Display for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

impl HttpServer {
    /// The server of this target. No connection is made yet.
    pub(in super::super) fn new(
        target: PostTarget,
        timeouts: Timeouts,
        resolver: &Arc<Resolver>,
    ) -> Self {
        Self {
            server: Server {
                host: target.host.clone(),
                port: target.port,
                resolver: Arc::clone(resolver),
            },
            target,
            timeouts,
            kept: Mutex::default(),
        }
    }

    /// Posts a batch. Returns the status of the response.
    ///
    /// # Errors
    /// There was no response in time. The text says why, as the end of a sentence.
    pub(in super::super) async fn post(&self, body: Bytes) -> Result<StatusCode, String> {
        let kept = self.kept.lock().take();
        let kept = kept.filter(|(_, since)| since.elapsed() < self.timeouts.keepalive);
        if let Some((mut sender, _)) = kept {
            // The server may close an idle connection at any time. Then another one is used.
            match self.exchange(&mut sender, body.clone()).await {
                Ok(response) => return Ok(self.finish(sender, response).await),
                Err(_) if sender.is_closed() => {}
                Err(error) => return Err(error),
            }
        }
        let mut sender = self.connect().await?;
        let response = self.exchange(&mut sender, body).await?;
        Ok(self.finish(sender, response).await)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let server = &self.server;
        let stream = within(self.timeouts.connect, async {
            match self.target.is_encrypted {
                true => server.connect_tls(None, &Trust::System, &[HTTP_1_1]).await,
                false => Ok(Box::new(server.connect().await?) as _),
            }
        });
        let stream = stream.await.map_err(failed(server))?;
        let hands = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = hands.map_err(|error| format!("{server}: {error}"))?;
        // Errors of the connection are those of its requests.
        tokio::spawn(connection.map(drop));
        Ok(sender)
    }

    /// Sends a body and returns the response, whose body is still to be read.
    async fn exchange(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let server = &self.server;
        let request = self.target.request(body)?;
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answered = tokio::time::timeout(self.timeouts.answer, exchange).await;
        let answered = answered.map_err(|_| format!("{server}: no response in time"))?;
        answered.map_err(|error| format!("{server}: {error}"))
    }

    /// Reads the body of a response and keeps the connection if that comes to its end. Whether the
    /// records were accepted, the head alone has said: a body that is too long or too slow costs
    /// no more than the connection.
    async fn finish(
        &self,
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
    ) -> StatusCode {
        let (head, body) = response.into_parts();
        let rest = Limited::new(body, MOST_READ).collect();
        if let Ok(Ok(_)) = tokio::time::timeout(self.timeouts.answer, rest).await {
            *self.kept.lock() = Some((sender, Instant::now()));
        }
        head.status
    }
}

#[cfg(test)]
mod tests;
