//! Scheduled events: faults, their detection by health checks, antagonists, and samples.

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::fleet::{Ticket, Time};
use super::super::outcome::SAMPLES;
use super::super::scenario::{Fault, FaultKind};
use super::{SECOND, World, is_valid};
use crate::endpoint::EndReason;

/// A scheduled event. These are rare, except for responses from targets at a distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The response to a request arrives.
    Answer(Ticket),
    /// The first part of a response arrives, of one that streams.
    FirstByte(Ticket),
    /// A further part arrives.
    Part(Ticket),
    Antagonist(usize),
    Begin(usize),
    Detect(usize),
    End(usize),
    Return(usize),
    Sample,
}

impl World<'_> {
    /// Runs the next event of the agenda.
    pub(super) fn happen(&mut self, now: Time, step: Time) {
        let Some(Reverse((_, event))) = self.agenda.pop() else {
            return;
        };
        match event {
            Event::Answer(ticket) => self.answer(ticket, now),
            Event::FirstByte(ticket) => self.first_byte(ticket, now),
            Event::Part(ticket) => self.part(ticket, now),
            Event::Antagonist(target) => self.disturb(target, now),
            Event::Begin(index) => self.change(index, now, true),
            Event::End(index) => self.change(index, now, false),
            Event::Detect(index) => self.detect(index, true),
            Event::Return(index) => self.detect(index, false),
            Event::Sample => {
                for machine in &mut self.machines {
                    machine.advance(now);
                }
                let machines = self.machines.iter_mut();
                let working = machines.map(|machine| machine.mean_working(step));
                self.recorder.sample(working.collect());
                if self.recorder.samples() < SAMPLES {
                    self.agenda.push(Reverse((now + step, Event::Sample)));
                }
            }
        }
    }

    /// Changes the number of cores that the antagonist of a target takes.
    fn disturb(&mut self, target: usize, now: Time) {
        let mut first = 0;
        let group = self.scenario.targets.iter().find(|group| {
            first += group.count;
            target < first
        });
        let Some(antagonist) = group.and_then(|group| group.antagonist) else {
            return;
        };
        let [least, most] = antagonist.cores;
        let machine = &mut self.machines[target];
        machine.advance(now);
        machine.taken = least + (most - least) * self.antagonists.unit();
        let pause = antagonist.every * SECOND * self.antagonists.exponential();
        let next = now.saturating_add((pause as Time).max(1));
        self.agenda.push(Reverse((next, Event::Antagonist(target))));
        self.schedule(target);
    }

    fn targets_of(&self, index: usize) -> (Fault, RangeInclusive<usize>) {
        let fault = self.scenario.faults[index];
        let [first, last] = fault.targets;
        (fault, first..=last)
    }

    /// Starts or ends a fault.
    fn change(&mut self, index: usize, now: Time, begins: bool) {
        let (fault, targets) = self.targets_of(index);
        for target in targets {
            let machine = &mut self.machines[target];
            machine.advance(now);
            machine.fault = begins.then_some((fault.kind, fault.factor));
            if begins && fault.kind == FaultKind::Down {
                self.break_off(target, now);
            }
            self.schedule(target);
        }
    }

    /// Breaks off all requests at a target, and tries them elsewhere.
    fn break_off(&mut self, target: usize, now: Time) {
        for ticket in self.machines[target].clear() {
            if !is_valid(&self.requests, target, ticket) {
                continue;
            }
            self.end_try(ticket.slot, EndReason::Broken, now);
            if let Some(in_flight) = self.withdraw(ticket.slot, now) {
                let endpoint = Arc::clone(in_flight.shared());
                drop(in_flight);
                if self.fail(ticket.slot, &endpoint, now) {
                    self.send(ticket.slot, now);
                }
            }
        }
    }

    /// Has health checks detect the start or the end of a fault.
    fn detect(&mut self, index: usize, begins: bool) {
        let (_, targets) = self.targets_of(index);
        for target in targets {
            let known = &mut self.detected[target];
            *known = if begins { *known + 1 } else { *known - 1 };
        }
        self.publish();
    }
}
