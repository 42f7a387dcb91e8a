//! The outcomes of both sides' requests, and whether they break a bound.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Side;
use crate::entity::bounds::Bounds;
use crate::traffic::{Times, Totals};

/// Bounds are checked against the present window and the one before, each at least this long: a
/// week without errors must not hide the errors of the last minutes.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// The requests of both sides.
pub(crate) struct Evidence {
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
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            total: Default::default(),
            before: Default::default(),
            present: Default::default(),
            since: now,
        }
    }

    /// Counts a request.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        bounds: &Bounds,
        side: Side,
        failed: bool,
        time: Option<Duration>,
    ) {
        self.turn(now, bounds);
        self.count(side, 1, failed.into());
        self.present[side as usize].observe(failed, time);
    }

    /// Counts the requests of another process.
    pub(crate) fn observe_all(&mut self, now: Instant, bounds: &Bounds, side: Side, all: &Totals) {
        self.turn(now, bounds);
        self.count(side, all.requests, all.errors);
        let window = &mut self.present[side as usize];
        window.requests += all.requests;
        window.errors += all.errors;
        window.times.merge(&all.times);
    }

    /// Counts requests that were long ago: they are not judged any longer.
    pub(crate) fn count(&mut self, side: Side, requests: u64, errors: u64) {
        let (all, failed) = &mut self.total[side as usize];
        *all += requests;
        *failed += errors;
    }

    /// A window lasts until it has enough requests for a judgement.
    fn turn(&mut self, now: Instant, bounds: &Bounds) {
        let full = is_enough(bounds, |side| self.present[side as usize].requests);
        if full && now.saturating_duration_since(self.since) >= WINDOW {
            self.before = std::mem::take(&mut self.present);
            self.since = now;
        }
    }

    /// All requests and errors of a side.
    pub(crate) fn total(&self, side: Side) -> (u64, u64) {
        self.total[side as usize]
    }

    pub(crate) fn recent(&self, side: Side) -> Recent {
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
        Times::p99_ms(self.windows(side).map(|window| &window.times))
    }

    /// Which bound the canary has broken, in words. `compared` names what it is compared with.
    pub(crate) fn broken(&self, bounds: &Bounds, compared: &str) -> Option<String> {
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
        let (others, usual) = self.rate(Side::Stable);
        if others < min {
            return None;
        }
        // A rate of less than one request of the smallest sample cannot be told from zero.
        let least = 100.0 / min.max(1) as f64;
        if let Some(most) = bounds.max_error_ratio
            && failed > most * usual.max(least)
        {
            let more = format!("{most} times the {usual:.2} % of {compared}");
            return Some(errors(more));
        }
        if let (Some(most), Some(slow)) = (bounds.max_p99_ratio, slow)
            && let Some(usual) = self.p99_ms(Side::Stable)
            && slow > most * usual
        {
            let more = format!("{most} times the {usual:.1} ms of {compared}");
            return Some(times(slow, more));
        }
        None
    }
}

/// Whether there are enough requests for a judgement: of the canary, and of the active version if
/// the two are compared.
pub(crate) fn is_enough(bounds: &Bounds, requests: impl Fn(Side) -> u64) -> bool {
    let enough = |side| requests(side) >= bounds.min_requests;
    enough(Side::Canary) && (!bounds.is_compared() || enough(Side::Stable))
}

/// Requests of one side.
#[derive(Default)]
struct Window {
    requests: u64,
    errors: u64,
    times: Times,
}

impl Window {
    fn observe(&mut self, failed: bool, time: Option<Duration>) {
        self.requests += 1;
        self.errors += u64::from(failed);
        if let Some(time) = time {
            self.times.add(time);
        }
    }
}

#[cfg(test)]
mod tests;
