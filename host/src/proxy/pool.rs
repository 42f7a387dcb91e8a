//! Connections to endpoints that a request may use, one pool for each worker: idle ones, and all
//! that requests share.

mod early_closes;
mod figures;
mod shared;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::Notify;

use super::Counters;
use super::wire::{Connection, Destination, Exchange, SharedConnection};
use crate::config;
use crate::connections::{ConnectionLimits, DescriptorPermit};
use early_closes::EarlyCloses;
pub use figures::PoolFigures;
use shared::Shared;
pub(super) use shared::Turn;

/// Time between two checks for connections that were idle for too long.
const TIDY: Duration = Duration::from_secs(5);

/// How long the runtime's last poll of its sockets counts as current. A turn of the loop of a busy
/// worker is usually shorter: it has some fifty events, of ten microseconds each. So few requests
/// need a system call of their own, which takes a fifth of a microsecond. A network delays the news
/// of a close by as much.
const FRESH: Duration = Duration::from_millis(1);

thread_local! {
    /// When this worker's runtime last polled its sockets, as far as this is known.
    static LAST_POLL: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether the runtime tells of its next poll.
    static POLL_REQUESTED: Cell<bool> = const { Cell::new(false) };
}

/// To be called by a worker's thread after its runtime has waited for socket events.
pub(super) fn note_poll() {
    LAST_POLL.set(Some(Instant::now()));
}

/// How old the runtime's last poll for events on sockets is. While a worker is busy, its runtime
/// polls without waiting, and tells of it only if asked: it wakes those that have yielded.
fn age_of_last_poll() -> Option<Duration> {
    struct Polled;
    impl Wake for Polled {
        fn wake(self: Arc<Self>) {
            POLL_REQUESTED.set(false);
            note_poll();
        }
    }
    static POLLED: LazyLock<Waker> = LazyLock::new(|| Waker::from(Arc::new(Polled)));

    let age = LAST_POLL.get().map(|looked| looked.elapsed());
    if age.is_none_or(|age| age > FRESH / 4) && !POLL_REQUESTED.replace(true) {
        let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&POLLED));
    }
    age
}

/// The connections of one worker that requests may use.
pub(super) struct Pool {
    /// By destination; the connection that was used last is at the back.
    idle: RefCell<HashMap<Destination, VecDeque<Connection>>>,
    /// How many are idle over HTTP/1.1.
    idle_count: Cell<usize>,
    early_closes: EarlyCloses,
    /// Those that requests share.
    shared: Shared,
    /// Notifies all workers that a request waits until a connection is closed.
    shortage: Arc<Notify>,
    limits: Arc<ConnectionLimits>,
    size: usize,
    max_requests: Option<u32>,
    idle_timeout: Option<Duration>,
    counters: Arc<Counters>,
}

impl Pool {
    /// A pool that shares `shortage` with the pools of the other workers, and counts in the
    /// counters of its worker.
    pub(super) fn new(
        settings: &config::Proxy,
        shortage: Arc<Notify>,
        limits: Arc<ConnectionLimits>,
        counters: &Arc<Counters>,
    ) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            idle_count: Cell::new(0),
            early_closes: EarlyCloses::default(),
            counters: Arc::clone(counters),
            shared: Shared::default(),
            shortage,
            limits,
            size: settings.keepalive_pool_size,
            max_requests: settings.keepalive_max_requests,
            idle_timeout: settings.keepalive_idle_timeout,
        })
    }

    /// Starts an exchange on the connection that was idle for the shortest time, which is the most
    /// likely to be still open. `clock` is the worker's clock, which [`Pool::put`] is given as
    /// well.
    ///
    /// Endpoints close connections that were idle for long, some after a 408. The runtime notices
    /// this once in a turn of its loop, and a slow balancer or a busy machine makes turns long. So
    /// the system is asked if the runtime's last poll is not current, or if the connection was put
    /// back before the last update of `clock`, since a close is likelier then.
    pub(super) fn take(&self, destination: &Destination, clock: Instant) -> Option<Exchange> {
        if destination.http2.is_some()
            && let Some(exchange) = self.take_stream(destination)
        {
            return Some(exchange);
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(destination)?;
        if list.is_empty() {
            return None;
        }
        let fresh = age_of_last_poll().is_some_and(|age| age < FRESH);
        let mut closed = Some(&self.early_closes);
        while let Some(mut connection) = list.pop_back() {
            self.set_idle(self.idle_count.get() - 1);
            let ask = !fresh || connection.idle_since() != clock;
            if !connection.is_stale(ask) {
                self.figures().note_reused();
                return Some(connection.into_exchange());
            }
            // An endpoint that restarts closes many at once: they count as one.
            if let Some(closed) = closed.take() {
                let (requests, since) = (connection.requests(), connection.idle_since());
                closed.note_closed(destination, requests, since);
            }
        }
        None
    }

    /// Starts an exchange on a connection that others share and that has room for another one.
    pub(super) fn take_stream(&self, destination: &Destination) -> Option<Exchange> {
        let is_used_up = |connection: &SharedConnection| {
            self.is_used_up(connection.requests()) || connection.endpoint_leaving()
        };
        let exchange = self.shared.exchange(destination, is_used_up)?;
        self.figures().note_reused();
        Some(exchange)
    }

    /// What a request has to do that has found no shared connection. Waits while another
    /// request opens one.
    pub(super) async fn turn(&self, destination: &Destination) -> Turn<'_> {
        self.shared.turn(destination).await
    }

    /// Whether connections are kept for further requests.
    pub(super) fn keeps_connections(&self) -> bool {
        self.size > 0
    }

    /// Shares a connection with other requests, if connections are kept.
    pub(super) fn share(&self, connection: &SharedConnection) {
        if self.keeps_connections() {
            self.shared.add(connection.clone());
        }
    }

    /// Notified when an exchange on a shared connection ends.
    pub(super) fn freed(&self) -> &Rc<Notify> {
        self.shared.freed()
    }

    /// Whether a connection that has served this many requests is closed.
    fn is_used_up(&self, requests: u32) -> bool {
        self.max_requests.is_some_and(|most| requests >= most)
    }

    /// Keeps the connection of a finished exchange for the next request. `now` need not be exact.
    pub(super) fn put(&self, exchange: Exchange, now: Instant) {
        let Some(mut connection) = exchange.into_connection() else {
            return;
        };
        if connection.requests() > 1 {
            self.early_closes.note_reused(connection.destination());
        }
        let useless = self.is_used_up(connection.requests())
            || connection.endpoint_leaving()
            || self.early_closes.keeps_none(connection.destination(), now);
        // `claim_reclaim` is called last, because a caller that gets `true` has to close the
        // connection.
        let scarce = self.limits.endpoint_permits_exhausted();
        if self.size == 0 || useless || scarce || connection.claim_reclaim() {
            return;
        }
        connection.rest(now);
        let mut idle = self.idle.borrow_mut();
        // A look-up first: an entry would need a copy of the destination each time.
        let list = match idle.get_mut(connection.destination()) {
            Some(list) => list,
            None => idle.entry(connection.destination().clone()).or_default(),
        };
        if list.len() >= self.size {
            list.pop_front();
        } else {
            self.set_idle(self.idle_count.get() + 1);
        }
        list.push_back(connection);
    }

    /// What the pool has done.
    pub(super) fn figures(&self) -> &PoolFigures {
        &self.counters.pool
    }

    fn set_idle(&self, number: usize) {
        self.idle_count.set(number);
        self.figures().set_idle(number);
    }

    /// Waits until the process may open one more connection to an endpoint. If the limit is
    /// reached, each worker closes one idle connection.
    pub(super) async fn descriptor(&self) -> Option<DescriptorPermit> {
        if let Some(permit) = self.limits.endpoint() {
            return Some(permit);
        }
        self.shortage.notify_waiters();
        self.limits.wait_for_endpoint_permit().await
    }

    /// Asks all workers to close idle connections to endpoints at their limit.
    pub(super) fn reclaim(&self) {
        self.shortage.notify_waiters();
    }

    /// Closes idle connections: those that were idle for too long or whose endpoint is leaving, at
    /// intervals; and those whose permit another request needs, when notified. Runs until it is
    /// aborted.
    pub(super) async fn tidy(self: Rc<Self>) {
        let timeout = self.idle_timeout.unwrap_or(Duration::MAX);
        let pause = TIDY.min(timeout);
        let mut due = tokio::time::Instant::now() + pause;
        loop {
            let shortage = self.shortage.notified();
            let mut shortage = std::pin::pin!(shortage);
            // From here on, no notification is missed.
            shortage.as_mut().enable();
            self.keep(|connection| !connection.claim_reclaim());
            self.shared.keep(|connection| !connection.claim_reclaim());
            if self.limits.endpoint_permits_exhausted() {
                self.close_oldest();
            }
            if tokio::time::timeout_at(due, shortage).await.is_err() {
                self.keep(|connection| {
                    !connection.is_stale(false)
                        && !connection.endpoint_leaving()
                        && connection.idle_since().elapsed() < timeout
                });
                self.shared.keep(|connection| {
                    !connection.endpoint_leaving() && connection.idle_since().elapsed() < timeout
                });
                self.early_closes.tidy();
                due = tokio::time::Instant::now() + pause;
            }
        }
    }

    /// Closes the connection over HTTP/1.1 that was idle for the longest time; if there is none,
    /// all idle ones over HTTP/2.
    fn close_oldest(&self) {
        let mut idle = self.idle.borrow_mut();
        let since = |list: &VecDeque<Connection>| Some(list.front()?.idle_since());
        let lists = idle.values_mut().filter(|list| !list.is_empty());
        match lists.min_by_key(|list| since(list)) {
            Some(list) => {
                list.pop_front();
                self.set_idle(self.idle_count.get() - 1);
            }
            None => self.shared.keep(|_| false),
        }
    }

    /// Closes the idle connections for which `worth` is false.
    fn keep(&self, mut worth: impl FnMut(&mut Connection) -> bool) {
        let mut number = 0;
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|connection| worth(connection));
            number += list.len();
            !list.is_empty()
        });
        self.set_idle(number);
    }
}
