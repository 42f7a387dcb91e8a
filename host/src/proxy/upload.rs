//! The body of a request from the client to an endpoint: streamed a frame at a time, as fast as the
//! slower side allows, and kept as far as another try may need it.

mod pace;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use thiserror::Error;

use super::head_size::HeadLimit;
use super::hops::Hops;
use super::respond::Reject;
use crate::http1::trailers_passed_on;
use crate::leftover::{self, PolledFrame};
use crate::policy::answer::Answer;
use pace::Pace;

/// Number of pieces of a body that are kept before they are joined. Each may keep a whole buffer of
/// hyper alive, even if it uses only a few bytes of it.
const PIECES: usize = 16;

/// The body of a request. The try that sends it shares it with the code that checks the timeouts of
/// the try.
pub(super) struct Upload {
    /// What the client sends; `None` for a body of the gateway.
    incoming: RefCell<Option<Incoming>>,
    /// The headers that `Connection` names as hop-by-hop.
    hops: Hops,
    /// Bytes of the body: from Content-Length, or counted once the whole body was read.
    length: Cell<Option<u64>>,
    /// The part of the body that was read.
    read: RefCell<Read>,
    /// Whether the whole body is kept until the request is answered.
    is_buffered: Cell<bool>,
    limit: RefCell<Option<BodyLimit>>,
    /// How large the trailers may be.
    trailers: HeadLimit,
    pace: Pace,
    stage: Cell<Stage>,
    /// When the body last made progress.
    since: Cell<Instant>,
}

/// Why the body of a request cannot be read further.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    /// It is malformed, or has ended too early.
    #[error("{0}")]
    Client(#[from] hyper::Error),
    /// It is longer than a policy allows.
    #[error("it is longer than a policy allows")]
    TooLong,
    /// Its trailers are larger than a head may be.
    #[error("its trailers are larger than a head may be")]
    Trailers,
}

/// How long a policy allows the body to be.
struct BodyLimit {
    /// In bytes.
    most: u64,
    /// The answer to a longer body.
    refusal: Option<Box<Answer>>,
}

/// The part of a body that was read, as far as it can be sent again.
#[derive(Default)]
struct Read {
    pieces: Vec<Bytes>,
    /// Number of pieces that were given to the current try.
    given: usize,
    /// Whether a piece is missing: an endpoint has received a part of it, and it was not kept.
    has_gap: bool,
    /// Whether no more is read: the client has sent all, or [`Upload::finish`] was called.
    ended: bool,
    /// The trailers that are passed on.
    trailers: Option<HeaderMap>,
    /// Whether the trailers were given to the current try.
    gave_trailers: bool,
}

impl Read {
    fn give_trailers(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let trailers = self.trailers.as_ref().filter(|_| !self.gave_trailers)?;
        let frame = Frame::trailers(trailers.clone());
        self.gave_trailers = true;
        Some(Ok(frame))
    }

    /// Joins all pieces to one.
    fn join(&mut self) -> Bytes {
        let joined = match self.pieces.as_slice() {
            [] => return Bytes::new(),
            [single] => single.clone(),
            several => several.concat().into(),
        };
        self.pieces = vec![joined.clone()];
        joined
    }

    /// Joins the last pieces, each with its neighbour if that is not much larger. So a byte is
    /// copied a few times, however small the pieces are that a client sends.
    fn merge(&mut self) {
        while let [.., one, other] = self.pieces.as_slice()
            && one.len() <= 2 * other.len()
        {
            let joined = [&one[..], &other[..]].concat().into();
            self.pieces.truncate(self.pieces.len() - 2);
            self.pieces.push(joined);
        }
    }

    fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// Which side a request's body waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The current try has not asked for any of it yet.
    Untouched,
    /// The client: the endpoint could take more, and the client has not sent it.
    Client,
    /// The endpoint: it has not taken the bytes that are ready.
    Endpoint,
    /// Neither: the whole body was passed on.
    Done,
    /// The client's body is malformed, ended too early, or is longer than allowed.
    Broken,
}

impl Upload {
    /// The body that a client sends after these headers. The gateway waits at most
    /// `patience` between two reads, and takes trailers up to this limit.
    pub(super) fn new(
        incoming: Incoming,
        headers: &HeaderMap,
        patience: Duration,
        trailers: HeadLimit,
    ) -> Rc<Self> {
        let length = incoming.size_hint().exact();
        Rc::new(Self {
            // Only a chunked body has trailers.
            hops: match length {
                None => Hops::of(headers),
                Some(_) => Hops::default(),
            },
            length: Cell::new(length),
            incoming: RefCell::new(Some(incoming)),
            limit: RefCell::default(),
            trailers,
            pace: Pace::new(patience),
            read: RefCell::default(),
            is_buffered: Cell::new(false),
            stage: Cell::new(Stage::Untouched),
            since: Cell::new(Instant::now()),
        })
    }

    /// A body for a request whose client sends none.
    pub(super) fn of(body: Bytes) -> Rc<Self> {
        Rc::new(Self {
            hops: Hops::default(),
            length: Cell::new(Some(body.len() as u64)),
            incoming: RefCell::new(None),
            limit: RefCell::default(),
            trailers: HeadLimit::NONE,
            pace: Pace::new(Duration::ZERO),
            read: RefCell::new(Read {
                pieces: vec![body],
                ended: true,
                ..Read::default()
            }),
            is_buffered: Cell::new(true),
            stage: Cell::new(Stage::Untouched),
            since: Cell::new(Instant::now()),
        })
    }

    /// Bytes of the body: from Content-Length, or counted once the whole body was read.
    pub(super) fn length(&self) -> Option<u64> {
        self.length.get()
    }

    /// Reads the whole body before an endpoint is chosen, if it is no longer than `bound`, so that
    /// a slow client does not occupy a connection to an endpoint. The body is kept until the
    /// request is answered. From now on the client may not send it slower than `min_rate`, in bytes
    /// a second; 0 sets no limit.
    ///
    /// # Errors
    /// Those of [`Upload::start`].
    pub(super) async fn buffer(&self, bound: usize, min_rate: u32) -> Result<(), Reject> {
        self.pace.min_rate.set(min_rate);
        let bound = bound as u64;
        if bound == 0 || self.length().is_some_and(|length| length > bound) {
            return Ok(());
        }
        // One more byte is read, to check that the body is not longer.
        self.read_ahead(bound + 1).await?;
        let read = self.read.borrow();
        if read.ended && read.length() <= bound {
            self.is_buffered.set(true);
            if read.trailers.is_none() {
                // A body with trailers has to be sent in chunks.
                self.length.set(Some(read.length()));
            }
        }
        Ok(())
    }

    /// Reads the whole body for a policy, if it has no more than `limit` bytes; `None` if it is
    /// longer. The body is kept until the request is answered.
    ///
    /// # Errors
    /// Those of [`Upload::start`].
    pub(super) async fn whole(&self, limit: usize) -> Result<Option<Bytes>, Reject> {
        if self.length().is_some_and(|length| length > limit as u64) {
            return Ok(None);
        }
        // One more byte is read, to check that the body is not longer.
        self.read_ahead(limit as u64 + 1).await?;
        let mut read = self.read.borrow_mut();
        if !read.ended || read.length() > limit as u64 {
            return Ok(None);
        }
        self.is_buffered.set(true);
        if read.trailers.is_none() {
            self.length.set(Some(read.length()));
        }
        Ok(Some(read.join()))
    }

    /// Replaces the body, which was read as a whole before.
    pub(super) fn replace(&self, body: Bytes) {
        let mut read = self.read.borrow_mut();
        if read.ended {
            if read.trailers.is_none() {
                self.length.set(Some(body.len() as u64));
            }
            read.pieces = vec![body];
            read.given = 0;
        }
    }

    /// Answers the request with `refusal` once the client has sent more than `most` bytes.
    /// Returns the answer if that has happened already.
    pub(super) fn limit(&self, most: u64, refusal: Answer) -> Option<Answer> {
        if self.received() > most {
            return Some(refusal);
        }
        let mut limit = self.limit.borrow_mut();
        // Of several limits the smallest is exceeded first, so only that one is kept.
        if limit.as_ref().is_none_or(|known| known.most > most) {
            *limit = Some(BodyLimit {
                most,
                refusal: Some(Box::new(refusal)),
            });
        }
        None
    }

    /// The answer to a request whose body cannot be read further.
    pub(super) fn refusal(&self, error: &BodyError) -> Reject {
        let mut limit = self.limit.borrow_mut();
        match (error, limit.as_mut().and_then(|limit| limit.refusal.take())) {
            (BodyError::TooLong, Some(refusal)) => Reject::Policy(refusal),
            _ => Reject::bad_request(),
        }
    }

    /// Bytes of the body that the client has sent so far.
    pub(super) fn received(&self) -> u64 {
        self.pace.received.get()
    }

    /// Whether the client has sent all of it.
    pub(super) fn is_received(&self) -> bool {
        let incoming = self.incoming.borrow();
        incoming.as_ref().is_none_or(|incoming| {
            // The length of a chunked body is known only after its end.
            let is_chunked = incoming.size_hint().exact().is_none();
            incoming.is_end_stream() || (is_chunked && self.read.borrow().ended)
        })
    }

    /// Whether the body can be sent again after any outcome of a try.
    pub(super) fn is_buffered(&self) -> bool {
        self.is_buffered.get()
    }

    /// Whether the body cannot be read further.
    pub(super) fn is_broken(&self) -> bool {
        self.stage() == Stage::Broken
    }

    /// Whether the whole body can still be sent from its start.
    pub(super) fn is_replayable(&self) -> bool {
        !self.read.borrow().has_gap && !self.is_broken()
    }

    /// To be called when the endpoint has received a byte of the pieces that were given to the try.
    pub(super) fn hand_over(&self) {
        if !self.is_buffered.get() {
            let mut read = self.read.borrow_mut();
            read.has_gap = true;
            let given = std::mem::take(&mut read.given);
            read.pieces.drain(..given);
        }
    }

    /// Starts the body from its beginning, for another try.
    pub(super) fn rewind(&self) {
        let mut read = self.read.borrow_mut();
        read.given = 0;
        read.gave_trailers = false;
        if !read.pieces.is_empty() {
            self.enter(Stage::Untouched);
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// When the body last made progress.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// When the client has to have sent more of it. Only for [`Stage::Client`].
    pub(super) fn due(&self) -> Instant {
        self.since.get() + self.pace.patience()
    }

    /// Reads ahead the start of the body that a balancer may ask about, before an endpoint gets the
    /// first byte: `most` bytes, or the whole of a shorter body. Returns it, and whether there may
    /// be more.
    ///
    /// # Errors
    /// The client does not send the body in time, or the body is malformed or longer than a policy
    /// allows.
    pub(super) async fn start(&self, most: usize) -> Result<(Bytes, bool), Reject> {
        self.read_ahead(most as u64).await?;
        Ok(self.read_so_far(most))
    }

    /// The first `most` bytes of what was read, and whether there may be more.
    pub(super) fn read_so_far(&self, most: usize) -> (Bytes, bool) {
        let mut read = self.read.borrow_mut();
        let mut start = read.join();
        let is_cut = match self.length() {
            Some(length) => length > start.len().min(most) as u64,
            None => !read.ended || start.len() > most,
        };
        start.truncate(most);
        (start, is_cut)
    }

    /// Reads until at least `least` bytes are received, or the whole of a shorter body.
    async fn read_ahead(&self, least: u64) -> Result<(), Reject> {
        loop {
            {
                let mut read = self.read.borrow_mut();
                if read.ended || read.length() >= least {
                    break;
                }
                if read.pieces.len() >= PIECES {
                    read.merge();
                }
            }
            let piece = std::future::poll_fn(|cx| self.poll_client(cx));
            let piece = tokio::time::timeout(self.pace.patience(), piece).await;
            match piece.map_err(|_| Reject::HttpServer(StatusCode::REQUEST_TIMEOUT))? {
                None | Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.refusal(&error)),
            }
        }
        self.enter(Stage::Untouched);
        Ok(())
    }

    /// The next frame. Once an endpoint has received a byte of the body, a frame that is passed on
    /// is no longer stored here, unless the body is kept.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> PolledFrame<BodyError> {
        let mut read = self.read.borrow_mut();
        if let Some(piece) = read.pieces.get(read.given).cloned() {
            if read.has_gap {
                // No other try will need it.
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
            return Poll::Ready(read.give_trailers());
        }
        drop(read);
        let polled = self.poll_client(cx);
        let mut read = self.read.borrow_mut();
        read.given = read.pieces.len();
        match polled {
            // Only the trailers that may be passed on are given to the endpoint.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                Poll::Ready(read.give_trailers())
            }
            polled => polled,
        }
    }

    /// The next frame that the client sends.
    fn poll_client(&self, cx: &mut Context<'_>) -> PolledFrame<BodyError> {
        let (mut read, mut incoming) = (self.read.borrow_mut(), self.incoming.borrow_mut());
        let Some(incoming) = incoming.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let polled = polled.map_err(BodyError::Client);
        match &polled {
            Poll::Pending if self.stage() == Stage::Client => {}
            Poll::Pending => self.enter(Stage::Client),
            Poll::Ready(None) => {
                read.ended = true;
                self.enter(Stage::Done);
            }
            Poll::Ready(Some(Err(_))) => self.enter(Stage::Broken),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(piece) = frame.data_ref() {
                    let received = self.pace.received.get() + piece.len() as u64;
                    self.pace.received.set(received);
                    let limit = self.limit.borrow();
                    if limit.as_ref().is_some_and(|limit| received > limit.most) {
                        self.enter(Stage::Broken);
                        return Poll::Ready(Some(Err(BodyError::TooLong)));
                    }
                    if !read.has_gap {
                        read.pieces.push(piece.clone());
                    }
                }
                if let Some(trailers) = frame.trailers_ref() {
                    // Over HTTP/1.1, `ClientStream` has refused larger ones.
                    if self.trailers.exceeded(0, trailers).is_some() {
                        self.enter(Stage::Broken);
                        return Poll::Ready(Some(Err(BodyError::Trailers)));
                    }
                    let is_hop = |name: &HeaderName| self.hops.names(name.as_str());
                    read.trailers = trailers_passed_on(trailers, is_hop);
                }
                read.ended = incoming.is_end_stream() || frame.is_trailers();
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

    /// Reads and discards the part of the body that no endpoint has asked for.
    pub(super) async fn discard(&self) {
        if !matches!(self.stage(), Stage::Done | Stage::Broken) {
            let lower = |body: &Incoming| body.size_hint().lower();
            let least = self.incoming.borrow().as_ref().map_or(0, lower);
            leftover::discard(least, |cx| self.poll_frame(cx)).await;
        }
    }

    /// To be called when no more of the body will be asked for.
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
