//! The connections to one address, counted over all workers, and how one is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::Live;
use crate::connections::ConnectionPermit;

/// The connections to an address.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    open: AtomicU32,
    /// Requests that wait for one to be closed. Whoever closes one looks at this afterwards, and who
    /// counts here looks at `open` afterwards, so one of the two sees the other (`SeqCst`).
    wanted: AtomicU32,
    /// Closings that were asked for and that nobody has undertaken yet.
    asked: AtomicU32,
    closed: Notify,
}

impl Seats {
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether whoever holds an idle one is to close it, for one that waits.
    pub(super) fn takes_one(&self) -> bool {
        let less = |asked: u32| asked.checked_sub(1);
        // Mostly nobody asks, and then nobody else's cache is disturbed.
        self.asked.load(Ordering::SeqCst) > 0
            && (self.asked)
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok()
    }

    fn take(&self, limit: u32) -> bool {
        let more = |open| (open < limit).then_some(open + 1);
        let taken = (self.open).fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.is_ok()
    }
}

/// Counts one connection for as long as it lives.
#[derive(Debug)]
pub struct Seat {
    live: Arc<Live>,
    /// The process's own permit for the connection, once it has it.
    permit: Option<ConnectionPermit>,
}

impl Seat {
    /// Counts a connection that is about to be opened. With `limit` of them, it waits until one is closed;
    /// with 0 there is no limit. `reclaim` is to have idle ones closed, wherever they are.
    pub(super) async fn take(live: Arc<Live>, limit: u32, reclaim: impl Fn()) -> Self {
        struct Wanted<'a>(&'a Seats);
        impl Drop for Wanted<'_> {
            fn drop(&mut self) {
                if self.0.wanted.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.0.asked.store(0, Ordering::SeqCst);
                }
            }
        }
        let limit = if limit == 0 { u32::MAX } else { limit };
        if !live.seats.take(limit) {
            let seats = &live.seats;
            seats.wanted.fetch_add(1, Ordering::SeqCst);
            let _wanted = Wanted(seats);
            loop {
                let closed = seats.closed.notified();
                let mut closed = std::pin::pin!(closed);
                // From here on none that is closed is missed.
                closed.as_mut().enable();
                if seats.take(limit) {
                    break;
                }
                seats.asked.fetch_add(1, Ordering::SeqCst);
                reclaim();
                closed.await;
            }
        }
        Self { live, permit: None }
    }

    /// Keeps a permit of the process for as long as the connection lives.
    pub(crate) fn keep(&mut self, permit: ConnectionPermit) {
        self.permit = Some(permit);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A request that waits for the place needs a permit as well.
        drop(self.permit.take());
        let seats = &self.live.seats;
        seats.open.fetch_sub(1, Ordering::SeqCst);
        if seats.wanted.load(Ordering::SeqCst) > 0 {
            seats.closed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_past_the_limit_waits_for_one_that_is_closed() {
        let live = Arc::<Live>::default();
        let take = |limit| Seat::take(Arc::clone(&live), limit, || {});
        let (first, second) = (take(2).await, take(2).await);
        let reclaims = Cell::new(0);
        let waits = Seat::take(Arc::clone(&live), 2, || reclaims.set(reclaims.get() + 1));
        let mut waits = std::pin::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!((live.seats.open(), reclaims.get()), (2, 1));
        // One connection is to be closed for it, and no second one.
        assert!(live.seats.takes_one());
        assert!(!live.seats.takes_one());
        drop(first);
        let third = waits.await;
        assert_eq!(live.seats.open(), 2);
        assert!(!live.seats.takes_one());
        let unlimited = take(0).await;
        assert_eq!(live.seats.open(), 3);
        drop((second, third, unlimited));
        assert_eq!(live.seats.open(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_wants_none() {
        let live = Arc::<Live>::default();
        let held = Seat::take(Arc::clone(&live), 1, || {}).await;
        let waits = Seat::take(Arc::clone(&live), 1, || {});
        assert!(waits.now_or_never().is_none());
        assert!(!live.seats.takes_one());
        drop(held);
        assert_eq!(live.seats.open(), 0);
    }
}
