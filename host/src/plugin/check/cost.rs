//! The cost of a pick in time, and of an instance in memory.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::run::{CheckRun, Wrong};
use super::{Finding, Subject, progress};
use crate::balancer::CostBudget;
use crate::clock::thread_cpu_time;
use crate::config::{Config, Written};

/// Numbers of endpoints with which picks are measured.
const SIZES: [usize; 4] = [4, 100, 1_000, 10_000];

/// With at most so many endpoints a pick over the bound is a failure; with more it is a warning. A
/// balancer that reads its whole table is acceptable for upstreams of usual sizes, and with 10,000
/// endpoints the caches of the machine decide whether it keeps the bound.
const USUAL_SIZE: usize = 1_000;

/// Picks that are charged to the budget of a gateway, and longest duration of that. Those picks are
/// those of five seconds under many requests, so picks that are over their cost now and then are
/// found.
const CHARGED: u32 = 50_000;
const CHARGING: Duration = Duration::from_secs(1);

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
    /// Why a gateway would quarantine the balancer, if it would.
    #[serde(skip)]
    overdraft: Option<Overdraft>,
}

/// Picks over their cost that have overdrawn the budget.
#[derive(Debug, Clone, Copy)]
struct Overdraft {
    over: u32,
    asked: u32,
    excess: Duration,
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
        let mut trial = CheckRun::new(subject, &vec![100; endpoints])?;
        // The first pick creates the instance.
        trial.pick()?;
        let nanoseconds = pick(&mut trial)?;
        let overdraft = overdraft(&mut trial, allowed(endpoints))?;
        cost.picks.push(Pick {
            endpoints,
            nanoseconds,
            overdraft,
        });
        let bytes = trial.memory().unwrap_or(0);
        cost.memory.push(Memory { endpoints, bytes });
    }
    Ok(cost)
}

/// `balancer_pick_cost`, as a gateway has it unless it is set.
fn bound() -> Duration {
    let config = Config::load(Written::default());
    config.map_or(Duration::MAX, |config| config.balancer.pick_cost)
}

/// What a pick may take with so many endpoints.
fn allowed(endpoints: usize) -> Duration {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    bound().saturating_add(UNOPTIMISED.saturating_mul(endpoints))
}

/// Whether a gateway would find the picks to be at fault: they are charged to its budget. The time
/// between two of them is what one may take, as under the most requests that a processor serves
/// with such picks. Other work of the machine may have slowed down some of the picks, so it has to
/// happen twice.
fn overdraft(trial: &mut CheckRun, allowed: Duration) -> Result<Option<Overdraft>, Wrong> {
    Ok(match charge(trial, allowed)? {
        Some(_) => charge(trial, allowed)?,
        None => None,
    })
}

fn charge(trial: &mut CheckRun, allowed: Duration) -> Result<Option<Overdraft>, Wrong> {
    let start = Instant::now();
    let mut budget = CostBudget::NEW;
    let gap = bound();
    let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
    for asked in 1..=CHARGED {
        if start.elapsed() > CHARGING {
            break;
        }
        trial.now = trial.now.saturating_add(micros);
        let request = trial.request();
        let cpu = thread_cpu_time();
        trial.ask_all(&[request]);
        let time = thread_cpu_time().saturating_sub(cpu);
        let now = start + gap.saturating_mul(asked);
        budget.charge(now, time, allowed);
        if budget.is_overdrawn(allowed) {
            let (over, excess) = budget.overdraft();
            return Ok(Some(Overdraft {
                over,
                asked,
                excess,
            }));
        }
    }
    trial.fault(|| "while picks were measured".into())?;
    Ok(None)
}

/// Nanoseconds of the quickest of several measurements.
fn pick(trial: &mut CheckRun) -> Result<u64, Wrong> {
    let mut least = u64::MAX;
    for _ in 0..MEASUREMENTS {
        let start = Instant::now();
        let mut asked: u32 = 0;
        while start.elapsed() < MEASUREMENT {
            let requests: [_; BATCH] = std::array::from_fn(|_| trial.request());
            trial.ask_all(&requests);
            asked += BATCH as u32;
        }
        let each = start.elapsed().as_nanos() / u128::from(asked.max(1));
        least = least.min(u64::try_from(each).unwrap_or(u64::MAX));
        trial.fault(|| "while picks were measured".into())?;
    }
    Ok(least)
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
    let mut over_cost = (cost.picks.iter()).filter_map(|pick| Some((pick, pick.overdraft?)));
    let Some((pick, overdraft)) = over_cost.next() else {
        return Finding::pass("cost", sentence);
    };
    let text = |time: Duration| nanoseconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    sentence.push_str(&format!(
        "; {} of {} picks at {} took more than the {} of balancer_pick_cost, {} in all: ",
        overdraft.over,
        overdraft.asked,
        pick.endpoints,
        text(bound()),
        text(overdraft.excess),
    ));
    let outcome = "a gateway would soon keep the balancer away and choose by itself, unless that setting is raised";
    if pick.endpoints > USUAL_SIZE {
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

    fn verdict(endpoints: usize, over: u32) -> (Verdict, String) {
        let overdraft = Overdraft {
            over,
            asked: 100,
            excess: Duration::from_millis(12),
        };
        let pick = Pick {
            endpoints,
            nanoseconds: 1,
            overdraft: Some(overdraft).filter(|overdraft| overdraft.over > 0),
        };
        let cost = Cost {
            picks: vec![pick],
            memory: Vec::new(),
        };
        let finding = time(&cost);
        (finding.verdict, finding.sentence)
    }

    #[test]
    fn picks_over_the_bound_fail_up_to_the_usual_size_and_are_a_warning_beyond() {
        for endpoints in SIZES {
            assert_eq!(verdict(endpoints, 0).0, Verdict::Pass, "{endpoints}");
            let (verdict, sentence) = verdict(endpoints, 3);
            let expected = match endpoints {
                10_000 => Verdict::Warn,
                _ => Verdict::Fail,
            };
            assert_eq!(verdict, expected, "{endpoints}");
            let bound = format!(
                "3 of 100 picks at {endpoints} took more than the 100 µs of balancer_pick_cost, 12000 µs"
            );
            assert!(sentence.contains(&bound), "{sentence}");
        }
    }
}
