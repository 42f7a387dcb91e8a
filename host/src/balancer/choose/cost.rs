//! What picks cost, and what becomes of a plugin whose picks cost too much.

use std::time::Instant;

use super::{Balancer, Inner, Request, Unavailable};
use crate::balancer::instance::{Fault, thread_cpu_time};
use crate::balancer::tally::TIMED;

/// Picks in a row, each of which costs too much, that are a fault.
const IN_A_ROW: u32 = 8;

impl Inner {
    /// The same as [`Inner::ask`], and now and then with a look at the clock.
    pub(super) fn ask_timed(
        &mut self,
        balancer: &Balancer,
        request: Request<'_>,
    ) -> Result<Option<usize>, Unavailable> {
        if self.dear > 0 {
            return self.ask_suspect(balancer, request);
        }
        if !self.counters.picks.is_multiple_of(TIMED) {
            return self.ask(balancer, request);
        }
        let start = Instant::now();
        let answer = self.ask(balancer, request);
        let time = start.elapsed();
        self.counters.times.observe(time);
        // It may have waited for a processor. The next ones are looked at more closely.
        self.dear = u32::from(time > self.limits.pick_cost);
        answer
    }

    /// The same, where the pick before may have cost too much.
    #[cold]
    fn ask_suspect(
        &mut self,
        balancer: &Balancer,
        request: Request<'_>,
    ) -> Result<Option<usize>, Unavailable> {
        let start = thread_cpu_time();
        let answer = self.ask(balancer, request);
        let cost = thread_cpu_time().saturating_sub(start);
        if answer.is_ok() {
            let is_dear = cost > self.limits.pick_cost;
            self.dear = if is_dear { self.dear + 1 } else { 0 };
        }
        answer
    }

    /// Whether each of the last picks cost too much. One alone may have been of an instance that was made for it, or
    /// of a table that has changed.
    pub(super) fn is_too_dear(&self) -> bool {
        self.dear >= IN_A_ROW
    }

    #[cold]
    pub(super) fn blame_cost(&mut self, upstream: &str) {
        // The next instance is watched from its first pick.
        self.dear = 1;
        let fault = Fault::Cost {
            picks: IN_A_ROW,
            limit: self.limits.pick_cost,
        };
        self.blame(upstream, &fault);
    }
}
