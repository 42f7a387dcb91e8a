//! A decoded trace, indexed by pick and by target.

use std::collections::HashMap;

use anyhow::bail;

use super::super::fleet::Time;
use super::super::outcome::Recorder;
use super::super::scenario::{Arrivals, Cost, Phase, Requests, Scenario};
use super::RETRIES;
use crate::trace::{Event, Header, Reader, Row};

/// The outcome of a pick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    pub(super) status: u16,
    /// Microseconds.
    pub(super) latency: u64,
}

/// A decoded trace with its indexes.
pub(super) struct Record {
    pub(super) header: Header,
    pub(super) events: Vec<Event>,
    /// Outcomes by the number of the pick.
    pub(super) came: Vec<Option<Came>>,
    /// All endpoints of all tables, each with its last weight.
    pub(super) targets: Vec<Row>,
    /// Index into `targets` by id.
    pub(super) places: HashMap<u64, usize>,
    /// For each target the outcomes of its picks, by the time of the pick.
    history: Vec<Vec<(u64, Came)>>,
    /// The median latency of the outcomes, in microseconds.
    median: u64,
    /// Times of the first and the last pick.
    pub(super) span: (u64, u64),
}

impl Record {
    pub(super) fn new(mut reader: Reader<'_>) -> anyhow::Result<Self> {
        let mut events = Vec::new();
        loop {
            match reader.event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                // The recording was interrupted; the events before the cut are complete.
                Err(crate::trace::Error::Cut(_)) if !events.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut record = Self {
            header: reader.header,
            came: Vec::new(),
            targets: Vec::new(),
            places: HashMap::new(),
            history: Vec::new(),
            median: 0,
            span: (u64::MAX, 0),
            events: Vec::new(),
        };
        let mut table: Vec<usize> = Vec::new();
        let mut sent: Vec<(u64, Option<usize>)> = Vec::new();
        for event in &events {
            match event {
                Event::Table { rows, .. } => {
                    table = rows.iter().map(|row| record.place(*row)).collect();
                }
                Event::Pick(pick) => {
                    record.span.0 = record.span.0.min(pick.now);
                    record.span.1 = record.span.1.max(pick.now);
                    let chosen = pick.chosen.and_then(|p| table.get(p as usize)).copied();
                    sent.push((pick.now, chosen));
                    record.came.push(None);
                }
                Event::Ended { .. } => {}
                Event::Outcome {
                    pick,
                    status,
                    latency,
                } => {
                    let came = Came {
                        status: *status,
                        latency: *latency,
                    };
                    let number = *pick as usize;
                    if let (Some(slot), Some((at, Some(target)))) =
                        (record.came.get_mut(number), sent.get(number))
                    {
                        *slot = Some(came);
                        record.history[*target].push((*at, came));
                    }
                }
            }
        }
        if record.came.is_empty() {
            bail!("the trace has no picks");
        }
        for history in &mut record.history {
            history.sort_by_key(|(at, _)| *at);
        }
        let mut latencies: Vec<u64> = record
            .came
            .iter()
            .flatten()
            .map(|came| came.latency)
            .collect();
        latencies.sort_unstable();
        record.median = latencies.get(latencies.len() / 2).copied().unwrap_or(0);
        record.events = events;
        Ok(record)
    }

    fn place(&mut self, row: Row) -> usize {
        let next = self.targets.len();
        let place = *self.places.entry(row.id).or_insert(next);
        if place == next {
            self.targets.push(row);
            self.history.push(Vec::new());
        }
        self.targets[place] = row;
        place
    }

    /// A scenario with only the parts that figures and plots need.
    pub(super) fn scenario(&self) -> Scenario {
        let micros = self.span.1.saturating_sub(self.span.0).max(1);
        Scenario {
            description: format!("recorded at {}", self.header.upstream),
            gateways: 1,
            warm_up: 0.0,
            requests: Requests {
                cost: Some(Cost::Constant { mean: 1.0 }),
                arrivals: Arrivals::Poisson,
                burst: 1,
                timeout: 60.0,
                retries: RETRIES,
                keys: 0,
                key_skew: 0.0,
                prompts: None,
                kinds: Vec::new(),
            },
            load: vec![Phase {
                seconds: micros as f64 / 1e6,
                level: 1.0,
            }],
            targets: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(super) fn recorder(&self, scenario: &Scenario) -> Recorder {
        let weights = self.targets.iter().map(|row| row.weight.max(1));
        Recorder::new(scenario, weights.collect())
    }

    /// Nanoseconds since the first pick.
    pub(super) fn time(&self, now: u64) -> Time {
        now.saturating_sub(self.span.0) * 1000
    }

    /// How a target responds to a request that is sent at a given time, and whether that is known.
    /// A target that has answered no request is taken to respond in the median time, so that a
    /// balancer that learns of it neither prefers nor avoids the target.
    pub(super) fn answer(&self, target: usize, now: u64) -> (Came, bool) {
        let history = &self.history[target];
        let next = history.partition_point(|(at, _)| *at < now);
        match history.get(next).or(history.last()) {
            Some((_, came)) => (*came, true),
            None => {
                let (status, latency) = (200, self.median);
                (Came { status, latency }, false)
            }
        }
    }
}
