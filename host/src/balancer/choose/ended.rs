//! Tells the instance of tries that have ended, if it exports `outcome`.
//!
//! As a rule, the worker whose try has ended tells it. If a pick holds the lock, no worker waits
//! for it: the try stays in the queue, and the next pick tells of it first. Either holds the lock
//! for as long as a pick may take, and a call: picks of other workers wait for it.

use std::sync::Arc;
use std::time::Instant;

use super::{Balancer, By, Inner, Slot};
use crate::balancer::outcomes::{OutcomeDelivery, Outcomes};
use crate::clock::thread_cpu_time;
use crate::endpoint::TryNotes;

/// Most tries that a pick tells of before it asks: a client waits for it. It is more than one, so
/// that the queue shrinks even if no other call finds the lock free.
pub(super) const BEFORE_A_PICK: usize = 4;

/// Most tries that a worker tells of when one of its own has ended.
const AT_AN_END: usize = 16;

impl Balancer {
    /// A balancer whose tries that end are told of at once, and not only before the next pick.
    pub fn shared(self) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            own: own.clone(),
            ..self
        })
    }
}

impl OutcomeDelivery for Balancer {
    fn deliver_ended(&self) {
        // If a pick holds the lock, the next one tells of it.
        if let Some(mut inner) = self.inner.try_lock() {
            inner.deliver_ended(self, AT_AN_END);
        }
    }
}

impl Inner {
    /// What is noted of a try of the present pick, if the plugin made the choice and is told
    /// how it ends.
    #[inline]
    pub(super) fn notes(&self, by: By, endpoint: u64, now: u64) -> Option<Box<TryNotes>> {
        if !self.plugin.prepared.takes_outcomes() || by != By::Plugin {
            return None;
        }
        let Slot::Running(instance) = &self.slot else {
            return None;
        };
        let outcomes = self.outcomes.as_ref()?;
        Some(outcomes.notes(self.generation, endpoint, instance.tag(), now))
    }

    /// Has the queue begin with the present instance, or with none: it is told of no try so far.
    pub(super) fn begin_outcomes(&mut self, balancer: &Balancer) {
        if let Some(outcomes) = &self.outcomes {
            self.generation = outcomes.begin();
        } else if self.plugin.prepared.takes_outcomes() {
            let outcomes = Arc::new(Outcomes::new(balancer.own.clone()));
            self.generation = outcomes.begin();
            self.outcomes = Some(outcomes);
        }
    }

    /// Tells the instance of as many tries at most, and of fewer once that has taken `pick_cost`.
    /// Each call costs as a pick does.
    #[inline(never)]
    pub(super) fn deliver_ended(&mut self, balancer: &Balancer, most: usize) {
        let begun = Instant::now();
        for number in 0..most {
            if number > 0 && begun.elapsed() >= self.limits.pick_cost {
                return;
            }
            let Slot::Running(instance) = &mut self.slot else {
                return;
            };
            let Some(ended) = self.outcomes.as_ref().and_then(|outcomes| outcomes.next()) else {
                return;
            };
            let cpu = self.budget.is_watched().then(thread_cpu_time);
            if let Err(fault) = instance.try_ended(&ended) {
                return self.record_fault(&balancer.upstream, &fault);
            }
            self.counters.outcomes += 1;
            if let Some(tape) = &mut self.tape
                && tape.ended(&ended, instance.recorded_answers()).is_err()
            {
                self.end_recording(&balancer.recorded);
            }
            self.charge_call(cpu);
            if self.is_over_cost() {
                return self.record_cost_fault(&balancer.upstream);
            }
        }
    }
}
