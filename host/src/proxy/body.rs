//! Bodies on their way through: streamed both ways, a frame at a time, with the pace of the slower
//! side.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::Worker;
use super::client::{Client, Order};
use super::outcome::Awaited;
use super::respond::Reject;
use super::wire::{self, Connection, Framing};
use crate::balancer::BODY_START;
use crate::leftover::{self, PolledFrame};
use crate::snapshot::Service;
use crate::upstream::{Endpoint, InFlight, Outcome};

/// What ends a body early.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Longest body that is kept so that it can be sent again, in bytes: what hyper may read of it at once.
/// Past it, a copy for each request in flight would cost more than the rare repeat is worth.
const KEPT: u64 = 64 * 1024;

/// The body of a request, shared by the try that sends it and the code that watches over the try.
pub(super) struct Upload {
    incoming: RefCell<Incoming>,
    client: Rc<Client>,
    /// Its length, if the client has told it.
    length: Option<u64>,
    /// What was read of it.
    read: RefCell<Read>,
    /// Whether all of it is kept until the request is answered.
    keeps: Cell<bool>,
    stage: Cell<Stage>,
    /// When the stage was last entered.
    since: Cell<Instant>,
}

/// What was read of a body, as far as it can be sent again.
#[derive(Default)]
struct Read {
    pieces: Vec<Bytes>,
    /// Pieces that were given to the try at hand.
    given: usize,
    /// Whether a piece is missing: an endpoint has got some of it, and it was not kept.
    lossy: bool,
    /// Whether there is nothing more to be read.
    ended: bool,
}

impl Read {
    /// All that is there as one piece: once an endpoint has got a byte of it, nothing behind it must be lost.
    fn join(&mut self) -> Bytes {
        let joined = match self.pieces.as_slice() {
            [] => return Bytes::new(),
            [single] => single.clone(),
            several => several.concat().into(),
        };
        self.pieces = vec![joined.clone()];
        joined
    }
}

/// Who a request's body waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of it has been asked for by the try at hand.
    Untouched,
    /// The endpoint could take more, the client has not sent it.
    Client,
    /// The endpoint has not taken what there is.
    Endpoint,
    /// All of it is on its way.
    Done,
    /// What the client sent is no body, or ended too early.
    Broken,
}

impl Upload {
    pub(super) fn new(incoming: Incoming, client: Rc<Client>) -> Rc<Self> {
        Rc::new(Self {
            length: incoming.size_hint().exact(),
            incoming: RefCell::new(incoming),
            client,
            read: RefCell::default(),
            keeps: Cell::new(false),
            stage: Cell::new(Stage::Untouched),
            since: Cell::new(Instant::now()),
        })
    }

    /// Its length, if the client has told it.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Keeps all of it until the request is answered, if it is known to be short.
    pub(super) fn keep(&self) {
        self.keeps
            .set(self.length().is_some_and(|length| length <= KEPT));
    }

    /// Whether it can be sent again, whatever becomes of a try.
    pub(super) fn is_kept(&self) -> bool {
        self.keeps.get()
    }

    /// Whether all of it is there to be sent, again if need be.
    pub(super) fn is_whole(&self) -> bool {
        !self.read.borrow().lossy && self.stage() != Stage::Broken
    }

    /// An endpoint has got some of what was given.
    pub(super) fn hand_over(&self) {
        if !self.keeps.get() {
            let mut read = self.read.borrow_mut();
            read.lossy = true;
            read.pieces = Vec::new();
            read.given = 0;
        }
    }

    /// Begins it once more, for another try.
    pub(super) fn rewind(&self) {
        let mut read = self.read.borrow_mut();
        read.given = 0;
        if !read.pieces.is_empty() {
            self.enter(Stage::Untouched);
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// When the body last moved.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// Reads ahead what a balancer may see, before any endpoint gets the first byte: [`BODY_START`] bytes at
    /// least, or all of a shorter body. `patience` is for each piece of it.
    ///
    /// # Errors
    /// The client does not send it in time, or what it sends is no body.
    pub(super) async fn start(&self, patience: Duration) -> Result<Bytes, Reject> {
        let mut length = 0;
        while length < BODY_START && !self.read.borrow().ended {
            let piece = std::future::poll_fn(|cx| self.poll_client(cx));
            let piece = tokio::time::timeout(patience, piece).await;
            match piece.map_err(|_| Reject::Engine(StatusCode::REQUEST_TIMEOUT))? {
                None => {}
                Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => return Err(Reject::bad_request()),
            }
        }
        self.enter(Stage::Untouched);
        Ok(self.read.borrow_mut().join())
    }

    /// The next frame. It is gone from here with it once an endpoint has got a byte, unless it is kept.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> PolledFrame {
        let mut read = self.read.borrow_mut();
        if let Some(piece) = read.pieces.get(read.given).cloned() {
            read.given += 1;
            let last = read.ended && read.given == read.pieces.len();
            self.enter(if last { Stage::Done } else { Stage::Endpoint });
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if read.ended {
            self.enter(Stage::Done);
            return Poll::Ready(None);
        }
        drop(read);
        let polled = self.poll_client(cx);
        let mut read = self.read.borrow_mut();
        read.given = read.pieces.len();
        polled
    }

    /// The next frame that the client sends.
    fn poll_client(&self, cx: &mut Context<'_>) -> PolledFrame {
        let (mut read, mut incoming) = (self.read.borrow_mut(), self.incoming.borrow_mut());
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        match &polled {
            Poll::Pending if self.stage() != Stage::Client => self.enter(Stage::Client),
            Poll::Pending => {}
            Poll::Ready(None) => {
                read.ended = true;
                self.enter(Stage::Done);
            }
            Poll::Ready(Some(Err(_))) => self.enter(Stage::Broken),
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() {
                    // hyper looks for CR LF alone: trailers with a bare LF go on into the next
                    // request. That it is not answered must not look like an answer that is late.
                    self.client.tell(Order::Finish);
                }
                if let Some(piece) = frame.data_ref()
                    && !read.lossy
                {
                    read.pieces.push(piece.clone());
                }
                read.ended = incoming.is_end_stream();
                let stage = if read.ended {
                    Stage::Done
                } else {
                    Stage::Endpoint
                };
                self.enter(stage);
            }
        }
        polled
    }

    /// Reads and forgets what no endpoint has asked for.
    pub(super) async fn discard(&self) {
        if !matches!(self.stage(), Stage::Done | Stage::Broken) {
            let least = self.incoming.borrow().size_hint().lower();
            leftover::discard(least, |cx| self.poll_frame(cx)).await;
        }
    }

    /// Nothing more of it will be asked for.
    pub(super) fn finish(&self) {
        self.read.borrow_mut().ended = true;
        self.enter(Stage::Done);
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.since.set(Instant::now());
    }
}

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
    /// Nothing: the endpoint was deleted, or is known to be unhealthy.
    TakenOut,
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
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
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

    /// The next piece of the body; none at its end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(None);
        };
        match exchange.connection.poll_body(cx, &mut self.framing) {
            Poll::Ready(piece) => {
                self.waiting = false;
                Poll::Ready(match piece {
                    None => {
                        self.finish();
                        None
                    }
                    Some(Ok(piece)) => Some(Ok(piece)),
                    Some(Err(error @ wire::Error::Client(_))) => {
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
                Poll::Ready(Some(Err(self.break_off(End::TakenOut, error))))
            }
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
                End::TakenOut => {}
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
        let Self { content, client } = self.get_mut();
        let download = match content {
            Content::Own(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Streamed(download) => download,
        };
        if download.broken.is_none() {
            let frame = ready!(download.poll_piece(cx)).transpose();
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
