//! Servers that batch: the steps that they make, and the parts of responses that come of these.

use std::cmp::Reverse;

use super::super::batch::Progress;
use super::super::fleet::{Ticket, Time};
use super::World;
use super::events::Event;
use crate::balancer::Observed;

impl World<'_> {
    /// Ends a step of a server that batches.
    pub(super) fn step(&mut self, target: usize, now: Time) {
        // Parts of responses that no balancer is told of are left out.
        let mut gateways = self.gateways.iter();
        let all = gateways.any(|gateway| gateway.balancer.wants(Observed::Body));
        let machine = &mut self.machines[target];
        machine.advance(now);
        for progress in machine.step(all) {
            match progress {
                Progress::First(ticket) => {
                    self.keep_prompt(target, ticket);
                    self.stream(target, now, Event::FirstByte(ticket));
                }
                Progress::Further(ticket) => self.stream(target, now, Event::Part(ticket)),
                Progress::Done(ticket) => {
                    self.keep_prompt(target, ticket);
                    self.end_work(target, ticket, now);
                }
            }
        }
        self.schedule(target);
    }

    /// Caches a prompt that a server has computed.
    fn keep_prompt(&mut self, target: usize, ticket: Ticket) {
        let request = self.requests.get(ticket.slot);
        if let Some(prompt) = request.and_then(|request| request.prompt) {
            self.machines[target].keep(&prompt);
        }
    }

    /// Sends a part of a response to the gateway.
    fn stream(&mut self, target: usize, now: Time, event: Event) {
        let arrives = now.saturating_add(self.machines[target].distance);
        self.agenda.push(Reverse((arrives, event)));
    }

    /// Records the first byte of a response, unless its client has gone or it is known already.
    pub(super) fn first_byte(&mut self, ticket: Ticket, now: Time) {
        let request = self.requests.get_mut(ticket.slot);
        let Some(request) = request.filter(|request| request.serial == ticket.serial) else {
            return;
        };
        if std::mem::replace(&mut request.is_answered, true) {
            return;
        }
        self.recorder.first_byte(request.arrived, now);
        let Some(in_flight) = &mut request.in_flight else {
            return;
        };
        in_flight.note_body(|| now / 1000);
        in_flight.note_bytes(0, || now / 1000);
        let gateway = &self.gateways[request.gateway];
        if gateway.balancer.wants(Observed::Latency) {
            let took = (now - request.sent) / 1000;
            let endpoint = in_flight.endpoint();
            endpoint.observe_latency(now / 1000, took, in_flight.ahead());
        }
    }

    /// Notes a further part of a response.
    pub(super) fn part(&mut self, ticket: Ticket, now: Time) {
        let request = self.requests.get_mut(ticket.slot);
        let request = request.filter(|request| request.serial == ticket.serial);
        if let Some(in_flight) = request.and_then(|request| request.in_flight.as_mut()) {
            in_flight.note_body(|| now / 1000);
        }
    }
}
