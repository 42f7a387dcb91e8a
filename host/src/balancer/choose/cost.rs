//! What picks cost, and what becomes of a plugin whose picks cost too much.

use std::time::Instant;

use super::{Balancer, Inner, Request, Unavailable};
use crate::balancer::instance::{Fault, thread_cpu_time};
use crate::balancer::tally::TIMED;

/// Picks in a row, each of which costs too much, that are a fault.
const IN_A_ROW: u32 = 8;

/// What is known of how dear picks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Nothing bad: one pick in [`TIMED`] is looked at.
    Loose,
    /// Each pick is looked at. So many in a row cost too much.
    Close(u32),
}

impl Watch {
    /// For a plugin of which nothing is known yet, or nothing good.
    pub(super) const NEW: Self = Self::Close(0);
}

impl Inner {
    /// The same as [`Inner::ask`], and now and then with a look at the clock.
    pub(super) fn ask_timed(
        &mut self,
        balancer: &Balancer,
        request: Request<'_>,
    ) -> Result<Option<usize>, Unavailable> {
        if let Watch::Close(dear) = self.watch {
            return self.ask_watched(balancer, request, dear);
        }
        if !self.counters.picks.is_multiple_of(TIMED) {
            return self.ask(balancer, request);
        }
        let start = Instant::now();
        let answer = self.ask(balancer, request);
        let time = start.elapsed();
        self.counters.times.observe(time);
        if time > self.limits.pick_cost {
            // It may have waited for a processor. The next ones are looked at more closely.
            self.watch = Watch::Close(0);
        }
        answer
    }

    /// The same, where the pick before may have cost too much.
    #[cold]
    fn ask_watched(
        &mut self,
        balancer: &Balancer,
        request: Request<'_>,
        dear: u32,
    ) -> Result<Option<usize>, Unavailable> {
        let start = thread_cpu_time();
        let answer = self.ask(balancer, request);
        let cost = thread_cpu_time().saturating_sub(start);
        if answer.is_ok() {
            let is_dear = cost > self.limits.pick_cost;
            self.watch = if is_dear {
                Watch::Close(dear + 1)
            } else {
                Watch::Loose
            };
        }
        answer
    }

    /// Whether each of the last picks cost too much. One alone may have been of an instance that was made for it, or
    /// of a table that has changed.
    pub(super) fn is_too_dear(&self) -> bool {
        self.watch == Watch::Close(IN_A_ROW)
    }

    #[cold]
    pub(super) fn blame_cost(&mut self, upstream: &str) {
        // The next instance is watched from its first pick.
        self.watch = Watch::NEW;
        let fault = Fault::Cost {
            picks: IN_A_ROW,
            limit: self.limits.pick_cost,
        };
        self.blame(upstream, &fault);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::balancer::Limits;
    use crate::balancer::tests::{endpoints, guests::guest, patient_engine, picks};

    /// What each pick takes is taken from other upstreams as well.
    #[test]
    fn a_row_of_picks_that_cost_too_much_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let engine = patient_engine(&folder);
        let plugin = engine.load_trusted(&guest("heavy")).unwrap();
        let config = r#"{"steps": 10000}"#;
        let balancer = Balancer::new(Arc::clone(&engine), "u", plugin, config.into());
        balancer.set_endpoints(endpoints(&[1, 1]));
        picks(&balancer, 200);
        assert_eq!(balancer.counters().host_choices, 0);
        let faults = |asked: std::ops::RangeInclusive<u64>| {
            let before = balancer.counters();
            while balancer.counters().faults.cost == before.faults.cost {
                assert_eq!(balancer.counters().host_choices, 0);
                picks(&balancer, 1);
            }
            let after = balancer.counters();
            let picks = after.picks - before.picks;
            assert!(asked.contains(&picks), "{picks} picks");
            assert_eq!(
                after.last_fault.unwrap_or_default(),
                "each of 8 picks in a row took more than 10ns"
            );
            picks_stay_away(&balancer);
        };
        // One that was good for a while is looked at now and then.
        balancer.inner.lock().limits.pick_cost = Duration::from_nanos(10);
        faults(9..=TIMED + 8);
        // One that is new, as after other limits, is watched.
        let limits = Limits {
            pick_cost: Duration::from_nanos(10),
            ..engine.limits()
        };
        balancer.set_limits(Limits {
            pick_cost: Duration::from_nanos(20),
            ..limits
        });
        balancer.set_limits(limits);
        faults(8..=8);
    }

    fn picks_stay_away(balancer: &Balancer) {
        assert!(balancer.counters().quarantine.is_some());
        picks(balancer, 1);
        assert_eq!(balancer.counters().host_choices_by_kind.quarantine, 1);
    }
}
