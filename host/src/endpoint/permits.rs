//! Permits for connections to one address, counted over all workers, and how a request waits for
//! one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::Live;
use crate::connections::DescriptorPermit;

/// The permits for connections to one address.
#[derive(Debug, Default)]
pub(crate) struct ConnectionPermits {
    open: AtomicU32,
    /// Requests that wait for a connection to be closed. The worker that closes one reads this
    /// afterwards, and the one that counts here reads `open` afterwards, so one of the two sees the
    /// other (`SeqCst`).
    wanted: AtomicU32,
    /// Connections that are to be closed for others and that no worker has closed yet.
    asked: AtomicU32,
    closed: Notify,
}

impl ConnectionPermits {
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the holder of an idle connection is to close it, for a request that waits.
    pub(super) fn takes_one(&self) -> bool {
        let less = |asked: u32| asked.checked_sub(1);
        // Mostly none is to be closed. Then this only reads, and other cores keep their cache
        // lines.
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
pub struct ConnectionPermit {
    live: Arc<Live>,
    /// The permit for a file descriptor of the process, once the connection has one.
    descriptor: Option<DescriptorPermit>,
}

impl ConnectionPermit {
    /// Counts a connection that is about to be opened. If `limit` are open, it waits until one is
    /// closed; 0 means no limit. `reclaim` is to have idle connections closed, on whichever worker.
    pub(super) async fn take(live: Arc<Live>, limit: u32, reclaim: impl Fn()) -> Self {
        struct Wanted<'a>(&'a ConnectionPermits);
        impl Drop for Wanted<'_> {
            fn drop(&mut self) {
                if self.0.wanted.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.0.asked.store(0, Ordering::SeqCst);
                }
            }
        }
        let limit = if limit == 0 { u32::MAX } else { limit };
        if !live.permits.take(limit) {
            let permits = &live.permits;
            permits.wanted.fetch_add(1, Ordering::SeqCst);
            let _wanted = Wanted(permits);
            loop {
                let closed = permits.closed.notified();
                let mut closed = std::pin::pin!(closed);
                // From here on no closing is missed.
                closed.as_mut().enable();
                if permits.take(limit) {
                    break;
                }
                permits.asked.fetch_add(1, Ordering::SeqCst);
                reclaim();
                closed.await;
            }
        }
        Self {
            live,
            descriptor: None,
        }
    }

    /// Keeps the permit for a file descriptor for as long as the connection lives.
    pub(crate) fn keep(&mut self, descriptor: DescriptorPermit) {
        self.descriptor = Some(descriptor);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        // First, since a request that waits for the permit needs a file descriptor as well.
        drop(self.descriptor.take());
        let permits = &self.live.permits;
        permits.open.fetch_sub(1, Ordering::SeqCst);
        if permits.wanted.load(Ordering::SeqCst) > 0 {
            permits.closed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_over_the_limit_waits_until_one_is_closed() {
        let live = Arc::<Live>::default();
        let take = |limit| ConnectionPermit::take(Arc::clone(&live), limit, || {});
        let (first, second) = (take(2).await, take(2).await);
        let reclaims = Cell::new(0);
        let waits =
            ConnectionPermit::take(Arc::clone(&live), 2, || reclaims.set(reclaims.get() + 1));
        let mut waits = std::pin::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!((live.permits.open(), reclaims.get()), (2, 1));
        // One connection is to be closed for it, and no second one.
        assert!(live.permits.takes_one());
        assert!(!live.permits.takes_one());
        drop(first);
        let third = waits.await;
        assert_eq!(live.permits.open(), 2);
        assert!(!live.permits.takes_one());
        let unlimited = take(0).await;
        assert_eq!(live.permits.open(), 3);
        drop((second, third, unlimited));
        assert_eq!(live.permits.open(), 0);
    }

    #[tokio::test]
    async fn a_request_that_gives_up_waiting_has_no_connection_closed() {
        let live = Arc::<Live>::default();
        let held = ConnectionPermit::take(Arc::clone(&live), 1, || {}).await;
        let waits = ConnectionPermit::take(Arc::clone(&live), 1, || {});
        assert!(waits.now_or_never().is_none());
        assert!(!live.permits.takes_one());
        drop(held);
        assert_eq!(live.permits.open(), 0);
    }
}
