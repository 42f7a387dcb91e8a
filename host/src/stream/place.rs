//! The endpoint of a stream: picked by the balancer of its upstream, and another one while none
//! can be connected to.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use twox_hash::XxHash64;

use super::figures::StreamStatus;
use super::record::Recorder;
use crate::balancer::{PickRequest, RequestFacts};
use crate::clock;
use crate::connect::ConnectError;
use crate::endpoint::{EndReason, InFlight, Outcome};
use crate::policy::record::TryOutcome;
use crate::snapshot::Service;
use crate::upstream::{AffinityPolicy, Key, NoPeer, Try, Unplaced};

/// What balancers may ask about a stream: the address of its client.
struct ConnectionFacts {
    client: String,
}

impl RequestFacts for ConnectionFacts {
    fn client(&self) -> Option<Cow<'_, str>> {
        Some(self.client.as_str().into())
    }
}

/// A stream at an endpoint, which counts it as a request in flight.
pub(super) struct Placed<T> {
    pub(super) in_flight: InFlight,
    /// What was made of the connection to it.
    pub(super) connection: T,
    entropy: u64,
    picked: u64,
    /// How long it took to connect.
    took: Duration,
}

impl<T> Placed<T> {
    /// Reports the outcome to the health checks and to the balancer.
    pub(super) fn report(&self, service: &Service, outcome: Outcome, detail: &str) {
        let attempted = Try {
            upstream: &service.upstream,
            in_flight: &self.in_flight,
            entropy: self.entropy,
            picked: self.picked,
        };
        attempted.report(outcome, self.took, &detail);
    }
}

/// Picks endpoints until one can be connected to: 1 + `retries` at most. Each try may take the
/// service's `connect_timeout`.
pub(super) async fn place<T>(
    service: &Service,
    record: &mut Recorder,
    connect: impl AsyncFn(&InFlight) -> Result<T, ConnectError>,
) -> Result<Placed<T>, StreamStatus> {
    let upstream = &*service.upstream;
    if upstream.awaits_names() {
        upstream.looked_up(service.connect_timeout).await;
    }
    let client = record.source.ip().to_string();
    let affinity = affinity(upstream.policy().affinity.as_ref(), &client);
    let facts = ConnectionFacts { client };
    let mut retry_permit = upstream.retry_permit(|budget| budget);
    let mut tried = Vec::new();
    let mut attempt = 0;
    loop {
        let started = Instant::now();
        let request = PickRequest {
            now: clock::micros(started),
            entropy: fastrand::u64(..),
            affinity,
            attempt,
            last_status: None,
            facts: Some(&facts),
            note: None,
        };
        let may_trial = service.retries > 0;
        let picked = match upstream.is_limited() {
            true => {
                let patience = service.connect_timeout;
                upstream
                    .place(request, &tried, may_trial, patience, false)
                    .await
            }
            false => upstream.pick(request, &tried, may_trial),
        };
        let mut in_flight = picked.map_err(|unplaced| no_peer(service, unplaced))?;
        let connecting = Instant::now();
        let connected = tokio::time::timeout(service.connect_timeout, connect(&in_flight)).await;
        let took = connecting.elapsed();
        let error = match connected {
            Ok(Ok(connection)) => {
                upstream.note_latency(&in_flight, took);
                // A stream has no body whose first byte could be awaited.
                in_flight.note_answered();
                let address = &in_flight.endpoint().address;
                record.add_try(address, started, connecting, TryOutcome::Answered(200));
                return Ok(Placed {
                    in_flight,
                    connection,
                    entropy: request.entropy,
                    picked: request.now,
                    took,
                });
            }
            Ok(Err(error)) => error,
            Err(_) => ConnectError::Timeout,
        };
        if matches!(error, ConnectError::Full) {
            // The stream has already waited for as long as allowed, and the endpoint is not at
            // fault.
            in_flight.end_now(EndReason::Unsent);
            return Err(no_peer(service, NoPeer::Overflow));
        }
        let (outcome, of_try, why) = match error {
            ConnectError::Timeout => (Outcome::Timeout, TryOutcome::TimedOut, EndReason::Timeout),
            _ => (Outcome::Broken, TryOutcome::Failed, EndReason::Broken),
        };
        in_flight.end_now(why);
        let endpoint = in_flight.endpoint();
        record.add_try(&endpoint.address, started, connecting, of_try);
        let attempted = Try {
            upstream,
            in_flight: &in_flight,
            entropy: request.entropy,
            picked: request.now,
        };
        attempted.report(outcome, took, &error);
        let address = &endpoint.address;
        let more = attempt < service.retries
            && retry_permit
                .as_mut()
                .is_none_or(crate::upstream::RetryPermit::retry);
        if !more {
            tracing::warn!(service = &*service.name, %address, attempt, "no endpoint for a stream: {error}");
            return Err(StreamStatus::BadGateway);
        }
        tracing::debug!(service = &*service.name, %address, attempt, "a try of a stream failed: {error}");
        tried.push(endpoint.id);
        attempt += 1;
    }
}

/// The number that ties a stream to an endpoint. Of the keys of `hash_on`, a stream has the address
/// of its client only. The number is the same as for requests.
fn affinity(policy: Option<&AffinityPolicy>, client: &str) -> Option<u64> {
    match policy? {
        AffinityPolicy::Session(..) => None,
        AffinityPolicy::Hash { on, fallback, .. } => {
            let is_ip = [on, fallback].contains(&&Key::Ip);
            is_ip.then(|| XxHash64::oneshot(0, client.as_bytes()))
        }
    }
}

fn no_peer(service: &Service, unplaced: impl Into<Unplaced>) -> StreamStatus {
    let Unplaced { reason, refusal } = unplaced.into();
    let upstream = &*service.upstream;
    upstream.note_without_peer(reason);
    let (name, code) = (&*upstream.name, reason.code());
    match refusal {
        // As for a request: the balancer does what it is for. A stream has no status.
        Some(_) => tracing::debug!(upstream = name, "the balancer refused the stream"),
        None => tracing::warn!(
            upstream = name,
            reason = code,
            "no endpoint may be chosen for a stream"
        ),
    }
    StreamStatus::Unavailable
}
