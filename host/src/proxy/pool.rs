//! Idle connections to endpoints, one pool for each worker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::Notify;

use super::wire::{Connection, Destination, Exchange};
use crate::config;
use crate::connections::{ConnectionLimits, DescriptorPermit};

/// Time between two looks for connections that were idle too long.
const TIDY: Duration = Duration::from_secs(5);

/// How long the runtime's last look at its sockets counts. Turns are shorter than that as a rule,
/// so that hardly any request pays for a look of its own, which takes a fifth of a microsecond.
const FRESH: Duration = Duration::from_micros(200);

thread_local! {
    /// When this worker's runtime last looked at its sockets.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// To be called by a worker's thread whenever its runtime has looked for what its sockets have to
/// say.
pub(super) fn note_look() {
    LOOKED.set(Some(Instant::now()));
}

/// The idle connections of one worker.
pub(super) struct Pool {
    /// By destination, the one used last at the back.
    idle: RefCell<HashMap<Destination, VecDeque<Connection>>>,
    /// Told, for all workers, when a request waits for a connection to be closed.
    shortage: Arc<Notify>,
    limits: Arc<ConnectionLimits>,
    size: usize,
    max_requests: Option<u32>,
    idle_timeout: Option<Duration>,
}

impl Pool {
    /// A pool that shares `shortage` with those of the other workers.
    pub(super) fn new(
        settings: &config::Proxy,
        shortage: Arc<Notify>,
        limits: Arc<ConnectionLimits>,
    ) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            shortage,
            limits,
            size: settings.keepalive_pool_size,
            max_requests: settings.keepalive_max_requests,
            idle_timeout: settings.keepalive_idle_timeout,
        })
    }

    /// Room for an exchange, on the connection that was idle for the shortest time: the likeliest
    /// to be open still. `clock` is the worker's, as [`Pool::put`] had it.
    ///
    /// Endpoints end connections that were idle for long, some with a 408 before. What has come of
    /// that is seen by the runtime once in a turn, which a slow balancer or a busy machine makes
    /// long. So the system is asked in a turn that goes on, and where an end is likely.
    pub(super) fn take(&self, destination: &Destination, clock: Instant) -> Option<Exchange> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(destination)?;
        if list.is_empty() {
            return None;
        }
        let fresh = LOOKED.get().is_some_and(|looked| looked.elapsed() < FRESH);
        while let Some(mut connection) = list.pop_back() {
            let ask = !fresh || connection.idle_since() != clock;
            if !connection.is_stale(ask) {
                return Some(connection.into_exchange());
            }
        }
        None
    }

    /// Keeps the connection of an exchange that is over for the next request. `now` need not be
    /// exact.
    pub(super) fn put(&self, exchange: Exchange, now: Instant) {
        let Some(mut connection) = exchange.into_connection() else {
            return;
        };
        let worn = self
            .max_requests
            .is_some_and(|most| connection.requests() >= most);
        let useless = worn || connection.endpoint_leaving();
        // Asked last: who is told that it is wanted has to close it.
        let scarce = self.limits.endpoints_are_out();
        if self.size == 0 || useless || scarce || connection.claim_reclaim() {
            return;
        }
        connection.rest(now);
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(connection.destination().clone()).or_default();
        if list.len() >= self.size {
            list.pop_front();
        }
        list.push_back(connection);
    }

    /// Waits until the process may have one more connection to an endpoint. While it may not, each
    /// worker closes one that is idle.
    pub(super) async fn descriptor(&self) -> Option<DescriptorPermit> {
        if let Some(permit) = self.limits.endpoint() {
            return Some(permit);
        }
        self.shortage.notify_waiters();
        self.limits.endpoint_in_time().await
    }

    /// Has idle connections closed, in all workers, to endpoints that are short of them.
    pub(super) fn reclaim(&self) {
        self.shortage.notify_waiters();
    }

    /// Closes connections that were idle too long, lead to where nothing is sent any more, or are
    /// wanted elsewhere, now and then and when asked to, for as long as it is polled.
    pub(super) async fn tidy(self: Rc<Self>) {
        let timeout = self.idle_timeout.unwrap_or(Duration::MAX);
        let pause = TIDY.min(timeout);
        let mut due = tokio::time::Instant::now() + pause;
        loop {
            let shortage = self.shortage.notified();
            let mut shortage = std::pin::pin!(shortage);
            // From here on none is missed.
            shortage.as_mut().enable();
            self.keep(|connection| !connection.claim_reclaim());
            if self.limits.endpoints_are_out() {
                self.close_oldest();
            }
            if tokio::time::timeout_at(due, shortage).await.is_err() {
                self.keep(|connection| {
                    !connection.is_stale(false)
                        && !connection.endpoint_leaving()
                        && connection.idle_since().elapsed() < timeout
                });
                due = tokio::time::Instant::now() + pause;
            }
        }
    }

    /// Closes the connection that was idle for the longest time.
    fn close_oldest(&self) {
        let mut idle = self.idle.borrow_mut();
        let since = |list: &VecDeque<Connection>| Some(list.front()?.idle_since());
        let lists = idle.values_mut().filter(|list| !list.is_empty());
        if let Some(list) = lists.min_by_key(|list| since(list)) {
            list.pop_front();
        }
    }

    /// Closes the idle connections that are not worth it.
    fn keep(&self, mut worth: impl FnMut(&mut Connection) -> bool) {
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|connection| worth(connection));
            !list.is_empty()
        });
    }
}
