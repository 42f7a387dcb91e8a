//! What a pick costs, and an instance.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::trial::{Trial, Wrong};
use super::{Finding, Subject, progress};
use crate::balancer::thread_cpu_time;
use crate::config::{Config, Written};

/// Endpoints that picks are measured with.
const SIZES: [usize; 4] = [4, 100, 1_000, 10_000];

/// Time for one of the measurements of which the least counts.
const MEASUREMENT: Duration = Duration::from_millis(20);
const MEASUREMENTS: usize = 5;

/// Requests that are asked for between two looks at the clock.
const BATCH: usize = 64;

/// What the gateway's own part of a pick takes more for each endpoint in a build that is not optimised.
const UNOPTIMISED: Duration = Duration::from_nanos(if cfg!(debug_assertions) { 200 } else { 0 });

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    picks: Vec<Pick>,
    /// Bytes that an instance takes which knows so many endpoints.
    memory: Vec<Memory>,
}

#[derive(Debug, Serialize)]
struct Pick {
    endpoints: usize,
    /// Of the quickest measurement: what was more is what the machine did beside it.
    nanoseconds: u64,
    /// CPU time of the measurement in the middle: what a gateway judges by.
    #[serde(skip)]
    usual: Duration,
}

#[derive(Debug, Serialize)]
struct Memory {
    endpoints: usize,
    bytes: usize,
}

/// Measures, unless it fails.
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
        // The first one makes the instance.
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

/// Nanoseconds of the quickest of several measurements, and the CPU time of the one in the middle.
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
    // What a gateway has unless told otherwise.
    let bound = Config::load(Written::default()).map(|config| config.balancer.pick_cost);
    let bound = bound.unwrap_or(Duration::MAX);
    let dear = cost.picks.iter().find(|pick| {
        let endpoints = u32::try_from(pick.endpoints).unwrap_or(u32::MAX);
        pick.usual > bound.saturating_add(UNOPTIMISED * endpoints)
    });
    let Some(dear) = dear else {
        return Finding::pass("cost", sentence);
    };
    sentence.push_str(&format!(
        "; {} at {} is more than the {} of balancer_pick_cost: a gateway would soon keep the balancer away and \
         choose by itself, unless that setting is raised",
        nanoseconds(u64::try_from(dear.usual.as_nanos()).unwrap_or(u64::MAX)),
        dear.endpoints,
        nanoseconds(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX)),
    ));
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
