//! The targets of a trace with their requests in progress.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::Contender;
use super::super::outcome::{End, Recorder, SAMPLES, SimulationResult};
use super::super::scenario::Scenario;
use super::record::{Came, Record};
use crate::endpoint::InFlight;

/// Targets with their requests in progress.
pub(super) struct Fleet<'a> {
    record: &'a Record,
    recorder: Recorder,
    working: Vec<u32>,
    /// Requests in progress, by the time at which they end.
    open: BinaryHeap<Reverse<(u64, usize)>>,
    requests: Vec<Option<Sent>>,
    next_sample: u64,
    step: u64,
}

pub(super) struct Sent {
    target: usize,
    pub(super) at: u64,
    pub(super) came: Came,
    /// Whether the trace knows how its target responds.
    is_known: bool,
    pub(super) in_flight: Option<InFlight>,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(record: &'a Record, scenario: &Scenario) -> Self {
        let step = (record.span.1 - record.span.0).max(SAMPLES) / SAMPLES;
        Self {
            recorder: record.recorder(scenario),
            working: vec![0; record.targets.len()],
            open: BinaryHeap::new(),
            requests: Vec::new(),
            next_sample: record.span.0 + step,
            step,
            record,
        }
    }

    /// Ends the requests whose end has come by `now`.
    pub(super) fn advance(&mut self, now: u64, mut learn: impl FnMut(&mut Sent)) {
        while let Some(Reverse((end, index))) = self.open.peek().copied() {
            self.sample(end.min(now));
            if end > now {
                return;
            }
            self.open.pop();
            if let Some(mut sent) = self.requests[index].take() {
                self.working[sent.target] -= 1;
                learn(&mut sent);
                let how = match sent.came.status {
                    _ if !sent.is_known => End::Unknown,
                    0 => End::Broken,
                    500.. => End::Error,
                    _ => End::Answered,
                };
                let (start, end) = (self.record.time(sent.at), self.record.time(end));
                self.recorder.end(start, end, sent.target, how);
            }
        }
        self.sample(now);
    }

    fn sample(&mut self, now: u64) {
        while self.next_sample <= now && self.recorder.samples() < SAMPLES {
            let working = self.working.iter().map(|count| f64::from(*count));
            self.recorder.sample(working.collect());
            self.next_sample += self.step;
        }
    }

    /// Sends a request to a target. `is_known` is whether the trace knows how that responds.
    pub(super) fn send(
        &mut self,
        target: usize,
        now: u64,
        (came, is_known): (Came, bool),
        in_flight: Option<InFlight>,
    ) {
        self.working[target] += 1;
        let end = now.saturating_add(came.latency);
        self.open.push(Reverse((end, self.requests.len())));
        self.requests.push(Some(Sent {
            target,
            at: now,
            came,
            is_known,
            in_flight,
        }));
    }

    pub(super) fn refuse(&mut self, now: u64) {
        let time = self.record.time(now);
        self.recorder.end(time, time, 0, End::NoTarget);
    }

    pub(super) fn finish(mut self, contender: &Contender, scenario: &Scenario) -> SimulationResult {
        self.advance(u64::MAX, |_| {});
        self.recorder.finish(contender, scenario)
    }
}
