//! The cost of picks, and the fault of a plugin whose picks cost too much.
//!
//! A pick that takes no more than `pick_cost` is always allowed. CPU time beyond that is charged to
//! a budget, which refills at a small share of the time that passes; a plugin that overdraws the
//! budget is at fault. So, whatever the pattern of its picks, an instance takes no more CPU time
//! than its picks times `pick_cost`, plus that share, plus a burst.
//!
//! To time each pick would cost more than most picks do. So, as a rule, picks are not timed, and
//! yet a pick over its cost is found soon: the clock that interrupts guests ticks every few
//! milliseconds, and the longer a pick takes, the likelier a tick falls into it. Such a pick is
//! timed from the tick on. If that shows that it is over its cost, each later pick is timed, until
//! no pick has been over its cost for a while and the budget is full.

use std::time::{Duration, Instant};

use super::{Balancer, Inner, PickRequest, Slot, Unavailable};
use crate::balancer::fault::Fault;
use crate::balancer::limits::SHARE_PER_MILLE;
use crate::balancer::tally::TIMED;
use crate::clock::thread_cpu_time;
use crate::endpoint::RequestCost;

/// Size of the budget, in multiples of `pick_cost`: 10 ms with the usual 100 µs.
const BURST: u32 = 100;

/// Fewest picks over their cost that make a fault. One or two may have been slow because the table
/// had changed.
const MIN_PICKS_OVER_COST: u32 = 3;

/// Time without a pick over its cost after which not every pick is timed any longer.
const WATCH_TIME: Duration = Duration::from_secs(1);

/// The budget of an instance, and whether each of its picks is timed.
#[derive(Debug)]
pub(crate) struct CostBudget {
    is_watched: bool,
    /// CPU time that picks took beyond their cost, less the share of the time since.
    debt: Duration,
    /// CPU time that picks took beyond their cost, and the number of these picks, since the debt
    /// was last zero.
    excess: Duration,
    over: u32,
    /// When `debt` was last computed.
    settled: Option<Instant>,
    /// When the last pick over its cost was.
    last_over: Option<Instant>,
}

impl CostBudget {
    /// For a new instance.
    pub(crate) const NEW: Self = Self {
        is_watched: true,
        debt: Duration::ZERO,
        excess: Duration::ZERO,
        over: 0,
        settled: None,
        last_over: None,
    };

    /// Charges a pick that took at least `time` of CPU time.
    pub(crate) fn charge(&mut self, now: Instant, time: Duration, cost: Duration) {
        let passed = self.settled.map(|then| now.saturating_duration_since(then));
        let paid = passed.unwrap_or_default() * SHARE_PER_MILLE / 1000;
        self.settled = Some(now);
        self.debt = self.debt.saturating_sub(paid);
        if self.debt.is_zero() {
            (self.excess, self.over) = (Duration::ZERO, 0);
        }
        if time > cost {
            self.debt += time - cost;
            self.excess += time - cost;
            self.over += 1;
            self.last_over = Some(now);
        }
        let last = self
            .last_over
            .map(|last| now.saturating_duration_since(last));
        let is_calm = self.debt.is_zero() && last.is_none_or(|since| since >= WATCH_TIME);
        self.is_watched = !is_calm;
    }

    /// Whether the picks are a fault.
    pub(crate) fn is_overdrawn(&self, cost: Duration) -> bool {
        self.over >= MIN_PICKS_OVER_COST && self.debt > cost.saturating_mul(BURST)
    }

    /// Whether each call is to be timed.
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// The number of picks over their cost, and what they took beyond it, since the budget was last
    /// full.
    pub(crate) fn overdraft(&self) -> (u32, Duration) {
        (self.over, self.excess)
    }
}

impl Inner {
    /// The same as [`Inner::ask`], and measures what the pick costs.
    #[inline]
    pub(super) fn ask_timed(
        &mut self,
        balancer: &Balancer,
        request: PickRequest<'_>,
        tried: &[u64],
    ) -> Result<Option<(usize, RequestCost)>, Unavailable> {
        let is_timed = self.counters.picks >= self.next_timed;
        if is_timed || self.budget.is_watched {
            return self.ask_watched(balancer, request, tried, is_timed);
        }
        let answer = self.ask(balancer, request, tried);
        if let Some(time) = self.take_overrun() {
            self.note_overrun(time);
        }
        answer
    }

    fn take_overrun(&mut self) -> Option<Duration> {
        match &mut self.slot {
            Slot::Running(instance) => instance.take_overrun(),
            Slot::Empty | Slot::Quarantined(_) => None,
        }
    }

    /// Notes that the clock ticked during a pick, which took `time` after the tick.
    #[cold]
    fn note_overrun(&mut self, time: Duration) {
        // A tick may fall into any pick; only one that takes long after the tick is over its cost.
        if time > self.limits.pick_cost {
            (self.budget).charge(Instant::now(), time, self.limits.pick_cost);
        }
    }

    /// Charges the call that has just ended, beside a pick. `cpu` is the CPU time of the thread
    /// before it, if each call is timed.
    pub(super) fn charge_call(&mut self, cpu: Option<Duration>) {
        let overrun = self.take_overrun();
        if let Some(cpu) = cpu {
            let time = thread_cpu_time().saturating_sub(cpu);
            (self.budget).charge(Instant::now(), time, self.limits.pick_cost);
        } else if let Some(time) = overrun {
            self.note_overrun(time);
        }
    }

    #[inline(never)]
    fn ask_watched(
        &mut self,
        balancer: &Balancer,
        request: PickRequest<'_>,
        tried: &[u64],
        is_timed: bool,
    ) -> Result<Option<(usize, RequestCost)>, Unavailable> {
        let is_watched = self.budget.is_watched;
        // A pick that makes its instance takes longer for that.
        let has_instance = matches!(self.slot, Slot::Running(_));
        let cpu = is_watched.then(thread_cpu_time);
        let start = Instant::now();
        let answer = self.ask(balancer, request, tried);
        let time = start.elapsed();
        if is_timed {
            self.counters.times.observe(time);
            // A random one of the next block.
            let block = self.counters.picks.div_ceil(TIMED) * TIMED;
            self.next_timed = block + fastrand::u64(1..=TIMED);
        }
        let answer = answer?;
        let overrun = self.take_overrun();
        let cost = self.limits.pick_cost;
        match cpu {
            Some(_) if !has_instance => {}
            Some(cpu) => {
                let time = thread_cpu_time().saturating_sub(cpu);
                self.budget.charge(start, time, cost);
            }
            None => {
                if let Some(time) = overrun {
                    self.note_overrun(time);
                }
                // The pick may only have waited for a processor: the next picks are measured in CPU
                // time.
                self.budget.is_watched |= time > cost;
            }
        }
        Ok(answer)
    }

    /// Whether the picks of the instance have overdrawn the budget.
    pub(super) fn is_over_cost(&self) -> bool {
        self.budget.is_watched && self.budget.is_overdrawn(self.limits.pick_cost)
    }

    #[cold]
    pub(super) fn record_cost_fault(&mut self, upstream: &str) {
        let fault = Fault::Cost {
            picks: self.budget.over,
            limit: self.limits.pick_cost,
            excess: self.budget.excess,
        };
        self.record_fault(upstream, &fault);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::balancer::PickLimits;
    use crate::balancer::tests::{endpoints, guests::guest, patient_engine, picks};

    const COST: Duration = Duration::from_micros(100);

    /// The excess of the picks as a share of the time: as an error when they become a fault, or
    /// after a minute if they do not.
    fn share(rate: u32, time: impl Fn(u32) -> Duration) -> Result<f64, f64> {
        let start = Instant::now();
        let mut budget = CostBudget::NEW;
        let mut excess = Duration::ZERO;
        for pick in 0..60 * rate {
            let now = start + Duration::from_secs(1) * pick / rate;
            let time = time(pick);
            excess += time.saturating_sub(COST);
            budget.charge(now, time, COST);
            let share = excess.as_secs_f64() / (now - start).as_secs_f64().max(1.0);
            if budget.is_overdrawn(COST) {
                return Err(share);
            }
        }
        Ok(excess.as_secs_f64() / 60.0)
    }

    #[test]
    fn no_pattern_of_picks_takes_more_than_the_share() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        for rate in [100, 1000, 10_000] {
            for every in [1, 2, 3, 10, 100, 1000] {
                for time in [us(150), ms(1), ms(3), ms(20)] {
                    let over_cost = |pick: u32| {
                        if pick.is_multiple_of(every) {
                            time
                        } else {
                            us(1)
                        }
                    };
                    match share(rate, over_cost) {
                        // The share that picks may take, and the burst.
                        Ok(share) => assert!(share <= 0.0052, "{rate} {every} {time:?}: {share}"),
                        Err(share) => assert!(
                            share <= 0.005 + 0.010 + 3.0 * 0.020,
                            "{rate} {every} {time:?}: {share}"
                        ),
                    }
                }
            }
        }
        // Picks that are cheap ten thousand times, and then are not.
        let grows = |pick| if pick < 10_000 { us(1) } else { ms(3) };
        assert!(share(1000, grows).is_err());
        // Picks within the cost are allowed, and so are slow ones after a change of the table now
        // and then.
        assert_eq!(share(10_000, |_| us(100)), Ok(0.0));
        assert!(share(1000, |pick| if pick % 5000 == 0 { ms(20) } else { us(1) }).is_ok());
        assert!(share(1000, |pick| if pick < 2 { ms(50) } else { us(1) }).is_ok());
    }

    #[test]
    fn picks_are_timed_until_none_has_been_over_its_cost_for_a_while() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut budget = CostBudget::NEW;
        budget.charge(start, COST, COST);
        assert!(!budget.is_watched);
        budget.charge(after(1), 2 * COST, COST);
        budget.charge(after(900), COST, COST);
        assert!(budget.is_watched && budget.debt.is_zero());
        budget.charge(after(1100), COST, COST);
        assert!(!budget.is_watched);
    }

    /// Whatever the guest does at most of its picks: it cannot know which ones are timed.
    #[test]
    fn a_guest_over_its_cost_at_some_picks_is_at_fault() {
        let folder = tempfile::tempdir().unwrap();
        let engine = patient_engine(&folder);
        let plugin = engine.load_trusted(&guest("dear")).unwrap();
        for config in [
            r#"{"every": 1, "steps": 3000000}"#,
            r#"{"every": 2, "steps": 3000000}"#,
            r#"{"every": 10, "steps": 3000000}"#,
            r#"{"every": 100, "steps": 30000000}"#,
            r#"{"every": 1, "steps": 3000000, "after": 10000}"#,
        ] {
            let plugin = Arc::clone(&plugin);
            let balancer = Balancer::new(Arc::clone(&engine), "u", plugin, config.into());
            balancer.set_limits(PickLimits {
                pick_cost: COST,
                ..engine.limits()
            });
            balancer.set_endpoints(endpoints(&[1, 1]));
            while balancer.counters().faults.cost == 0 {
                assert_eq!(balancer.counters().fallback_picks, 0);
                picks(&balancer, 1);
            }
            let said = balancer.counters().last_fault.unwrap();
            assert!(
                said.contains(
                    "of its picks took more than 100µs of CPU time (setting balancer_pick_cost)"
                ),
                "{said}"
            );
            picks_stay_away(&balancer);
        }
    }

    #[test]
    fn the_pick_that_makes_an_instance_is_not_charged() {
        let folder = tempfile::tempdir().unwrap();
        let engine = patient_engine(&folder);
        let plugin = engine.load_trusted(&guest("heavy")).unwrap();
        let config = r#"{"steps": 10000}"#;
        let balancer = Balancer::new(Arc::clone(&engine), "u", plugin, config.into());
        balancer.set_endpoints(endpoints(&[1, 1]));
        let limits = PickLimits {
            pick_cost: Duration::from_nanos(10),
            ..engine.limits()
        };
        balancer.set_limits(limits);
        picks(&balancer, 1);
        assert_eq!(balancer.inner.lock().budget.over, 0);
        // Each of these is over its cost, and three overdraw a budget of a hundred times 10 ns.
        picks(&balancer, 3);
        assert_eq!(balancer.counters().faults.cost, 1);
        picks_stay_away(&balancer);
    }

    fn picks_stay_away(balancer: &Balancer) {
        assert!(balancer.counters().quarantine.is_some());
        let before = balancer.counters().fallback_picks_by_kind.quarantine;
        picks(balancer, 1);
        let after = balancer.counters().fallback_picks_by_kind.quarantine;
        assert_eq!(after, before + 1);
    }
}
