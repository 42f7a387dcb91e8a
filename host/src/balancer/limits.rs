//! What the plugin of an upstream may take.

use std::time::Duration;

use super::engine::Settings;

/// Bounds of one upstream's instance: those of the gateway, or tighter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest CPU time of a pick. `configure`, `save` and the like may take ten times as long.
    pub pick_timeout: Duration,
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
            memory: settings.memory,
            state: settings.state,
        }
    }
}
