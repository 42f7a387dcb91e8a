//! What a pool has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has become of a worker's connections to endpoints. The worker alone writes these, so it
/// needs no atomic additions.
#[derive(Debug, Default)]
pub struct PoolFigures {
    /// Connections that were opened.
    pub opened: AtomicU64,
    /// Connections that could not be opened, also because there was no time left.
    pub failed: AtomicU64,
    /// Exchanges that began on a connection that was open before.
    pub reused: AtomicU64,
    /// Connections over HTTP/1.1 that are idle.
    pub idle: AtomicU64,
}

impl PoolFigures {
    pub(super) fn note_reused(&self) {
        add(&self.reused);
    }

    /// Notes that a connection was opened, or could not be.
    pub(in crate::proxy) fn note_opened(&self, is_open: bool) {
        add(if is_open { &self.opened } else { &self.failed });
    }

    pub(super) fn set_idle(&self, number: usize) {
        self.idle.store(number as u64, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
