//! Where the body of a response comes from, which is an endpoint as a rule: it is received a frame
//! at a time, as fast as the slower side allows.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;

use super::Worker;
use super::backlog::Backlog;
use super::client::Client;
use super::record::Awaited;
use super::streams::StalledBody;
use super::tunnel::Tunnel;
use super::wire::{self, Exchange};
use crate::clock::micros;
use crate::endpoint::{EndReason, Endpoint, InFlight, Outcome};
use crate::snapshot::Service;

/// The error that ends a body early.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where the body of a response comes from.
pub(super) enum Content {
    /// Made by the gateway, or received from an endpoint as a whole.
    Own(Option<Bytes>),
    /// Sent by an endpoint.
    Streamed(Rc<RefCell<Download>>),
    /// None: the connection becomes a tunnel.
    Tunnel(Rc<Tunnel>),
}

/// A response that is being received from an endpoint.
pub(super) struct Download {
    /// None once the body has ended and the connection is back in the pool.
    request: Option<UpstreamRequest>,
    /// The length that the head gives for a body that the response does not have, as in a 304.
    described: Option<u64>,
    read_timeout: Duration,
    /// Whether the last poll found nothing to read, and so started the timer.
    waiting: bool,
    /// Whether the client was once slower than the endpoint.
    was_stalled: bool,
    /// The error that ended the body early, until it is passed to hyper.
    broken: Option<Error>,
    /// What is reported at the end of the body, if the outcome was not known before.
    awaited: Option<Awaited>,
}

/// Whether the endpoint is at fault for a body that ends early.
enum End {
    /// The endpoint is at fault.
    Failed(Outcome),
    /// The endpoint is not at fault: the body was valid so far. It ends for this reason.
    Innocent(EndReason),
}

/// What a request holds while an endpoint serves it.
pub(super) struct UpstreamRequest {
    pub(super) exchange: Exchange,
    /// The worker that owns the connection.
    pub(super) worker: Rc<Worker>,
    /// Counts the request as in flight at its endpoint.
    pub(super) in_flight: InFlight,
    /// Ends the request when its endpoint is drained.
    pub(super) drain: Drain,
}

/// A future that is ready when a request has to end because its endpoint was deleted or is
/// unhealthy.
#[derive(Default)]
pub(super) struct Drain(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Drain {
    /// Follows the upstream's drain setting. A request that is sent to an unhealthy endpoint on
    /// purpose, such as a trial, is not ended early.
    pub(super) fn of(service: &Service, endpoint: &Endpoint) -> Self {
        let drains = service.upstream.drains() && !endpoint.is_leaving();
        Self(drains.then(|| Box::pin(endpoint.drained()) as Pin<Box<dyn Future<Output = ()>>>))
    }

    /// Ready when the request has to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (self.0.as_mut()).map_or(Poll::Pending, |drained| drained.as_mut().poll(cx))
    }
}

impl Content {
    /// The body of a response whose head was received.
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
            was_stalled: false,
            broken: None,
            awaited,
        };
        if download.is_done() {
            download.finish();
        } else if let Some(body) = download.take_whole() {
            return Self::own(body);
        }
        Self::Streamed(Rc::new(RefCell::new(download)))
    }

    /// A body that the gateway has made. An empty one is no body: over HTTP/2, the head then ends
    /// the response.
    pub(super) fn own(body: Bytes) -> Self {
        Self::Own((!body.is_empty()).then_some(body))
    }

    /// To be called when the gateway has no use for the rest of the body: the try has ended then,
    /// and the client has not left.
    pub(super) fn discard(&self) {
        if let Self::Streamed(download) = self
            && let Some(request) = &mut download.borrow_mut().request
        {
            request.in_flight.end_now(EndReason::Complete);
        }
    }

    /// The body, if an endpoint sends it.
    pub(super) fn stalled_body(&self) -> Option<Rc<dyn StalledBody>> {
        match self {
            Self::Streamed(download) => Some(Rc::clone(download) as Rc<dyn StalledBody>),
            Self::Own(_) | Self::Tunnel(_) => None,
        }
    }

    /// The next frame of the body to this client.
    pub(super) fn poll_frame(
        &mut self,
        client: &Client,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut download = match self {
            Self::Own(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Streamed(download) => download.borrow_mut(),
            Self::Tunnel(_) => return Poll::Ready(None),
        };
        let backlog = client.backlog();
        if download.broken.is_none() {
            // A client that reads nothing must not fill hyper's buffer. hyper polls again once it
            // has sent its buffer. Over HTTP/2, hyper polls only once it may send more.
            let stalled = backlog.is_some_and(Backlog::has_unsent);
            download.was_stalled |= stalled;
            let frame = ready!(download.poll_frame(cx, stalled)).transpose();
            if download.was_stalled && !matches!(frame, Ok(Some(_))) {
                // hyper has polled this body a second time after its flush, and would not flush
                // again before the client sends something.
                cx.waker().wake_by_ref();
            }
            match frame {
                Ok(frame) => return Poll::Ready(frame.map(Ok)),
                Err(error) => {
                    download.broken = Some(error);
                    if let Some(backlog) = backlog {
                        backlog.watch();
                    }
                }
            }
        }
        // The head is sent, so the status cannot change any more: the connection is closed, or the
        // stream is reset. An error makes hyper discard bytes that it has not written yet, so they
        // are flushed first.
        if let Some(backlog) = backlog {
            ready!(backlog.poll_flushed(cx));
        }
        Poll::Ready(download.broken.take().map(Err))
    }

    /// Whether there is no further frame.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Streamed(download) => download.borrow().is_done(),
            Self::Tunnel(_) => true,
        }
    }

    /// Whether hyper may take it for a body without any frame. hyper omits the `Content-Length` of
    /// a 304 unless it takes it for the length of a body.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Streamed(download) => {
                let download = download.borrow();
                download.described.is_none() && download.is_done()
            }
            Self::Own(_) | Self::Tunnel(_) => self.is_done(),
        }
    }

    /// The length of a body that the gateway has made; hyper adds it to the head.
    pub(super) fn own_length(&self) -> Option<u64> {
        match self {
            Self::Own(_) => self.length(),
            Self::Streamed(_) | Self::Tunnel(_) => None,
        }
    }

    /// Its length in bytes, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Own(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Tunnel(_) => Some(0),
            Self::Streamed(download) => {
                let download = download.borrow();
                match &download.request {
                    Some(request) => request.exchange.body_left(),
                    None => Some(download.described.unwrap_or(0)),
                }
            }
        }
    }
}

impl Download {
    /// Whether the whole body was read.
    fn is_done(&self) -> bool {
        match &self.request {
            Some(request) => request.exchange.is_body_done(),
            None => self.broken.is_none(),
        }
    }

    /// Takes the body if it was received as a whole, as most short ones are: then nothing is
    /// awaited, and the connection can serve another request before the client has the response.
    fn take_whole(&mut self) -> Option<Bytes> {
        let request = self.request.as_mut()?;
        let body = request.exchange.take_whole_body()?;
        note_piece(&mut request.in_flight, &body);
        self.finish();
        Some(body)
    }

    /// To be called when the body has ended. The connection can then serve another request, unless
    /// the endpoint answered before it had read this request to its end.
    fn finish(&mut self) {
        if let Some(mut request) = self.request.take() {
            if let Some(awaited) = self.awaited.take() {
                awaited.answered(&request.in_flight);
            }
            request.in_flight.end_now(EndReason::Complete);
            let now = request.worker.clock.get();
            request.worker.pool.put(request.exchange, now);
        }
    }

    /// The next frame of the body; `None` at its end. While the client is `stalled`, nothing is
    /// read for it, and the endpoint's read timeout does not apply.
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
            // The request's body is still sent: a client may send its whole body before it reads
            // the response.
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
                    Some(Ok(frame)) => {
                        let piece = frame.data_ref().map_or(&[][..], |data| data);
                        note_piece(&mut request.in_flight, piece);
                        Some(Ok(frame))
                    }
                    Some(Err(error @ wire::Error::Client(_))) => {
                        let end = End::Innocent(EndReason::Client);
                        Some(Err(self.break_off(end, error.into())))
                    }
                    Some(Err(error)) => {
                        let end = End::Failed(match error {
                            wire::Error::Unresponsive => Outcome::Timeout,
                            _ => Outcome::Broken,
                        });
                        Some(Err(self.break_off(end, error.into())))
                    }
                })
            }
            Poll::Pending if request.drain.poll(cx).is_ready() => {
                let error = "the endpoint was drained".into();
                let end = End::Innocent(EndReason::Drained);
                Poll::Ready(Some(Err(self.break_off(end, error))))
            }
            Poll::Pending if stalled => Poll::Pending,
            Poll::Pending => {
                ready!(self.poll_timeout(cx));
                let end = End::Failed(Outcome::Timeout);
                let error = "the endpoint sent nothing within read_timeout".into();
                Poll::Ready(Some(Err(self.break_off(end, error))))
            }
        }
    }

    /// Ends the body early and reports the outcome.
    fn break_off(&mut self, end: End, error: Error) -> Error {
        let Some(mut request) = self.request.take() else {
            return error;
        };
        if let Some(awaited) = self.awaited.take() {
            match end {
                End::Failed(outcome) => awaited.failed(&request.in_flight, outcome, &error),
                End::Innocent(_) => awaited.answered(&request.in_flight),
            }
        }
        let why = match end {
            End::Failed(Outcome::Timeout) => EndReason::Timeout,
            End::Failed(_) => EndReason::Broken,
            End::Innocent(why) => why,
        };
        request.in_flight.end_now(why);
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

/// Notes that a piece of the body was received.
fn note_piece(in_flight: &mut InFlight, piece: &[u8]) {
    let now = || micros(Instant::now());
    in_flight.note_body(now);
    if !piece.is_empty() {
        in_flight.note_bytes(piece.len() as u64, now);
    }
}

impl StalledBody for RefCell<Download> {
    fn poll_stalled(&self, cx: &mut Context<'_>) {
        let mut download = self.borrow_mut();
        if download.broken.is_none()
            && let Poll::Ready(Some(Err(error))) = download.poll_frame(cx, true)
        {
            download.broken = Some(error);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // hyper drops a body of known length as soon as its last byte is read.
        if self.is_done() {
            self.finish();
        } else if let (Some(request), Some(awaited)) = (&self.request, &self.awaited) {
            // The client has disconnected, so it is unknown how the body would have ended.
            awaited.answered(&request.in_flight);
        }
    }
}
