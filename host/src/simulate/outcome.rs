//! The outcome of a simulation, in figures.

use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Contender;
use super::fleet::Time;
use super::scenario::Scenario;
use super::targets;
use crate::named::Named;

/// The number of times at which the state of the fleet is sampled.
pub(super) const SAMPLES: u64 = 100;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a response.
    Answered,
    /// With an error as a response.
    Error,
    /// Without a response in time.
    Timeout,
    /// When the last allowed try broke off.
    Broken,
    /// Without a target.
    NoTarget,
    /// In a way that is not known: a trace has no request that its target has answered.
    Unknown,
}

/// The outcome of one balancer.
#[derive(Debug, Serialize)]
pub(super) struct SimulationResult {
    /// Its name, with its settings if it has any.
    pub(super) balancer: String,
    /// SHA-256 of its component.
    digest: String,
    pub(super) total: Summary,
    /// The summary of each phase of the load, by the time of arrival.
    pub(super) phases: Vec<Summary>,
    pub(super) targets: Vec<TargetSummary>,
    pub(super) timeline: Timeline,
    #[serde(skip)]
    pub(super) latencies: Histogram<u64>,
}

/// Longest name in plots and tables, in characters.
const LONGEST_NAME: usize = 26;

/// Names of balancers for plots and tables: components without folder and extension, and settings
/// only if they are needed to distinguish two.
pub(super) fn short_names(outcomes: &[SimulationResult]) -> Vec<String> {
    let named: Vec<&str> = outcomes.iter().map(|o| &*o.balancer).collect();
    shortened(&named)
}

fn shortened(named: &[&str]) -> Vec<String> {
    let bare: Vec<String> = named
        .iter()
        .map(|name| {
            let component = super::component_of(name).0;
            let stem = Path::new(component).file_stem();
            let stem = stem.filter(|_| component.ends_with(".wasm"));
            stem.map_or(component.into(), |stem| stem.to_string_lossy())
                .into_owned()
        })
        .collect();
    let mut short: Vec<String> = Vec::new();
    for (name, bare_name) in named.iter().zip(&bare) {
        let alone = bare.iter().filter(|other| *other == bare_name).count() == 1;
        let settings = name.split_once('=').filter(|_| !alone);
        let mut long = bare_name.clone();
        if let Some((_, settings)) = settings {
            let settings: String = settings.chars().filter(|c| !"{}\"".contains(*c)).collect();
            long = format!("{bare_name} {settings}");
        }
        if long.chars().count() > LONGEST_NAME {
            long = long.chars().take(LONGEST_NAME - 1).collect();
            long.push('…');
        }
        let mut unique = long.clone();
        let mut number = 1;
        while short.contains(&unique) {
            number += 1;
            unique = format!("{long} ({number})");
        }
        short.push(unique);
    }
    short
}

/// The requests of a period. Latencies are milliseconds from arrival to end, of all requests except
/// those that failed at once and those of which the end is not known; a request that its client
/// gave up counts with the time that the client waited.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Work that arrived as a share of the guaranteed capacity; none for all phases together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<f64>,
    pub(super) requests: u64,
    pub(super) errors: Errors,
    /// Requests of which the end is not known; left out if there are none.
    #[serde(skip_serializing_if = "is_none")]
    pub(super) unknown: u64,
    pub(super) retries: u64,
    /// Blocks of prompts that targets had cached, as a share; none where requests have no prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cached: Option<f64>,
    /// None unless targets stream their answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_byte: Option<FirstByte>,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
    /// Requests per weight of the target that has the most, relative to the mean of all targets.
    pub(super) peak_to_mean: f64,
    /// Jain's index of requests per weight: 1 if all targets get the same, 1/n if one gets all.
    /// Source: Jain, Chiu, Hawe 1984.
    pub(super) jain: f64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Requests that failed, by kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Errors {
    pub(super) error: u64,
    pub(super) timeout: u64,
    pub(super) broken: u64,
    pub(super) no_target: u64,
}

impl Errors {
    pub(super) fn sum(self) -> u64 {
        self.error + self.timeout + self.broken + self.no_target
    }
}

/// The work of one target.
#[derive(Debug, Serialize)]
pub(super) struct TargetSummary {
    /// Its name in the scenario, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// Its id, in the hexadecimal digits that the Admin API shows as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) weight: u32,
    pub(super) requests: u64,
}

/// The fleet over time.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    /// Time between two samples, in seconds.
    pub(super) step: f64,
    /// For each sample, the mean number of requests in progress at each target since the sample
    /// before.
    pub(super) working: Vec<Vec<f64>>,
}

/// Milliseconds from arrival to the first byte of the answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct FirstByte {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
}

/// Records the events of a simulation.
#[derive(Debug)]
pub(super) struct Recorder {
    weights: Vec<u32>,
    warm_up: Time,
    /// End of each phase.
    ends: Vec<Time>,
    total: Tally,
    phases: Vec<Tally>,
    working: Vec<Vec<f64>>,
}

/// The requests of a period.
#[derive(Debug)]
struct Tally {
    requests: u64,
    retries: u64,
    errors: Errors,
    unknown: u64,
    /// In microseconds.
    latencies: Histogram<u64>,
    /// Latencies until the first byte of the answer, in microseconds.
    first_bytes: Histogram<u64>,
    by_target: Vec<u64>,
    /// Blocks of the prompts that targets received, and how many of these they had cached.
    blocks: u64,
    cached: u64,
}

impl Tally {
    fn new(targets: usize) -> Self {
        // Three digits, from a microsecond to eleven days.
        let latencies = Histogram::new_with_bounds(1, 1_000_000_000_000, 3);
        let latencies = latencies.unwrap_or_else(|_| unreachable!("the bounds are constant"));
        Self {
            requests: 0,
            retries: 0,
            errors: Errors::default(),
            unknown: 0,
            first_bytes: latencies.clone(),
            latencies,
            by_target: vec![0; targets],
            blocks: 0,
            cached: 0,
        }
    }

    fn end(&mut self, micros: u64, target: usize, end: End) {
        self.requests += 1;
        match end {
            End::Answered => {}
            End::Error => self.errors.error += 1,
            End::Timeout => self.errors.timeout += 1,
            End::Broken => self.errors.broken += 1,
            End::NoTarget => self.errors.no_target += 1,
            End::Unknown => self.unknown += 1,
        }
        if matches!(end, End::Answered | End::Timeout) {
            self.latencies.saturating_record(micros.max(1));
        }
        if !matches!(end, End::Broken | End::NoTarget) {
            self.by_target[target] += 1;
        }
    }

    fn summary(&self, level: Option<f64>, weights: &[u32]) -> Summary {
        let shares = self.by_target.iter().zip(weights);
        let shares: Vec<f64> = shares
            .map(|(count, weight)| *count as f64 / f64::from(*weight))
            .collect();
        let sum: f64 = shares.iter().sum();
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        let peak = shares.iter().copied().fold(0.0, f64::max);
        let count = shares.len() as f64;
        let quantile = |q| self.latencies.value_at_quantile(q) as f64 / 1000.0;
        Summary {
            level,
            requests: self.requests,
            errors: self.errors,
            unknown: self.unknown,
            retries: self.retries,
            first_byte: (!self.first_bytes.is_empty()).then(|| {
                let at = |q| self.first_bytes.value_at_quantile(q) as f64 / 1000.0;
                let (p50, p90, p99) = (at(0.5), at(0.9), at(0.99));
                FirstByte { p50, p90, p99 }
            }),
            cached: (self.blocks > 0).then(|| rounded(self.cached as f64 / self.blocks as f64)),
            mean: rounded(self.latencies.mean() / 1000.0),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            peak_to_mean: if sum > 0.0 {
                rounded(peak * count / sum)
            } else {
                1.0
            },
            jain: if squares > 0.0 {
                rounded(sum * sum / (count * squares))
            } else {
                1.0
            },
        }
    }
}

/// Rounded to three decimal places.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Recorder {
    pub(super) fn new(scenario: &Scenario, weights: Vec<u32>) -> Self {
        let nanoseconds = |seconds: f64| (seconds * 1e9) as Time;
        let mut end = 0.0;
        let ends = scenario.load.iter().map(|phase| {
            end += phase.seconds;
            nanoseconds(end)
        });
        let ends: Vec<Time> = ends.collect();
        Self {
            warm_up: nanoseconds(scenario.warm_up),
            total: Tally::new(weights.len()),
            phases: ends.iter().map(|_| Tally::new(weights.len())).collect(),
            ends,
            working: Vec::new(),
            weights,
        }
    }

    fn tallies(&mut self, arrived: Time) -> Option<[&mut Tally; 2]> {
        if arrived < self.warm_up {
            return None;
        }
        let phase = self.ends.partition_point(|end| *end <= arrived);
        let phase = phase.min(self.phases.len() - 1);
        Some([&mut self.total, &mut self.phases[phase]])
    }

    pub(super) fn end(&mut self, arrived: Time, now: Time, target: usize, end: End) {
        for tally in self.tallies(arrived).into_iter().flatten() {
            tally.end((now - arrived) / 1000, target, end);
        }
    }

    pub(super) fn retry(&mut self, arrived: Time) {
        for tally in self.tallies(arrived).into_iter().flatten() {
            tally.retries += 1;
        }
    }

    /// Records the first byte of an answer.
    pub(super) fn first_byte(&mut self, arrived: Time, now: Time) {
        for tally in self.tallies(arrived).into_iter().flatten() {
            let micros = (now - arrived) / 1000;
            tally.first_bytes.saturating_record(micros.max(1));
        }
    }

    /// Records that a target received a prompt of `blocks` blocks and had `cached` of them in its
    /// cache.
    pub(super) fn prompt(&mut self, arrived: Time, blocks: u32, cached: u32) {
        for tally in self.tallies(arrived).into_iter().flatten() {
            tally.blocks += u64::from(blocks);
            tally.cached += u64::from(cached);
        }
    }

    pub(super) fn sample(&mut self, working: Vec<f64>) {
        self.working
            .push(working.into_iter().map(rounded).collect());
    }

    pub(super) fn samples(&self) -> u64 {
        self.working.len() as u64
    }

    pub(super) fn finish(self, contender: &Contender, scenario: &Scenario) -> SimulationResult {
        let phases = self.phases.iter().zip(&scenario.load);
        let phases = phases.map(|(tally, phase)| tally.summary(Some(phase.level), &self.weights));
        let counts = self.total.by_target.iter().zip(&self.weights);
        // A recording has targets, but no scenario that names them.
        let names: Vec<_> = scenario.named().collect();
        let ids = targets::ids(scenario);
        let targets = counts.enumerate().map(|(target, (requests, weight))| {
            let named = names.get(target).copied().flatten();
            TargetSummary {
                name: named.map(Named::name),
                id: ids.get(target).map(|id| format!("{id:016x}")),
                weight: *weight,
                requests: *requests,
            }
        });
        SimulationResult {
            balancer: contender.name.clone(),
            digest: contender.plugin.digest.clone(),
            total: self.total.summary(None, &self.weights),
            phases: phases.collect(),
            targets: targets.collect(),
            timeline: Timeline {
                step: scenario.seconds() / SAMPLES as f64,
                working: self.working,
            },
            latencies: self.total.latencies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_differ() {
        let named = [
            "target/release/my_balancer.wasm",
            "p2c",
            r#"prequal={"probes":1}"#,
            "prequal",
            r#"prequal={"probes":1}"#,
        ];
        assert_eq!(
            shortened(&named),
            [
                "my_balancer",
                "p2c",
                "prequal probes:1",
                "prequal",
                "prequal probes:1 (2)"
            ]
        );
        let long = shortened(&["a-balancer-whose-name-says-all-that-it-does.wasm"]);
        assert_eq!(long, ["a-balancer-whose-name-say…"]);
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let mut tally = Tally::new(2);
        for _ in 0..30 {
            tally.end(1000, 0, End::Answered);
        }
        for _ in 0..10 {
            tally.end(2000, 1, End::Timeout);
        }
        tally.end(0, 1, End::NoTarget);
        let even = tally.summary(None, &[300, 100]);
        assert_eq!((even.peak_to_mean, even.jain), (1.0, 1.0));
        assert_eq!((even.requests, even.errors.sum()), (41, 11));
        assert_eq!((even.mean, even.p50), (1.25, 1.0));
        let uneven = tally.summary(None, &[1, 1]);
        assert_eq!((uneven.peak_to_mean, uneven.jain), (1.5, 0.8));
    }
}
