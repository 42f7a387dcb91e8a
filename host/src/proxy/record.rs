//! What came of a try, which is reported once: at the end of the response, or as soon as it is
//! certain.
//!
//! A response that breaks off, or whose body is malformed, is a failure of its endpoint whatever
//! its head has said. Most bodies are short and have come with the head, so their outcome is known
//! there; of the others a few numbers are kept until their end.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{InFlight, Outcome};
use crate::upstream::Upstream;

/// A try, as those see it that judge endpoints and balancers by what comes of it.
pub(super) struct Try<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) in_flight: &'a InFlight,
    /// The random bits of its pick, which name it in a recording.
    pub(super) entropy: u64,
    /// When it was picked, as balancers are told.
    pub(super) picked: u64,
}

impl Try<'_> {
    /// Reports what came of it. `took` is the time until the head of the response, or until it was
    /// known that there will be none; `detail` says the outcome in words.
    pub(super) fn report(&self, outcome: Outcome, took: Duration, detail: &dyn Display) {
        let status = match outcome {
            Outcome::Answered(status) => status,
            Outcome::Broken | Outcome::Timeout => 0,
        };
        let took_micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let answered = self.picked.saturating_add(took_micros);
        let balancer = self.upstream.balancer();
        balancer.observe_outcome(self.entropy, status, answered);
        self.in_flight.tell(outcome, took);
        self.upstream
            .report(self.in_flight, outcome, took, || detail.to_string());
    }
}

/// The outcome of a try whose response has begun well and is not there as a whole.
pub(super) struct Awaited {
    pub(super) upstream: Arc<Upstream>,
    pub(super) entropy: u64,
    pub(super) picked: u64,
    /// Status of the response.
    pub(super) status: u16,
    /// Time until its head.
    pub(super) took: Duration,
}

impl Awaited {
    /// The body came to its end, or the client did not wait for it.
    pub(super) fn answered(&self, in_flight: &InFlight) {
        self.report(in_flight, Outcome::Answered(self.status), &self.status);
    }

    /// The body will not come to its end, and that is the endpoint's doing.
    pub(super) fn failed(&self, in_flight: &InFlight, outcome: Outcome, detail: &dyn Display) {
        tracing::warn!(
            upstream = &*self.upstream.name,
            address = %in_flight.endpoint().address,
            status = self.status,
            "the response broke off: {detail}"
        );
        self.report(in_flight, outcome, detail);
    }

    fn report(&self, in_flight: &InFlight, outcome: Outcome, detail: &dyn Display) {
        let Self {
            entropy, picked, ..
        } = *self;
        let upstream = &*self.upstream;
        Try {
            upstream,
            in_flight,
            entropy,
            picked,
        }
        .report(outcome, self.took, detail);
    }
}
