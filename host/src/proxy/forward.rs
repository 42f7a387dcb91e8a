//! Sends a request to an endpoint, and to another one while that is safe.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use thiserror::Error;

use super::body::{Content, Exchange, RequestBody, Stage, Upload};
use super::client::Client;
use super::connect::{self, connect};
use super::headers::{self, Forwarded, RequestId};
use super::pool::Connection;
use super::respond::Reject;
use super::upgrade::Upgrade;
use super::{Worker, path};
use crate::balancer::{self, Choice};
use crate::snapshot::Service;
use crate::upstream::{Endpoint, InFlight, Upstream};

/// A request as the client sent it and its route sees it.
pub(super) struct Inbound<'a> {
    /// The target of the request to the upstream.
    pub(super) uri: Uri,
    /// What `strip_path` removed.
    pub(super) prefix: &'a [u8],
    /// The `Host` of the client.
    pub(super) host_header: &'a str,
    /// The same without port, in lower case.
    pub(super) host: &'a str,
    /// Path as the client sent it, without the query.
    pub(super) path: &'a [u8],
    /// Whether `host_header` is sent on.
    pub(super) preserve_host: bool,
    pub(super) client: &'a Rc<Client>,
    pub(super) id: &'a RequestId,
    pub(super) started: Instant,
}

/// Why a try failed.
#[derive(Debug, Error)]
enum Failure {
    /// The request was not sent.
    #[error("{0}")]
    Connect(connect::Error),
    /// The exchange broke off before the head of a response.
    #[error("no valid response: {0}")]
    Exchange(hyper::Error),
    /// The endpoint took or sent nothing for too long.
    #[error("no response in time")]
    Timeout,
    /// The client sent nothing for too long.
    #[error("the client did not send the body in time")]
    ClientTimeout,
    /// What the client sent is no body.
    #[error("the client's body is broken: {0}")]
    ClientBroken(hyper::Error),
}

impl Failure {
    fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout | Self::Connect(connect::Error::Timeout))
    }
}

/// A request ready to be tried, again and again if need be.
struct Outbound<'a> {
    method: Method,
    uri: Uri,
    headers: Headers,
    forwarded: Forwarded<'a>,
    upload: Option<Rc<Upload>>,
    preserved_host: Option<&'a str>,
}

/// The headers of a request that is to be sent.
enum Headers {
    /// As the client sent them. A copy of these is smaller than one of what is sent, and is made only
    /// for a request that may be repeated after it was sent.
    Received(HeaderMap),
    /// As they are sent, but for `Host`.
    Prepared(HeaderMap),
}

/// Sends a request to the service and returns the head of the response; its body follows as it
/// comes in.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    service: &Service,
    inbound: Inbound<'_>,
    mut parts: Parts,
    incoming: Incoming,
) -> Result<Response<Content>, Reject> {
    let upgrade = Upgrade::asked(&mut parts);
    let upload = (!incoming.is_end_stream()).then(|| Upload::new(incoming));
    let outbound = Outbound {
        method: parts.method,
        uri: inbound.uri,
        headers: Headers::Received(parts.headers),
        forwarded: Forwarded {
            client: inbound.client,
            host: inbound.host,
            path: inbound.path,
            prefix: inbound.prefix,
            id: inbound.id,
            http_1_0: parts.version < Version::HTTP_11,
            upgrade: upgrade.as_ref().map(|upgrade| &upgrade.protocol),
            chunked: upload
                .as_ref()
                .is_some_and(|upload| upload.length().is_none()),
        },
        upload,
        preserved_host: inbound.preserve_host.then_some(inbound.host_header),
    };
    let (mut response, exchange, times) = tries(worker, service, outbound, inbound.started).await?;
    headers::to_client(response.headers_mut(), inbound.id, times.0, times.1);
    *response.version_mut() = Version::HTTP_11;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade {
            Some(upgrade) => Ok(upgrade.tunnel(response, exchange, Rc::clone(inbound.client))),
            // Nobody asked for it.
            None => Err(Reject::Upstream {
                timeout: false,
                latencies: times,
            }),
        };
    }
    Ok(response.map(|body| Content::streamed(body, exchange, service.read_timeout)))
}

/// Tries endpoints until one answers: 1 + `retries` at most. Returns the response with the time
/// spent with the upstream and the time spent by us.
async fn tries(
    worker: &Rc<Worker>,
    service: &Service,
    mut outbound: Outbound<'_>,
    started: Instant,
) -> Result<(Response<Incoming>, Exchange, (Duration, Duration)), Reject> {
    let upstream = &*service.upstream;
    // No allocation unless a try fails.
    let mut tried = Vec::new();
    let mut attempt = 0;
    let first_try = Instant::now();
    let proxy = first_try - started;
    // Read once a try: the clock is asked some fifty thousand times a second as it is.
    let mut now = first_try;
    loop {
        let endpoint = pick(worker, upstream, now, attempt, &tried)?;
        let id = endpoint.id;
        let failure = match once(worker, service, endpoint, &mut outbound, now).await {
            Ok((response, exchange)) => {
                return Ok((response, exchange, (first_try.elapsed(), proxy)));
            }
            Err(failure) => failure,
        };
        let last = attempt >= service.retries || !outbound.can_be_repeated(&failure);
        tracing::debug!(
            upstream = &*upstream.name,
            attempt,
            "a try failed: {failure}"
        );
        if last {
            tracing::warn!(service = service.name, attempt, "no answer: {failure}");
            return Err(match failure {
                Failure::ClientTimeout => Reject::Engine(StatusCode::REQUEST_TIMEOUT),
                Failure::ClientBroken(_) => Reject::bad_request(),
                _ => Reject::Upstream {
                    timeout: failure.is_timeout(),
                    latencies: (first_try.elapsed(), proxy),
                },
            });
        }
        tried.push(id);
        attempt += 1;
        now = Instant::now();
    }
}

fn pick(
    worker: &Worker,
    upstream: &Upstream,
    now: Instant,
    attempt: u32,
    tried: &[u64],
) -> Result<Arc<Endpoint>, Reject> {
    let now = now.saturating_duration_since(worker.epoch).as_micros();
    let request = balancer::Request {
        now: u64::try_from(now).unwrap_or(u64::MAX),
        entropy: fastrand::u64(..),
        affinity: None,
        attempt,
    };
    match upstream.pick(request, tried) {
        Choice::Endpoint(endpoint) => Ok(endpoint),
        Choice::Refused | Choice::Empty => Err(Reject::NoPeer {
            upstream: upstream.named,
        }),
    }
}

impl Outbound<'_> {
    /// Whether the request may be sent again after this failure: it never reached an endpoint, or
    /// doing it twice does no harm and nothing of its body is gone.
    fn can_be_repeated(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Connect(_) => true,
            Failure::Exchange(_) | Failure::Timeout => self.is_idempotent() && self.is_whole(),
            Failure::ClientTimeout | Failure::ClientBroken(_) => false,
        }
    }

    /// As nginx has it: all but these, unknown methods included.
    fn is_idempotent(&self) -> bool {
        self.method != Method::POST
            && self.method != Method::PATCH
            && self.method.as_str() != "LOCK"
    }

    fn is_whole(&self) -> bool {
        self.upload
            .as_ref()
            .is_none_or(|upload| upload.stage() == Stage::Untouched)
    }

    /// The request as it is sent to a target with this `Host`.
    fn request(&mut self, host: HeaderValue) -> Request<RequestBody> {
        let keep = self.is_idempotent() && self.is_whole();
        let mut headers = match &mut self.headers {
            Headers::Received(received) => {
                let mut headers = std::mem::take(received);
                if keep {
                    received.clone_from(&headers);
                }
                headers::to_upstream(&mut headers, self.forwarded);
                headers
            }
            Headers::Prepared(prepared) if keep => prepared.clone(),
            Headers::Prepared(prepared) => std::mem::take(prepared),
        };
        headers.insert(HOST, host);
        let mut request = Request::new(RequestBody::new(self.upload.as_ref()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

/// One try with one endpoint.
async fn once(
    worker: &Rc<Worker>,
    service: &Service,
    endpoint: Arc<Endpoint>,
    outbound: &mut Outbound<'_>,
    mut now: Instant,
) -> Result<(Response<Incoming>, Exchange), Failure> {
    let in_flight = InFlight::new(endpoint);
    let endpoint = in_flight.endpoint();
    let mut connection = idle_connection(worker, endpoint).await;
    loop {
        let mut chosen = match connection.take() {
            Some(idle) => idle,
            // Not part of this future itself, which is copied for every request: connecting is rare.
            None => Box::pin(connect(
                endpoint.address,
                service.connect_timeout,
                worker.settings.max_header_size,
            ))
            .await
            .map_err(Failure::Connect)
            .inspect(|_| now = Instant::now())?,
        };
        let reused = chosen.requests > 0;
        chosen.requests += 1;
        let request = outbound.request(host_for(endpoint, service, outbound.preserved_host));
        let sending = chosen.sender.try_send_request(request);
        let limits = Limits {
            service,
            client_body: worker.settings.client_body_timeout,
        };
        let upload = outbound.upload.as_deref();
        match limits.watch(sending, now, &mut chosen, upload).await? {
            Ok(response) => {
                let exchange = Exchange {
                    connection: chosen,
                    worker: Rc::clone(worker),
                    upload: outbound.upload.clone(),
                    in_flight,
                };
                return Ok((response, exchange));
            }
            Err(mut error) => {
                let unsent = error.take_message();
                let sent = unsent.is_none();
                if let Some(unsent) = unsent {
                    outbound.headers = Headers::Prepared(unsent.into_parts().0.headers);
                }
                let error = error.into_error();
                if upload.is_some_and(|upload| upload.stage() == Stage::Broken) {
                    return Err(Failure::ClientBroken(error));
                }
                // The endpoint has closed a connection that was idle, as it may at any time: that is
                // no failure of the endpoint, so the same one is tried on a new connection.
                if reused && (!sent || (outbound.is_idempotent() && outbound.is_whole())) {
                    continue;
                }
                return Err(if sent {
                    Failure::Exchange(error)
                } else {
                    Failure::Connect(connect::Error::Http(error))
                });
            }
        }
    }
}

/// An idle connection that is ready.
async fn idle_connection(worker: &Worker, endpoint: &Endpoint) -> Option<Connection> {
    while let Some(mut connection) = worker.pool.take(endpoint.address) {
        // Not ready at once only while hyper still clears up after the last response.
        if connection.sender.ready().await.is_ok() {
            return Some(connection);
        }
    }
    None
}

/// How long each part of an exchange may stand still.
struct Limits<'a> {
    service: &'a Service,
    client_body: Duration,
}

impl Limits<'_> {
    /// Waits for the head of the response, no longer than the part that stands still may.
    async fn watch<T>(
        &self,
        sending: impl Future<Output = Result<T, TrySendError<Request<RequestBody>>>>,
        sent: Instant,
        connection: &mut Connection,
        upload: Option<&Upload>,
    ) -> Result<Result<T, TrySendError<Request<RequestBody>>>, Failure> {
        // Nothing wakes this when the body moves on to a stage with a shorter limit, so the timer is
        // never set further than the shortest of them.
        let step = match upload {
            None => self.service.read_timeout,
            Some(_) => (self.service.read_timeout)
                .min(self.service.write_timeout)
                .min(self.client_body),
        };
        let mut sending = pin!(sending);
        let timer = &mut connection.timer;
        timer.as_mut().reset((sent + step).into());
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = sending.as_mut().poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            while timer.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                let (deadline, failure) = self.deadline(upload, sent);
                if deadline <= now {
                    return Poll::Ready(Err(failure));
                }
                timer.as_mut().reset(deadline.min(now + step).into());
            }
            Poll::Pending
        })
        .await
    }

    /// Until when the exchange may stay as it is, and what has happened if it does.
    fn deadline(&self, upload: Option<&Upload>, sent: Instant) -> (Instant, Failure) {
        let service = self.service;
        let Some(upload) = upload else {
            return (sent + service.read_timeout, Failure::Timeout);
        };
        let since = upload.since();
        match upload.stage() {
            Stage::Untouched => (sent + service.write_timeout, Failure::Timeout),
            Stage::Endpoint => (since + service.write_timeout, Failure::Timeout),
            Stage::Client => (since + self.client_body, Failure::ClientTimeout),
            Stage::Done | Stage::Broken => (since + service.read_timeout, Failure::Timeout),
        }
    }
}

/// The `Host` that a target gets: the client's, the upstream's with the target's port unless that is
/// http's, or its own.
fn host_for(endpoint: &Endpoint, service: &Service, preserved: Option<&str>) -> HeaderValue {
    let value = |host: &str| HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""));
    match (preserved, service.upstream.host_header.as_deref()) {
        (Some(host), _) => value(host),
        (None, None) => value(&endpoint.authority),
        (None, Some(host)) => match endpoint.address.port() {
            80 => value(host),
            port => value(&format!("{host}:{port}")),
        },
    }
}

/// The target of the request to the upstream, in origin form (RFC 9112, 3.2.1).
pub(super) fn upstream_uri(
    base: &str,
    target: &PathAndQuery,
    normalized: &[u8],
    stripped: usize,
) -> Result<Uri, Reject> {
    if base == "/" && stripped == 0 && normalized == target.path().as_bytes() {
        return Ok(Uri::from(target.clone()));
    }
    let mut sent = path::rewrite(base, normalized, stripped);
    if let Some(query) = target.query() {
        sent.push(b'?');
        sent.extend_from_slice(query.as_bytes());
    }
    let target = PathAndQuery::from_maybe_shared(bytes::Bytes::from(sent));
    target.map(Uri::from).map_err(|_| Reject::bad_request())
}
