//! The cost of a pick in time, and of an instance in memory.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::trial::{Trial, Wrong};
use super::{Finding, Subject, progress};
use crate::clock::thread_cpu_time;
use crate::config::{Config, Written};

/// Numbers of endpoints with which picks are measured.
const SIZES: [usize; 4] = [4, 100, 1_000, 10_000];

/// With at most so many endpoints a pick over the bound is a failure; with more it is a warning. A
/// balancer that reads its whole table is acceptable for upstreams of usual sizes, and with 10,000
/// endpoints the caches of the machine decide whether it keeps the bound.
const USUAL_SIZE: usize = 1_000;

/// Duration of one measurement. The least of several counts.
const MEASUREMENT: Duration = Duration::from_millis(20);
const MEASUREMENTS: usize = 5;

/// Requests between two readings of the clock.
const BATCH: usize = 64;

/// Extra time per endpoint that the gateway's own part of a pick takes in a build without
/// optimisation.
const UNOPTIMISED: Duration = Duration::from_nanos(if cfg!(debug_assertions) { 200 } else { 0 });

/// The results of the measurements.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    picks: Vec<Pick>,
    /// Bytes that an instance with so many endpoints takes.
    memory: Vec<Memory>,
}

#[derive(Debug, Serialize)]
struct Pick {
    endpoints: usize,
    /// From the quickest measurement: in the others, other work of the machine took part of the
    /// time.
    nanoseconds: u64,
    /// Median CPU time of the measurements, which a gateway judges by.
    #[serde(skip)]
    usual: Duration,
}

#[derive(Debug, Serialize)]
struct Memory {
    endpoints: usize,
    bytes: usize,
}

/// Measures, and reports a failure of the component as the finding.
pub(super) fn measure(subject: &Subject, checks: &mut Vec<Finding>) -> Option<Cost> {
    progress::begin("cost");
    match measured(subject) {
        Ok(cost) => {
            checks.extend([time(&cost), space(subject, &cost)]);
            Some(cost)
        }
        Err(Wrong(sentence)) => {
            checks.push(Finding::fail("cost", sentence));
            None
        }
    }
}

fn measured(subject: &Subject) -> Result<Cost, Wrong> {
    let mut cost = Cost {
        picks: Vec::new(),
        memory: Vec::new(),
    };
    for endpoints in SIZES {
        let mut trial = Trial::new(subject, &vec![100; endpoints])?;
        // The first pick creates the instance.
        trial.pick()?;
        let (nanoseconds, usual) = pick(&mut trial)?;
        cost.picks.push(Pick {
            endpoints,
            nanoseconds,
            usual,
        });
        let bytes = trial.memory().unwrap_or(0);
        cost.memory.push(Memory { endpoints, bytes });
    }
    Ok(cost)
}

/// Nanoseconds of the quickest of several measurements, and their median CPU time.
fn pick(trial: &mut Trial) -> Result<(u64, Duration), Wrong> {
    let mut least = u64::MAX;
    let mut usual = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        let (start, cpu) = (Instant::now(), thread_cpu_time());
        let mut asked: u32 = 0;
        while start.elapsed() < MEASUREMENT {
            let requests: [_; BATCH] = std::array::from_fn(|_| trial.request());
            trial.ask_all(&requests);
            asked += BATCH as u32;
        }
        let each = start.elapsed().as_nanos() / u128::from(asked.max(1));
        least = least.min(u64::try_from(each).unwrap_or(u64::MAX));
        usual.push(thread_cpu_time().saturating_sub(cpu) / asked.max(1));
        trial.fault(|| "while picks were measured".into())?;
    }
    usual.sort_unstable();
    Ok((least, usual[MEASUREMENTS / 2]))
}

fn time(cost: &Cost) -> Finding {
    let shown: Vec<String> = cost
        .picks
        .iter()
        .map(|pick| format!("{} at {}", nanoseconds(pick.nanoseconds), pick.endpoints))
        .collect();
    let mut sentence = format!("a pick takes {} endpoints", shown.join(", "));
    if cfg!(debug_assertions) {
        sentence.push_str("; this build of pointsman is not optimised, and adds to that");
    }
    // The gateway's default.
    let bound = Config::load(Written::default()).map(|config| config.balancer.pick_cost);
    let bound = bound.unwrap_or(Duration::MAX);
    let over_cost = cost.picks.iter().find(|pick| {
        let endpoints = u32::try_from(pick.endpoints).unwrap_or(u32::MAX);
        pick.usual > bound.saturating_add(UNOPTIMISED * endpoints)
    });
    let Some(over_cost) = over_cost else {
        return Finding::pass("cost", sentence);
    };
    sentence.push_str(&format!(
        "; {} at {} is more than the {} of balancer_pick_cost: ",
        nanoseconds(u64::try_from(over_cost.usual.as_nanos()).unwrap_or(u64::MAX)),
        over_cost.endpoints,
        nanoseconds(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX)),
    ));
    let outcome = "a gateway would soon keep the balancer away and choose by itself, unless that setting is raised";
    if over_cost.endpoints > USUAL_SIZE {
        sentence.push_str(&format!(
            "with more than {USUAL_SIZE} endpoints and many requests {outcome}"
        ));
        return Finding::warn("cost", sentence);
    }
    sentence.push_str(outcome);
    Finding::fail("cost", sentence)
}

fn space(subject: &Subject, cost: &Cost) -> Finding {
    let shown: Vec<String> = cost
        .memory
        .iter()
        .map(|memory| format!("{} KiB at {}", memory.bytes >> 10, memory.endpoints))
        .collect();
    let limit = subject.engine.memory();
    let sentence = format!(
        "an instance takes {} endpoints, of {} KiB that it may have",
        shown.join(", "),
        limit >> 10
    );
    match cost.memory.iter().all(|memory| memory.bytes <= limit / 2) {
        true => Finding::pass("memory", sentence),
        false => Finding::warn("memory", sentence),
    }
}

fn nanoseconds(value: u64) -> String {
    match value {
        0..10_000 => format!("{value} ns"),
        _ => format!("{} µs", value / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::check::Verdict;

    fn verdict(endpoints: usize, usual: Duration) -> (Verdict, String) {
        let pick = Pick {
            endpoints,
            nanoseconds: 1,
            usual: usual + UNOPTIMISED * u32::try_from(endpoints).unwrap_or(u32::MAX),
        };
        let cost = Cost {
            picks: vec![pick],
            memory: Vec::new(),
        };
        let finding = time(&cost);
        (finding.verdict, finding.sentence)
    }

    #[test]
    fn a_pick_over_the_bound_fails_up_to_the_usual_size_and_warns_beyond() {
        let (within, over) = (Duration::from_micros(100), Duration::from_micros(101));
        for endpoints in SIZES {
            assert_eq!(verdict(endpoints, within).0, Verdict::Pass, "{endpoints}");
            let (verdict, sentence) = verdict(endpoints, over);
            let expected = match endpoints {
                10_000 => Verdict::Warn,
                _ => Verdict::Fail,
            };
            assert_eq!(verdict, expected, "{endpoints}");
            let bound = format!("at {endpoints} is more than the 100 µs of balancer_pick_cost");
            assert!(sentence.contains(&bound), "{sentence}");
        }
    }
}
