//! Recovery by trials, the half-open state of a circuit breaker: an address that requests took out
//! gets one request now and then, and is available again if that one succeeds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The addresses that wait for a trial.
#[derive(Debug)]
pub(super) struct Trials {
    /// When the first of them is due, in microseconds of the balancers' clock. While none is due,
    /// reading this is all that a request costs.
    next: AtomicU64,
    waiting: Mutex<Vec<PendingTrial>>,
}

#[derive(Debug)]
struct PendingTrial {
    endpoint: u64,
    due: u64,
    pause: Duration,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(u64::MAX),
            waiting: Mutex::default(),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Trials {
    /// Schedules the trial of an address that has become unavailable: after `pause`.
    pub(super) fn add(&self, endpoint: u64, now: u64, pause: Duration) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|trial| trial.endpoint != endpoint);
        waiting.push(PendingTrial {
            endpoint,
            due: now.saturating_add(micros(pause)),
            pause,
        });
        self.publish(&waiting);
    }

    /// Schedules the trial of an unavailable address, unless it is scheduled already.
    pub(super) fn expect(&self, endpoint: u64, now: u64, pause: Duration) {
        let waits = |trial: &PendingTrial| trial.endpoint == endpoint;
        if !self.waiting.lock().iter().any(waits) {
            self.add(endpoint, now, pause);
        }
    }

    /// Ends the trials of an address that is available again, or was removed.
    pub(super) fn remove(&self, endpoint: u64) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|trial| trial.endpoint != endpoint);
        self.publish(&waiting);
    }

    /// The addresses that wait, each with the microseconds until its trial at `now`.
    pub(super) fn due(&self, now: u64) -> Vec<(u64, u64)> {
        if self.next.load(Ordering::Relaxed) == u64::MAX {
            return Vec::new();
        }
        let waiting = self.waiting.lock();
        let due = waiting.iter();
        due.map(|trial| (trial.endpoint, trial.due.saturating_sub(now)))
            .collect()
    }

    /// An address whose trial is due. Its next trial comes after twice the pause, `longest` at
    /// most.
    pub(super) fn take(&self, now: u64, longest: Duration) -> Option<u64> {
        if now < self.next.load(Ordering::Relaxed) {
            return None;
        }
        let mut waiting = self.waiting.lock();
        let trial = waiting.iter_mut().find(|trial| trial.due <= now)?;
        trial.pause = (trial.pause * 2).min(longest);
        trial.due = now.saturating_add(micros(trial.pause));
        let endpoint = trial.endpoint;
        self.publish(&waiting);
        Some(endpoint)
    }

    fn publish(&self, waiting: &[PendingTrial]) {
        let next = waiting.iter().map(|trial| trial.due).min();
        self.next.store(next.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_trial_comes_once_after_its_pause_and_again_after_twice_the_pause() {
        let trials = Trials::default();
        trials.add(7, 0, SECOND);
        assert_eq!(trials.take(999_999, 8 * SECOND), None);
        assert_eq!(trials.take(1_000_000, 8 * SECOND), Some(7));
        assert_eq!(trials.take(2_999_999, 8 * SECOND), None);
        assert_eq!(trials.take(3_000_000, 8 * SECOND), Some(7));
    }

    #[test]
    fn pauses_grow_to_the_longest_and_no_further() {
        let trials = Trials::default();
        trials.add(7, 0, SECOND);
        let (mut now, mut last) = (0, 0);
        let mut gaps = Vec::new();
        while gaps.len() < 5 {
            now += 500_000;
            if trials.take(now, 4 * SECOND).is_some() {
                gaps.push((now - last) / 1_000_000);
                last = now;
            }
        }
        assert_eq!(gaps, [1, 2, 4, 4, 4]);
    }

    #[test]
    fn a_removed_address_gets_no_trial() {
        let trials = Trials::default();
        trials.add(7, 0, SECOND);
        trials.add(8, 0, SECOND);
        trials.remove(7);
        assert_eq!(trials.take(u64::MAX - 1, SECOND), Some(8));
    }
}
