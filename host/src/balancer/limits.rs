//! What the plugin of an upstream may take.

use std::time::Duration;

use super::engine::{Engine, Settings};
use crate::entity::upstream::BalancerLimits;

/// Bounds of one upstream's instance: those of the gateway, or tighter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest CPU time of a pick. `configure`, `save` and the like may take ten times as long.
    pub pick_timeout: Duration,
    /// CPU time that a pick may always take. What picks take beyond it is bounded over time.
    pub pick_cost: Duration,
    /// Largest memory, in bytes.
    pub memory: usize,
    /// Largest state that is handed over, in bytes.
    pub state: usize,
}

impl Limits {
    /// The gateway's own.
    pub fn of_gateway(settings: &Settings) -> Self {
        Self {
            pick_timeout: settings.pick_timeout,
            pick_cost: settings.pick_cost,
            memory: settings.memory,
            state: settings.state,
        }
    }

    /// What an upstream asks for. No more than the gateway has, whatever is stored: its settings may have
    /// changed since.
    pub fn of_upstream(asked: &BalancerLimits, engine: &Engine) -> Self {
        let own = Self::of_gateway(&engine.settings);
        let bytes = |kib: Option<u32>| kib.map(|kib| kib as usize * 1024);
        let time = asked
            .pick_timeout
            .map(|ms| Duration::from_millis(ms.into()));
        let cost = asked.pick_cost.map(|us| Duration::from_micros(us.into()));
        Self {
            pick_timeout: time.map_or(own.pick_timeout, |time| time.min(own.pick_timeout)),
            pick_cost: cost.map_or(own.pick_cost, |cost| cost.min(own.pick_cost)),
            memory: bytes(asked.memory).map_or(own.memory, |bytes| bytes.min(own.memory)),
            state: bytes(asked.state).map_or(own.state, |bytes| bytes.min(own.state)),
        }
    }
}
