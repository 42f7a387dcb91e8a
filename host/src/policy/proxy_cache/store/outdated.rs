//! The slots of responses that a request has outdated, and when.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::policy::proxy_cache::key::Slot;

/// Most times that are remembered.
const MOST: usize = 10_000;

/// When requests outdated the responses of slots: what was asked for before is not stored after.
#[derive(Debug, Default)]
pub(super) struct Outdated {
    /// The latest time of each slot.
    latest: HashMap<Slot, Instant>,
    /// All times, the oldest first, also those of a slot that has a later one.
    times: VecDeque<(Instant, Slot)>,
    /// The latest time that is forgotten. It counts for all slots, so a response may be refused
    /// that is not outdated, and none is stored that is.
    forgotten: Option<Instant>,
}

impl Outdated {
    /// Remembers that a slot is outdated `now`, which is not before any time that is remembered.
    pub(super) fn record(&mut self, slot: Slot, now: Instant) {
        self.latest.insert(slot, now);
        self.times.push_back((now, slot));
        while self.times.len() > MOST {
            let Some((oldest, slot)) = self.times.pop_front() else {
                return;
            };
            if self.latest.get(&slot) == Some(&oldest) {
                self.latest.remove(&slot);
                self.forgotten = Some(oldest);
            }
        }
    }

    /// Whether a response that was asked for at this time may be outdated.
    pub(super) fn covers(&self, slot: &Slot, asked: Instant) -> bool {
        let latest = self.latest.get(slot).copied();
        self.forgotten
            .max(latest)
            .is_some_and(|outdated| asked <= outdated)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::identity;
    use super::*;

    fn slot(number: usize) -> Slot {
        Slot::of(identity(1).slot.key, &number.to_be_bytes())
    }

    #[test]
    fn what_was_asked_for_before_is_outdated_whatever_is_forgotten() {
        let mut outdated = Outdated::default();
        let before = Instant::now();
        let at = |number: usize| before + Duration::from_micros(number as u64);
        let count = 2 * MOST;
        for number in 1..=count {
            outdated.record(slot(number), at(number));
        }
        assert_eq!((outdated.latest.len(), outdated.times.len()), (MOST, MOST));
        for number in 1..=count {
            assert!(outdated.covers(&slot(number), before), "{number}");
            assert!(outdated.covers(&slot(number), at(number)), "{number}");
            assert!(!outdated.covers(&slot(number), at(count + 1)), "{number}");
        }
        let last = count - MOST;
        assert!(outdated.covers(&slot(0), at(last)));
        assert!(!outdated.covers(&slot(0), at(last + 1)));
    }

    #[test]
    fn a_slot_that_is_outdated_again_and_again_counts_for_itself_alone() {
        let mut outdated = Outdated::default();
        let before = Instant::now();
        for number in 0..3 * MOST {
            let now = before + Duration::from_micros(number as u64);
            outdated.record(slot(1), now);
        }
        assert_eq!((outdated.latest.len(), outdated.times.len()), (1, MOST));
        assert!(outdated.covers(&slot(1), before));
        assert!(!outdated.covers(&slot(2), before));
    }
}
