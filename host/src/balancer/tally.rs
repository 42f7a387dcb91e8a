//! Counters of picks, which are updated while the lock is held anyway.

use std::time::Duration;

use serde::Serialize;

use super::fault::Fault;
use crate::component::GuestFault;

/// One of this many picks is timed: to read the clock twice for each would cost a tenth of a pick.
pub(super) const TIMED: u64 = 64;

/// Upper bounds of the histogram's classes of pick times, in nanoseconds; one more class has all
/// longer times.
const BOUNDS: [u32; 13] = [
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// Why the host made a choice by itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    Trap,
    Deadline,
    Memory,
    OutOfRange,
    Configuration,
    State,
    /// There is no instance until the quarantine ends.
    Quarantine,
}

/// The name of the cause that another thread holds the lock for too long.
pub(super) const BUSY: &str = "busy";

impl Cause {
    /// Its name, as metrics and records have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::OutOfRange => "out_of_range",
            Self::Configuration => "configuration",
            Self::State => "state",
            Self::Quarantine => "quarantine",
        }
    }
}

impl From<&Fault> for Cause {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Guest(GuestFault::Trap(_)) => Self::Trap,
            // A fault of the latter kind never leaves a pick without an answer.
            Fault::Guest(GuestFault::Deadline) | Fault::Cost { .. } => Self::Deadline,
            Fault::Guest(GuestFault::Memory(_) | GuestFault::Limit(_)) => Self::Memory,
            Fault::OutOfRange { .. } => Self::OutOfRange,
            Fault::Configuration(_) => Self::Configuration,
            Fault::State(_) | Fault::StateSize { .. } => Self::State,
        }
    }
}

/// Fallback picks, which the host made in place of the plugin, by cause.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(
    missing_docs,
    reason = "the names are those of faults, busy and quarantine"
)]
pub struct FallbackPicks {
    pub trap: u64,
    pub deadline: u64,
    pub memory: u64,
    pub out_of_range: u64,
    pub configuration: u64,
    pub state: u64,
    pub busy: u64,
    pub quarantine: u64,
}

impl FallbackPicks {
    pub(super) fn add(&mut self, cause: Cause) {
        *match cause {
            Cause::Trap => &mut self.trap,
            Cause::Deadline => &mut self.deadline,
            Cause::Memory => &mut self.memory,
            Cause::OutOfRange => &mut self.out_of_range,
            Cause::Configuration => &mut self.configuration,
            Cause::State => &mut self.state,
            Cause::Quarantine => &mut self.quarantine,
        } += 1;
    }

    /// The number for each kind.
    pub fn by_kind(&self) -> [(&'static str, u64); 8] {
        [
            ("trap", self.trap),
            ("deadline", self.deadline),
            ("memory", self.memory),
            ("out_of_range", self.out_of_range),
            ("configuration", self.configuration),
            ("state", self.state),
            (BUSY, self.busy),
            ("quarantine", self.quarantine),
        ]
    }
}

/// How long picks took, of one in 64.
#[derive(Debug, Clone, Default)]
pub struct PickTimes {
    classes: [u64; BOUNDS.len() + 1],
    /// Nanoseconds.
    sum: u64,
}

impl PickTimes {
    pub(super) fn observe(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let class = BOUNDS.partition_point(|bound| u64::from(*bound) < time);
        self.classes[class] += 1;
        self.sum = self.sum.saturating_add(time);
    }

    /// Picks that were timed.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Their time, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / 1e9
    }

    /// Upper bounds in seconds, the last one infinite, each with the picks above the one before.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|bound| f64::from(*bound) / 1e9);
        let bounds = bounds.chain([f64::INFINITY]);
        bounds.zip(self.classes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_class_that_reaches_it() {
        let mut times = PickTimes::default();
        for nanos in [0, 100, 101, 100_000_000, 100_000_001, 1_000_000_000] {
            times.observe(Duration::from_nanos(nanos));
        }
        let buckets = times.buckets();
        assert_eq!((buckets[0], buckets[1]), ((1e-7, 2), (2e-7, 1)));
        assert_eq!((buckets[12], buckets[13]), ((0.1, 1), (f64::INFINITY, 2)));
        assert_eq!(times.count(), 6);
        assert!((times.sum() - 1.2).abs() < 0.001, "{}", times.sum());
    }
}
