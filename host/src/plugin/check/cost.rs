//! What a pick costs, and an instance.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::trial::{Trial, Wrong};
use super::{Finding, Subject};

/// Endpoints that picks are measured with.
const SIZES: [usize; 4] = [4, 100, 1_000, 10_000];

/// Time for one of the measurements of which the least counts.
const MEASUREMENT: Duration = Duration::from_millis(20);
const MEASUREMENTS: usize = 5;

/// Requests that are asked for between two looks at the clock.
const BATCH: usize = 64;

/// Cost of a pick past which it shows in what a request costs, which is about 15 µs.
const DEAR: u64 = 100_000;

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
    nanoseconds: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    endpoints: usize,
    bytes: usize,
}

/// Measures, unless it fails.
pub(super) fn measure(subject: &Subject, checks: &mut Vec<Finding>) -> Option<Cost> {
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
        let nanoseconds = pick(&mut trial)?;
        cost.picks.push(Pick {
            endpoints,
            nanoseconds,
        });
        let bytes = trial.memory().unwrap_or(0);
        cost.memory.push(Memory { endpoints, bytes });
    }
    Ok(cost)
}

/// The least of several measurements: what was more is what the machine did beside it.
fn pick(trial: &mut Trial) -> Result<u64, Wrong> {
    let mut least = u64::MAX;
    for _ in 0..MEASUREMENTS {
        let start = Instant::now();
        let mut asked = 0;
        while start.elapsed() < MEASUREMENT {
            let requests: [_; BATCH] = std::array::from_fn(|_| trial.request());
            trial.ask_all(&requests);
            asked += BATCH as u128;
        }
        let each = start.elapsed().as_nanos() / asked.max(1);
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
    let most = cost.picks.iter().map(|pick| pick.nanoseconds).max();
    if most.is_some_and(|most| most > DEAR) {
        sentence.push_str("; a whole request takes about 15 µs without it");
        return Finding::warn("cost", sentence);
    }
    Finding::pass("cost", sentence)
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
