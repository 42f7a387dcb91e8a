//! The outcomes of both sides' requests, and whether they break a bound.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Side;
use crate::entity::balancer::Canary as Settings;

/// Bounds are checked against the present window and the one before, each at least this long: a
/// week without errors must not hide the errors of the last minutes.
const WINDOW: Duration = Duration::from_secs(60);

/// Classes in each octave of times: a reported time is at most a sixteenth too long.
const STEPS: u32 = 16;
const STEP_BITS: u32 = STEPS.ilog2();

/// Classes of all times that fit into 32 bits of microseconds, which is more than an hour.
const CLASSES: usize = ((32 - STEP_BITS + 1) * STEPS) as usize;

/// The requests of both sides.
pub(super) struct Evidence {
    /// Requests and errors of each side in all.
    total: [(u64, u64); 2],
    before: [Window; 2],
    present: [Window; 2],
    since: Instant,
}

/// What the bounds are checked against: the requests of the last minute or two, or of as many
/// minutes as it takes to have enough of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recent {
    /// Requests placed.
    pub requests: u64,
    /// How many of them failed.
    pub error_percent: f64,
    /// The time until the head of the response that 99 of 100 do not exceed, in milliseconds; none
    /// if there was no response.
    pub p99_ms: Option<f64>,
}

impl Evidence {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            total: Default::default(),
            before: Default::default(),
            present: Default::default(),
            since: now,
        }
    }

    /// Counts a request. A window lasts until it has enough requests for a judgement.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        bounds: &Settings,
        side: Side,
        failed: bool,
        time: Option<Duration>,
    ) {
        let full = is_enough(bounds, |side| self.present[side as usize].requests);
        if full && now.saturating_duration_since(self.since) >= WINDOW {
            self.before = std::mem::take(&mut self.present);
            self.since = now;
        }
        let (requests, errors) = &mut self.total[side as usize];
        *requests += 1;
        *errors += u64::from(failed);
        self.present[side as usize].observe(failed, time);
    }

    /// All requests and errors of a side.
    pub(super) fn total(&self, side: Side) -> (u64, u64) {
        self.total[side as usize]
    }

    pub(super) fn recent(&self, side: Side) -> Recent {
        let (requests, error_percent) = self.rate(side);
        Recent {
            requests,
            error_percent,
            p99_ms: self.p99_ms(side),
        }
    }

    fn windows(&self, side: Side) -> [&Window; 2] {
        [&self.before[side as usize], &self.present[side as usize]]
    }

    /// Requests, and how many of 100 have failed.
    fn rate(&self, side: Side) -> (u64, f64) {
        let windows = self.windows(side).into_iter();
        let (requests, errors) = windows.fold((0, 0), |(requests, errors), window| {
            (requests + window.requests, errors + window.errors)
        });
        (requests, errors as f64 * 100.0 / requests.max(1) as f64)
    }

    fn p99_ms(&self, side: Side) -> Option<f64> {
        p99(self.windows(side)).map(|micros| micros as f64 / 1000.0)
    }

    /// Which bound the canary has broken, in words.
    pub(super) fn broken(&self, bounds: &Settings) -> Option<String> {
        let min = bounds.min_requests;
        let (requests, failed) = self.rate(Side::Canary);
        if requests < min {
            return None;
        }
        let errors = |more: String| {
            format!("{failed:.2} % of its last {requests} requests failed, more than {more}")
        };
        let times = |slow: f64, more: String| {
            format!("p99 of its last {requests} requests was {slow:.1} ms, more than {more}")
        };
        if let Some(most) = bounds.max_error_percent
            && failed > most
        {
            return Some(errors(format!("{most} %")));
        }
        // Computed only if a bound needs it: it is more work than all other checks.
        let is_timed = bounds.max_p99_ms.or(bounds.max_p99_ratio).is_some()
            // One more of thousands of requests changes little, so every sixteenth is enough.
            && (requests < 1024 || requests.is_multiple_of(16));
        let slow = is_timed.then(|| self.p99_ms(Side::Canary)).flatten();
        if let (Some(most), Some(slow)) = (bounds.max_p99_ms, slow)
            && slow > most
        {
            return Some(times(slow, format!("{most} ms")));
        }
        let (compared, usual) = self.rate(Side::Stable);
        if compared < min {
            return None;
        }
        // A rate of less than one request of the smallest sample cannot be told from zero.
        let least = 100.0 / min.max(1) as f64;
        if let Some(most) = bounds.max_error_ratio
            && failed > most * usual.max(least)
        {
            let more = format!("{most} times the {usual:.2} % of the active version's");
            return Some(errors(more));
        }
        if let (Some(most), Some(slow)) = (bounds.max_p99_ratio, slow)
            && let Some(usual) = self.p99_ms(Side::Stable)
            && slow > most * usual
        {
            let more = format!("{most} times the {usual:.1} ms of the active version's");
            return Some(times(slow, more));
        }
        None
    }
}

/// Whether there are enough requests for a judgement: of the canary, and of the active version if
/// the two are compared.
pub(super) fn is_enough(bounds: &Settings, requests: impl Fn(Side) -> u64) -> bool {
    let enough = |side| requests(side) >= bounds.min_requests;
    enough(Side::Canary) && (!bounds.is_compared() || enough(Side::Stable))
}

/// Requests of one side.
struct Window {
    requests: u64,
    errors: u64,
    /// Times by class.
    times: Box<[u64; CLASSES]>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            requests: 0,
            errors: 0,
            times: Box::new([0; CLASSES]),
        }
    }
}

impl Window {
    fn observe(&mut self, failed: bool, time: Option<Duration>) {
        self.requests += 1;
        self.errors += u64::from(failed);
        if let Some(time) = time {
            self.times[class_of(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))] += 1;
        }
    }
}

/// The class of a time in microseconds: the same number of classes for each octave, and one class
/// for each of the shortest times.
fn class_of(micros: u32) -> usize {
    let octave = micros.max(1).ilog2().saturating_sub(STEP_BITS);
    (octave * STEPS + (micros >> octave)) as usize
}

/// The longest time of a class, in microseconds.
fn longest(class: usize) -> u64 {
    let steps = STEPS as usize;
    let octave = (class / steps).saturating_sub(1);
    (((class - octave * steps + 1) as u64) << octave) - 1
}

/// The time in microseconds that 99 of 100 do not exceed; none if there are no times.
fn p99(windows: [&Window; 2]) -> Option<u64> {
    let [before, present] = windows;
    let all =
        || (before.times.iter().zip(&*present.times)).map(|(before, present)| before + present);
    let total: u64 = all().sum();
    if total == 0 {
        return None;
    }
    let mut beyond = 0;
    let class = all().rposition(|times| {
        beyond += times;
        beyond > total / 100
    });
    class.map(longest)
}

#[cfg(test)]
mod tests;
