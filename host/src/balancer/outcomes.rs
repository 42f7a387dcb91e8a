//! Tries that have ended, and that the instance that placed them has not been told of yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::endpoint::{EndedTry, TryListener, TryNotes};

/// Most tries that wait. When there are more, the newest are dropped: what the balancer is told is
/// in order, but may have a gap, of which only the counter tells.
const MAX_QUEUED: usize = 1024;

/// What passes ended tries on to an instance.
pub(super) trait OutcomeDelivery: Send + Sync {
    /// Tells the instance of tries that wait, unless it is busy.
    fn deliver_ended(&self);
}

/// The queue of a balancer that is told how its tries end.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// Passes them on as soon as they wait, if there is one.
    delivery: Weak<dyn OutcomeDelivery>,
    waiting: Mutex<Waiting>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The number of the instance that is told. Each has tags of its own, so tries of the one
    /// before are no longer of use.
    generation: u64,
    tries: VecDeque<EndedTry>,
}

impl Outcomes {
    pub(super) fn new(delivery: Weak<dyn OutcomeDelivery>) -> Self {
        Self {
            delivery,
            waiting: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Begins with another instance, which is told of none of the tries so far. Returns its number.
    pub(super) fn begin(&self) -> u64 {
        let mut waiting = self.waiting.lock();
        waiting.generation += 1;
        waiting.tries.clear();
        waiting.generation
    }

    /// What is noted of a try, so that the instance of this generation is told of it.
    pub(super) fn notes(
        self: &Arc<Self>,
        generation: u64,
        endpoint: u64,
        tag: u64,
        picked: u64,
    ) -> Box<TryNotes> {
        let listener = Arc::clone(self) as Arc<dyn TryListener>;
        Box::new(TryNotes::new(listener, generation, endpoint, tag, picked))
    }

    /// The try that has waited the longest.
    pub(super) fn next(&self) -> Option<EndedTry> {
        self.waiting.lock().tries.pop_front()
    }

    /// Tries that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts the dropped tries from zero again.
    pub(super) fn forget_dropped(&self) {
        self.dropped.store(0, Ordering::Relaxed);
    }
}

impl TryListener for Outcomes {
    fn try_ended(&self, generation: u64, ended: EndedTry) {
        {
            let mut waiting = self.waiting.lock();
            if generation != waiting.generation {
                return;
            }
            if waiting.tries.len() < MAX_QUEUED {
                waiting.tries.push_back(ended);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(delivery) = self.delivery.upgrade() {
            delivery.deliver_ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoInstance;

    impl OutcomeDelivery for NoInstance {
        fn deliver_ended(&self) {}
    }

    fn outcomes() -> Arc<Outcomes> {
        Arc::new(Outcomes::new(Weak::<NoInstance>::new()))
    }

    fn end(outcomes: &Arc<Outcomes>, generation: u64, tag: u64) {
        drop(outcomes.notes(generation, 1, tag, 0));
    }

    #[test]
    fn tries_wait_in_order_and_the_newest_are_dropped() {
        let outcomes = outcomes();
        let generation = outcomes.begin();
        let all = MAX_QUEUED as u64 + 3;
        (0..all).for_each(|tag| end(&outcomes, generation, tag));
        assert_eq!(outcomes.dropped(), 3);
        let told: Vec<u64> = std::iter::from_fn(|| Some(outcomes.next()?.tag)).collect();
        assert_eq!(told, (0..MAX_QUEUED as u64).collect::<Vec<_>>());
        end(&outcomes, generation, 9);
        assert_eq!(outcomes.next().map(|ended| ended.tag), Some(9));
        outcomes.forget_dropped();
        assert_eq!(outcomes.dropped(), 0);
    }

    #[test]
    fn an_instance_is_told_only_of_its_own_tries() {
        let outcomes = outcomes();
        let first = outcomes.begin();
        end(&outcomes, first, 1);
        let under_way = outcomes.notes(first, 1, 2, 0);
        let second = outcomes.begin();
        drop(under_way);
        end(&outcomes, second, 3);
        assert_eq!(outcomes.next().map(|ended| ended.tag), Some(3));
        assert_eq!(outcomes.next(), None);
        assert_eq!(outcomes.dropped(), 0);
    }
}
