//! The body of a request on its way through: streamed a frame at a time, with the pace of the
//! slower side, and kept as far as another try may need it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::headers::Hops;
use super::respond::Reject;
use crate::balancer::BODY_START;
use crate::http1::trailers_passed_on;
use crate::leftover::{self, PolledFrame};

/// Pieces of a body that are held before they are joined. Each may hold a whole buffer of hyper's,
/// however few of its bytes it is.
const PIECES: usize = 16;

/// The body of a request, shared by the try that sends it and the code that watches over the try.
pub(super) struct Upload {
    incoming: RefCell<Incoming>,
    /// The headers that are meant for one hop.
    hops: Hops,
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
    /// The trailers that are passed on.
    trailers: Option<HeaderMap>,
    /// Whether they were given to the try at hand.
    gave_trailers: bool,
}

impl Read {
    fn give_trailers(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let trailers = self.trailers.as_ref().filter(|_| !self.gave_trailers)?;
        let frame = Frame::trailers(trailers.clone());
        self.gave_trailers = true;
        Some(Ok(frame))
    }
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
    /// A body that comes in from a client after these headers. It may keep us waiting for
    /// `patience`.
    pub(super) fn new(incoming: Incoming, headers: &HeaderMap, patience: Duration) -> Rc<Self> {
        let length = incoming.size_hint().exact();
        Rc::new(Self {
            // Only chunks have trailers.
            hops: match length {
                None => Hops::of(headers),
                Some(_) => Hops::default(),
            },
            length: Cell::new(length),
            incoming: RefCell::new(incoming),
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

    /// Reads all of it before any endpoint is asked, if it is no longer than `bound`, so that a
    /// slow client costs no endpoint a connection. It is kept until the request is answered. From
    /// now on it may not come slower than `min_rate`, in bytes a second; 0 sets no limit.
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
            if read.trailers.is_none() {
                // Trailers need chunks to follow.
                self.length.set(Some(read.length()));
            }
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
        read.gave_trailers = false;
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

    /// Reads ahead what a balancer may see, before any endpoint gets the first byte: [`BODY_START`]
    /// bytes at least, or all of a shorter body.
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

    /// The next frame. It is gone from here with it once an endpoint has got a byte, unless it is
    /// kept.
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
            return Poll::Ready(read.give_trailers());
        }
        drop(read);
        let polled = self.poll_client(cx);
        let mut read = self.read.borrow_mut();
        read.given = read.pieces.len();
        match polled {
            // Some of them may not be for the endpoint.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                Poll::Ready(read.give_trailers())
            }
            polled => polled,
        }
    }

    /// The next frame that the client sends.
    fn poll_client(&self, cx: &mut Context<'_>) -> PolledFrame {
        let (mut read, mut incoming) = (self.read.borrow_mut(), self.incoming.borrow_mut());
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
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
                    if !read.lossy {
                        read.pieces.push(piece.clone());
                    }
                }
                if let Some(trailers) = frame.trailers_ref() {
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
