//! How long an exchange may make no progress until the head of the response.

use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Method, Response};

use super::super::download::Drain;
use super::super::upload::{Stage, Upload};
use super::super::wire::Exchange;
use super::Outbound;
use super::failure::Failure;
use crate::snapshot::Service;

/// How many times the read timeout a head may take that is received in pieces, or after interim
/// responses (1xx). nginx sets no such limit, so an endpoint can hold a request for ever.
const HEAD_TIMEOUTS: u32 = 10;

/// How long each part of an exchange may make no progress.
pub(super) struct ProgressLimits<'a> {
    pub(super) service: &'a Service,
    pub(super) client_body: Duration,
    /// When the head of the response has to be received, even if the exchange makes progress.
    pub(super) end: Option<Instant>,
}

impl ProgressLimits<'_> {
    /// Waits for the head of the response, while no part of the exchange exceeds its limit.
    pub(super) async fn watch(
        &self,
        exchange: &mut Exchange,
        sent: Instant,
        outbound: &Outbound<'_>,
        drain: &mut Drain,
    ) -> Result<Response<()>, Failure> {
        let upload = outbound.upload.map(|upload| &**upload);
        // This future is not woken when the body enters a stage with a shorter limit. So the timer
        // is never set further ahead than the shortest limit.
        let step = match upload {
            None => self.service.read_timeout,
            Some(_) => (self.service.read_timeout)
                .min(self.service.write_timeout)
                .min(self.client_body),
        };
        let bodiless = outbound.parts.method == Method::HEAD;
        let first = sent + step;
        let first = self.end.map_or(first, |end| end.min(first));
        exchange.timer().reset(first.into());
        // When a part of the head was received last, or an interim response.
        let mut received = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(head) = exchange.poll_head(cx, bodiless) {
                return Poll::Ready(head.map_err(Failure::Exchange));
            }
            if exchange.take_progress() {
                received = Some(Instant::now());
            }
            if drain.poll(cx).is_ready() {
                return Poll::Ready(Err(Failure::Drained));
            }
            while exchange.timer().poll(cx).is_ready() {
                let now = Instant::now();
                let (deadline, failure) = self.deadline(upload, sent, received);
                let (deadline, failure) = match self.end {
                    Some(end) if end < deadline => (end, Failure::Timeout),
                    _ => (deadline, failure),
                };
                if deadline <= now {
                    return Poll::Ready(Err(failure));
                }
                let next = deadline.min(now + step);
                exchange.timer().reset(next.into());
            }
            Poll::Pending
        })
        .await
    }

    /// When the exchange has to make progress, and the failure if it does not.
    fn deadline(
        &self,
        upload: Option<&Upload>,
        sent: Instant,
        received: Option<Instant>,
    ) -> (Instant, Failure) {
        let service = self.service;
        let read = |since: Instant| {
            let last = received.map_or(since, |received| received.max(since));
            let end = since + service.read_timeout.saturating_mul(HEAD_TIMEOUTS);
            ((last + service.read_timeout).min(end), Failure::Timeout)
        };
        let Some(upload) = upload else {
            return read(sent);
        };
        let since = upload.since();
        match upload.stage() {
            Stage::Untouched => (sent + service.write_timeout, Failure::Timeout),
            Stage::Endpoint => (since + service.write_timeout, Failure::Timeout),
            Stage::Client => (upload.due(), Failure::ClientTimeout),
            Stage::Done | Stage::Broken => read(since),
        }
    }
}
