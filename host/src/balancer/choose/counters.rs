//! The counters that a balancer shows.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Balancer, FAULT_MEMORY, Inner, Slot};
use crate::balancer::tally::{FallbackPicks, PickTimes};

/// What the plugin of a balancer has done since the last switch.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Counters {
    /// Picks asked for.
    pub picks: u64,
    /// Fallback picks: those that the host made in place of the plugin, for any reason.
    pub fallback_picks: u64,
    /// Fallback picks by the reason.
    pub fallback_picks_by_kind: FallbackPicks,
    /// Requests that the plugin refused.
    pub refused: u64,
    /// Ended tries that it was told of, if it exports `outcome`.
    pub outcomes: u64,
    /// Ended tries that it was not told of, since too many waited.
    pub outcomes_dropped: u64,
    /// Instances made.
    pub instances: u64,
    /// Picks that stopped waiting for the instance.
    pub busy: u64,
    /// Bytes of memory that its instance has.
    pub memory: usize,
    /// Switches to another plugin or other settings, since the upstream was made.
    pub switches: u64,
    /// How long picks took.
    #[serde(skip)]
    pub times: PickTimes,
    /// Faults of the plugin by kind.
    pub faults: Faults,
    /// The last fault, in words.
    pub last_fault: Option<String>,
    /// Faults in a row, each within a minute of the one before.
    pub consecutive_faults: u32,
    /// Seconds until another instance may be made; none outside a quarantine.
    pub quarantine: Option<f64>,
    /// The hand-over of the predecessor's state; none if there was no state.
    pub handover: Option<Handover>,
}

/// The result of the hand-over of an instance's state.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Handover {
    /// Bytes that the new instance took over.
    pub bytes: usize,
    /// Why it took over nothing.
    pub failure: Option<String>,
}

/// Faults of a plugin by kind.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Faults {
    /// Traps and panics.
    pub trap: u64,
    /// Calls that took too long.
    pub deadline: u64,
    /// Times that picks overdrew the budget of CPU time.
    pub cost: u64,
    /// Traps after the guest asked for more memory than it may have.
    pub memory: u64,
    /// Invalid positions.
    pub out_of_range: u64,
    /// Settings refused.
    pub configuration: u64,
    /// States that could not be handed over: after a fault of the kinds above, too large, or
    /// refused.
    pub state: u64,
}

impl Balancer {
    /// Bytes of memory that the plugin's instance has taken; none while there is no instance.
    pub fn memory(&self) -> Option<usize> {
        self.inner.lock().memory()
    }

    /// Instructions of the plugin's last call, of an engine that counts them.
    #[cfg(test)]
    pub(in crate::balancer) fn instructions(&self) -> Option<u64> {
        match &self.inner.lock().slot {
            Slot::Running(instance) => instance.instructions(),
            Slot::Empty | Slot::Quarantined(_) => None,
        }
    }

    /// What the balancer has done so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.inner.lock().counters();
        counters.busy = self.busy.load(Ordering::Relaxed);
        counters.picks += counters.busy;
        counters.fallback_picks += counters.busy;
        counters.fallback_picks_by_kind.busy = counters.busy;
        let in_quarantine = self.quarantine_picks.load(Ordering::Relaxed);
        counters.picks += in_quarantine;
        counters.fallback_picks += in_quarantine;
        counters.fallback_picks_by_kind.quarantine += in_quarantine;
        counters
    }
}

impl Inner {
    fn memory(&self) -> Option<usize> {
        match &self.slot {
            Slot::Running(instance) => Some(instance.memory()),
            Slot::Empty | Slot::Quarantined(_) => None,
        }
    }

    /// The counters as they are shown.
    fn counters(&self) -> Counters {
        let now = Instant::now();
        let recent = self
            .last_fault
            .is_some_and(|last| now - last <= FAULT_MEMORY);
        let left = match self.slot {
            Slot::Quarantined(until) => Some(until.saturating_duration_since(now)),
            Slot::Empty | Slot::Running(_) => None,
        };
        let outcomes = self.outcomes.as_ref();
        Counters {
            outcomes_dropped: outcomes.map_or(0, |outcomes| outcomes.dropped()),
            memory: self.memory().unwrap_or(0),
            consecutive_faults: if recent { self.faults } else { 0 },
            quarantine: left
                .filter(|left| !left.is_zero())
                .map(|left| left.as_secs_f64()),
            ..self.counters.clone()
        }
    }
}
