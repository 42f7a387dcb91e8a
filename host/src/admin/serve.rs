//! The Admin API's own server.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::Request;
use http::Uri;
use http::header::{CONNECTION, HeaderValue};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{mpsc, watch};

use super::live::Viewer;
use super::paced::Paced;
use super::refusal::{Noted, Progress, Stream};
use super::{Admin, gui, router, status_router};
use crate::connections::{self, ConnectionLimits};
use crate::in_place::in_turn;
use crate::leftover::ReturnableBody;
use crate::listener::{
    Acceptor, Listeners, NoHeader, ProxyProtocol, Refused, Socket, TlsServer, Transport,
};

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest time that sent data may remain unacknowledged. Source: nginx, `send_timeout`.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Seconds that a client of live figures may take none of those that wait for it.
const LIVE_TIMEOUT_SECONDS: u32 = 10;

/// Says that no more connections are accepted, and how long each one may still begin a request: the
/// client may have sent one already.
pub(crate) type Stop = Option<Duration>;

/// The answer to a client beyond the limit of connections.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json; charset=utf-8\r\n\
    content-length: 34\r\n\
    connection: close\r\n\r\n\
    {\"message\":\"Too many connections\"}";

/// The answer to a request in clear text on a port for TLS. Source: nginx.
const PLAIN_ON_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: application/json; charset=utf-8\r\n\
    content-length: 59\r\n\
    connection: close\r\n\r\n\
    {\"message\":\"The plain HTTP request was sent to HTTPS port\"}";

/// Serves the Admin API until `stopped` says so, and then until the requests in flight are
/// answered.
pub(crate) async fn serve(
    listeners: Listeners,
    tls: Option<TlsServer>,
    admin: Admin,
    stopped: watch::Receiver<Stop>,
) {
    let router = router(admin.clone());
    serve_router(listeners, tls, &admin, router, stopped).await;
}

/// Serves the page for operators, with the Admin API that it uses, likewise.
pub(crate) async fn serve_gui(
    listeners: Listeners,
    tls: Option<TlsServer>,
    admin: Admin,
    stopped: watch::Receiver<Stop>,
) {
    let path = admin.config.gui_path.clone();
    let router = gui::router(&path, router(admin.clone()));
    serve_router(listeners, tls, &admin, router, stopped).await;
}

/// Serves the state of the gateway, to probes and Prometheus, likewise.
pub(crate) async fn serve_status(
    listeners: Listeners,
    tls: Option<TlsServer>,
    admin: Admin,
    stopped: watch::Receiver<Stop>,
) {
    let router = status_router(admin.clone());
    serve_router(listeners, tls, &admin, router, stopped).await;
}

async fn serve_router(
    listeners: Listeners,
    tls: Option<TlsServer>,
    admin: &Admin,
    router: axum::Router,
    stopped: watch::Receiver<Stop>,
) {
    let settings = &admin.config.proxy;
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        // A client may close its sending side after its request.
        .half_close(true)
        .header_read_timeout(settings.client_header_timeout)
        .max_header_size(settings.max_header_size)
        .max_headers(settings.max_headers);
    // Each connection holds a sender: the receiver ends with the last of them.
    let (open, mut closed) = mpsc::channel::<()>(1);
    let serving = Serving {
        server,
        router: TowerToHyperService::new(router),
        limits: Arc::clone(&admin.limits),
        body_timeout: settings.client_body_timeout,
        stopped,
        _open: open,
    };
    let proxy_protocol = listeners.proxy_protocol(settings.client_header_timeout);
    for (number, socket) in listeners.workers.into_iter().flatten() {
        let listen = &listeners.listens[number];
        let opening = Opening {
            proxy_protocol: listen.proxy_protocol.then(|| proxy_protocol.clone()),
            tls: tls.clone().filter(|_| listen.ssl),
        };
        match Acceptor::new(socket) {
            Ok(acceptor) => drop(tokio::spawn(serving.clone().accept(acceptor, opening))),
            Err(error) => tracing::error!("the Admin API cannot listen: {error}"),
        }
    }
    let mut stopped = serving.stopped.clone();
    drop(serving);
    let _ = stopped.wait_for(Option::is_some).await;
    closed.recv().await;
}

/// What a connection begins with before its first request.
#[derive(Clone)]
struct Opening {
    proxy_protocol: Option<ProxyProtocol>,
    tls: Option<TlsServer>,
}

impl Opening {
    /// Reads the header of the PROXY protocol and makes the handshake. The client's address makes
    /// no difference to the Admin API.
    async fn pass(self, mut socket: Socket) -> Result<Transport, Refused> {
        if let Some(proxy_protocol) = &self.proxy_protocol {
            let read = proxy_protocol.read(&mut socket).await;
            read.map_err(|NoHeader| Refused::Failed)?;
        }
        match &self.tls {
            None => Ok(Transport::Plain(socket)),
            Some(tls) => tls.handshake(socket).await,
        }
    }
}

/// How connections are served.
#[derive(Clone)]
struct Serving {
    server: http1::Builder,
    router: TowerToHyperService<axum::Router>,
    limits: Arc<ConnectionLimits>,
    body_timeout: Duration,
    stopped: watch::Receiver<Stop>,
    /// Held by each connection.
    _open: mpsc::Sender<()>,
}

impl Serving {
    /// Accepts connections until `stopped` says so.
    async fn accept(mut self, acceptor: Acceptor, opening: Opening) {
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                _ = self.stopped.wait_for(Option::is_some) => break,
            };
            match accepted {
                Ok((socket, _)) => self.admit(socket, opening.clone()),
                Err(error) => {
                    tracing::warn!("cannot accept a connection to the Admin API: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, socket: Socket, opening: Opening) {
        let Some(permit) = self.limits.admin_client() else {
            self.limits.admin_refused.fetch_add(1, Ordering::Relaxed);
            // Over TLS, an answer would need a handshake first.
            if opening.tls.is_none()
                && let Some(permit) = self.limits.refusal()
            {
                tokio::spawn(async move {
                    connections::refuse(socket, FULL).await;
                    drop(permit);
                });
            }
            return;
        };
        let serving = self.clone();
        tokio::spawn(async move {
            let _held = permit;
            if let Some(transport) = serving.open(opening, socket).await {
                serving.connection(transport).await;
            }
        });
    }

    /// Passes what a connection begins with, unless the gateway shuts down first.
    async fn open(&self, opening: Opening, socket: Socket) -> Option<Transport> {
        let mut stopped = self.stopped.clone();
        let stop = async {
            let stop = stopped.wait_for(Option::is_some).await;
            let grace = stop.ok().and_then(|stop| *stop).unwrap_or_default();
            tokio::time::sleep(grace).await;
        };
        let opened = tokio::select! {
            biased;
            opened = opening.pass(socket) => opened,
            () = stop => return None,
        };
        match opened {
            Ok(transport) => Some(transport),
            Err(Refused::NotTls(socket)) => {
                connections::refuse(socket, PLAIN_ON_TLS).await;
                None
            }
            Err(Refused::Failed) => None,
        }
    }

    async fn connection(mut self, transport: Transport) {
        let (router, body_timeout) = (self.router.clone(), self.body_timeout);
        let progress = Progress::default();
        let (begun, mut begins) = watch::channel(());
        transport.socket().prepare(SEND_TIMEOUT);
        let stream = Stream::new(transport, progress.clone());
        let peer = stream.peer();
        let (viewing, viewed) = watch::channel(None);
        let stuck = stuck(viewed, progress.clone(), self.stopped.clone());
        let stopping = self.stopped.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, progress) = (router.clone(), progress.clone());
            let stopping = stopping.clone();
            progress.begin();
            begun.send_replace(());
            let (viewing, peer) = (viewing.clone(), peer.clone());
            viewing.send_replace(None);
            async move {
                let (mut head, body) = without_trailing_slash(request).into_parts();
                head.extensions.insert(peer);
                let (body, back) = ReturnableBody::new(body);
                let body = Paced::new(body, body_timeout);
                let response = in_turn(router.call(Request::from_parts(head, body))).await;
                progress.set_unread(!back.discard().await);
                response.map(|mut response| {
                    viewing.send_replace(response.extensions_mut().remove::<Viewer>());
                    // The client must know before it sends a further request.
                    if stopping.borrow().is_some() {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                    response.map(|body| Noted::new(body, progress))
                })
            }
        });
        let connection = self.server.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let stop = async {
            let stop = self.stopped.wait_for(Option::is_some).await;
            let grace = stop.ok().and_then(|stop| *stop).unwrap_or_default();
            begins.mark_unchanged();
            let _ = tokio::time::timeout(grace, begins.changed()).await;
        };
        let served = async {
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        let ended = tokio::select! {
            ended = served => ended,
            () = stuck => return,
        };
        if let Err(error) = ended {
            tracing::debug!("a connection to the Admin API ended: {error}");
        }
    }
}

/// Ends once a client of live figures has taken nothing for too long. `viewed` is the client, while
/// it is one.
async fn stuck(
    mut viewed: watch::Receiver<Option<Viewer>>,
    progress: Progress,
    stopped: watch::Receiver<Stop>,
) {
    // Most connections never get figures.
    if viewed.wait_for(Option::is_some).await.is_err() {
        return std::future::pending().await;
    }
    let mut seconds = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let takes = viewed.borrow().as_ref().is_none_or(Viewer::waits);
        seconds = match takes || progress.is_idle() {
            true => 0,
            false => seconds + 1,
        };
        // What is left for it is not worth waiting for then.
        let patience = if stopped.borrow().is_some() {
            1
        } else {
            LIVE_TIMEOUT_SECONDS
        };
        if seconds >= patience {
            tracing::info!(
                "a client of live figures is disconnected: it took none for {seconds} s"
            );
            return;
        }
    }
}

/// Makes `/services/` into `/services`.
fn without_trailing_slash(mut request: Request<Incoming>) -> Request<Incoming> {
    let path = request.uri().path();
    let short = path.trim_end_matches('/');
    if short.is_empty() || short.len() == path.len() {
        return request;
    }
    let target = match request.uri().query() {
        Some(query) => format!("{short}?{query}"),
        None => short.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
