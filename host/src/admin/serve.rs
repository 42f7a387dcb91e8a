//! The Admin API's own server.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::Request;
use http::Uri;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::paced::Paced;
use super::refusal::{Noted, Progress, Stream};
use super::{Admin, router};
use crate::connections;
use crate::in_place::in_turn;
use crate::leftover::ReturnableBody;
use crate::listener::{Socket, Transport};

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The answer to a client beyond the limit of connections.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json; charset=utf-8\r\n\
    content-length: 34\r\n\
    connection: close\r\n\r\n\
    {\"message\":\"Too many connections\"}";

/// Serves the Admin API until `stopped` says so, and then until the requests in flight are
/// answered.
pub async fn serve(listener: TcpListener, admin: Admin, mut stopped: watch::Receiver<bool>) {
    let body_timeout = admin.config.proxy.client_body_timeout;
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        // A client may close its sending side after its request.
        .half_close(true)
        .header_read_timeout(admin.config.proxy.client_header_timeout)
        .max_header_size(admin.config.proxy.max_header_size);
    let limits = Arc::clone(&admin.limits);
    let router = TowerToHyperService::new(router(admin));
    // Each connection holds a sender: the receiver ends with the last of them.
    let (open, mut closed) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection to the Admin API: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(permit) = limits.admin_client() else {
            limits.admin_refused.fetch_add(1, Ordering::Relaxed);
            if let Some(permit) = limits.refusal() {
                tokio::spawn(async move {
                    connections::refuse(stream, FULL).await;
                    drop(permit);
                });
            }
            continue;
        };
        let router = router.clone();
        let progress = Progress::default();
        let stream = Stream::new(Transport::Plain(Socket::Tcp(stream)), progress.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, progress) = (router.clone(), progress.clone());
            progress.begin();
            async move {
                let (head, body) = without_trailing_slash(request).into_parts();
                let (body, back) = ReturnableBody::new(body);
                let body = Paced::new(body, body_timeout);
                let response = in_turn(router.call(Request::from_parts(head, body))).await;
                back.discard().await;
                response.map(|response| response.map(|body| Noted::new(body, progress)))
            }
        });
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let (mut stopped, open) = (stopped.clone(), open.clone());
        tokio::spawn(async move {
            let _held = (open, permit);
            let stop = async { drop(stopped.wait_for(|stop| *stop).await) };
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!("a connection to the Admin API ended: {error}");
            }
        });
    }
    drop((listener, open));
    closed.recv().await;
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
