//! Idle connections to endpoints, one pool for each worker.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::Notify;

use super::connect::Place;
use super::wire::Connection;
use crate::config;

/// Time between two looks for connections that were idle too long.
const TIDY: Duration = Duration::from_secs(5);

/// The idle connections of one worker.
pub(super) struct Pool {
    /// By place, the one used last at the back.
    idle: RefCell<HashMap<Place, VecDeque<Box<Connection>>>>,
    /// Told, for all workers, when a request waits for a connection to be closed.
    shortage: Arc<Notify>,
    size: usize,
    max_requests: Option<u32>,
    idle_timeout: Option<Duration>,
}

impl Pool {
    /// A pool that shares `shortage` with those of the other workers.
    pub(super) fn new(settings: &config::Proxy, shortage: Arc<Notify>) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            shortage,
            size: settings.keepalive_pool_size,
            max_requests: settings.keepalive_max_requests,
            idle_timeout: settings.keepalive_idle_timeout,
        })
    }

    /// The connection that was idle for the shortest time: the likeliest to be open still.
    pub(super) fn take(&self, place: &Place) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(place)?;
        while let Some(mut connection) = list.pop_back() {
            if !connection.is_stale() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request. `now` need not be exact.
    pub(super) fn put(&self, mut connection: Box<Connection>, now: Instant) {
        let worn = self
            .max_requests
            .is_some_and(|most| connection.requests >= most);
        let useless = worn || !connection.is_reusable() || connection.is_useless();
        // Asked last: who is told that it is wanted has to close it.
        if self.size == 0 || useless || connection.is_wanted_elsewhere() {
            return;
        }
        connection.rest(now);
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(connection.place.clone()).or_default();
        if list.len() >= self.size {
            list.pop_front();
        }
        list.push_back(connection);
    }

    /// Has idle connections closed, in all workers, to endpoints that are short of them.
    pub(super) fn reclaim(&self) {
        self.shortage.notify_waiters();
    }

    /// Closes connections that were idle too long, lead to where nothing is sent any more, or are wanted
    /// elsewhere, now and then and when asked to, for as long as it is polled.
    pub(super) async fn tidy(self: Rc<Self>) {
        let timeout = self.idle_timeout.unwrap_or(Duration::MAX);
        let pause = TIDY.min(timeout);
        let mut due = tokio::time::Instant::now() + pause;
        loop {
            let shortage = self.shortage.notified();
            let mut shortage = std::pin::pin!(shortage);
            // From here on none is missed.
            shortage.as_mut().enable();
            self.keep(|connection| !connection.is_wanted_elsewhere());
            if tokio::time::timeout_at(due, shortage).await.is_err() {
                self.keep(|connection| {
                    !connection.is_stale()
                        && !connection.is_useless()
                        && connection.idle_since.elapsed() < timeout
                });
                due = tokio::time::Instant::now() + pause;
            }
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
