//! The source of requests: whatever a balancer does, the same requests arrive.

use std::collections::VecDeque;

use super::fleet::{NEVER, Time};
use super::prompts::{Kinds, Prompt, Users};
use super::random::{Costs, Keys, Random, Stream};
use super::scenario::{Arrivals, Phase, Scenario};

const SECOND: f64 = 1e9;

/// A request on arrival.
pub(super) struct Arrival {
    /// Milliseconds of a core, without the work of its prompt; for a server that batches, tokens of
    /// the answer.
    pub(super) work: f64,
    pub(super) key: Option<usize>,
    pub(super) prompt: Option<Prompt>,
    pub(super) gateway: usize,
}

/// Draws the requests of a scenario, one after the other.
pub(super) struct Source<'a> {
    scenario: &'a Scenario,
    gaps: Random,
    costs: Option<Costs>,
    keys: Keys,
    users: Option<Users>,
    kinds: Kinds,
    gateways: Random,
    /// The time of the next arrival.
    pub(super) next: Time,
    /// The current phase and the later ones, each with its end.
    phases: VecDeque<(Time, Phase)>,
    /// Mean time between two arrivals at level 1, in nanoseconds.
    gap: f64,
}

impl<'a> Source<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let groups = scenario.targets.iter();
        let requests = &scenario.requests;
        let mut end = 0.0;
        // Servers, each with the time that a request takes one of them, in milliseconds.
        let (servers, mean_work): (f64, f64) = match requests.mean_work() {
            Some(mean) => {
                let cores = groups.map(|group| group.count as f64 * group.cores * group.speed);
                (cores.sum(), mean)
            }
            None => {
                let rates = groups.map(|group| {
                    let work = group
                        .batch
                        .map_or(1.0, |batch| requests.mean_batched(&batch));
                    group.count as f64 * group.speed / work
                });
                (rates.sum(), 1.0)
            }
        };
        let phases = scenario.load.iter().map(|phase| {
            end += phase.seconds * SECOND;
            (end as Time, *phase)
        });
        let mut source = Self {
            scenario,
            gaps: Random::new(seed, Stream::Arrivals),
            costs: requests.cost.map(|cost| Costs::new(cost, seed)),
            keys: Keys::new(requests.keys, requests.key_skew, seed),
            users: requests.prompts.map(|prompts| Users::new(prompts, seed)),
            kinds: Kinds::new(&requests.kinds, seed),
            gateways: Random::new(seed, Stream::Gateways),
            next: 0,
            phases: phases.collect(),
            gap: mean_work * requests.burst as f64 * 1e6 / servers,
        };
        source.advance();
        source
    }

    /// Advances to the next arrival; [`NEVER`] after the last one.
    pub(super) fn advance(&mut self) {
        let Some((_, phase)) = self.phases.front() else {
            return;
        };
        let gap = match self.scenario.requests.arrivals {
            Arrivals::Poisson => self.gaps.exponential(),
            Arrivals::Regular => 1.0,
        };
        self.next += ((gap * self.gap / phase.level) as Time).max(1);
        while self
            .phases
            .front()
            .is_some_and(|(end, _)| *end <= self.next)
        {
            self.phases.pop_front();
        }
        if self.phases.is_empty() {
            self.next = NEVER;
        }
    }

    /// Draws the next request.
    pub(super) fn draw(&mut self) -> Arrival {
        let (key, prompt) = match &mut self.users {
            Some(users) => {
                let (user, prompt) = users.draw();
                (Some(user), Some(prompt))
            }
            None => (self.keys.draw(), None),
        };
        let drawn = self.kinds.draw();
        let answer = drawn.map(|(_, answer)| answer);
        let prompt = drawn.map(|(prompt, _)| prompt).or(prompt);
        let cost = self.costs.as_mut().map(Costs::draw);
        Arrival {
            gateway: match self.scenario.gateways {
                1 => 0,
                many => self.gateways.below(many),
            },
            work: answer.or(cost).unwrap_or_default(),
            key,
            prompt,
        }
    }
}
