//! Stage exchange: sends a request to an endpoint, and retries with another one while that is safe.

mod failure;
mod limits;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::request::Parts;
use http::{Response, StatusCode};

use super::affinity::RequestFacts;
use super::client_host::ClientHost;
use super::connect::{Wanted, connect};
use super::download::{Drain, UpstreamRequest};
use super::headers::{BodyLength, Forwarded, RequestHead};
use super::matched::Matched;
use super::record::Awaited;
use super::respond::Reject;
use super::trace::Trace;
use super::upload::Upload;
use super::wire::{self, Exchange};
use super::{Inbound, Worker, place, upgrade};
use crate::connect::ConnectError;
use crate::endpoint::{EndReason, InFlight, Outcome};
use crate::policy::record::TryOutcome;
use crate::retry::Repeats;
use crate::snapshot::Service;
use crate::upstream::{NoPeer, RetryPermit, Try};
use crate::{balancer, clock};
use failure::Failure;
use limits::ProgressLimits;

/// How often a request is sent again, without counting as a try, because an endpoint closed its
/// connection in order before processing it (RFC 9113, 6.8): on a connection that had served
/// requests, of which many may end at once; and on a connection's first request, where the endpoint
/// is at fault.
const MAX_UNPROCESSED: (u32, u32) = (16, 2);

/// A request that can be sent to one endpoint after another.
pub(super) struct Outbound<'a> {
    parts: &'a Parts,
    target: Cow<'a, [u8]>,
    forwarded: Forwarded<'a>,
    upload: Option<&'a Rc<Upload>>,
    preserved_host: Option<&'a ClientHost>,
    service: &'a Service,
    repeats: Repeats<'a>,
    affinity: Option<u64>,
    facts: &'a RequestFacts<'a>,
    started: Instant,
    /// What is noted for the record of the request.
    trace: Option<&'a Trace>,
    replaced_host: Option<&'a str>,
}

impl<'a> Outbound<'a> {
    /// The request that endpoints get. `affinity` is passed to the balancer; `upgrade` is the
    /// protocol that the client asks to change to.
    pub(super) fn new(
        inbound: &'a Inbound<'_>,
        matched: &'a Matched<'_>,
        service: &'a Service,
        facts: &'a RequestFacts<'a>,
        affinity: Option<u64>,
        upgrade: Option<&'a HeaderValue>,
    ) -> Self {
        let upload = inbound.upload.as_ref();
        Self {
            parts: inbound.parts,
            target: match service.grpc {
                true => matched.sent_target(),
                false => matched.upstream_target(&service.path),
            },
            forwarded: Forwarded {
                connection: inbound.connection(),
                client: inbound.client(),
                host: matched.host.name(),
                path: matched.target.path().as_bytes(),
                prefix: matched.prefix(),
                id: &inbound.from.id,
                version: inbound.parts.version,
                upgrade,
                body: match upload.map(|upload| upload.length()) {
                    None => BodyLength::None,
                    Some(Some(length)) => BodyLength::Known(length),
                    Some(None) => BodyLength::Chunked,
                },
            },
            upload,
            preserved_host: matched.route.preserve_host.then_some(&matched.host),
            service,
            repeats: Repeats {
                route: &matched.route.retry,
                service: &service.retry,
            },
            affinity,
            facts,
            started: inbound.started,
            trace: inbound.trace.as_deref(),
            replaced_host: matched.upstream_host.as_deref(),
        }
    }
}

/// How often endpoints have not processed a request that may be sent again, in all its tries.
#[derive(Default)]
struct Unprocessed {
    shared: u32,
    first: u32,
}

impl Unprocessed {
    /// Counts one. Returns whether the request may be sent again without a further try. `is_first`
    /// is whether it was the first one of its connection.
    fn go_on(&mut self, is_first: bool) -> bool {
        let (count, most) = match is_first {
            false => (&mut self.shared, MAX_UNPROCESSED.0),
            true => (&mut self.first, MAX_UNPROCESSED.1),
        };
        *count += 1;
        *count <= most
    }
}

/// The response to a request. No further try follows.
pub(super) struct Exchanged {
    pub(super) head: Response<()>,
    /// The exchange that the body is read from.
    pub(super) request: UpstreamRequest,
    /// The time that the upstream took, and the time that the gateway took.
    pub(super) times: (Duration, Duration),
    /// What is reported when the body ends; `None` if the outcome was reported already.
    pub(super) awaited: Option<Awaited>,
}

/// Tries endpoints until one answers: 1 + `retries` at most.
pub(super) async fn exchange(
    worker: &Rc<Worker>,
    outbound: &Outbound<'_>,
) -> Result<Exchanged, Reject> {
    let service = outbound.service;
    let upstream = &*service.upstream;
    if upstream.awaits_names() {
        Box::pin(upstream.looked_up(service.connect_timeout)).await;
    }
    // Allocates only if a try fails.
    let mut tried = Vec::new();
    let (mut attempt, mut last_status) = (0, None);
    let first_try = Instant::now();
    let proxy = first_try - outbound.started;
    let mut retry_permit = upstream.retry_permit(|budget| outbound.repeats.budget(budget));
    // The clock is read only once for each try: even so, it is read some fifty thousand times a
    // second.
    let mut now = first_try;
    let mut unprocessed = Unprocessed::default();
    loop {
        let repeatable = outbound.is_idempotent() && outbound.is_replayable();
        let request = balancer::PickRequest {
            now: clock::micros(now),
            entropy: fastrand::u64(..),
            affinity: outbound.affinity,
            attempt,
            last_status,
            facts: Some(outbound.facts),
            note: outbound.trace.map(|trace| &trace.pick),
        };
        // A trial must not cost the request its body: it is allowed only if the body can be sent
        // again.
        let may_trial = repeatable && outbound.is_buffered() && service.retries > 0;
        let mut in_flight = place::pick(service, request, &tried, may_trial).await?;
        if let Some(trace) = outbound.trace {
            trace.begin_try(&in_flight.endpoint().address, &outbound.target, now);
        }
        let outcome = once(worker, &in_flight, outbound, now, &mut unprocessed).await;
        if let Ok((head, ..)) = &outcome {
            in_flight.note_head(head.status(), head.headers());
        }
        let endpoint = in_flight.endpoint();
        let attempted = Try {
            upstream,
            in_flight: &in_flight,
            entropy: request.entropy,
            picked: request.now,
        };
        let more = |repeatable, retry_permit: &mut Option<RetryPermit>| {
            attempt < service.retries
                && repeatable
                && retry_permit.as_mut().is_none_or(RetryPermit::retry)
        };
        let why = match outcome {
            Ok((head, exchange, drain)) => {
                let answered = Instant::now();
                let took = answered - now;
                let status = head.status();
                if let Some(trace) = outbound.trace {
                    trace.end_try(TryOutcome::Answered(status.as_u16()), None, answered);
                }
                upstream.report_load(endpoint, head.headers());
                upstream.note_latency(&in_flight, took);
                let failed = upstream.is_failure(status.as_u16());
                let whole = exchange.has_whole_body();
                let certain = failed || whole || status == StatusCode::SWITCHING_PROTOCOLS;
                // A failed trial costs the client nothing: it is retried if there is a healthy
                // endpoint.
                let unwanted = outbound.repeats.unwanted(status)
                    || (in_flight.is_trial() && failed && upstream.is_healthy());
                let again =
                    unwanted && more(repeatable && outbound.is_replayable(), &mut retry_permit);
                if certain || again {
                    attempted.report(Outcome::Answered(status.as_u16()), took, &status);
                }
                if !again {
                    let awaited = (!certain).then(|| Awaited {
                        upstream: Arc::clone(&service.upstream),
                        entropy: request.entropy,
                        picked: request.now,
                        status: status.as_u16(),
                        took,
                    });
                    return Ok(Exchanged {
                        head,
                        request: UpstreamRequest {
                            exchange,
                            worker: Rc::clone(worker),
                            in_flight,
                            drain,
                        },
                        times: (answered - first_try, proxy),
                        awaited,
                    });
                }
                last_status = Some(status.as_u16());
                tracing::debug!(
                    upstream = &*upstream.name,
                    attempt,
                    "status {status}: retried"
                );
                EndReason::Retried
            }
            Err(failure) => {
                let took = now.elapsed();
                if let Some(trace) = outbound.trace {
                    trace.end_try(failure.outcome(), Some(failure.code()), now + took);
                }
                match &failure {
                    // The endpoint is not at fault.
                    Failure::ClientTimeout
                    | Failure::Drained
                    | Failure::Connect(ConnectError::Full)
                    | Failure::Exchange(wire::Error::Client(_) | wire::Error::Request(_)) => {}
                    failure if failure.is_timeout() => {
                        attempted.report(Outcome::Timeout, took, failure);
                    }
                    failure => {
                        attempted.report(Outcome::Broken, took, failure);
                    }
                }
                last_status = None;
                let repeatable = outbound.can_be_repeated(&failure);
                let (name, address) = (&*upstream.name, &endpoint.address);
                tracing::debug!(upstream = name, %address, attempt, "a try failed: {failure}");
                let why = failure.end_reason();
                if !more(repeatable, &mut retry_permit) {
                    tracing::warn!(service = &*service.name, %address, attempt, "no answer: {failure}");
                    in_flight.end_now(why);
                    return Err(match failure {
                        Failure::ClientTimeout => Reject::HttpServer(StatusCode::REQUEST_TIMEOUT),
                        Failure::Connect(ConnectError::Full) => {
                            place::no_peer(upstream, NoPeer::Overflow)
                        }
                        // HTTP/2 is stricter about hosts than HTTP/1.1.
                        Failure::Exchange(wire::Error::Request(_)) => Reject::bad_request(),
                        Failure::Exchange(wire::Error::Client(error)) => outbound
                            .upload
                            .map_or_else(Reject::bad_request, |upload| upload.refusal(&error)),
                        _ => Reject::Upstream {
                            timeout: failure.is_timeout(),
                            latencies: (first_try.elapsed(), proxy),
                        },
                    });
                }
                why
            }
        };
        tried.push(endpoint.id);
        in_flight.end_now(why);
        attempt += 1;
        now = Instant::now();
    }
}

impl Outbound<'_> {
    /// Whether the request may be sent again after this failure. It may if its whole body can be
    /// sent again, and either no endpoint has processed it or it is idempotent.
    fn can_be_repeated(&self, failure: &Failure) -> bool {
        match failure {
            // The request has already waited for as long as allowed.
            Failure::Connect(ConnectError::Full) => false,
            Failure::Connect(_)
            | Failure::Exchange(wire::Error::Refused | wire::Error::GoneAway) => {
                self.is_replayable()
            }
            Failure::Exchange(wire::Error::Client(_) | wire::Error::Request(_))
            | Failure::ClientTimeout => false,
            Failure::Exchange(_) | Failure::Timeout | Failure::Drained => {
                self.is_idempotent() && self.is_replayable()
            }
        }
    }

    /// Why this response cannot be the answer to the request, if it cannot.
    fn refusal_of(&self, head: &Response<()>) -> Option<&'static str> {
        if head.status() != StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        match self.forwarded.upgrade {
            Some(_) => upgrade::mismatch(head.headers(), self.parts),
            None => Some("it changes the protocol, which the client has not requested"),
        }
    }

    fn is_idempotent(&self) -> bool {
        self.repeats.is_idempotent(&self.parts.method)
    }

    /// Whether the whole body can still be sent again.
    fn is_replayable(&self) -> bool {
        self.upload.is_none_or(|upload| upload.is_replayable())
    }

    /// Whether the whole body can be sent again after any outcome of a try.
    fn is_buffered(&self) -> bool {
        self.upload.is_none_or(|upload| upload.is_buffered())
    }
}

/// One try with one endpoint.
async fn once(
    worker: &Rc<Worker>,
    in_flight: &InFlight,
    outbound: &Outbound<'_>,
    mut now: Instant,
    unprocessed: &mut Unprocessed,
) -> Result<(Response<()>, Exchange, Drain), Failure> {
    let service = outbound.service;
    let per_try = outbound.repeats.per_try_timeout();
    let end = per_try.map(|limit| now + limit);
    let endpoint = in_flight.endpoint();
    let most = service.upstream.max_connections(endpoint);
    let upgrades = outbound.forwarded.upgrade.is_some();
    let destination = place::destination_of(
        endpoint,
        service,
        outbound.preserved_host,
        most > 0,
        upgrades,
        &outbound.forwarded,
    );
    let mut idle = worker.pool.take(&destination, worker.clock.get());
    let mut drain = Drain::of(service, endpoint);
    let host = match outbound.replaced_host {
        Some(host) => host.into(),
        None => place::host_for(endpoint, service, outbound.preserved_host),
    };
    let head = RequestHead {
        method: &outbound.parts.method,
        target: &outbound.target,
        host: &host,
        headers: &outbound.parts.headers,
        forwarded: &outbound.forwarded,
    };
    loop {
        let mut exchange = match idle.take() {
            Some(idle) => idle,
            // Boxed, because this future is copied for every request, and connecting is rare.
            None => Box::pin(connect(Wanted {
                destination: &destination,
                endpoint: in_flight.shared(),
                limit: most,
                pool: &worker.pool,
                timeout: per_try.map_or(service.connect_timeout, |limit| {
                    limit.min(service.connect_timeout)
                }),
                max_header_size: worker.settings.max_header_size,
            }))
            .await
            .map_err(Failure::Connect)
            .inspect(|_| now = Instant::now())?,
        };
        exchange.begin(outbound.upload.cloned(), &head);
        let limits = ProgressLimits {
            service,
            client_body: worker.settings.client_body_timeout,
            end,
        };
        let answer = limits.watch(&mut exchange, now, outbound, &mut drain).await;
        match answer {
            Ok(head) => {
                return match outbound.refusal_of(&head) {
                    None => Ok((head, exchange, drain)),
                    Some(refusal) => Err(Failure::Exchange(wire::Error::Response(refusal.into()))),
                };
            }
            // The endpoint has closed an idle connection, which it may do at any time. This is not
            // a failure of the endpoint, so the same endpoint is tried on a new connection.
            Err(Failure::Exchange(wire::Error::Io(_) | wire::Error::Closed))
                if exchange.is_unanswered_reuse()
                    && outbound.is_replayable()
                    && (outbound.is_idempotent() || !exchange.begun()) => {}
            // The endpoint has closed the connection in order, as after a number of requests. Many
            // requests at once may find several connections closed.
            Err(Failure::Exchange(wire::Error::GoneAway))
                if outbound.is_replayable() && unprocessed.go_on(exchange.is_first()) => {}
            // The endpoint takes no more requests on this connection.
            Err(Failure::Exchange(wire::Error::Refused))
                if outbound.is_replayable() && unprocessed.go_on(true) => {}
            Err(Failure::Exchange(wire::Error::Io(error))) if !exchange.begun() => {
                return Err(Failure::Connect(ConnectError::Io(error)));
            }
            Err(failure) => {
                if matches!(failure, Failure::Timeout) {
                    exchange.note_timeout();
                }
                return Err(failure);
            }
        }
    }
}
