//! The limits of an upstream's plugin.

use std::time::Duration;

use crate::entity::upstream::BalancerLimits;

/// How fast the budget of CPU time for picks over their cost refills: in thousandths of the time
/// that passes. With picks of 10 ms that is one every two seconds, which delays few requests of
/// other upstreams.
pub(super) const SHARE_PER_MILLE: u32 = 5;

/// Bounds of one upstream's instance: those of the gateway, or tighter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PickLimits {
    /// Longest CPU time of a pick. `configure`, `save` and the like may take ten times as long.
    pub pick_timeout: Duration,
    /// CPU time that a pick may always take. What picks take beyond it is bounded over time.
    pub pick_cost: Duration,
    /// Largest memory, in bytes.
    pub memory: usize,
    /// Largest state that is handed over, in bytes.
    pub state: usize,
}

impl PickLimits {
    /// The limits that an upstream sets, but never more than those of the gateway. The stored ones
    /// may be more, because the gateway's settings may have changed since.
    pub(super) fn tightened(self, asked: &BalancerLimits) -> Self {
        let bytes = |kib: Option<u32>| kib.map(|kib| kib as usize * 1024);
        let time = asked
            .pick_timeout
            .map(|ms| Duration::from_millis(ms.into()));
        let cost = asked.pick_cost.map(|us| Duration::from_micros(us.into()));
        Self {
            pick_timeout: time.map_or(self.pick_timeout, |time| time.min(self.pick_timeout)),
            pick_cost: cost.map_or(self.pick_cost, |cost| cost.min(self.pick_cost)),
            memory: bytes(asked.memory).map_or(self.memory, |bytes| bytes.min(self.memory)),
            state: bytes(asked.state).map_or(self.state, |bytes| bytes.min(self.state)),
        }
    }
}
