//! All requests since a moment, for those who judge a rollout by them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{TOTALS, Times, Traffic};

/// All requests since the counting began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    /// Those of them that were answered with a status of 500 or more.
    pub(crate) errors: u64,
    /// Times until the heads of the responses.
    pub(crate) times: Times,
}

impl Totals {
    pub(super) fn add(&mut self, failed: bool, took: Duration) {
        self.requests += 1;
        self.errors += u64::from(failed);
        self.times.add(took);
    }

    /// Adds the requests of others.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.times.merge(&other.times);
    }

    /// The requests that are in these totals and were not in those before.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            times: self.times.since(&before.times),
        }
    }
}

/// Ends the counting when it is dropped.
#[must_use]
pub(crate) struct Counting<'a>(&'a Traffic);

impl Counting<'_> {
    /// What was counted so far.
    pub(crate) fn totals(&self) -> Totals {
        let mut all = Totals::default();
        for shard in &self.0.shards {
            // Merged outside the lock, so that no request waits for it.
            let totals = shard.0.lock().totals.clone();
            if let Some(totals) = totals {
                all.merge(&totals);
            }
        }
        all
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.collected.fetch_and(!TOTALS, Ordering::Relaxed);
    }
}

impl Traffic {
    /// Counts all requests, from zero on, until the result is dropped. There is one at a time.
    pub(crate) fn count(&self) -> Counting<'_> {
        for shard in &self.shards {
            shard.0.lock().totals = None;
        }
        self.collected.fetch_or(TOTALS, Ordering::Relaxed);
        Counting(self)
    }
}
