//! The outcome of a try, as all that follow it are told.

use std::fmt::Display;
use std::time::Duration;

use super::Upstream;
use crate::endpoint::{InFlight, Outcome};
use crate::traffic::{TRAFFIC, TrySample};

/// A try, as it is reported to the health checks and to the balancer.
pub(crate) struct Try<'a> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) in_flight: &'a InFlight,
    /// The random bits of the pick, which identify the try in a recording.
    pub(crate) entropy: u64,
    /// The time of the pick, as the balancer was told.
    pub(crate) picked: u64,
}

impl Try<'_> {
    /// Reports the outcome. `took` is the time until the head of the response, or until the try
    /// failed; `detail` describes the outcome in words.
    pub(crate) fn report(&self, outcome: Outcome, took: Duration, detail: &dyn Display) {
        let status = match outcome {
            Outcome::Answered(status) => status,
            Outcome::Broken | Outcome::Timeout => 0,
        };
        let took_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let answered = self.picked.saturating_add(took_micros);
        let balancer = self.upstream.balancer();
        balancer.observe_outcome(self.entropy, status, answered);
        self.in_flight.tell(outcome, took);
        if TRAFFIC.is_watched() {
            self.show(status, took);
        }
        self.upstream
            .report(self.in_flight, outcome, took, || detail.to_string());
    }

    #[cold]
    fn show(&self, status: u16, took: Duration) {
        let sample = TrySample {
            endpoint: self.in_flight.endpoint().id,
            status,
            took,
            is_trial: self.in_flight.is_trial(),
            at: self.picked,
        };
        TRAFFIC.note_try(&self.upstream.name, sample);
    }
}
