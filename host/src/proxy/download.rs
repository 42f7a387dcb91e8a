//! The body of a response on its way through: streamed a frame at a time, with the pace of the
//! slower side.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Worker;
use super::client::ClientRequest;
use super::record::Awaited;
use super::wire::{self, Exchange};
use crate::endpoint::{Endpoint, InFlight, Outcome};
use crate::request_log;
use crate::snapshot::Service;

/// What ends a body early.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response on its way to the client. The request ends with it.
pub(super) struct ResponseBody {
    content: Content,
    request: ClientRequest,
}

/// Where the body of a response comes from.
pub(super) enum Content {
    /// Made by the gateway.
    Own(Option<Bytes>),
    /// Sent by an endpoint.
    Streamed(Box<Download>),
}

/// A response as it comes in from an endpoint.
pub(super) struct Download {
    /// None once the body has ended and the connection is back in the pool.
    request: Option<UpstreamRequest>,
    /// The length of a body that the response describes and does not have.
    described: Option<u64>,
    read_timeout: Duration,
    /// Whether the last poll found nothing to read, and so set the timer.
    waiting: bool,
    /// Why it has broken off, until hyper is told.
    broken: Option<Error>,
    /// What is reported when it ends, if that is to be known only then.
    awaited: Option<Awaited>,
}

/// What it says of the endpoint that a body does not come to its end.
enum End {
    /// It is the endpoint's doing.
    Failed(Outcome),
    /// It is not: the body was well so far.
    Innocent,
}

/// What a request holds while it is with an endpoint.
pub(super) struct UpstreamRequest {
    pub(super) exchange: Exchange,
    /// Whose connection it is.
    pub(super) worker: Rc<Worker>,
    /// Counts it at its endpoint.
    pub(super) in_flight: InFlight,
    /// When it has to end because its endpoint leaves.
    pub(super) drain: Drain,
}

/// Says when a request has to end because its endpoint was deleted or is unhealthy.
#[derive(Default)]
pub(super) struct Drain(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Drain {
    /// What an upstream asks for. A request that is sent to an unhealthy endpoint on purpose, as a
    /// trial is, ends when it ends.
    pub(super) fn of(service: &Service, endpoint: &Endpoint) -> Self {
        let drains = service.upstream.drains() && !endpoint.is_leaving();
        Self(drains.then(|| Box::pin(endpoint.drained()) as Pin<Box<dyn Future<Output = ()>>>))
    }

    /// Ready when the request has to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (self.0.as_mut()).map_or(Poll::Pending, |drained| drained.as_mut().poll(cx))
    }
}

impl ResponseBody {
    pub(super) fn new(content: Content, request: ClientRequest) -> Self {
        Self { content, request }
    }

    fn log_scope(&self) -> request_log::Scope {
        request_log::enter(Some(self.request.id.digits()))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let _scope = self.log_scope();
        self.content = Content::Own(None);
    }
}

impl Content {
    /// The body of a response whose head has come in.
    pub(super) fn streamed(
        request: UpstreamRequest,
        awaited: Option<Awaited>,
        read_timeout: Duration,
    ) -> Self {
        let mut download = Download {
            described: request.exchange.described_length(),
            request: Some(request),
            read_timeout,
            waiting: false,
            broken: None,
            awaited,
        };
        if download.is_done() {
            download.finish();
        }
        Self::Streamed(Box::new(download))
    }

    /// Its length in bytes, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Own(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(download) => match &download.request {
                Some(request) => request.exchange.body_left(),
                None => Some(download.described.unwrap_or(0)),
            },
        }
    }
}

impl Download {
    /// Whether all of the body was read.
    fn is_done(&self) -> bool {
        match &self.request {
            Some(request) => request.exchange.is_body_done(),
            None => self.broken.is_none(),
        }
    }

    /// The body has ended: the connection can serve another request, unless the endpoint answered
    /// before it had read this one.
    fn finish(&mut self) {
        if let Some(request) = self.request.take() {
            if let Some(awaited) = self.awaited.take() {
                awaited.answered(&request.in_flight);
            }
            let now = request.worker.clock.get();
            request.worker.pool.put(request.exchange, now);
        }
    }

    /// The next frame of the body; none at its end. While the client is `stalled`, nothing is read
    /// for it, and the endpoint is not to blame for the time that passes.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        stalled: bool,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(request) = &mut self.request else {
            return Poll::Ready(None);
        };
        let polled = if stalled {
            request.exchange.yield_memory();
            // Its own body goes on meanwhile: a client may send all of it before it reads.
            match request.exchange.poll_send(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Some(Err(error))),
            }
        } else {
            request.exchange.poll_frame(cx)
        };
        match polled {
            Poll::Ready(frame) => {
                self.waiting = false;
                Poll::Ready(match frame {
                    None => {
                        self.finish();
                        None
                    }
                    Some(Ok(frame)) => Some(Ok(frame)),
                    Some(Err(error @ wire::Error::Client(_))) => {
                        Some(Err(self.break_off(End::Innocent, error.into())))
                    }
                    Some(Err(error)) => {
                        let end = End::Failed(Outcome::Broken);
                        Some(Err(self.break_off(end, error.into())))
                    }
                })
            }
            Poll::Pending if request.drain.poll(cx).is_ready() => {
                let error = "the upstream server was taken out".into();
                Poll::Ready(Some(Err(self.break_off(End::Innocent, error))))
            }
            Poll::Pending if stalled => Poll::Pending,
            Poll::Pending => {
                ready!(self.poll_timeout(cx));
                let end = End::Failed(Outcome::Timeout);
                let error = "the upstream server sent nothing for too long".into();
                Poll::Ready(Some(Err(self.break_off(end, error))))
            }
        }
    }

    /// The body will not come to its end.
    fn break_off(&mut self, end: End, error: Error) -> Error {
        if let (Some(request), Some(awaited)) = (self.request.take(), self.awaited.take()) {
            match end {
                End::Failed(outcome) => awaited.failed(&request.in_flight, outcome, &error),
                End::Innocent => awaited.answered(&request.in_flight),
            }
        }
        error
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(request) = &mut self.request else {
            return Poll::Pending;
        };
        let mut timer = request.exchange.timer();
        if !self.waiting {
            self.waiting = true;
            timer
                .as_mut()
                .reset((Instant::now() + self.read_timeout).into());
        }
        timer.poll(cx)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A body of known length is dropped as soon as its last byte is read.
        if self.is_done() {
            self.finish();
        } else if let (Some(request), Some(awaited)) = (&self.request, &self.awaited) {
            // The client has left, so how it would have ended is not known.
            awaited.answered(&request.in_flight);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let _scope = this.log_scope();
        let Self { content, request } = this;
        let client = &request.client;
        let download = match content {
            Content::Own(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Streamed(download) => download,
        };
        if download.broken.is_none() {
            // A client that takes nothing is not to fill hyper's buffer, which asks again once it
            // has sent what it has.
            let stalled = client.backlog.has_unsent();
            let frame = ready!(download.poll_frame(cx, stalled)).transpose();
            match frame {
                Ok(frame) => return Poll::Ready(frame.map(Ok)),
                Err(error) => {
                    download.broken = Some(error);
                    client.backlog.watch();
                }
            }
        }
        // The head is out, so no status is left to choose: the connection is cut. An error makes
        // hyper forget what it has not written yet, so what came before goes out first.
        ready!(client.backlog.poll_flushed(cx));
        Poll::Ready(download.broken.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            // hyper leaves out the length of a 304 unless it takes it for that of a body.
            Content::Streamed(download) => download.described.is_none() && download.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.content.length();
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
