//! What is simulated, as a file says it.

mod check;

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
    shipped!("steady"),
    shipped!("uneven"),
];

/// A fleet, what is asked of it, and what goes wrong meanwhile. Times are seconds unless another unit is
/// named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it shows, in a sentence.
    pub(super) description: String,
    /// Gateways that know nothing of each other. Each has an instance of the balancer and counts its
    /// own requests only.
    #[serde(default = "one")]
    pub(super) gateways: usize,
    /// Time at the start that no figure counts.
    #[serde(default)]
    pub(super) warm_up: f64,
    pub(super) requests: Requests,
    /// One after another.
    pub(super) load: Vec<Phase>,
    pub(super) targets: Vec<Group>,
    #[serde(default)]
    pub(super) faults: Vec<Fault>,
}

/// What requests are like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requests {
    /// Work of one, in milliseconds of a core of speed 1.
    pub(super) cost: Cost,
    #[serde(default)]
    pub(super) arrivals: Arrivals,
    /// Requests that arrive at the same moment.
    #[serde(default = "one")]
    pub(super) burst: usize,
    /// Time after which a client gives up.
    #[serde(default = "timeout")]
    pub(super) timeout: f64,
    /// Further tries after one that broke off or did not connect, as in Kong's `retries`.
    #[serde(default = "retries")]
    pub(super) retries: u32,
    /// Clients, or whatever requests hash on; 0 for requests without affinity.
    #[serde(default)]
    pub(super) keys: usize,
    /// How unequal the shares of the keys are: the exponent of Zipf's law, 0 for equal ones.
    #[serde(default)]
    pub(super) key_skew: f64,
    pub(super) prompts: Option<Prompts>,
}

/// Prompts as inference servers get them. Users talk: each turn of a conversation sends all that came before
/// once more, and each conversation begins with the prompt of a group, as a system prompt. A block is what a
/// server caches as one.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prompts {
    pub(super) groups: usize,
    /// How unequal the groups' shares of the conversations are, as `key_skew`.
    #[serde(default)]
    pub(super) skew: f64,
    /// Blocks of a group's prompt.
    pub(super) shared: u32,
    /// Users, each of whom has one conversation at a time and is as likely as any other to ask next. They are
    /// the keys of requests.
    pub(super) users: usize,
    /// Requests of a conversation.
    pub(super) turns: u32,
    /// Blocks that each of them adds.
    pub(super) turn: u32,
    /// Work for a block that is not cached, in milliseconds of a core of speed 1, beside `cost`.
    pub(super) block_cost: f64,
}

/// How the work of requests is distributed. `mean` is the mean of what is drawn, in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "distribution", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Cost {
    Constant {
        mean: f64,
    },
    Exponential {
        mean: f64,
    },
    /// Cut off at 0. `deviation` is that before the cut, as a share of the mean.
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
    /// Each by itself: exponential gaps.
    #[default]
    Poisson,
    /// With equal gaps.
    Regular,
}

/// A time with the same load.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Phase {
    pub(super) seconds: f64,
    /// Work that arrives, as a share of what the guaranteed cores of all targets can do; of prompts, what it
    /// would be if nothing were cached.
    pub(super) level: f64,
}

/// Targets that are alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    /// As many as are named unless given.
    #[serde(default)]
    pub(super) count: usize,
    /// What the first ones are called; the others have names of their own.
    #[serde(default)]
    pub(super) endpoints: Vec<Named>,
    #[serde(default = "weight")]
    pub(super) weight: u32,
    /// Cores that each has whatever happens. A request uses one at most.
    #[serde(default = "unit")]
    pub(super) cores: f64,
    /// Cores of its machine, which it may use as far as the antagonist leaves them; `cores` unless
    /// given.
    pub(super) machine: Option<f64>,
    /// Work that a core does, relative to others.
    #[serde(default = "unit")]
    pub(super) speed: f64,
    pub(super) antagonist: Option<Antagonist>,
    pub(super) cache: Option<Caching>,
}

/// What a target keeps of prompts that it has answered.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Caching {
    /// Blocks that fit; the ones used last stay.
    pub(super) blocks: u64,
}

/// Load of others on the machine of a target, which comes and goes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Antagonist {
    /// Least and most cores that it takes; how many is drawn anew each time.
    pub(super) cores: [f64; 2],
    /// Mean time between two changes.
    pub(super) every: f64,
}

/// Something that goes wrong with some targets for a time.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    /// First and last target, counted from 0 through all groups.
    pub(super) targets: [usize; 2],
    pub(super) from: f64,
    pub(super) until: f64,
    pub(super) kind: FaultKind,
    /// For `slow`: how many times as long everything takes.
    #[serde(default = "unit")]
    pub(super) factor: f64,
    /// Time until health checks notice the start, and the end; without it they never do.
    pub(super) detected_after: Option<f64>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultKind {
    /// Connections are refused, and what is going on breaks off.
    Down,
    /// Requests are taken, and never answered.
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

/// Why there is no scenario.
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
    /// A scenario that ships with the program, or that of a file.
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

    /// What each target is called, where it is; they are as many as targets.
    pub(super) fn named(&self) -> impl Iterator<Item = Option<&Named>> {
        self.targets.iter().flat_map(|group| {
            let named = group.endpoints.iter().map(Some);
            named.chain(std::iter::repeat(None)).take(group.count)
        })
    }

    /// Length of the whole, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.load.iter().map(|phase| phase.seconds).sum()
    }
}

impl Requests {
    /// Mean work of one, in milliseconds, if nothing is cached.
    pub(super) fn mean_work(&self) -> f64 {
        let prompt = |prompts: &Prompts| prompts.mean_blocks() * prompts.block_cost;
        self.cost.mean() + self.prompts.as_ref().map_or(0.0, prompt)
    }

    /// How many keys there are.
    pub(super) fn all_keys(&self) -> usize {
        self.prompts.map_or(self.keys, |prompts| prompts.users)
    }
}

impl Prompts {
    /// Mean blocks of a prompt.
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
    fn what_ships_is_right() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::load(name).unwrap();
            assert!(!scenario.description.is_empty());
        }
    }
}
