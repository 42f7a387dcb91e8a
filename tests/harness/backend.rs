//! Real HTTP servers, each on a thread and a port of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::reserve;
use super::tls::tls_acceptor;

/// A server that responds with its name in `x-backend` and with a description of the request as its
/// body, except under these paths:
///
/// - `/status/N` responds with status N
/// - `/delay/MS` responds after that time
/// - `/bytes/N` responds with N bytes, in chunks
/// - `/hang` never responds
/// - `/held` responds once [`Backend::release`] was called
/// - `/upgrade` changes to another protocol, in which it sends back what it receives
/// - `/headers-out` responds with hop-by-hop and other headers
///
/// Requests whose path begins with `/probe` are those of health checks, and are counted apart. What
/// [`Backend::respond_with`] sets holds for every path.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    served: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    behaviour: Arc<Behaviour>,
    runtime: Option<Runtime>,
}

/// How a server responds to every request, and the probes that it received.
#[derive(Default)]
struct Behaviour {
    /// The status, or 0 for the one that the path asks for.
    status: AtomicU16,
    /// The time before each response, in milliseconds.
    delay_ms: AtomicU64,
    /// A header that each response has.
    header: Mutex<Option<(&'static str, String)>>,
    /// The bodies of paths that have one of their own.
    bodies: Mutex<BTreeMap<String, String>>,
    /// The method and the headers of each probe, in the order in which they came.
    probes: Mutex<Vec<String>>,
    /// Whether requests for `/held` are responded to.
    released: watch::Sender<bool>,
}

impl Backend {
    /// A server on a free port.
    pub(crate) fn start(name: &'static str) -> Self {
        Self::start_on(name, "127.0.0.1:0".parse().unwrap())
    }

    /// A server over TLS with a certificate for `host`, and the certificate of the authority that
    /// signed it, as PEM.
    pub(crate) fn start_tls(name: &'static str, host: &str) -> (Self, String) {
        let (acceptor, authority) = tls_acceptor(host, &[]);
        let address = "127.0.0.1:0".parse().unwrap();
        (Self::serve(name, address, Some(acceptor)), authority)
    }

    /// A server of HTTP/2 in clear text, with trailers in its responses to `/trailers`. It allows
    /// this many streams on a connection.
    pub(crate) fn start_http2(name: &'static str, streams: u32) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        Self::serve_version(name, address, None, Some(streams))
    }

    /// The same on a given address.
    pub(crate) fn serve_http2_on(name: &'static str, address: SocketAddr) -> Self {
        Self::serve_version(name, address, None, Some(100))
    }

    /// The same over TLS, with the certificate of its authority as PEM.
    pub(crate) fn start_http2_tls(name: &'static str, host: &str) -> (Self, String) {
        let (acceptor, authority) = tls_acceptor(host, &[b"h2"]);
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Self::serve_version(name, address, Some(acceptor), Some(100));
        (server, authority)
    }

    /// A server over TLS as this acceptor has it.
    pub(crate) fn start_over(name: &'static str, acceptor: TlsAcceptor) -> Self {
        Self::serve(name, "127.0.0.1:0".parse().unwrap(), Some(acceptor))
    }

    /// A server on a given address.
    pub(crate) fn start_on(name: &'static str, address: SocketAddr) -> Self {
        Self::serve(name, address, None)
    }

    fn serve(name: &'static str, address: SocketAddr, acceptor: Option<TlsAcceptor>) -> Self {
        Self::serve_version(name, address, acceptor, None)
    }

    /// `http2` is the number of streams on a connection over HTTP/2; none for HTTP/1.1.
    fn serve_version(
        name: &'static str,
        address: SocketAddr,
        acceptor: Option<TlsAcceptor>,
        http2: Option<u32>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // The port stays that of this test when the server is killed and another one takes its
        // place.
        let address = match address.port() {
            0 => reserve(address.ip()),
            _ => address,
        };
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let served = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&served);
        let connections = Arc::new(AtomicU64::new(0));
        let accepted = Arc::clone(&connections);
        let behaviour = Arc::<Behaviour>::default();
        let shared = Arc::clone(&behaviour);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let counter = Arc::clone(&counter);
                let behaviour = Arc::clone(&shared);
                let acceptor = acceptor.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let probe = request.uri().path().starts_with("/probe");
                    if probe {
                        let head = format!("{} {:?}", request.method(), request.headers());
                        behaviour.probes.lock().unwrap().push(head);
                    } else {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    respond(name, Arc::clone(&behaviour), request)
                });
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let stream: Box<dyn Stream> = match acceptor {
                        None => Box::new(stream),
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    if let Some(streams) = http2 {
                        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .max_concurrent_streams(streams)
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        return;
                    }
                    let _ = hyper::server::conn::http1::Builder::new()
                        .max_headers(1000)
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self {
            address,
            served,
            connections,
            behaviour,
            runtime: Some(runtime),
        }
    }

    /// Requests received so far, without probes.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// From now on responds to every request with this status (0 for the one that its path asks
    /// for) after this many milliseconds.
    pub(crate) fn respond_with(&self, status: u16, delay_ms: u64) {
        self.behaviour.status.store(status, Ordering::SeqCst);
        self.behaviour.delay_ms.store(delay_ms, Ordering::SeqCst);
    }

    /// From now on responds as the path of each request asks for, at once.
    pub(crate) fn respond_normally(&self) {
        self.respond_with(0, 0);
    }

    /// From now on every response has this header.
    pub(crate) fn respond_with_header(&self, name: &'static str, value: &str) {
        *self.behaviour.header.lock().unwrap() = Some((name, value.to_owned()));
    }

    /// From now on responds to requests for this path with this body.
    pub(crate) fn respond_at(&self, path: &str, body: &str) {
        let mut bodies = self.behaviour.bodies.lock().unwrap();
        bodies.insert(path.to_owned(), body.to_owned());
    }

    /// Responds to the requests for `/held`, those that wait and those to come.
    pub(crate) fn release(&self) {
        self.behaviour.released.send_replace(true);
    }

    /// Holds the requests for `/held` that come from now on, as at first.
    pub(crate) fn hold(&self) {
        self.behaviour.released.send_replace(false);
    }

    /// The method and the headers of each probe received so far.
    pub(crate) fn probes(&self) -> Vec<String> {
        self.behaviour.probes.lock().unwrap().clone()
    }

    /// Ends the server at once: the port and every connection are closed, also in the middle of a
    /// request or a response.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection, in clear text or over TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type Body = BoxBody<Bytes, Infallible>;

async fn respond(
    name: &'static str,
    behaviour: Arc<Behaviour>,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let delay_ms = behaviour.delay_ms.load(Ordering::SeqCst);
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    if request.uri().path().ends_with("/held") {
        let mut released = behaviour.released.subscribe();
        // The sender is part of what this function holds, so it is there.
        let _ = released.wait_for(|released| *released).await;
    }
    let body = (behaviour.bodies.lock().unwrap())
        .get(request.uri().path())
        .cloned();
    let mut response = match body {
        Some(body) => Response::new(Full::from(body).boxed()),
        None => response_to(name, request).await?,
    };
    let status = behaviour.status.load(Ordering::SeqCst);
    if status > 0 {
        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
    }
    if let Some((name, value)) = &*behaviour.header.lock().unwrap() {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    Ok(response)
}

/// The SHA-256 of a body, in hexadecimal digits: what a response says of the body that it answers.
pub(crate) fn sha256(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `Sec-WebSocket-Accept` of a key (RFC 6455, 4.2.2).
pub(crate) fn websocket_accept(key: &[u8]) -> String {
    let hash = Sha1::new()
        .chain_update(key)
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// The response that the path of a request asks for.
async fn response_to(
    name: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let mut segments = path.rsplit('/');
    let argument: u64 = segments.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let verb = segments.next().unwrap_or_default();
    let mut response = Response::builder().header("x-backend", name);
    match verb {
        "status" => response = response.status(argument as u16),
        "delay" => tokio::time::sleep(Duration::from_millis(argument)).await,
        "bytes" => {
            let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
            let chunks = argument.div_ceil(chunk.len() as u64);
            let frames = (0..chunks).map(move |number| {
                let left = argument - number * chunk.len() as u64;
                let size = left.min(chunk.len() as u64) as usize;
                Ok(Frame::data(chunk.slice(..size)))
            });
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
            return Ok(response.body(body).unwrap());
        }
        _ => {}
    }
    match path.rsplit('/').next() {
        Some("hang") => std::future::pending().await,
        Some("upgrade") => {
            let key = request.headers().get("sec-websocket-key");
            let accept = websocket_accept(key.map_or(&[][..], |key| key.as_bytes()));
            let on_upgrade = hyper::upgrade::on(request);
            tokio::spawn(async move {
                if let Ok(upgraded) = on_upgrade.await {
                    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                }
            });
            let response = response
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", accept);
            return Ok(response.body(Full::default().boxed()).unwrap());
        }
        Some("headers-out") => {
            response = response
                .header("connection", "x-private")
                .header("x-private", "1")
                .header("keep-alive", "timeout=5")
                .header("via", "1.1 inner")
                .header("x-public", "1");
        }
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await?;
    let sent_trailers = body.trailers().cloned();
    let body = body.to_bytes();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let entry = headers.entry(name.to_string()).or_default();
        if !entry.is_empty() {
            entry.push_str(" | ");
        }
        entry.push_str(&value);
    }
    let text = json!({
        "backend": name,
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "headers": headers,
        "length": body.len(),
        "sha256": sha256(&body),
    });
    if path == "/trailers" {
        let mut trailers = sent_trailers.unwrap_or_default();
        trailers.insert("x-own", "1".parse().unwrap());
        let frames = [
            Frame::data(text.to_string().into()),
            Frame::trailers(trailers),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed();
        return Ok(response.body(body).unwrap());
    }
    Ok(response
        .header("content-type", "application/json")
        .body(Full::from(text.to_string()).boxed())
        .unwrap())
}
