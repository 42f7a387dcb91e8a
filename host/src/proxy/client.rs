//! The connection of a client: its address, its state, and when it has to be closed. Several
//! requests may be served on it at the same time.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::backlog::{Backlog, Phase};
use super::connection_info::ConnectionInfo;
use super::request_id::RequestId;
use super::streams::{StalledBody, Stream, Streams};
use crate::connections::ClientPermit;
use crate::http1::BodyKind;

/// Longest time that sent data may remain unacknowledged, or that a client may read nothing.
/// Source: nginx, `send_timeout`.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// The state that a worker and the task of a connection share.
pub(super) struct Client {
    /// The client's address, and the listener that accepted the connection.
    pub(super) info: ConnectionInfo,
    /// Number of requests so far.
    requests: Cell<u64>,
    /// Number of requests in flight.
    in_flight: Cell<u32>,
    /// When the last request in flight ended. From then on, the worker waits for the next one.
    idle_since: Cell<Instant>,
    /// The request that began last.
    last_request: Cell<Option<RequestId>>,
    /// When the worker noticed that the client has closed its sending side.
    half_closed: Cell<Option<Instant>>,
    /// Whether the connection has given back its memory since the last request.
    rested: Cell<bool>,
    /// The progress of the current request over HTTP/1.1, shared with the stream.
    backlog: Backlog,
    /// The streams, once the client has begun to speak HTTP/2.
    streams: OnceCell<Streams>,
    /// Number of requests after which the connection is closed.
    max_requests: Cell<u64>,
    state: Cell<ConnectionState>,
    /// When the state became [`ConnectionState::Draining`].
    draining_since: Cell<Option<Instant>>,
    /// Wakes the task of the connection.
    waker: RefCell<Option<Waker>>,
    /// The time of the worker's last check of its connections.
    clock: Rc<Cell<Instant>>,
    /// Held while the connection is open, so that the worker can wait until all connections are
    /// closed.
    _open: mpsc::Sender<()>,
    /// Counts the connection among those of the process, and of its address.
    _permit: Option<ClientPermit>,
}

/// A request of a client, from its head to the last byte of its response.
pub(super) struct ClientRequest {
    pub(super) client: Rc<Client>,
    pub(super) id: RequestId,
    /// Its number among the requests of the connection, from 1.
    pub(super) number: u64,
    /// Whether its head gives the length of its body twice, by a number and by a transfer coding.
    pub(super) has_two_lengths: bool,
    /// Its stream, if it was received over HTTP/2.
    stream: Option<Rc<Stream>>,
}

/// Counts something as a request in flight that goes on after its response, such as a tunnel.
pub(super) struct Busy(Rc<Client>);

/// The state of a connection. The worker sets it, and the task of the connection acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// The connection serves requests.
    Serving,
    /// The connection gives back memory until the next request is received.
    Resting,
    /// The connection is closed after the request in flight.
    Draining,
    /// The connection is closed now.
    Closing,
}

/// Whether a worker goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It accepts connections.
    Serving,
    /// Another process accepts them. Each connection ends after its next request.
    Replaced,
    /// Each connection ends as soon as it has no request in flight.
    Draining,
}

impl Client {
    pub(super) fn new(
        info: ConnectionInfo,
        clock: Rc<Cell<Instant>>,
        open: mpsc::Sender<()>,
        permit: Option<ClientPermit>,
        max_requests: Option<u32>,
    ) -> Rc<Self> {
        Rc::new(Self {
            info,
            requests: Cell::default(),
            in_flight: Cell::default(),
            idle_since: Cell::new(clock.get()),
            last_request: Cell::default(),
            half_closed: Cell::default(),
            // Before its first request, a connection has no memory to give back.
            rested: Cell::new(true),
            backlog: Backlog::default(),
            streams: OnceCell::new(),
            max_requests: Cell::new(max_requests.map_or(u64::MAX, u64::from)),
            state: Cell::new(ConnectionState::Serving),
            draining_since: Cell::default(),
            waker: RefCell::new(None),
            clock,
            _open: open,
            _permit: permit,
        })
    }

    /// The progress of the current request, unless the client speaks HTTP/2.
    pub(super) fn backlog(&self) -> Option<&Backlog> {
        self.streams.get().is_none().then_some(&self.backlog)
    }

    /// The streams, if the client speaks HTTP/2.
    pub(super) fn streams(&self) -> Option<&Streams> {
        self.streams.get()
    }

    /// To be called when the client has begun to speak HTTP/2. It may cancel `max_cancelled`
    /// requests at once, beyond as many as are answered.
    pub(super) fn begin_http2(&self, max_cancelled: u32) -> &Streams {
        self.streams
            .get_or_init(|| Streams::new(max_cancelled, Rc::clone(&self.clock)))
    }

    /// To be called when the head of a request is received over HTTP/1.1. `body` says what kind of
    /// body follows.
    pub(super) fn begin(self: &Rc<Self>, body: BodyKind) -> ClientRequest {
        let mut request = self.begin_request(None);
        request.has_two_lengths = self.backlog.has_two_lengths();
        self.backlog.begin(body);
        if self.requests.get() >= self.max_requests.get() {
            self.backlog.set_last();
        }
        request
    }

    /// To be called when the head of a request is received over HTTP/2.
    pub(super) fn begin_stream(self: &Rc<Self>) -> ClientRequest {
        let streams = self.streams();
        let request = self.begin_request(streams.map(|streams| streams.begin(self.clock.get())));
        if self.requests.get() >= self.max_requests.get() {
            self.enter(ConnectionState::Draining);
        }
        request
    }

    fn begin_request(self: &Rc<Self>, stream: Option<Rc<Stream>>) -> ClientRequest {
        let id = RequestId::new();
        self.requests.set(self.requests.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        self.last_request.set(Some(id));
        self.rested.set(false);
        ClientRequest {
            client: Rc::clone(self),
            id,
            number: self.requests.get(),
            has_two_lengths: false,
            stream,
        }
    }

    /// Counts a tunnel that follows the response to a request.
    pub(super) fn busy(self: &Rc<Self>) -> Busy {
        self.in_flight.set(self.in_flight.get() + 1);
        Busy(Rc::clone(self))
    }

    fn end_one(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if self.is_idle() {
            self.idle_since.set(self.clock.get());
        }
    }

    /// Number of requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// The request in flight; if there are several, the one that began last.
    pub(super) fn request_in_flight(&self) -> Option<RequestId> {
        self.last_request.get().filter(|_| !self.is_idle())
    }

    /// Whether no request is in flight.
    fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// Whether the client has not sent its next request for `patience`. The time starts only when
    /// the client has read the last response, which has its own limit, [`SEND_TIMEOUT`].
    pub(super) fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        if !self.is_idle() {
            return false;
        }
        let mut idle_since = self.idle_since.get();
        match self.streams() {
            // hyper may still be sending the ends of responses.
            Some(streams) => idle_since = idle_since.max(streams.traffic.last_sent()),
            None if self.backlog.has_unsent() => {
                self.idle_since.set(now);
                return false;
            }
            None => {}
        }
        now - idle_since >= patience
    }

    /// Whether the client was told at least `patience` ago that the connection ends, and has not
    /// closed it, although no request was in flight for as long.
    pub(super) fn ignores_goaway(&self, now: Instant, patience: Duration) -> bool {
        let told = self.draining_since.get();
        told.is_some_and(|told| now.saturating_duration_since(told) >= patience)
            && self.is_overdue(now, patience)
    }

    /// Whether the client has disconnected in the middle of a request, as far as this can be known.
    /// A client that has closed its sending side may still read. So the gateway waits for up to
    /// `patience` until it next sends a part of the response. If the client has closed the other
    /// side as well, its system answers that with a reset. The connection checks for a reset when
    /// it is woken.
    pub(super) fn is_gone(&self, now: Instant, patience: Duration) -> bool {
        if self.is_idle() || !self.backlog.is_half_closed() {
            return false;
        }
        self.wake();
        let since = self.half_closed.get().unwrap_or(now);
        self.half_closed.set(Some(since));
        !self.backlog.is_tried() && now - since >= patience
    }

    /// Whether the connection should give back the memory that only requests need, because no
    /// request was received for `pause`. This is true only once before the next request, since a
    /// part of that may have been received already.
    pub(super) fn should_release(&self, now: Instant, pause: Duration) -> bool {
        self.is_fully_idle()
            && now - self.idle_since.get() >= pause
            && self.state.get() == ConnectionState::Serving
            && !self.rested.replace(true)
    }

    /// Whether no request is in flight and no response is being sent.
    pub(super) fn is_fully_idle(&self) -> bool {
        // HTTP/2 has state that outlives requests.
        self.is_idle()
            && self
                .backlog()
                .is_some_and(|backlog| backlog.phase() == Phase::Idle)
    }

    /// Returns from [`ConnectionState::Resting`] to [`ConnectionState::Serving`]: the connection
    /// has given back its memory, or cannot.
    pub(super) fn go_on(&self) {
        if self.state.get() == ConnectionState::Resting {
            self.state.set(ConnectionState::Serving);
        }
    }

    /// Sets the state of the connection and wakes its task.
    pub(super) fn enter(&self, state: ConnectionState) {
        if state == ConnectionState::Draining && self.draining_since.get().is_none() {
            self.draining_since.set(Some(Instant::now()));
        }
        self.state.set(state);
        self.wake();
    }

    /// Ends the connection with the next request, whose response says so. An idle connection stays
    /// open until then, because its client may be sending that request already.
    fn end_after_next(&self) {
        self.max_requests.set(0);
        if self.streams().is_some() {
            self.enter(ConnectionState::Draining);
        }
    }

    /// Acts on the stage of the worker.
    pub(super) fn follow(&self, stage: Stage) {
        match stage {
            Stage::Serving => {}
            Stage::Replaced => self.end_after_next(),
            Stage::Draining => self.enter(ConnectionState::Draining),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Waits for a state other than `known`. Polling it is cheap.
    pub(super) async fn state_after(&self, known: ConnectionState) -> ConnectionState {
        std::future::poll_fn(|cx| {
            let state = self.state.get();
            if state != known {
                return Poll::Ready(state);
            }
            let mut waker = self.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl ClientRequest {
    /// Whether no other request will be read from the connection, as its response has to say.
    pub(super) fn is_last(&self) -> bool {
        self.client.backlog().is_some_and(Backlog::is_last)
    }

    /// To be called when the response is passed to hyper, with its body if an endpoint sends it.
    pub(super) fn answer(&self, body: Option<Rc<dyn StalledBody>>) {
        if let Some(stream) = &self.stream {
            stream.answer(body);
        }
    }

    /// The stream of the request, if it was received over HTTP/2.
    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_deref()
    }

    /// The time of the worker's last check of its connections.
    pub(super) fn now(&self) -> Instant {
        self.client.clock.get()
    }
}

impl Drop for ClientRequest {
    /// The last byte of the response was passed to hyper, or the response was aborted.
    fn drop(&mut self) {
        let client = &self.client;
        client.end_one();
        if client.is_idle() {
            client.half_closed.set(None);
            client.backlog.enter(Phase::Answered);
        }
        if let (Some(stream), Some(streams)) = (&self.stream, client.streams()) {
            streams.end(stream, client.clock.get());
            if streams.is_abused() {
                client.enter(ConnectionState::Closing);
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end_one();
    }
}
