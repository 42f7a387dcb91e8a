//! The source of requests: whatever a balancer does, the same requests arrive.

use std::collections::VecDeque;

use super::fleet::{NEVER, Time};
use super::prompts::{Prompt, Users};
use super::random::{Costs, Keys, Random, Stream};
use super::scenario::{Arrivals, Phase, Scenario};

const SECOND: f64 = 1e9;

/// A request on arrival.
pub(super) struct Arrival {
    /// Milliseconds of a core, without the work of its prompt.
    pub(super) work: f64,
    pub(super) key: Option<usize>,
    pub(super) prompt: Option<Prompt>,
    pub(super) gateway: usize,
}

/// Draws the requests of a scenario, one after the other.
pub(super) struct Source<'a> {
    scenario: &'a Scenario,
    gaps: Random,
    costs: Costs,
    keys: Keys,
    users: Option<Users>,
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
        let cores: f64 = groups
            .map(|group| group.count as f64 * group.cores * group.speed)
            .sum();
        let requests = &scenario.requests;
        let mut end = 0.0;
        let phases = scenario.load.iter().map(|phase| {
            end += phase.seconds * SECOND;
            (end as Time, *phase)
        });
        let mut source = Self {
            scenario,
            gaps: Random::new(seed, Stream::Arrivals),
            costs: Costs::new(requests.cost, seed),
            keys: Keys::new(requests.keys, requests.key_skew, seed),
            users: requests.prompts.map(|prompts| Users::new(prompts, seed)),
            gateways: Random::new(seed, Stream::Gateways),
            next: 0,
            phases: phases.collect(),
            gap: requests.mean_work() * requests.burst as f64 * 1e6 / cores,
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
        Arrival {
            gateway: match self.scenario.gateways {
                1 => 0,
                many => self.gateways.below(many),
            },
            work: self.costs.draw(),
            key,
            prompt,
        }
    }
}
