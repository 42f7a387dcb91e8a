//! Checks whether a scenario can be simulated.

use super::{Batching, Cost, Kind, Prompts, Scenario};
use crate::named;

/// Most targets, gateways or keys of a simulation.
const MAX_COUNT: usize = 1_000_000;

/// Most blocks of a prompt.
const LONGEST: u64 = 1 << 20;

impl Scenario {
    /// Why the scenario cannot be simulated, as a sentence.
    pub(super) fn flaw(&self) -> Option<String> {
        let positive = |name: &str, value: f64| {
            (!(value.is_finite() && value > 0.0)).then(|| format!("{name} must be above 0"))
        };
        let counted = |name: &str, value: usize| {
            (!(1..=MAX_COUNT).contains(&value))
                .then(|| format!("{name} must be between 1 and {MAX_COUNT}"))
        };
        let mut flaws = vec![
            counted("gateways", self.gateways),
            counted("requests.burst", self.requests.burst),
            positive("requests.timeout", self.requests.timeout),
            self.requests.cost.and_then(|cost| cost.flaw("cost")),
            self.flaw_of_batching(),
        ];
        if self.requests.keys > MAX_COUNT {
            flaws.push(Some(format!("requests.keys must be at most {MAX_COUNT}")));
        }
        if !(0.0..=10.0).contains(&self.requests.key_skew) {
            flaws.push(Some("requests.key_skew must be between 0 and 10".into()));
        }
        if let Some(prompts) = &self.requests.prompts {
            flaws.push(prompts.flaw());
            if self.requests.keys > 0 {
                flaws.push(Some(
                    "requests.keys must be 0 where there are prompts: users are the keys".into(),
                ));
            }
        }
        if self.load.is_empty() || self.targets.is_empty() {
            flaws.push(Some("load and targets need an entry at least".into()));
        }
        for phase in &self.load {
            flaws.push(positive("load.seconds", phase.seconds));
            flaws.push(positive("load.level", phase.level));
        }
        for group in &self.targets {
            flaws.push(counted("targets.count", group.count));
            if group.endpoints.len() > group.count {
                flaws.push(Some(format!(
                    "targets.endpoints names {} of targets.count = {}",
                    group.endpoints.len(),
                    group.count
                )));
            }
            flaws.push(positive("targets.cores", group.cores));
            flaws.push(positive("targets.speed", group.speed));
            if !(0.0..=60_000.0).contains(&group.distance) {
                flaws.push(Some(
                    "targets.distance must be between 0 and 60000 milliseconds".into(),
                ));
            }
            let requests = &self.requests;
            if group.cache.is_some() && requests.prompts.is_none() && requests.kinds.is_empty() {
                flaws.push(Some(
                    "targets.cache needs requests.prompts or .kinds: nothing else is cached".into(),
                ));
            }
            if let Some(quota) = group.quota {
                flaws.push(positive("targets.quota.every", quota.every));
                if quota.requests == 0 {
                    flaws.push(Some("targets.quota.requests must be above 0".into()));
                }
            }
            if !(1..=65_535).contains(&group.weight) {
                flaws.push(Some("targets.weight must be between 1 and 65535".into()));
            }
            let machine = group.machine.unwrap_or(group.cores);
            if machine.is_nan() || machine < group.cores {
                flaws.push(Some(
                    "targets.machine must be at least targets.cores".into(),
                ));
            }
            if let Some(antagonist) = group.antagonist {
                let [least, most] = antagonist.cores;
                if !(0.0 <= least && least <= most && most.is_finite()) {
                    flaws.push(Some(
                        "targets.antagonist.cores must be two numbers from 0, the lower one first"
                            .into(),
                    ));
                }
                flaws.push(positive("targets.antagonist.every", antagonist.every));
            }
        }
        let count: usize = self.targets.iter().map(|group| group.count).sum();
        flaws.push(counted("the sum of targets.count", count));
        let names = self.targets.iter().flat_map(|group| &group.endpoints);
        if let Err(flaw) = named::ids(names) {
            flaws.push(Some(format!("targets.endpoints: {flaw}")));
        }
        for fault in &self.faults {
            let [first, last] = fault.targets;
            if first > last || last >= count {
                flaws.push(Some(format!(
                    "faults.targets must be the first and the last of targets 0 to {}",
                    count.saturating_sub(1)
                )));
            }
            if !(0.0 <= fault.from && fault.from < fault.until && fault.until.is_finite()) {
                flaws.push(Some("faults.from must be before faults.until".into()));
            }
            flaws.push(positive("faults.factor", fault.factor));
            if fault
                .detected_after
                .is_some_and(|after| !(0.0..1e9).contains(&after))
            {
                flaws.push(Some("faults.detected_after must be 0 or more".into()));
            }
        }
        let faults = self.faults.iter().enumerate();
        for (index, fault) in faults {
            let later = self.faults[index + 1..].iter();
            for other in later {
                let apart = fault.targets[1] < other.targets[0]
                    || other.targets[1] < fault.targets[0]
                    || fault.until <= other.from
                    || other.until <= fault.from;
                if !apart {
                    flaws.push(Some(
                        "a target can have one of the faults at a time: two of them overlap".into(),
                    ));
                }
            }
        }
        if !(0.0 <= self.warm_up && self.warm_up < self.seconds()) {
            flaws.push(Some("warm_up must be shorter than the load".into()));
        }
        if self.seconds() > 1e6 {
            flaws.push(Some("load must not be longer than 1000000 seconds".into()));
        }
        flaws.into_iter().flatten().next()
    }
}

impl Scenario {
    /// What is wrong with servers that batch and their requests.
    fn flaw_of_batching(&self) -> Option<String> {
        let requests = &self.requests;
        if requests.kinds.is_empty() && requests.cost.is_none() {
            return Some("requests.cost is missing; only requests.kinds do without it".into());
        }
        if !requests.kinds.is_empty() && (requests.cost.is_some() || requests.prompts.is_some()) {
            return Some("requests.kinds excludes requests.cost and .prompts".into());
        }
        if self
            .targets
            .iter()
            .any(|group| group.batch.is_some() == requests.kinds.is_empty())
        {
            let both = "targets.batch, for all targets, and requests.kinds need each other";
            return Some(both.into());
        }
        let longest = requests.kinds.iter().map(|kind| kind.prompt).max();
        let batches = self.targets.iter().filter_map(|group| group.batch);
        let mut batches = batches.map(|batch| batch.flaw(longest.unwrap_or(0)));
        let mut kinds = requests.kinds.iter().map(Kind::flaw);
        kinds
            .find_map(|flaw| flaw)
            .or_else(|| batches.find_map(|flaw| flaw))
    }
}

impl Kind {
    fn flaw(&self) -> Option<String> {
        let wrong = |what: &str| Some(format!("requests.kinds.{what}"));
        if !(self.share.is_finite() && self.share > 0.0) {
            wrong("share must be above 0")
        } else if !(1..=LONGEST).contains(&u64::from(self.prompt)) {
            wrong(&format!("prompt must be between 1 and {LONGEST}"))
        } else if self.shared > self.prompt {
            wrong("shared must be at most prompt")
        } else if !(1..=MAX_COUNT).contains(&self.groups) {
            wrong(&format!("groups must be between 1 and {MAX_COUNT}"))
        } else if !(0.0..=10.0).contains(&self.skew) {
            wrong("skew must be between 0 and 10")
        } else {
            self.answer.flaw("kinds.answer")
        }
    }
}

impl Batching {
    /// What is wrong, if the longest prompt has so many tokens.
    fn flaw(&self, longest: u32) -> Option<String> {
        let wrong = |what: &str| Some(format!("targets.batch.{what}"));
        let time = |value: f64| (0.0..1e6).contains(&value);
        if self.sequences == 0 || self.tokens < self.sequences {
            wrong("sequences must be above 0, and at most .tokens")
        } else if self.kv_tokens <= u64::from(longest) {
            wrong("kv_tokens must be more than the longest prompt has")
        } else if !(self.step > 0.0
            && [self.step, self.prompt_token, self.answer_token].map(time) == [true; 3])
        {
            wrong("step, .prompt_token and .answer_token must be below 1000000, and step above 0")
        } else {
            None
        }
    }
}

impl Prompts {
    fn flaw(&self) -> Option<String> {
        let longest = u64::from(self.shared) + u64::from(self.turns) * u64::from(self.turn);
        let wrong = |what: &str| Some(format!("requests.prompts.{what}"));
        if ![self.groups, self.users]
            .iter()
            .all(|count| (1..=MAX_COUNT).contains(count))
        {
            wrong(&format!(
                "groups and .users must be between 1 and {MAX_COUNT}"
            ))
        } else if !(0.0..=10.0).contains(&self.skew) {
            wrong("skew must be between 0 and 10")
        } else if self.turns == 0 {
            wrong("turns must be 1 at least")
        } else if !(1..=LONGEST).contains(&longest) {
            wrong(&format!(
                "shared, .turns and .turn must make between 1 and {LONGEST} blocks"
            ))
        } else if !(0.0..1e6).contains(&self.block_cost) {
            wrong("block_cost must be between 0 and 1000000")
        } else {
            None
        }
    }
}

impl Cost {
    /// What is wrong with it, as the field of this name.
    fn flaw(self, name: &str) -> Option<String> {
        let mean = self.mean();
        if !(mean.is_finite() && mean > 0.0) {
            return Some(format!("requests.{name}.mean must be above 0"));
        }
        match self {
            Self::Normal { deviation, .. } | Self::LogNormal { deviation, .. }
                if !(0.0..=100.0).contains(&deviation) =>
            {
                Some(format!(
                    "requests.{name}.deviation must be between 0 and 100"
                ))
            }
            Self::Pareto { shape, .. } if !(shape > 1.0 && shape.is_finite()) => Some(format!(
                "requests.{name}.shape must be above 1: below it there is no mean"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_flaw_is_named() {
        let right = "description = 'x'\nload = [{seconds = 1, level = 0.5}]\n\
                     requests = {cost = {distribution = 'constant', mean = 1}}\n\
                     targets = [{count = 2}]\n";
        let flaw = |more: &str, instead: &str| {
            let text = right.replace(instead, more);
            assert_ne!(text, right);
            toml::from_str::<Scenario>(&text).unwrap().flaw().unwrap()
        };
        assert!(toml::from_str::<Scenario>(right).unwrap().flaw().is_none());
        assert!(flaw("level = -1", "level = 0.5").contains("load.level"));
        assert!(flaw("count = 0", "count = 2").contains("targets.count"));
        let named = |named: &str| flaw(&format!("count = 2, endpoints = [{named}]"), "count = 2");
        let three = "{label = 'a'}, {label = 'b'}, {label = 'c'}";
        assert!(named(three).contains("targets.endpoints names 3"));
        assert!(named("{label = 'a'}, {label = 'a', port = 1}").contains("the label a"));
        assert!(named("{id = '12'}").contains("16 hexadecimal digits"));
        assert!(named("{port = 1}").contains("needs a label"));
        assert!(flaw("count = 2, weight = 0", "count = 2").contains("weight"));
        assert!(flaw("count = 2, cores = 2, machine = 1", "count = 2").contains("machine"));
        assert!(flaw("count = 2, distance = -1", "count = 2").contains("distance"));
        assert!(flaw("mean = nan", "mean = 1").contains("mean"));
        let fault = "count = 2}]\nfaults = [{targets = [1, 2], from = 0, until = 1, kind = 'down'";
        assert!(flaw(fault, "count = 2").contains("faults.targets"));
        assert!(flaw("count = 2, cache = {blocks = 1}", "count = 2").contains("prompts"));
        let prompts = |more: &str| {
            let all = "groups = 1, shared = 1, users = 1, turns = 1, turn = 1, block_cost = 1";
            flaw(
                &format!("mean = 1}}, prompts = {{{all}}}{more}").replace("turns = 1", "turns = 0"),
                "mean = 1}",
            )
        };
        assert!(prompts("").contains("prompts.turns"));
        let unknown = format!("{right}colour = 1\n");
        assert!(toml::from_str::<Scenario>(&unknown).is_err());
    }
}
