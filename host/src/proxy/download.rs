//! The body of a response on its way through: streamed a frame at a time, with the pace of the slower
//! side.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::Worker;
use super::client::Client;
use super::outcome::Awaited;
use super::wire::Connection;
use crate::endpoint::{Endpoint, InFlight, Outcome};
use crate::http1::{self, Framing};
use crate::request_log;
use crate::snapshot::Service;

/// What ends a body early.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response on its way to the client. The request ends with it.
pub(super) struct ResponseBody {
    content: Content,
    client: Rc<Client>,
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
    framing: Framing,
    /// None once the body has ended and the connection is back in the pool.
    exchange: Option<Exchange>,
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
pub(super) struct Exchange {
    /// The connection that it is on.
    pub(super) connection: Box<Connection>,
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
    /// What an upstream asks for. A request that is sent to an unhealthy endpoint on purpose, as a trial
    /// is, ends when it ends.
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
    pub(super) fn new(content: Content, client: Rc<Client>) -> Self {
        Self { content, client }
    }

    fn log_scope(&self) -> request_log::Scope {
        request_log::enter(self.client.last_request().map(|id| id.digits()))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let _scope = self.log_scope();
        self.content = Content::Own(None);
        self.client.request_ends();
    }
}

impl Content {
    /// The body of a response whose head has come in.
    pub(super) fn streamed(
        framing: Framing,
        exchange: Exchange,
        awaited: Option<Awaited>,
        read_timeout: Duration,
    ) -> Self {
        let mut download = Download {
            framing,
            exchange: Some(exchange),
            read_timeout,
            waiting: false,
            broken: None,
            awaited,
        };
        if download.framing.is_done() {
            download.finish();
        }
        Self::Streamed(Box::new(download))
    }

    /// Its length in bytes, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Own(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(download) => download.framing.left(),
        }
    }
}

impl Download {
    /// The body has ended: the connection can serve another request, unless the endpoint answered
    /// before it had read this one.
    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            if let Some(awaited) = self.awaited.take() {
                awaited.answered(&exchange.in_flight);
            }
            let now = exchange.worker.clock.get();
            exchange.worker.pool.put(exchange.connection, now);
        }
    }

    /// The next piece of the body; none at its end. While the client is `stalled`, nothing is read for
    /// it, and the endpoint is not to blame for the time that passes.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        stalled: bool,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(None);
        };
        let polled = if stalled {
            exchange.connection.yield_memory();
            // Its own body goes on meanwhile: a client may send all of it before it reads.
            match exchange.connection.poll_send(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Some(Err(error))),
            }
        } else {
            exchange.connection.poll_body(cx, &mut self.framing)
        };
        match polled {
            Poll::Ready(piece) => {
                self.waiting = false;
                Poll::Ready(match piece {
                    None => {
                        self.finish();
                        None
                    }
                    Some(Ok(piece)) => Some(Ok(piece)),
                    Some(Err(error @ http1::Error::Client(_))) => {
                        Some(Err(self.break_off(End::Innocent, error.into())))
                    }
                    Some(Err(error)) => {
                        let end = End::Failed(Outcome::Broken);
                        Some(Err(self.break_off(end, error.into())))
                    }
                })
            }
            Poll::Pending if exchange.drain.poll(cx).is_ready() => {
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
        if let (Some(exchange), Some(awaited)) = (self.exchange.take(), self.awaited.take()) {
            match end {
                End::Failed(outcome) => awaited.failed(&exchange.in_flight, outcome, &error),
                End::Innocent => awaited.answered(&exchange.in_flight),
            }
        }
        error
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(exchange) = &mut self.exchange else {
            return Poll::Pending;
        };
        let timer: Pin<&mut Sleep> = exchange.connection.timer.as_mut();
        if !self.waiting {
            self.waiting = true;
            timer.reset((Instant::now() + self.read_timeout).into());
            return exchange.connection.timer.as_mut().poll(cx);
        }
        timer.poll(cx)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A body of known length is dropped as soon as its last byte is read.
        if self.framing.is_done() {
            self.finish();
        } else if let (Some(exchange), Some(awaited)) = (&self.exchange, &self.awaited) {
            // The client has left, so how it would have ended is not known.
            awaited.answered(&exchange.in_flight);
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
        let Self { content, client } = this;
        let download = match content {
            Content::Own(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Streamed(download) => download,
        };
        if download.broken.is_none() {
            // A client that takes nothing is not to fill hyper's buffer, which asks again once it
            // has sent what it has.
            let stalled = client.backlog.has_unsent();
            let frame = ready!(download.poll_piece(cx, stalled)).transpose();
            match frame {
                Ok(piece) => return Poll::Ready(piece.map(|piece| Ok(Frame::data(piece)))),
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
            Content::Streamed(download) => match download.framing {
                Framing::Described(_) => false,
                ref framing => framing.is_done(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.content.length();
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
