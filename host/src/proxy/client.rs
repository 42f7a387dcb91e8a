//! The connection of a client: who it is, what it is doing, and when it has to go; and the requests
//! that are served on it, of which there may be several at a time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::client_stream::{Backlog, Phase};
use super::connection_info::ConnectionInfo;
use super::request_id::RequestId;
use crate::connections::DescriptorPermit;
use crate::http1::BodyKind;

/// Longest time that a client may leave sent data unacknowledged, or take nothing at all. Source:
/// nginx, `send_timeout`.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// What a worker and its connections know of each other.
pub(super) struct Client {
    /// How it came in.
    pub(super) info: ConnectionInfo,
    /// Requests that are being served.
    in_flight: Cell<u32>,
    /// Since when none was, and so the next one is waited for.
    idle_since: Cell<Instant>,
    /// The request that has begun last.
    last_request: Cell<Option<RequestId>>,
    /// Since when it is known that the client has closed its sending side.
    half_closed: Cell<Option<Instant>>,
    /// Whether the connection has rested since the last request.
    rested: Cell<bool>,
    /// Where its connection stands.
    pub(super) backlog: Backlog,
    state: Cell<ConnectionState>,
    /// Wakes the task of the connection.
    waker: RefCell<Option<Waker>>,
    /// The time, as of the worker's last look at its connections.
    clock: Rc<Cell<Instant>>,
    /// Held for as long as the connection lives, so that the worker can wait for the last of them.
    _open: mpsc::Sender<()>,
    /// Counts it among the connections of the process.
    _permit: Option<DescriptorPermit>,
}

/// A request of a client, from its head to the last byte of its response.
pub(super) struct ClientRequest {
    pub(super) client: Rc<Client>,
    pub(super) id: RequestId,
}

/// What a connection does, or is to do from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// It serves requests.
    Serving,
    /// It gives back memory until the next request comes.
    Resting,
    /// It ends after the request in flight.
    Draining,
    /// It ends now.
    Closing,
}

impl Client {
    pub(super) fn new(
        info: ConnectionInfo,
        clock: Rc<Cell<Instant>>,
        open: mpsc::Sender<()>,
        permit: Option<DescriptorPermit>,
    ) -> Rc<Self> {
        Rc::new(Self {
            info,
            in_flight: Cell::default(),
            idle_since: Cell::new(clock.get()),
            last_request: Cell::default(),
            half_closed: Cell::default(),
            // It has nothing to give back before its first request.
            rested: Cell::new(true),
            backlog: Backlog::default(),
            state: Cell::new(ConnectionState::Serving),
            waker: RefCell::new(None),
            clock,
            _open: open,
            _permit: permit,
        })
    }

    /// The head of a request has come in, and this body is to follow.
    pub(super) fn begin(self: &Rc<Self>, body: BodyKind) -> ClientRequest {
        let id = RequestId::new();
        self.in_flight.set(self.in_flight.get() + 1);
        self.last_request.set(Some(id));
        self.rested.set(false);
        self.backlog.begin(body);
        ClientRequest {
            client: Rc::clone(self),
            id,
        }
    }

    /// The request that is being served; of several the one that has begun last.
    pub(super) fn request_in_flight(&self) -> Option<RequestId> {
        self.last_request.get().filter(|_| !self.is_idle())
    }

    /// Whether no request is being served.
    fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// Whether the next request should have come by now. None is expected of a client that has yet
    /// to take the last response: that has its own end, [`SEND_TIMEOUT`].
    pub(super) fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        if !self.is_idle() {
            return false;
        }
        if self.backlog.has_unsent() {
            self.idle_since.set(now);
            return false;
        }
        now - self.idle_since.get() >= patience
    }

    /// Whether the client has gone in the middle of a request, as far as can be told. One that has
    /// closed its sending side may still read, so it is waited for with the start of its answer,
    /// for `patience`. Then its system tells by a reset if it does not, which the connection looks
    /// for when it is woken.
    pub(super) fn is_gone(&self, now: Instant, patience: Duration) -> bool {
        if self.is_idle() || !self.backlog.is_half_closed() {
            return false;
        }
        self.wake();
        let since = self.half_closed.get().unwrap_or(now);
        self.half_closed.set(Some(since));
        !self.backlog.is_tried() && now - since >= patience
    }

    /// Whether the connection should give back the memory that only requests need: none has come
    /// for `pause`. Once only before the next one, since a part of it may have come.
    pub(super) fn may_rest(&self, now: Instant, pause: Duration) -> bool {
        self.is_at_rest()
            && now - self.idle_since.get() >= pause
            && self.state.get() == ConnectionState::Serving
            && !self.rested.replace(true)
    }

    /// Whether nothing is being received or sent.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_idle() && self.backlog.phase() == Phase::Idle
    }

    /// It rests, or cannot.
    pub(super) fn go_on(&self) {
        if self.state.get() == ConnectionState::Resting {
            self.state.set(ConnectionState::Serving);
        }
    }

    /// Has the connection enter a state.
    pub(super) fn enter(&self, state: ConnectionState) {
        self.state.set(state);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Waits for a state other than `known`. Costs next to nothing to poll.
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

impl Drop for ClientRequest {
    /// The last byte of the response is on its way, or will never be.
    fn drop(&mut self) {
        let client = &self.client;
        client
            .in_flight
            .set(client.in_flight.get().saturating_sub(1));
        if client.is_idle() {
            client.idle_since.set(client.clock.get());
            client.half_closed.set(None);
            client.backlog.enter(Phase::Answered);
        }
    }
}
