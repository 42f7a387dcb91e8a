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
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use thiserror::Error;

use super::body::{Exchange, RequestBody, ResponseBody, Stage, Upload};
use super::connect::{self, connect};
use super::headers::{self, Client, Forwarded, RequestId};
use super::pool::Connection;
use super::respond::Reject;
use super::upgrade::{self, Upgrade};
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
    pub(super) client: &'a Client,
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
    headers: HeaderMap,
    upload: Option<Rc<Upload>>,
    preserved_host: Option<&'a str>,
}

/// Sends a request to the service and returns the head of the response; its body follows as it
/// comes in.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    service: &Service,
    inbound: Inbound<'_>,
    mut parts: Parts,
    incoming: Incoming,
) -> Result<Response<ResponseBody>, Reject> {
    let upgrade = Upgrade::asked(&mut parts);
    let mut headers = parts.headers;
    headers::to_upstream(
        &mut headers,
        Forwarded {
            client: inbound.client,
            host: inbound.host,
            path: inbound.path,
            prefix: inbound.prefix,
            id: inbound.id,
            http_1_0: parts.version < Version::HTTP_11,
            upgrade: upgrade.as_ref().map(|upgrade| upgrade.protocol.clone()),
        },
    );
    let outbound = Outbound {
        method: parts.method,
        uri: inbound.uri,
        headers,
        upload: (!hyper::body::Body::is_end_stream(&incoming)).then(|| Upload::new(incoming)),
        preserved_host: inbound.preserve_host.then_some(inbound.host_header),
    };
    let (mut response, exchange, times) = tries(worker, service, outbound, inbound.started).await?;
    headers::to_client(response.headers_mut(), inbound.id, times.0, times.1);
    *response.version_mut() = Version::HTTP_11;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(upgrade::tunnel(response, exchange, upgrade));
    }
    Ok(response.map(|body| ResponseBody::streamed(body, exchange, service.read_timeout)))
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
    loop {
        let endpoint = pick(worker, upstream, attempt, &tried)?;
        let id = endpoint.id;
        let failure = match once(worker, service, endpoint, &mut outbound, attempt).await {
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
                _ => Reject::Upstream {
                    timeout: failure.is_timeout(),
                    latencies: (first_try.elapsed(), proxy),
                },
            });
        }
        tried.push(id);
        attempt += 1;
    }
}

fn pick(
    worker: &Worker,
    upstream: &Upstream,
    attempt: u32,
    tried: &[u64],
) -> Result<Arc<Endpoint>, Reject> {
    let now = worker.epoch.elapsed().as_micros();
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
            Failure::ClientTimeout => false,
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

    fn request(&mut self, host: HeaderValue, keep: bool) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::new(self.upload.as_ref()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = if keep {
            self.headers.clone()
        } else {
            std::mem::take(&mut self.headers)
        };
        request.headers_mut().insert(HOST, host);
        request
    }
}

/// One try with one endpoint.
async fn once(
    worker: &Rc<Worker>,
    service: &Service,
    endpoint: Arc<Endpoint>,
    outbound: &mut Outbound<'_>,
    attempt: u32,
) -> Result<(Response<Incoming>, Exchange), Failure> {
    let host = host_for(&endpoint, service, outbound.preserved_host);
    let in_flight = InFlight::new(endpoint);
    // The headers are needed again only where the request may be repeated after it was sent.
    let keep = attempt < service.retries && outbound.is_idempotent();
    let mut request = outbound.request(host, keep);
    loop {
        let mut connection = match connection(worker, service, in_flight.endpoint()).await {
            Ok(connection) => connection,
            Err(failure) => {
                outbound.headers = std::mem::take(request.headers_mut());
                return Err(failure);
            }
        };
        let reused = connection.requests > 0;
        connection.requests += 1;
        let sending = connection.sender.try_send_request(request);
        let upload = outbound.upload.as_deref();
        let limits = Limits {
            service,
            client_body: worker.settings.client_body_timeout,
        };
        match limits.watch(sending, &mut connection, upload).await {
            Ok(Ok(response)) => {
                let exchange = Exchange {
                    connection,
                    pool: Rc::clone(&worker.pool),
                    upload: outbound.upload.clone(),
                    in_flight,
                };
                return Ok((response, exchange));
            }
            Ok(Err(mut error)) => match error.take_message() {
                // The endpoint had closed an idle connection, and we were about to hear of it: the
                // request was not sent, so this is no failure of the endpoint.
                Some(unsent) if reused => request = unsent,
                Some(unsent) => {
                    outbound.headers = unsent.into_parts().0.headers;
                    return Err(Failure::Connect(connect::Error::Http(error.into_error())));
                }
                None => return Err(Failure::Exchange(error.into_error())),
            },
            Err(failure) => return Err(failure),
        }
    }
}

/// An idle connection that is ready, or else a new one.
async fn connection(
    worker: &Worker,
    service: &Service,
    endpoint: &Endpoint,
) -> Result<Connection, Failure> {
    while let Some(mut connection) = worker.pool.take(endpoint.address) {
        // Not ready at once only while hyper still clears up after the last response.
        if connection.sender.ready().await.is_ok() {
            return Ok(connection);
        }
    }
    connect(
        endpoint.address,
        service.connect_timeout,
        worker.settings.max_header_size,
    )
    .await
    .map_err(Failure::Connect)
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
        connection: &mut Connection,
        upload: Option<&Upload>,
    ) -> Result<Result<T, TrySendError<Request<RequestBody>>>, Failure> {
        let sent = Instant::now();
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
            Stage::Done => (since + service.read_timeout, Failure::Timeout),
        }
    }
}

/// The `Host` that a target gets: the client's, the upstream's or its own, the latter two with its
/// port unless that is http's.
fn host_for(endpoint: &Endpoint, service: &Service, preserved: Option<&str>) -> HeaderValue {
    let own = match preserved {
        Some(host) => return HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("")),
        None => service.upstream.host_header.as_deref(),
    };
    let host = own.unwrap_or(&endpoint.host);
    let port = endpoint.address.port();
    let bracketed = own.is_none() && host.contains(':');
    let text = match (bracketed, port) {
        (false, 80) => host.to_owned(),
        (false, _) => format!("{host}:{port}"),
        (true, 80) => format!("[{host}]"),
        (true, _) => format!("[{host}]:{port}"),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
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
