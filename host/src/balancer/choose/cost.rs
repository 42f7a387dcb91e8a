//! What picks cost, and what becomes of a plugin whose picks cost too much.

use std::time::Instant;

use super::{Balancer, Inner, Request, Unavailable};
use crate::balancer::instance::{Fault, thread_cpu_time};
use crate::balancer::tally::TIMED;

/// How far picks that cost too much may outnumber the others, of those that follow each other.
const TOO_MANY: u32 = 8;

/// How closely the cost of picks is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// One pick in [`TIMED`] is looked at, and the plugin cannot know which.
    Loose,
    /// Each pick is looked at. Those that cost too much are so many more than the others.
    Close(u32),
}

impl Watch {
    /// For an instance of which nothing is known yet.
    pub(super) const NEW: Self = Self::Close(0);

    fn after(dear: u32, is_dear: bool) -> Self {
        if is_dear {
            return Self::Close(dear + 1);
        }
        dear.checked_sub(1).map_or(Self::Loose, Self::Close)
    }
}

impl Inner {
    /// The same as [`Inner::ask`], and now and then with a look at the clock.
    pub(super) fn ask_timed(
        &mut self,
        balancer: &Balancer,
        request: Request<'_>,
    ) -> Result<Option<usize>, Unavailable> {
        let is_timed = self.counters.picks >= self.next_timed;
        match (self.watch, is_timed) {
            (Watch::Loose, false) => self.ask(balancer, request),
            (watch, _) => self.ask_watched(balancer, request, watch, is_timed),
        }
    }

    #[inline(never)]
    fn ask_watched(
        &mut self,
        balancer: &Balancer,
        request: Request<'_>,
        watch: Watch,
        is_timed: bool,
    ) -> Result<Option<usize>, Unavailable> {
        let (start, cpu) = (
            Instant::now(),
            matches!(watch, Watch::Close(_)).then(thread_cpu_time),
        );
        let answer = self.ask(balancer, request);
        let time = start.elapsed();
        if is_timed {
            self.counters.times.observe(time);
            // Any one of the next block.
            let block = self.counters.picks.div_ceil(TIMED) * TIMED;
            self.next_timed = block + fastrand::u64(1..=TIMED);
        }
        let answer = answer?;
        let limit = self.limits.pick_cost;
        self.watch = match (watch, cpu) {
            (Watch::Close(dear), Some(cpu)) => {
                Watch::after(dear, thread_cpu_time().saturating_sub(cpu) > limit)
            }
            // It may have waited for a processor: the next ones tell.
            _ if time > limit => Watch::NEW,
            _ => Watch::Loose,
        };
        Ok(answer)
    }

    /// Whether too many of the last picks cost too much. One alone may have been of an instance that was made for it, or
    /// of a table that has changed.
    pub(super) fn is_too_dear(&self) -> bool {
        matches!(self.watch, Watch::Close(TOO_MANY..))
    }

    #[cold]
    pub(super) fn blame_cost(&mut self, upstream: &str) {
        let fault = Fault::Cost {
            picks: TOO_MANY,
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
                "8 picks took more than 10ns, with hardly one between them that did not"
            );
            picks_stay_away(&balancer);
        };
        // One that was good for a while is looked at now and then.
        balancer.inner.lock().limits.pick_cost = Duration::from_nanos(10);
        faults(9..=2 * TIMED + 8);
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

    /// Whoever is cheap now and then is watched no less for it.
    #[test]
    fn some_good_picks_make_up_for_as_many_bad_ones() {
        let after = |picks: &[bool]| {
            picks.iter().fold(Watch::NEW, |watch, dear| match watch {
                Watch::Close(before) => Watch::after(before, *dear),
                Watch::Loose => watch,
            })
        };
        assert_eq!(after(&[false]), Watch::Loose);
        assert_eq!(after(&[true, false]), Watch::Close(0));
        assert_eq!(after(&[true, false, false]), Watch::Loose);
        let mostly = [true, true, true, false];
        assert_eq!(after(&mostly.repeat(4)), Watch::Close(8));
    }

    fn picks_stay_away(balancer: &Balancer) {
        assert!(balancer.counters().quarantine.is_some());
        picks(balancer, 1);
        assert_eq!(balancer.counters().host_choices_by_kind.quarantine, 1);
    }
}
