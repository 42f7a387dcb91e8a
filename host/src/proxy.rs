//! The data plane: what happens to a request, stage by stage.
//!
//! A worker is a thread with its own listener, its own runtime and its own connections to endpoints;
//! workers share the snapshot, the upstreams' balancers and the endpoints' live numbers, nothing else.

mod affinity;
mod client;
mod client_stream;
mod connect;
mod connection_info;
mod described;
mod download;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod headers;
mod listen;
mod outcome;
mod page;
mod pool;
mod request_id;
mod respond;
mod upgrade;
mod upload;
mod wire;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};

pub(crate) use described::Described;
pub use listen::{Listeners, Workers};

use crate::authority::{Authority, Host};
use crate::config;
use crate::connections::ConnectionLimits;
use crate::path;
use crate::request_log;
use crate::retry::Repeats;
use crate::router::{Match, Query, Route};
use crate::snapshot::{Published, Snapshot};
use crate::transfer_coding;
use affinity::{Affinity, Facts};
use client::Client;
use download::{Content, ResponseBody};
use forward::Inbound;
use listen::Unserved;
use pool::Pool;
use request_id::RequestId;
use respond::Reject;
use upgrade::Upgrade;
use upload::Upload;

/// Product token of `Server` and `Via`.
pub const PRODUCT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"));

/// What the workers count, each on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    /// Connections accepted from clients.
    pub accepted: std::sync::atomic::AtomicU64,
    /// Connections of clients that are open.
    pub active: std::sync::atomic::AtomicU64,
    /// Connections of clients that were refused, since there were as many as there may be.
    pub refused: std::sync::atomic::AtomicU64,
    /// Requests received.
    pub requests: std::sync::atomic::AtomicU64,
}

/// The snapshot as one worker has it.
struct Seen(Arc<Snapshot>);

/// One thread of the data plane.
struct Worker {
    published: Arc<Published>,
    /// The snapshot last seen and its number. Requests hold it by `Rc`, so that no two workers touch
    /// one reference count.
    snapshot: RefCell<Rc<Seen>>,
    generation: Cell<u64>,
    pool: Rc<Pool>,
    limits: Arc<ConnectionLimits>,
    counters: Arc<Counters>,
    settings: config::Proxy,
    /// The connections that are open, by number.
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    unserved: Unserved,
    /// The time, as of the last look at the connections.
    clock: Rc<Cell<Instant>>,
}

impl Worker {
    fn snapshot(&self) -> Rc<Seen> {
        if self.generation.get() != self.published.generation() {
            let (generation, snapshot) = self.published.current();
            *self.snapshot.borrow_mut() = Rc::new(Seen(snapshot));
            self.generation.set(generation);
        }
        Rc::clone(&self.snapshot.borrow())
    }
}

/// Answers one request. Whatever goes wrong on the way becomes a response here and nowhere else.
async fn handle(
    worker: Rc<Worker>,
    client: Rc<Client>,
    id: RequestId,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let started = Instant::now();
    worker
        .counters
        .requests
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (mut parts, incoming) = request.into_parts();
    let patience = worker.settings.client_body_timeout;
    let upload =
        (!incoming.is_end_stream()).then(|| Upload::new(incoming, Rc::clone(&client), patience));
    let answered = {
        let upload = upload.as_ref();
        // Made where it stays: it is large.
        let mut answering = pin!(answer(&worker, &client, &mut parts, upload, &id, started));
        poll_fn(|cx| {
            let _scope = request_log::enter(Some(id.digits()));
            answering.as_mut().poll(cx)
        })
        .await
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(reject) => {
            let ends = upload.is_some() && reject.is_clients_fault();
            if let Some(upload) = upload.filter(|_| !ends) {
                Box::pin(upload.discard()).await;
            }
            let mut response = respond::reject(&reject, &parts.headers, &id, started);
            if ends {
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|body| Content::Own(Some(body)))
        }
    };
    if parts.version < Version::HTTP_11 && response.body().length().is_none() {
        // Its end is that of the connection, which hyper would promise to keep in HTTP/1.1.
        *response.version_mut() = Version::HTTP_10;
    }
    Ok(response.map(|content| ResponseBody::new(content, client)))
}

async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    parts: &mut Parts,
    upload: Option<&Rc<Upload>>,
    id: &RequestId,
    started: Instant,
) -> Result<Response<Content>, Reject> {
    if let Some(upload) = upload
        && upload.length().is_none()
        && let Some(status) = transfer_coding::refusal(&parts.headers)
    {
        return Err(Reject::TransferCoding(status));
    }
    let seen = worker.snapshot();
    let snapshot = &*seen.0;
    let upgrade = Upgrade::asked(parts);
    let parts = &*parts;
    let host = host_of(parts)?;
    let target = origin_form(&parts.uri)?;
    let target = &*target;
    let path = path::normalize(target.path().as_bytes());
    let query = Query {
        method: &parts.method,
        host: host.name(),
        port: host.port().unwrap_or(client.info.port),
        path: &path,
        headers: &parts.headers,
    };
    let Match {
        route,
        matched,
        regex,
    } = snapshot.router.route(&query).ok_or(Reject::NoRoute)?;
    if let Some(reject) = wrong_protocol(route, &parts.headers, target, host.name()) {
        return Err(reject);
    }
    let service = route
        .service
        .and_then(|id| snapshot.services.get(&id))
        .ok_or(Reject::NoService)?;
    if let Some(reason) = &service.unsupported {
        tracing::warn!(service = service.name, "{reason}");
        return Err(Reject::Unsupported(reason.clone()));
    }
    let mut facts = Facts {
        method: &parts.method,
        headers: &parts.headers,
        ip: &client.info.ip,
        path: &path,
        query: target.query(),
        regex,
        body_start: None,
    };
    let affinity = match &service.upstream.policy().affinity {
        None => Affinity::default(),
        Some(policy) => Affinity::of(policy, &facts),
    };
    if let Some(upload) = upload
        && route.request_buffering
    {
        let settings = &worker.settings;
        let buffered = upload.buffer(
            settings.client_body_buffer_size,
            settings.client_body_min_rate,
        );
        // Not part of this future itself: most requests have no body.
        Box::pin(buffered).await?;
    }
    if let Some(upload) = upload
        && service.upstream.balancer().reads_bodies()
    {
        // Not part of this future itself: hardly any balancer asks.
        let start = Box::pin(upload.start());
        facts.body_start = Some(start.await?);
    }
    let stripped = if route.strip_path { matched } else { 0 };
    let inbound = Inbound {
        parts,
        target: path::target(&service.path, target, &path, stripped),
        prefix: path.get(..stripped).unwrap_or_default(),
        host: &host,
        path: target.path().as_bytes(),
        preserve_host: route.preserve_host,
        affinity,
        facts: &facts,
        repeats: Repeats {
            route: &route.retry,
            service: &service.retry,
        },
        client,
        id,
        started,
    };
    forward::forward(worker, service, inbound, upload, upgrade).await
}

/// The host that a client asks for.
struct ClientHost<'a> {
    /// As it was sent.
    sent: &'a str,
    /// The same as it is read; none where HTTP/1.0 sent none.
    authority: Option<Authority<'a>>,
}

impl<'a> ClientHost<'a> {
    /// It is copied into headers, and into the address of a redirect, so it has to be a right one.
    fn read(sent: &'a str) -> Result<Self, Reject> {
        let authority = Authority::parse(sent).ok_or_else(Reject::bad_request)?;
        Ok(Self {
            sent,
            authority: Some(authority),
        })
    }

    fn host(&self) -> Option<&Host<'a>> {
        self.authority.as_ref().map(|authority| &authority.host)
    }

    /// The host in the form that hosts are compared in.
    fn name(&self) -> &str {
        self.host().map_or("", Host::as_str)
    }

    fn port(&self) -> Option<u16> {
        self.authority.as_ref()?.port
    }
}

/// The host that the request is for: that of an absolute target, else of the `Host` header (RFC 9112,
/// 3.2), which HTTP/1.1 demands exactly once.
fn host_of(parts: &Parts) -> Result<ClientHost<'_>, Reject> {
    let mut sent = parts.headers.get_all(HOST).iter();
    let host = match (sent.next(), sent.next()) {
        (Some(host), None) => ClientHost::read(host.to_str().map_err(|_| Reject::bad_request())?)?,
        (None, None) if parts.version < Version::HTTP_11 => ClientHost {
            sent: "",
            authority: None,
        },
        _ => return Err(Reject::bad_request()),
    };
    match parts.uri.authority() {
        Some(authority) => ClientHost::read(authority.as_str()),
        None => Ok(host),
    }
}

/// The path and query of a request; `CONNECT host:port` has none, and `OPTIONS *` names no resource
/// that a route could match. The empty path of an absolute target is `/` (RFC 9110, 4.2.3).
fn origin_form(uri: &Uri) -> Result<Cow<'_, PathAndQuery>, Reject> {
    match uri.path_and_query() {
        Some(target) if target.as_str().starts_with('/') => Ok(Cow::Borrowed(target)),
        Some(target) if uri.authority().is_some() && target.as_str().starts_with('?') => {
            let target = format!("/{}", target.as_str()).parse::<PathAndQuery>();
            target.map(Cow::Owned).map_err(|_| Reject::bad_request())
        }
        Some(_) => Err(Reject::bad_request()),
        None => Err(Reject::HttpServer(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

fn wrong_protocol(
    route: &Route,
    headers: &HeaderMap,
    target: &PathAndQuery,
    host: &str,
) -> Option<Reject> {
    if let Some(status) = route.https_only {
        return Some(Reject::HttpsOnly {
            status,
            location: format!("https://{host}{target}"),
        });
    }
    route.grpc_only.then(|| {
        let content_type = headers.get(CONTENT_TYPE);
        let grpc = content_type.is_some_and(|ct| ct.as_bytes().starts_with(b"application/grpc"));
        if grpc {
            Reject::Http2Only
        } else {
            Reject::NotGrpc
        }
    })
}
