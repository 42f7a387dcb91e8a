//! Simulates one balancer with a fleet, event by event.

mod events;
mod outcomes;
mod steps;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slab::Slab;

use super::batch::Job;
use super::fleet::{Machine, NEVER, Soonest, Ticket, Time};
use super::outcome::{End, Recorder, SAMPLES, SimulationResult};
use super::prompts::{Prompt, tokens_of};
use super::random::{Random, Stream, mix};
use super::scenario::{FaultKind, Scenario};
use super::source::{Arrival, Source};
use super::targets::{address, ids, target_at};
use super::{Affinity, Contender};
use crate::balancer::{
    Balancer, Choice, ChoiceDetails, Engine, Observed, PickRequest, RequestFacts,
};
use crate::endpoint::{EndReason, Endpoint, InFlight, Labels, LoadReport};
use crate::upstream::UNANSWERED;
use events::Event;
use outcomes::end_at_once;

const SECOND: f64 = 1e9;

/// A request from its arrival to its end.
struct SimulatedRequest {
    serial: u64,
    arrived: Time,
    work: f64,
    key: Option<usize>,
    prompt: Option<Prompt>,
    gateway: usize,
    attempt: u32,
    /// Endpoints at which a try of it has failed.
    tried: Vec<u64>,
    /// The target that it was sent to, and when.
    target: usize,
    sent: Time,
    in_flight: Option<InFlight>,
    /// Whether the target works on it. If not, and it is in flight, its response is on the way.
    in_work: bool,
    /// Whether the first byte of the response has come.
    is_answered: bool,
}

/// A gateway: its balancer, and all endpoints with the live numbers that this gateway has of them.
struct Gateway {
    balancer: Arc<Balancer>,
    endpoints: Vec<Arc<Endpoint>>,
}

struct World<'a> {
    scenario: &'a Scenario,
    affinity: Affinity,
    machines: Vec<Machine>,
    /// When each machine completes its next request.
    soonest: Soonest,
    gateways: Vec<Gateway>,
    /// For each target, the number of faults that health checks have detected.
    detected: Vec<u32>,
    requests: Slab<SimulatedRequest>,
    serial: u64,
    /// The times at which clients give up, in order.
    deadlines: VecDeque<(Time, Ticket)>,
    agenda: BinaryHeap<Reverse<(Time, Event)>>,
    entropy: Random,
    antagonists: Random,
    /// The endpoint of each key's session; 0 for none.
    sessions: Vec<u64>,
    recorder: Recorder,
}

/// Simulates a scenario with one balancer. `progress` counts samples up to [`SAMPLES`].
///
/// # Errors
/// The fault of the balancer.
pub(super) fn run(
    engine: &Arc<Engine>,
    contender: &Contender,
    scenario: &Scenario,
    seed: u64,
    progress: &AtomicU64,
) -> Result<SimulationResult, String> {
    let mut world = World::new(engine, contender, scenario, seed);
    let mut source = Source::new(scenario, seed);
    let step = (scenario.seconds() * SECOND / SAMPLES as f64) as Time;
    world.agenda.push(Reverse((step, Event::Sample)));
    loop {
        let (done, machine) = world.soonest.first();
        let deadline = world.deadline();
        let event = (world.agenda.peek()).map_or(NEVER, |Reverse((time, _))| *time);
        let arrival = source.next;
        let now = done.min(deadline).min(event).min(arrival);
        if now == NEVER || (arrival == NEVER && world.requests.is_empty()) {
            break;
        }
        if now == done {
            world.complete(machine, now);
        } else if now == deadline {
            world.give_up(now);
        } else if now == event {
            world.happen(now, step);
            let samples = world.recorder.samples();
            if samples > progress.load(Ordering::Relaxed) {
                progress.store(samples, Ordering::Relaxed);
                world.check()?;
            }
        } else {
            for _ in 0..scenario.requests.burst {
                world.arrive(now, source.draw());
            }
            source.advance();
        }
    }
    world.check()?;
    Ok(world.recorder.finish(contender, scenario))
}

impl<'a> World<'a> {
    fn new(engine: &Arc<Engine>, contender: &Contender, scenario: &'a Scenario, seed: u64) -> Self {
        let mut machines = Vec::new();
        let mut weights = Vec::new();
        let mut labels = Vec::new();
        let mut agenda = BinaryHeap::new();
        for group in &scenario.targets {
            labels.extend(vec![Labels::new([], &group.labels); group.count]);
            for _ in 0..group.count {
                if group.antagonist.is_some() {
                    agenda.push(Reverse((0, Event::Antagonist(machines.len()))));
                }
                machines.push(Machine::new(group));
                weights.push(group.weight);
            }
        }
        for (index, fault) in scenario.faults.iter().enumerate() {
            let mut at = |seconds: f64, event| {
                agenda.push(Reverse(((seconds * SECOND) as Time, event)));
            };
            at(fault.from, Event::Begin(index));
            at(fault.until, Event::End(index));
            // A fault that ends before health checks would detect it is not detected.
            if let Some(after) = fault.detected_after
                && fault.from + after < fault.until
            {
                at(fault.from + after, Event::Detect(index));
                at(fault.until + after, Event::Return(index));
            }
        }
        let ids = ids(scenario);
        let gateways = (0..scenario.gateways).map(|_| {
            let plugin = Arc::clone(&contender.plugin);
            let config = contender.config.clone();
            let balancer = Balancer::new(Arc::clone(engine), &contender.name, plugin, config);
            let endpoints = weights.iter().enumerate().map(|(target, weight)| {
                let host = format!("target-{target}");
                let mut endpoint = Endpoint::new(ids[target], address(target), host, *weight);
                endpoint.labels = labels[target].clone();
                Arc::new(endpoint)
            });
            let endpoints: Vec<_> = endpoints.collect();
            Gateway {
                // It is told of ended tries at once.
                balancer: balancer.shared(),
                endpoints,
            }
        });
        let mut world = Self {
            scenario,
            affinity: contender.affinity,
            soonest: Soonest::new(machines.len()),
            detected: vec![0; machines.len()],
            gateways: gateways.collect(),
            requests: Slab::new(),
            serial: 0,
            deadlines: VecDeque::new(),
            agenda,
            entropy: Random::new(seed, Stream::Entropy),
            antagonists: Random::new(seed, Stream::Antagonists),
            sessions: vec![0; scenario.requests.all_keys()],
            recorder: Recorder::new(scenario, weights),
            machines,
        };
        world.publish();
        world
    }

    /// Tells the balancers which endpoints may be chosen.
    fn publish(&mut self) {
        for gateway in &self.gateways {
            let all = gateway.endpoints.iter().zip(&self.detected);
            let available = all.filter(|(_, detected)| **detected == 0);
            let table = available.map(|(endpoint, _)| Arc::clone(endpoint));
            gateway.balancer.set_endpoints(table.collect());
        }
    }

    /// Checks that no balancer has had a fault.
    fn check(&self) -> Result<(), String> {
        for gateway in &self.gateways {
            let counters = gateway.balancer.counters();
            if let Some(fault) = counters.last_fault {
                return Err(fault);
            }
        }
        Ok(())
    }

    fn arrive(&mut self, now: Time, arrival: Arrival) {
        self.serial += 1;
        let slot = self.requests.insert(SimulatedRequest {
            serial: self.serial,
            arrived: now,
            work: arrival.work,
            key: arrival.key,
            prompt: arrival.prompt,
            gateway: arrival.gateway,
            attempt: 0,
            tried: Vec::new(),
            target: 0,
            sent: now,
            in_flight: None,
            in_work: false,
            is_answered: false,
        });
        let ticket = Ticket {
            slot,
            serial: self.serial,
        };
        let patience = (self.scenario.requests.timeout * SECOND) as Time;
        self.deadlines.push_back((now + patience, ticket));
        self.send(slot, now);
    }

    /// Sends a request to a target, unless no target accepts it.
    fn send(&mut self, slot: usize, now: Time) {
        loop {
            let request = &mut self.requests[slot];
            let gateway = &self.gateways[request.gateway];
            let affinity = match (self.affinity, request.key) {
                (Affinity::Key, Some(key)) => Some(mix(key as u64)),
                (Affinity::Session, Some(key)) => Some(self.sessions[key]).filter(|id| *id != 0),
                _ => None,
            };
            let pick = PickRequest {
                now: now / 1000,
                entropy: self.entropy.bits(),
                affinity,
                attempt: request.attempt,
                last_status: None,
                facts: request
                    .prompt
                    .as_ref()
                    .map(|prompt| prompt as &dyn RequestFacts),
                note: None,
            };
            let placed = |endpoint, details: ChoiceDetails| (endpoint, details);
            let choice = gateway.balancer.place(pick, &request.tried, placed);
            let Choice::Endpoint((endpoint, details)) = choice else {
                return self.finish(slot, now, End::NoTarget);
            };
            if let (Affinity::Session, Some(key)) = (self.affinity, request.key) {
                self.sessions[key] = endpoint.id;
            }
            let target = target_at(&endpoint.address);
            request.target = target;
            request.sent = now;
            let machine = &mut self.machines[target];
            match machine.fault {
                Some((FaultKind::Down, _)) => {
                    end_at_once(details.notes, None, now);
                    if !self.fail(slot, &endpoint, now) {
                        return;
                    }
                }
                Some((FaultKind::Errors, _)) => {
                    // To a gateway this is a response, and a fast one.
                    if gateway.balancer.wants(Observed::Latency) {
                        endpoint.observe_latency(now / 1000, 0, endpoint.in_flight());
                    }
                    end_at_once(details.notes, Some((500, None)), now);
                    return self.finish(slot, now, End::Error);
                }
                _ => {
                    let quota = machine.quota.as_mut();
                    if let Some(seconds) = quota.and_then(|quota| quota.take(now)) {
                        if gateway.balancer.wants(Observed::Latency) {
                            endpoint.observe_latency(now / 1000, 0, endpoint.in_flight());
                        }
                        end_at_once(details.notes, Some((429, Some(seconds))), now);
                        return self.finish(slot, now, End::Error);
                    }
                    let is_timed = gateway.balancer.wants(Observed::Body);
                    let in_flight = InFlight::new(endpoint);
                    let in_flight = in_flight.weighing(details.cost, is_timed, now / 1000);
                    request.in_flight = Some(in_flight.noted(details.notes));
                    request.in_work = true;
                    let serial = request.serial;
                    let ticket = Ticket { slot, serial };
                    let mut cached = 0;
                    if let Some(prompt) = &request.prompt {
                        cached = machine.recall(prompt);
                        self.recorder
                            .prompt(request.arrived, prompt.blocks(), cached);
                    }
                    machine.advance(now);
                    let prompt = request.prompt.as_ref();
                    if machine.is_batching() {
                        machine.enqueue(Job {
                            ticket,
                            prompt: prompt.map_or(1, Prompt::tokens),
                            cached: tokens_of(cached),
                            answer: (request.work.round() as u32).max(1),
                        });
                    } else {
                        let missing = prompt.map_or(0, |prompt| prompt.blocks() - cached);
                        let block = self.scenario.requests.prompts;
                        let block = block.map_or(0.0, |prompts| prompts.block_cost);
                        machine.take(ticket, request.work + f64::from(missing) * block);
                    }
                    return self.schedule(target);
                }
            }
        }
    }

    /// Handles a try that broke off. Returns whether the request is tried again.
    fn fail(&mut self, slot: usize, endpoint: &Arc<Endpoint>, now: Time) -> bool {
        let request = &mut self.requests[slot];
        let gateway = &self.gateways[request.gateway];
        if gateway.balancer.wants(Observed::Latency) {
            let least = UNANSWERED.as_micros() as u64;
            let took = least.max((now - request.sent) / 1000);
            endpoint.observe_latency(now / 1000, took, endpoint.in_flight());
        }
        request.tried.push(endpoint.id);
        request.attempt += 1;
        // What the client has a part of cannot be tried again.
        if request.is_answered || request.attempt > self.scenario.requests.retries {
            self.finish(slot, now, End::Broken);
            return false;
        }
        self.recorder.retry(request.arrived);
        true
    }

    /// Completes the next request of a machine.
    fn complete(&mut self, target: usize, now: Time) {
        if self.machines[target].is_batching() {
            return self.step(target, now);
        }
        let requests = &self.requests;
        let machine = &mut self.machines[target];
        machine.advance(now);
        if let Some((_, ticket)) = machine.next(|ticket| is_valid(requests, target, ticket)) {
            if let Some(prompt) = &self.requests[ticket.slot].prompt {
                machine.keep(prompt);
            }
            self.end_work(target, ticket, now);
        }
        self.schedule(target);
    }

    /// Ends the work of a machine on a request: the response is on its way.
    fn end_work(&mut self, target: usize, ticket: Ticket, now: Time) {
        let distance = self.machines[target].distance;
        self.leave_machine(ticket.slot, now);
        if distance == 0 {
            self.answer(ticket, now);
        } else {
            let arrives = now.saturating_add(distance);
            self.agenda.push(Reverse((arrives, Event::Answer(ticket))));
        }
    }

    /// Ends a request whose response has arrived, unless its client has given it up meanwhile.
    fn answer(&mut self, ticket: Ticket, now: Time) {
        let request = self.requests.get(ticket.slot);
        if request.is_some_and(|request| request.serial == ticket.serial) {
            if self.machines[self.requests[ticket.slot].target].is_batching() {
                self.first_byte(ticket, now);
            }
            self.learn(ticket.slot, now);
            self.end_try(ticket.slot, EndReason::Complete, now);
            self.finish(ticket.slot, now, End::Answered);
        }
    }

    /// Ends the request of the next client that gives up.
    fn give_up(&mut self, now: Time) {
        if let Some((_, ticket)) = self.deadlines.pop_front() {
            self.end_try(ticket.slot, EndReason::Client, now);
            self.withdraw(ticket.slot, now);
            let target = self.requests[ticket.slot].target;
            self.finish(ticket.slot, now, End::Timeout);
            self.schedule(target);
        }
    }

    /// The next time at which a client gives up.
    fn deadline(&mut self) -> Time {
        while let Some((time, ticket)) = self.deadlines.front() {
            let request = self.requests.get(ticket.slot);
            if request.is_some_and(|request| request.serial == ticket.serial) {
                return *time;
            }
            self.deadlines.pop_front();
        }
        NEVER
    }

    /// Removes a request from the machine that works on it, if one does.
    fn withdraw(&mut self, slot: usize, now: Time) -> Option<InFlight> {
        self.leave_machine(slot, now);
        self.requests[slot].in_flight.take()
    }

    fn leave_machine(&mut self, slot: usize, now: Time) {
        let request = &mut self.requests[slot];
        if std::mem::take(&mut request.in_work) {
            let machine = &mut self.machines[request.target];
            machine.advance(now);
            machine.leave(Ticket {
                slot,
                serial: request.serial,
            });
        }
    }

    /// Records a response as the gateway does: its latency, and the load that the machine reports.
    fn learn(&mut self, slot: usize, now: Time) {
        let request = &mut self.requests[slot];
        let Some(in_flight) = &mut request.in_flight else {
            return;
        };
        in_flight.note_body(|| now / 1000);
        in_flight.note_bytes(0, || now / 1000);
        let gateway = &self.gateways[request.gateway];
        // Of a response that streams, it was observed with the first byte.
        if !request.is_answered && gateway.balancer.wants(Observed::Latency) {
            let took = (now - request.sent) / 1000;
            let endpoint = in_flight.endpoint();
            endpoint.observe_latency(now / 1000, took, in_flight.ahead());
        }
        if gateway.balancer.wants(Observed::Report) {
            let (load, queue) = self.machines[request.target].report();
            let report = LoadReport {
                load: (load * 1000.0) as u32,
                queue: queue as u32,
            };
            in_flight.endpoint().observe_report(now / 1000, report);
        }
    }

    fn schedule(&mut self, target: usize) {
        let requests = &self.requests;
        let machine = &mut self.machines[target];
        let next = machine.next(|ticket| is_valid(requests, target, ticket));
        let time = next.map(|(time, _)| time).or(machine.next_step());
        self.soonest.set(target, time.unwrap_or(NEVER));
    }

    fn finish(&mut self, slot: usize, now: Time, end: End) {
        let request = self.requests.remove(slot);
        self.recorder.end(request.arrived, now, request.target, end);
    }
}

/// Whether a machine still works on a request.
fn is_valid(requests: &Slab<SimulatedRequest>, target: usize, ticket: Ticket) -> bool {
    requests.get(ticket.slot).is_some_and(|request| {
        request.serial == ticket.serial && request.in_work && request.target == target
    })
}
