//! A scenario: the description of a simulation, from a file.

mod check;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use thiserror::Error;

use crate::named::Named;

macro_rules! shipped {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../../examples/scenarios/", $name, ".toml")),
        )
    };
}
/// The scenarios that ship with the program, by name.
pub(super) const SHIPPED: &[(&str, &str)] = &[
    shipped!("prequal"),
    shipped!("bursts"),
    shipped!("failures"),
    shipped!("gateways"),
    shipped!("prompts"),
    shipped!("quota"),
    shipped!("steady"),
    shipped!("tokens"),
    shipped!("uneven"),
    shipped!("zones"),
];

/// A fleet, its load, and its faults. Times are seconds unless another unit is named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it shows, in a sentence.
    pub(super) description: String,
    /// Independent gateways. Each has its own instance of the balancer and counts only its own
    /// requests.
    #[serde(default = "one")]
    pub(super) gateways: usize,
    /// Time at the start that is left out of all figures.
    #[serde(default)]
    pub(super) warm_up: f64,
    pub(super) requests: Requests,
    /// The phases of the load, one after another.
    pub(super) load: Vec<Phase>,
    pub(super) targets: Vec<Group>,
    #[serde(default)]
    pub(super) faults: Vec<Fault>,
}

/// The requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requests {
    /// Work of a request, in milliseconds of a core of speed 1; none if there are kinds.
    pub(super) cost: Option<Cost>,
    #[serde(default)]
    pub(super) arrivals: Arrivals,
    /// Requests that arrive at the same time.
    #[serde(default = "one")]
    pub(super) burst: usize,
    /// Time after which a client gives up.
    #[serde(default = "timeout")]
    pub(super) timeout: f64,
    /// Further tries after one that broke off or did not connect, as in Kong's `retries`.
    #[serde(default = "retries")]
    pub(super) retries: u32,
    /// Number of keys: the clients, or whatever requests are hashed on; 0 for requests without
    /// affinity.
    #[serde(default)]
    pub(super) keys: usize,
    /// How unequal the shares of the keys are: the exponent of Zipf's law, 0 for equal ones.
    #[serde(default)]
    pub(super) key_skew: f64,
    pub(super) prompts: Option<Prompts>,
    /// Kinds of prompts, for servers that batch.
    #[serde(default)]
    pub(super) kinds: Vec<Kind>,
}

/// Prompts of one length, as tokens. Each is new, but for its beginning.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kind {
    /// How frequent it is, relative to the other kinds.
    pub(super) share: f64,
    /// Tokens of the whole prompt.
    pub(super) prompt: u32,
    /// Tokens of the answer.
    pub(super) answer: Cost,
    /// How many of the first tokens it has in common with the other prompts of its group.
    #[serde(default)]
    pub(super) shared: u32,
    #[serde(default = "one")]
    pub(super) groups: usize,
    /// How unequal the groups' shares are, as `key_skew`.
    #[serde(default)]
    pub(super) skew: f64,
}

/// Prompts for inference servers. Users have conversations: each request sends the whole
/// conversation so far again, and each conversation starts with the prompt of a group, such as a
/// system prompt. A block is the unit in which a server caches.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prompts {
    pub(super) groups: usize,
    /// How unequal the groups' shares of the conversations are, as `key_skew`.
    #[serde(default)]
    pub(super) skew: f64,
    /// Blocks in the prompt of a group.
    pub(super) shared: u32,
    /// Users. Each has one conversation at a time, and all are equally likely to send the next
    /// request. They are the keys of requests.
    pub(super) users: usize,
    /// Requests in a conversation.
    pub(super) turns: u32,
    /// Blocks that each request adds.
    pub(super) turn: u32,
    /// Work for a block that is not cached, in milliseconds of a core of speed 1, in addition to
    /// `cost`.
    pub(super) block_cost: f64,
}

/// The distribution of the work of requests. `mean` is the mean of the draws, in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "distribution", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Cost {
    Constant {
        mean: f64,
    },
    Exponential {
        mean: f64,
    },
    /// Cut off at 0. `deviation` is the deviation before the cut, as a share of the mean.
    Normal {
        mean: f64,
        deviation: f64,
    },
    /// `deviation` is a share of the mean.
    LogNormal {
        mean: f64,
        deviation: f64,
    },
    /// The tail is heavier the closer `shape` is to 1.
    Pareto {
        mean: f64,
        shape: f64,
    },
}

/// When requests arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Arrivals {
    /// Independently, with exponential gaps.
    #[default]
    Poisson,
    /// With equal gaps.
    Regular,
}

/// A period of constant load.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Phase {
    pub(super) seconds: f64,
    /// Work that arrives, as a share of the capacity of the guaranteed cores of all targets. The
    /// work of a prompt is counted as if nothing were cached.
    pub(super) level: f64,
}

/// A group of equal targets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    /// Number of targets; by default the number of names.
    #[serde(default)]
    pub(super) count: usize,
    /// Names of the first targets; the others have the default name `target-` with their number.
    #[serde(default)]
    pub(super) endpoints: Vec<Named>,
    #[serde(default = "weight")]
    pub(super) weight: u32,
    /// Cores that each target always has. A request uses one at most.
    #[serde(default = "unit")]
    pub(super) cores: f64,
    /// Cores of its machine. The target may use those that the antagonist leaves free. By default
    /// the same as `cores`.
    pub(super) machine: Option<f64>,
    /// Speed of a core, relative to others.
    #[serde(default = "unit")]
    pub(super) speed: f64,
    pub(super) antagonist: Option<Antagonist>,
    pub(super) cache: Option<Caching>,
    /// Makes each target a server that batches, on which `cores` have no effect.
    pub(super) batch: Option<Batching>,
    /// Makes each target answer 429 when it has served its quota.
    pub(super) quota: Option<Quota>,
    /// The labels of each target.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// Milliseconds between the gateways and each target, there and back.
    #[serde(default)]
    pub(super) distance: f64,
}

/// The cache of a target for prompts that it has answered.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Caching {
    /// Blocks that fit; the most recently used ones are kept.
    pub(super) blocks: u64,
}

/// How many requests a target serves in each period. Those beyond it are answered 429 at once, with
/// the seconds until the next period in `Retry-After`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    pub(super) requests: u64,
    /// Length of a period. The first one begins with the simulation.
    pub(super) every: f64,
}

/// A server that works in steps. A step takes `step` milliseconds, and more for each token that it
/// computes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batching {
    /// Most tokens of a step: one for each answer that has begun, the others of prompts.
    pub(super) tokens: u32,
    /// Most requests that it works on at once; the others wait, in the order in which they came.
    pub(super) sequences: u32,
    /// Tokens of prompts and answers that fit into its memory. A request has its place for all of
    /// its tokens from the start, or waits.
    pub(super) kv_tokens: u64,
    /// Milliseconds of a step by itself.
    pub(super) step: f64,
    /// Milliseconds for a token of a prompt.
    pub(super) prompt_token: f64,
    /// Milliseconds for a token of an answer.
    pub(super) answer_token: f64,
}

/// Changing load of other programs on the machine of a target.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Antagonist {
    /// Fewest and most cores that it takes; the number is drawn again at each change.
    pub(super) cores: [f64; 2],
    /// Mean time between two changes.
    pub(super) every: f64,
}

/// A fault of some targets for a time.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    /// First and last target, counted from 0 across all groups.
    pub(super) targets: [usize; 2],
    pub(super) from: f64,
    pub(super) until: f64,
    pub(super) kind: FaultKind,
    /// For `slow`: the factor by which everything takes longer.
    #[serde(default = "unit")]
    pub(super) factor: f64,
    /// Time until health checks detect the start, and the end, of the fault; without it they never
    /// do.
    pub(super) detected_after: Option<f64>,
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultKind {
    /// Connections are refused, and requests in progress break off.
    Down,
    /// Requests are accepted, and never answered.
    Hang,
    /// Every answer is an error, at once.
    Errors,
    /// Everything takes longer.
    Slow,
}

fn one() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}

fn weight() -> u32 {
    100
}

fn timeout() -> f64 {
    60.0
}

fn retries() -> u32 {
    5
}

/// Why a scenario cannot be loaded.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("cannot read {0}: {1}")]
    Read(String, std::io::Error),
    #[error("there is no scenario {0:?}: name a .toml file, or one of {1}")]
    Unknown(String, String),
    #[error("{0} is not a scenario: {1}")]
    Syntax(String, String),
    #[error("{0}: {1}")]
    Value(String, String),
}

impl Scenario {
    /// Loads a scenario that ships with the program, or one from a file.
    pub(super) fn load(name: &str) -> Result<Self, Error> {
        let shipped = SHIPPED.iter().find(|(known, _)| *known == name);
        let text = match shipped {
            Some((_, text)) => (*text).to_owned(),
            None if name.contains(['/', '.']) => std::fs::read_to_string(Path::new(name))
                .map_err(|error| Error::Read(name.into(), error))?,
            None => {
                let known: Vec<&str> = SHIPPED.iter().map(|(known, _)| *known).collect();
                return Err(Error::Unknown(name.into(), known.join(", ")));
            }
        };
        let mut scenario: Self =
            toml::from_str(&text).map_err(|error| Error::Syntax(name.into(), error.to_string()))?;
        for group in &mut scenario.targets {
            if group.count == 0 {
                group.count = group.endpoints.len();
            }
        }
        match scenario.flaw() {
            Some(flaw) => Err(Error::Value(name.into(), flaw)),
            None => Ok(scenario),
        }
    }

    /// The name of each target, or none; one item for each target.
    pub(super) fn named(&self) -> impl Iterator<Item = Option<&Named>> {
        self.targets.iter().flat_map(|group| {
            let named = group.endpoints.iter().map(Some);
            named.chain(std::iter::repeat(None)).take(group.count)
        })
    }

    /// Length of the simulation, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.load.iter().map(|phase| phase.seconds).sum()
    }
}

impl Requests {
    /// Mean work of a request, in milliseconds, if nothing is cached; none if there are kinds.
    pub(super) fn mean_work(&self) -> Option<f64> {
        let prompt = |prompts: &Prompts| prompts.mean_blocks() * prompts.block_cost;
        Some(self.cost?.mean() + self.prompts.as_ref().map_or(0.0, prompt))
    }

    /// Mean work of requests of all kinds at a server that batches, in milliseconds.
    pub(super) fn mean_batched(&self, batch: &Batching) -> f64 {
        let shares: f64 = self.kinds.iter().map(|kind| kind.share).sum();
        let kinds = self.kinds.iter();
        kinds
            .map(|kind| kind.share / shares * batch.work(kind))
            .sum()
    }

    /// The number of keys.
    pub(super) fn all_keys(&self) -> usize {
        self.prompts.map_or(self.keys, |prompts| prompts.users)
    }
}

impl Batching {
    /// Milliseconds that a request of a kind takes on average, in a batch that is full.
    fn work(&self, kind: &Kind) -> f64 {
        let answer = self.answer_token + self.step / f64::from(self.sequences);
        f64::from(kind.prompt) * self.prompt_token + kind.answer.mean() * answer
    }
}

impl Prompts {
    /// Mean number of blocks in a prompt.
    pub(super) fn mean_blocks(&self) -> f64 {
        let turns = (f64::from(self.turns) + 1.0) / 2.0;
        f64::from(self.shared) + turns * f64::from(self.turn)
    }
}

impl Cost {
    pub(super) fn mean(self) -> f64 {
        match self {
            Self::Constant { mean }
            | Self::Exponential { mean }
            | Self::Normal { mean, .. }
            | Self::LogNormal { mean, .. }
            | Self::Pareto { mean, .. } => mean,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_scenario_is_valid() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::load(name).unwrap();
            assert!(!scenario.description.is_empty());
        }
    }
}
