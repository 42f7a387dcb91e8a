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
use super::client::{Client, ConnectionState};
use super::outcome::Awaited;
use super::respond::Reject;
use super::wire::Connection;
use crate::balancer::BODY_START;
use crate::endpoint::{Endpoint, InFlight, Outcome};
use crate::http1::{self, Framing};
use crate::leftover::{self, PolledFrame};
use crate::request_log;
use crate::snapshot::Service;

/// What ends a body early.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Pieces of a body that are held before they are joined. Each may hold a whole buffer of hyper's, however
/// few of its bytes it is.
const PIECES: usize = 16;

/// The body of a request, shared by the try that sends it and the code that watches over the try.
pub(super) struct Upload {
    incoming: RefCell<Incoming>,
    client: Rc<Client>,
    /// Its length, if the client has told it or all of it has been read.
    length: Cell<Option<u64>>,
    /// What was read of it.
    read: RefCell<Read>,
    /// Whether all of it is kept until the request is answered.
    keeps: Cell<bool>,
    pace: Pace,
    stage: Cell<Stage>,
    /// When the stage was last entered.
    since: Cell<Instant>,
}

/// How fast a body has to come in, and how fast it has.
struct Pace {
    /// Longest time between two reads.
    patience: Duration,
    /// Bytes a second that it may not fall below for longer than that; 0 sets no limit.
    min_rate: Cell<u32>,
    /// Time that was spent waiting for the client.
    waited: Cell<Duration>,
    /// Bytes that it has sent.
    received: Cell<u64>,
}

impl Pace {
    /// How long the client may be waited for from now on.
    fn patience(&self) -> Duration {
        match self.min_rate.get() {
            0 => self.patience,
            rate => {
                let earned = Duration::from_secs(self.received.get() / u64::from(rate));
                let left = (self.patience + earned).saturating_sub(self.waited.get());
                left.min(self.patience)
            }
        }
    }
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
    /// Where the last piece ends in memory.
    end: usize,
}

impl Read {
    /// All that is there as one piece.
    fn join(&mut self) -> Bytes {
        let joined = match self.pieces.as_slice() {
            [] => return Bytes::new(),
            [single] => single.clone(),
            several => several.concat().into(),
        };
        self.pieces = vec![joined.clone()];
        joined
    }

    fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
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
    /// A body that comes in from a client, which may keep it waiting for `patience`.
    pub(super) fn new(incoming: Incoming, client: Rc<Client>, patience: Duration) -> Rc<Self> {
        Rc::new(Self {
            length: Cell::new(incoming.size_hint().exact()),
            incoming: RefCell::new(incoming),
            client,
            pace: Pace {
                patience,
                min_rate: Cell::new(0),
                waited: Cell::default(),
                received: Cell::default(),
            },
            read: RefCell::default(),
            keeps: Cell::new(false),
            stage: Cell::new(Stage::Untouched),
            since: Cell::new(Instant::now()),
        })
    }

    /// Its length, if the client has told it or all of it has been read.
    pub(super) fn length(&self) -> Option<u64> {
        self.length.get()
    }

    /// Reads all of it before any endpoint is asked, if it is no longer than `bound`, so that a slow client
    /// costs no endpoint a connection. It is kept until the request is answered. From now on it may not
    /// come slower than `min_rate`, in bytes a second; 0 sets no limit.
    ///
    /// # Errors
    /// Those of [`Upload::start`].
    pub(super) async fn buffer(&self, bound: usize, min_rate: u32) -> Result<(), Reject> {
        self.pace.min_rate.set(min_rate);
        let bound = bound as u64;
        if bound == 0 || self.length().is_some_and(|length| length > bound) {
            return Ok(());
        }
        // To find out that it is not longer takes a byte more.
        self.read_ahead(bound + 1).await?;
        let read = self.read.borrow();
        if read.ended && read.length() <= bound {
            self.keeps.set(true);
            self.length.set(Some(read.length()));
        }
        Ok(())
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
            let given = std::mem::take(&mut read.given);
            read.pieces.drain(..given);
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

    /// Until when the client has to send more of it, while that is what is waited for.
    pub(super) fn due(&self) -> Instant {
        self.since.get() + self.pace.patience()
    }

    /// Reads ahead what a balancer may see, before any endpoint gets the first byte: [`BODY_START`] bytes at
    /// least, or all of a shorter body.
    ///
    /// # Errors
    /// The client does not send it in time, or what it sends is no body.
    pub(super) async fn start(&self) -> Result<Bytes, Reject> {
        self.read_ahead(BODY_START as u64).await?;
        Ok(self.read.borrow_mut().join())
    }

    /// Reads until this many bytes are there, or all of a shorter body.
    async fn read_ahead(&self, least: u64) -> Result<(), Reject> {
        loop {
            {
                let mut read = self.read.borrow_mut();
                if read.ended || read.length() >= least {
                    break;
                }
                if read.pieces.len() >= PIECES {
                    read.join();
                }
            }
            let piece = std::future::poll_fn(|cx| self.poll_client(cx));
            let piece = tokio::time::timeout(self.pace.patience(), piece).await;
            match piece.map_err(|_| Reject::HttpServer(StatusCode::REQUEST_TIMEOUT))? {
                None | Some(Ok(_)) => {}
                Some(Err(_)) => return Err(Reject::bad_request()),
            }
        }
        self.enter(Stage::Untouched);
        Ok(())
    }

    /// The next frame. It is gone from here with it once an endpoint has got a byte, unless it is kept.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> PolledFrame {
        let mut read = self.read.borrow_mut();
        if let Some(piece) = read.pieces.get(read.given).cloned() {
            if read.lossy {
                // It is needed by no other try.
                read.pieces.remove(0);
            } else {
                read.given += 1;
            }
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
            Poll::Pending if self.length().is_none() && self.client.backlog.ends_bare(read.end) => {
                // hyper waits for the end of trailers, and would take the next request for some.
                self.client.enter(ConnectionState::Draining);
                read.ended = true;
                self.client.request_is_whole();
                self.enter(Stage::Done);
                return Poll::Ready(None);
            }
            Poll::Pending => {
                self.client.backlog.starve(cx);
                if self.stage() != Stage::Client {
                    self.enter(Stage::Client);
                }
            }
            Poll::Ready(None) => {
                read.ended = true;
                self.client.request_is_whole();
                self.enter(Stage::Done);
            }
            Poll::Ready(Some(Err(_))) => self.enter(Stage::Broken),
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() {
                    // hyper looks for CR LF alone: trailers with a bare LF go on into the next
                    // request. That it is not answered must not look like an answer that is late.
                    self.client.enter(ConnectionState::Draining);
                }
                if let Some(piece) = frame.data_ref() {
                    read.end = piece.as_ptr_range().end.addr();
                    let received = self.pace.received.get() + piece.len() as u64;
                    self.pace.received.set(received);
                    if !read.lossy {
                        read.pieces.push(piece.clone());
                    }
                }
                read.ended = incoming.is_end_stream() || frame.is_trailers();
                if read.ended {
                    self.client.request_is_whole();
                }
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
        let now = Instant::now();
        let since = self.since.replace(now);
        if self.stage.replace(stage) == Stage::Client {
            self.pace.waited.set(self.pace.waited.get() + (now - since));
        }
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
