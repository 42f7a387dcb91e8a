//! The host's own choice, if the plugin makes none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Balancer, By, Choice, ChoiceDetails, PickRequest};
use crate::balancer::note::ChosenBy;
use crate::clock::micros;
use crate::endpoint::Endpoint;

impl Balancer {
    /// Whether the balancer is in quarantine, as far as that is known without the lock. While picks
    /// are recorded the answer is no, since each has to be recorded in order.
    pub(super) fn in_quarantine(&self) -> bool {
        let until = self.quarantined_until.load(Ordering::Relaxed);
        if until == 0 || self.recorded.load(Ordering::Relaxed) {
            return false;
        }
        let in_quarantine = micros(Instant::now()) < until;
        if !in_quarantine {
            // Later picks do not read the clock again for it, unless another thread has set another
            // time meanwhile.
            let (done, order) = (0, Ordering::Relaxed);
            let _ = self
                .quarantined_until
                .compare_exchange(until, done, order, order);
        }
        in_quarantine
    }

    /// The host's own choice, without the lock. If there is an endpoint, `count` goes up by one;
    /// `cause` is why the plugin is not asked.
    pub(super) fn choose_without_instance<T>(
        &self,
        (count, cause): (&AtomicU64, &'static str),
        request: PickRequest<'_>,
        tried: &[u64],
        claim: impl FnOnce(Arc<Endpoint>, By, ChoiceDetails) -> T,
    ) -> Choice<T> {
        let table = self.table.read();
        match fallback_pick(&table, request.entropy, tried) {
            Some(position) => {
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(note) = request.note {
                    note.set(ChosenBy::Host(cause), None);
                }
                let endpoint = picked(&table[position]);
                Choice::Endpoint(claim(endpoint, By::Host, ChoiceDetails::default()))
            }
            None => Choice::Empty,
        }
    }
}

/// The endpoint that a request is sent to; counts the pick there.
pub(super) fn picked(endpoint: &Arc<Endpoint>) -> Arc<Endpoint> {
    endpoint.count_pick();
    Arc::clone(endpoint)
}

/// A position, or the next one whose endpoint has not been tried.
pub(super) fn untried(table: &[Arc<Endpoint>], position: usize, tried: &[u64]) -> usize {
    if tried.is_empty() || !tried.contains(&table[position].id) {
        return position;
    }
    let further = (position..table.len()).chain(0..position);
    let mut left = further.filter(|&next| !tried.contains(&table[next].id));
    left.next().unwrap_or(position)
}

/// A fallback pick, which the host makes: by weight, at random, among those that have not been
/// tried; none if there is no endpoint.
pub(super) fn fallback_pick(table: &[Arc<Endpoint>], entropy: u64, tried: &[u64]) -> Option<usize> {
    let total: u64 = table
        .iter()
        .map(|endpoint| u64::from(endpoint.weight))
        .sum();
    let mut ticket = entropy.checked_rem(total)?;
    let drawn = table.iter().position(|endpoint| {
        let weight = u64::from(endpoint.weight);
        let hit = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        hit
    });
    drawn.map(|position| untried(table, position, tried))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::tests::{balancer, engine, picks};

    #[test]
    fn picks_during_a_quarantine_do_not_wait_for_the_lock() {
        let (_folder, engine) = engine();
        let balancer = balancer(&engine, "loops", &[1, 1]);
        // The first pick is the fault; the second one is already in quarantine.
        picks(&balancer, 2);
        let held = balancer.inner.lock();
        assert!(picks(&balancer, 3).iter().all(|id| *id > 0));
        drop(held);
        let counters = balancer.counters();
        assert_eq!((counters.picks, counters.fallback_picks), (5, 5));
        let by_kind = &counters.fallback_picks_by_kind;
        assert_eq!((by_kind.quarantine, by_kind.busy), (4, 0));
        balancer.set_endpoints(Arc::new([]));
        assert_eq!(picks(&balancer, 1), [0]);
        // Other limits end the quarantine.
        let limits = engine.limits();
        balancer.set_limits(crate::balancer::PickLimits { state: 0, ..limits });
        assert!(!balancer.in_quarantine());
    }
}
