//! The data plane: what happens to a request, stage by stage.
//!
//! A worker is a thread with its own listener, its own runtime and its own connections to
//! endpoints. On the path of a request, workers share only the snapshot, the upstreams' balancers,
//! the endpoints' live numbers and the limits of connections.

mod accept;
mod access;
mod affinity;
mod answer;
mod answered;
mod backlog;
mod certificates;
mod client;
mod client_address;
mod client_host;
mod client_stream;
mod connect;
mod connection_info;
mod debug;
mod described;
mod download;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grpc;
mod head_size;
mod headers;
mod hops;
mod http2;
mod listen;
mod matched;
mod page;
mod place;
mod policies;
mod pool;
mod preface;
mod record;
mod request_id;
mod request_line;
mod respond;
mod response_body;
mod streams;
mod trace;
mod tunnel;
mod unserved;
mod upgrade;
mod upload;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_TYPE, EXPECT, HOST, TE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use uuid::Uuid;

pub(crate) use certificates::Certificates;
pub(crate) use described::{Described, Judged, Judgement};
pub use listen::Workers;
pub use pool::PoolFigures;

use crate::access_log::{self, Wants};
use crate::clock;
use crate::config;
use crate::connections::ConnectionLimits;
use crate::http1::lists;
use crate::policy::answer::Answer;
use crate::policy::response::Source;
use crate::request_log;
use crate::snapshot::{Published, Snapshot};
use crate::traffic::{RequestSample, TRAFFIC, sampled};
use crate::transfer_coding;
use answered::{Answered, close_after};
use client::{Client, ClientRequest};
use client_address::ClientAddress;
use connection_info::{ConnectionInfo, Scheme};
use download::Content;
use exchange::Outbound;
use head_size::HeadLimit;
use policies::{Made, Run};
use pool::Pool;
use respond::Reject;
use response_body::ResponseBody;
use trace::Trace;
use unserved::Unserved;
use upgrade::Upgrade;
use upload::Upload;

/// Product token of `Server` and `Via`.
pub const PRODUCT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"));

/// The counters of a worker. Each worker has its own, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    /// Connections accepted from clients.
    pub accepted: std::sync::atomic::AtomicU64,
    /// Connections of clients that are open.
    pub active: std::sync::atomic::AtomicU64,
    /// Connections of clients that were refused because `max_connections` was reached.
    pub refused: std::sync::atomic::AtomicU64,
    /// Connections of clients that were closed because their address had reached its limit.
    pub refused_of_address: std::sync::atomic::AtomicU64,
    /// Requests received.
    pub requests: std::sync::atomic::AtomicU64,
    /// Connections of clients that were closed because they abuse HTTP/2.
    pub abusive: std::sync::atomic::AtomicU64,
    /// Connections to endpoints.
    pub pool: PoolFigures,
}

/// A worker's reference to the snapshot.
struct Seen(Arc<Snapshot>);

/// One thread of the data plane.
struct Worker {
    published: Arc<Published>,
    /// The snapshot last seen and its number. Requests hold it by `Rc`, so that two workers never
    /// touch the same reference count.
    snapshot: RefCell<Rc<Seen>>,
    generation: Cell<u64>,
    pool: Rc<Pool>,
    limits: Arc<ConnectionLimits>,
    counters: Arc<Counters>,
    settings: config::Proxy,
    /// The connections that are open, by number.
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    numbers: accept::Numbers,
    /// Whether the worker goes on.
    stage: Cell<client::Stage>,
    unserved: Unserved,
    /// Where its requests are logged, if they are.
    access_log: Option<Rc<access_log::Writer>>,
    /// The time of the last check of the connections.
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

/// A request as it was received.
struct Inbound<'a> {
    /// The snapshot that all stages read.
    seen: &'a Seen,
    parts: &'a mut Parts,
    /// Its body, if it has one.
    upload: Option<Rc<Upload>>,
    from: &'a ClientRequest,
    /// The client that its headers name, if the peer of its connection is trusted.
    named: Option<Box<ClientAddress>>,
    started: Instant,
    /// Its policies, if it has any.
    run: Option<Box<Run>>,
    /// The route that it takes, once that is known.
    route: Option<Uuid>,
    /// What is noted for its record, if a reader of that needs it.
    trace: Option<Box<Trace>>,
    /// Whether the client accepts trailers. A policy may accept them in its place.
    takes_trailers: bool,
    /// Whether it has a response.
    is_answered: bool,
}

/// Answers one request.
fn handle(
    worker: Rc<Worker>,
    from: ClientRequest,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    let started = Instant::now();
    worker
        .counters
        .requests
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (mut parts, incoming) = request.into_parts();
    let patience = worker.settings.client_body_timeout;
    let trailers = HeadLimit::new(&worker.settings);
    let upload = (!incoming.is_end_stream())
        .then(|| Upload::new(incoming, &parts.headers, patience, trailers));
    // hyper copies the future of each request several times, and this one has room for all that
    // outlives a wait, two kilobytes. To allocate it takes less.
    Box::pin(async move {
        let answered = answer_to(&worker, &from, &mut parts, upload, started).await;
        Ok(answered.into_response(from))
    })
}

/// Finds the answer to a request: has it go through the stages, and concludes.
async fn answer_to(
    worker: &Rc<Worker>,
    from: &ClientRequest,
    parts: &mut Parts,
    upload: Option<Rc<Upload>>,
    started: Instant,
) -> Answered {
    // Before the request gets the form of HTTP/1.1.
    let asks_for_tunnel = parts.version == Version::HTTP_2 && parts.method == Method::CONNECT;
    let seen = worker.snapshot();
    let mut inbound = Inbound {
        seen: &seen,
        named: client_address::named(
            &worker.settings.real_ip,
            from.client.info.trust,
            &parts.headers,
        ),
        takes_trailers: lists(&parts.headers, &TE, "trailers"),
        parts,
        upload,
        from,
        started,
        run: None,
        route: None,
        trace: None,
        is_answered: false,
    };
    let asked = debug::DebugScope::of(&worker.settings, &mut inbound.parts.headers);
    if asked.any() || inbound.wants().trace {
        inbound.trace = Some(Box::default());
    }
    let id = from.id;
    let answered = {
        // Pinned in place and never moved: the future is large.
        let mut answering = pin!(stages(worker, &mut inbound));
        poll_fn(|cx| {
            let _scope = request_log::enter(Some(id.digits()));
            answering.as_mut().poll(cx)
        })
        .await
    };
    let mut made = match &answered {
        Ok(_) => Made {
            source: Source::Endpoint,
            reason: None,
        },
        Err(reject) => Made {
            source: Source::Gateway,
            reason: Some(reject.code()),
        },
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(reject) => Box::pin(refuse(worker, &inbound, reject)).await,
    };
    if asks_for_tunnel && response.status().is_success() {
        deny_tunnel(worker, &inbound, &mut response, &mut made);
    }
    conclude(inbound, &asked, made, response)
}

/// The response to a request that has failed at some stage. This is the only place where an error
/// becomes a response.
async fn refuse(worker: &Worker, inbound: &Inbound<'_>, reject: Reject) -> Response<Content> {
    let (id, started, sent) = (inbound.from.id, inbound.started, worker.settings.headers);
    // Over HTTP/2, the rest of a body is of no concern to other requests.
    let upload = inbound.upload.as_ref().filter(|_| !inbound.is_http2());
    let ends = upload.is_some_and(|upload| {
        // A client that waits for 100 (Continue) does not send the body now, and reading it would
        // send that response (RFC 9110, 10.1.1).
        let waits = upload.received() == 0 && inbound.parts.headers.contains_key(EXPECT);
        waits || upload.is_broken() || reject.is_clients_fault()
    });
    if let Some(upload) = upload.filter(|_| !ends) {
        Box::pin(upload.discard()).await;
    }
    let headers = &inbound.parts.headers;
    let ends = ends || (reject.closes_connection() && !inbound.is_http2());
    let mut response = match reject {
        Reject::Policy(answer) if answer.proxied => respond::proxied(*answer, &id, started, sent),
        reject => respond::reject(&reject, headers, &id, started, sent),
    };
    if ends {
        close_after(response.headers_mut());
    }
    response.map(Content::own)
}

/// Replaces the success of a CONNECT that has opened no tunnel, such as the response of a policy:
/// to the client it would mean that the tunnel is open.
fn deny_tunnel(
    worker: &Worker,
    inbound: &Inbound<'_>,
    response: &mut Response<Content>,
    made: &mut Made,
) {
    if matches!(response.body(), Content::Tunnel(_)) {
        return;
    }
    made.reason = Some("no_tunnel");
    let (id, started, sent) = (inbound.from.id, inbound.started, worker.settings.headers);
    let reject = Reject::HttpServer(StatusCode::BAD_GATEWAY);
    let refusal = respond::reject(&reject, &inbound.parts.headers, &id, started, sent);
    *response = refusal.map(Content::own);
    // An error of gRPC would be a 200.
    *response.status_mut() = StatusCode::BAD_GATEWAY;
}

/// Has policies change the response, and the logs and the page get the request.
fn conclude(
    mut inbound: Inbound<'_>,
    asked: &debug::DebugScope,
    made: Made,
    mut response: Response<Content>,
) -> Answered {
    if TRAFFIC.takes_requests() {
        inbound.show(response.status());
    }
    let debugged = match &inbound.trace {
        Some(trace) if asked.any() => {
            let policy = inbound.run.as_ref().and_then(|run| run.answered_by());
            Some(asked.headers(trace, inbound.started, made.reason, policy))
        }
        _ => None,
    };
    let run = inbound.run.take().or_else(|| match made.source {
        Source::Gateway => Run::unmatched(&inbound.seen.0.policies, &inbound),
        Source::Endpoint => None,
    });
    let version = inbound.parts.version;
    let is_bodiless = policies::has_no_body(&inbound.parts.method, response.status());
    inbound.is_answered = true;
    let finish = match run {
        None if inbound.is_logged() => policies::log(&response, made, &mut inbound),
        None => None,
        Some(run) => {
            let (finished, finish) = policies::respond(run, response, made, &mut inbound);
            response = finished;
            finish
        }
    };
    drop(inbound);
    if let Some(debugged) = debugged {
        // After the policies, since one of them may store the response for other clients.
        response.headers_mut().extend(debugged);
    }
    Answered {
        response,
        finish,
        version,
        is_bodiless,
    }
}

/// Runs the stages of a request, all with the same snapshot. The last stage, `record`, ends with
/// the body of the response.
async fn stages(
    worker: &Rc<Worker>,
    inbound: &mut Inbound<'_>,
) -> Result<Response<Content>, Reject> {
    inbound.check_coding()?;
    if inbound.is_http2() {
        http2::adopt(inbound.parts, &worker.settings)?;
    }
    let challenges = &worker.published.challenges;
    if let Some(answer) = challenges.http_answer(inbound.parts.uri.path()) {
        let answer = Answer::raw(StatusCode::OK, answer);
        let answer = answer.with_header(CONTENT_TYPE, "application/octet-stream");
        return Err(Reject::Challenge(Box::new(answer)));
    }
    let snapshot = &*inbound.seen.0;
    let mut matched = matched::find(snapshot, inbound)?;
    inbound.route = Some(matched.route.id);
    let route = matched.route;
    let chain = snapshot.policies.of_route(route.id, route.service);
    if inbound.trace.is_none() && chain.is_some_and(|chain| chain.records()) {
        inbound.trace = Some(Box::default());
    }
    if let Some(trace) = &mut inbound.trace {
        let service = route.service.and_then(|id| snapshot.services.get(&id));
        trace.note_match(route, service.map(|service| &**service));
    }
    access::check(inbound, &matched)?;
    let upgrade = Upgrade::asked(inbound.parts);
    if let Some(chain) = chain {
        // Boxed, so that this future stays small for routes without policies.
        let decided = Box::pin(policies::access(chain, inbound, &mut matched)).await;
        if let Some(trace) = &inbound.trace {
            trace.note_access();
        }
        decided?;
    }
    let service = place::service(snapshot, matched.route)?;
    let body = match &inbound.upload {
        None => None,
        // Boxed, so that this future stays small: most requests have no body.
        Some(upload) => Box::pin(place::read_ahead(worker, matched.route, service, upload)).await?,
    };
    let facts = place::facts(inbound, &matched, body.as_ref());
    let affinity = place::affinity(service, &facts);
    let protocol = upgrade.as_ref().map(|upgrade| &upgrade.protocol);
    let outbound = Outbound::new(inbound, &matched, service, &facts, affinity.value, protocol);
    let exchanged = exchange::exchange(worker, &outbound).await?;
    answer::answer(inbound, service, exchanged, &affinity, upgrade)
}

impl Drop for Inbound<'_> {
    /// A request that was not answered: its client has disconnected.
    fn drop(&mut self) {
        let run = self.run.take();
        if run.is_some() || (!self.is_answered && self.is_logged()) {
            let _scope = request_log::enter(Some(self.from.id.digits()));
            policies::abandoned(run, self);
        }
    }
}

impl Inbound<'_> {
    /// The connection that the request was received on.
    fn connection(&self) -> &ConnectionInfo {
        &self.from.client.info
    }

    /// Whether requests are logged.
    fn is_logged(&self) -> bool {
        self.connection().listener.access_log.is_some()
    }

    /// What the log of requests needs to know.
    fn wants(&self) -> Wants {
        let log = &self.connection().listener.access_log;
        log.as_ref().map_or(Wants::default(), |log| log.wants())
    }

    /// The client that has sent the request.
    fn client(&self) -> &ClientAddress {
        let named = self.named.as_deref();
        named.unwrap_or_else(|| self.connection().client())
    }

    /// The scheme of the client's request. A trusted peer may say that it differs from that of its
    /// own connection.
    fn scheme(&self) -> Scheme {
        let connection = self.connection();
        let kept = connection.trust.keeps_forwarded;
        let sent = kept.then(|| self.parts.headers.get(headers::X_FORWARDED_PROTO));
        match sent.flatten() {
            None => connection.listener.scheme,
            Some(scheme) if scheme.as_bytes().eq_ignore_ascii_case(b"https") => Scheme::Https,
            Some(_) => Scheme::Http,
        }
    }

    /// Whether the request was received over HTTP/2.
    fn is_http2(&self) -> bool {
        self.parts.version == Version::HTTP_2
    }

    /// Adds the request, which is answered with this status, to the live traffic, which the Admin
    /// API shows.
    #[cold]
    fn show(&self, status: StatusCode) {
        let (took, now) = (self.started.elapsed(), clock::micros(Instant::now()));
        TRAFFIC.note_request(self.route, status.as_u16(), took, now, || {
            let host = self.parts.headers.get(HOST);
            let host = host.and_then(|host| host.to_str().ok());
            RequestSample {
                route: self.route,
                method: sampled(self.parts.method.as_str()),
                host: sampled(host.unwrap_or_default()),
                path: sampled(self.parts.uri.path()),
                client: self.client().address.ip().to_string(),
                status: status.as_u16(),
                took,
                at: now,
            }
        });
    }

    /// Refuses a body with a transfer coding other than `chunked`, or with a length beside it.
    fn check_coding(&self) -> Result<(), Reject> {
        let chunked = (self.upload.as_ref()).is_some_and(|upload| upload.length().is_none());
        let refusal = chunked.then(|| transfer_coding::refusal(&self.parts.headers));
        match refusal.flatten() {
            Some(status) => Err(Reject::TransferCoding(status)),
            None if self.from.has_two_lengths => Err(Reject::bad_request()),
            None => Ok(()),
        }
    }
}
