//! The outcome of a try. It is reported once: at the end of the response, or as soon as it is
//! certain.
//!
//! A response that breaks off, or whose body is malformed, is a failure of its endpoint, whatever
//! its status. Most bodies are short and are received with the head, so their outcome is known
//! then. For the others, a few numbers are kept until the end of the body.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{InFlight, Outcome};
use crate::upstream::{Try, Upstream};

/// A try whose response has begun without an error and is not received in full yet.
pub(super) struct Awaited {
    pub(super) upstream: Arc<Upstream>,
    pub(super) entropy: u64,
    pub(super) picked: u64,
    /// Status of the response.
    pub(super) status: u16,
    /// Time until the head of the response.
    pub(super) took: Duration,
}

impl Awaited {
    /// To be called when the body ended, or when the client disconnected before.
    pub(super) fn answered(&self, in_flight: &InFlight) {
        self.report(in_flight, Outcome::Answered(self.status), &self.status);
    }

    /// To be called when the body ended early and the endpoint is at fault.
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
