//! The connection of a client: who it is, what it is doing, and when it has to go.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::mpsc;

use super::outgoing::Backlog;

/// What a worker and its connections know of each other. The words about the client are made once,
/// for all requests of the connection.
pub(super) struct Client {
    /// Its address, as headers show it.
    pub(super) ip: HeaderValue,
    /// The port that it came in on.
    pub(super) listen_port: u16,
    pub(super) listen_port_text: HeaderValue,
    /// Since when the next request is waited for; none while one is being served.
    waiting: Cell<Option<Instant>>,
    /// What it has not taken yet.
    pub(super) backlog: Backlog,
    order: Cell<Order>,
    /// Wakes the task of the connection.
    waker: RefCell<Option<Waker>>,
    /// The time, as of the worker's last look at its connections.
    clock: Rc<Cell<Instant>>,
    /// Held for as long as the connection lives, so that the worker can wait for the last of them.
    _open: mpsc::Sender<()>,
}

/// What a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// End after the request in flight.
    Finish,
    /// End now.
    Close,
}

impl Client {
    pub(super) fn new(
        address: SocketAddr,
        listen_port: u16,
        clock: Rc<Cell<Instant>>,
        open: mpsc::Sender<()>,
    ) -> Rc<Self> {
        let ip = address.ip().to_canonical().to_string();
        Rc::new(Self {
            ip: HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("")),
            listen_port,
            listen_port_text: HeaderValue::from(listen_port),
            waiting: Cell::new(Some(clock.get())),
            backlog: Backlog::default(),
            order: Cell::new(Order::Serve),
            waker: RefCell::new(None),
            clock,
            _open: open,
        })
    }

    /// A request has come in whole, but for its body.
    pub(super) fn request_begins(&self) {
        self.waiting.set(None);
    }

    /// The last byte of the response is on its way.
    pub(super) fn request_ends(&self) {
        self.waiting.set(Some(self.clock.get()));
    }

    /// Whether the next request should have come by now. None is expected of who has yet to take the
    /// last response: that has its own end, [`super::listen::SEND_TIMEOUT`].
    pub(super) fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        let Some(since) = self.waiting.get() else {
            return false;
        };
        if self.backlog.is_there() {
            self.waiting.set(Some(now));
            return false;
        }
        now - since >= patience
    }

    /// Tells the connection what to do.
    pub(super) fn tell(&self, order: Order) {
        self.order.set(order);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Waits for an order other than `known`. Costs next to nothing to poll.
    pub(super) async fn order_after(&self, known: Order) -> Order {
        std::future::poll_fn(|cx| {
            let order = self.order.get();
            if order != known {
                return Poll::Ready(order);
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
