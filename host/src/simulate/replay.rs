//! `pointsman replay`: repeats recorded picks with the balancer that made them, and with others.
//!
//! The balancer of the trace gets exactly the recorded input, so it must give the recorded answers.
//! Another balancer gets the same requests at the same times. How a target would have responded
//! under another load is unknown, so it responds as it did at about that time in the trace.

mod fleet;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::json;

use super::outcome::SimulationResult;
use super::scenario::Scenario;
use super::{Affinity, Contender, Format, Show, each, engine, show};
use crate::balancer::{
    Balancer, Choice, ChoiceDetails, Engine, Observed, PickRequest, Rerun, Told, try_settings,
};
use crate::endpoint::{EndReason, Endpoint, InFlight, Labels};
use crate::trace::{
    BalancerAnswer, EndpointFact, EndpointQuestion, Event, Header, Pick, Reader, Row,
};
use crate::upstream::UNANSWERED;
use fleet::{Fleet, Sent};
use record::{Came, Record};

/// Further tries of a request that got no response, as in Kong's `retries`.
const RETRIES: u32 = 5;

/// Replays a trace of `pointsman record` with the balancer that was recorded and with others
#[derive(Debug, Args)]
pub struct Arguments {
    /// The trace
    trace: PathBuf,

    /// A balancer: the name of one that ships or a component (.wasm), with its settings if it needs
    /// any, as in 'prequal={"probes":3}'; may be given several times [default: the one that was
    /// recorded]
    #[arg(short, long = "balancer", value_name = "NAME|FILE[=JSON]")]
    balancers: Vec<String>,

    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Folder for outcome.json, latency.svg and load.svg; made if it is missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn replay(arguments: &Arguments) -> anyhow::Result<()> {
    let path = arguments.trace.display();
    let bytes = std::fs::read(&arguments.trace).with_context(|| format!("cannot read {path}"))?;
    let reader = Reader::new(&bytes).with_context(|| path.to_string())?;
    let (component, saved) = (reader.component, reader.saved.to_vec());
    let record = Record::new(reader).with_context(|| path.to_string())?;
    let engine = engine()?;
    let maker = maker(&engine, component, &record.header)?;
    let rerun = rerun(&engine, &maker, saved, &record)?;
    let contenders = arguments.balancers.iter();
    let contenders = contenders.map(|name| {
        Contender::load(&engine, name, std::iter::empty()).with_context(|| name.clone())
    });
    let contenders: Vec<Contender> = contenders.collect::<Result<_, _>>()?;
    let scenario = record.scenario();
    let asked = each(&contenders, |_, contender| {
        ask(&engine, contender, &record, &scenario)
    });
    let asked: Vec<(SimulationResult, f64)> = asked.into_iter().collect::<Result<_, _>>()?;
    let mut outcomes = vec![as_it_was(&record, &maker, &scenario)];
    let agreement: Vec<f64> = asked.iter().map(|(_, agreement)| *agreement).collect();
    outcomes.extend(asked.into_iter().map(|(outcome, _)| outcome));

    let mut heading = format!(
        "{} picks of {} by {} in {:.1} s. The same component picks the same again: {} of {}.",
        record.came.len(),
        record.header.upstream,
        record.header.balancer,
        scenario.seconds(),
        rerun.same,
        rerun.asked,
    );
    if let Some(first) = &rerun.first_difference {
        heading.push_str(&format!(" First difference: {first}."));
    }
    if record.header.reads_facts && !record.header.facts {
        heading.push_str(
            " It reads facts of requests, which this trace does not have (record --facts), so its picks may differ.",
        );
    }
    for (contender, agreement) in contenders.iter().zip(&agreement) {
        let percent = agreement * 100.0;
        heading.push_str(&format!(
            "\n{} chooses the same target for {percent:.1} % of the requests.",
            contender.name
        ));
    }
    for outcome in &outcomes {
        if outcome.total.unknown > 0 {
            let percent = outcome.total.unknown as f64 / outcome.total.requests as f64 * 100.0;
            heading.push_str(&format!(
                "\n{} sends {percent:.1} % of the requests to targets of which the trace has no answer: they \
                 count in no latency and no error.",
                outcome.balancer
            ));
        }
    }
    let document = json!({
        "trace": record.header,
        "picks": record.came.len(),
        "replayed": {
            "asked": rerun.asked,
            "same": rerun.same,
            "first_difference": rerun.first_difference,
        },
        "agreement": agreement,
        "version": env!("CARGO_PKG_VERSION"),
        "outcomes": outcomes,
    });
    show(
        &Show {
            format: arguments.format,
            out: arguments.out.as_deref(),
            title: format!("requests recorded at {}", record.header.upstream),
        },
        &scenario,
        &outcomes,
        &document,
        &heading,
    )
}

/// The balancer that made the trace.
fn maker(engine: &Arc<Engine>, component: &[u8], header: &Header) -> anyhow::Result<Contender> {
    let plugin = engine.load_trusted(component)?;
    if plugin.digest != header.digest {
        bail!("the component in the trace does not have the digest that the trace names");
    }
    let config = header.config.clone();
    try_settings(engine, &plugin, &config).map_err(|sentence| anyhow!(sentence))?;
    Ok(Contender {
        name: "recorded".into(),
        plugin,
        config,
        affinity: Affinity::Key,
    })
}

/// The result of repeating the recorded input.
struct Again {
    asked: u64,
    same: u64,
    first_difference: Option<String>,
}

fn rerun(
    engine: &Arc<Engine>,
    maker: &Contender,
    saved: Vec<u8>,
    record: &Record,
) -> anyhow::Result<Again> {
    let (plugin, config) = (Arc::clone(&maker.plugin), maker.config.clone());
    let mut balancer = Rerun::new(Arc::clone(engine), plugin, config, saved);
    let mut again = Again {
        asked: 0,
        same: 0,
        first_difference: None,
    };
    let mut number = 0_u64;
    for event in &record.events {
        match event {
            Event::Table {
                fresh,
                rows,
                load_answers,
                facts,
            } => {
                let told = balancer.table(*fresh, rows, load_answers.clone(), facts);
                told.map_err(|fault| anyhow!("the balancer of the trace failed: {fault}"))?;
            }
            Event::Ended {
                ended,
                load_answers,
            } => {
                let told = balancer.ended(ended, load_answers.clone());
                told.map_err(|fault| anyhow!("the balancer of the trace failed: {fault}"))?;
            }
            Event::Pick(pick) => {
                number += 1;
                // The gateway chose by itself, so there is nothing to compare.
                if pick.answer == BalancerAnswer::None {
                    continue;
                }
                again.asked += 1;
                let answer = balancer.pick(pick);
                if answer.as_ref() == Ok(&(pick.answer, pick.tag)) {
                    again.same += 1;
                } else if again.first_difference.is_none() {
                    let was = tagged((pick.answer, pick.tag));
                    let now = answer.map_or_else(|fault| fault, tagged);
                    again.first_difference = Some(format!("pick {number} was {was} and is {now}"));
                }
            }
            Event::Outcome { .. } => {}
        }
    }
    Ok(again)
}

fn tagged((answer, tag): (BalancerAnswer, u64)) -> String {
    match tag {
        0 => answer.to_string(),
        tag => format!("{answer} with the tag {tag}"),
    }
}

/// The figures of the recording itself.
fn as_it_was(record: &Record, maker: &Contender, scenario: &Scenario) -> SimulationResult {
    let mut fleet = Fleet::new(record, scenario);
    let mut table: Vec<usize> = Vec::new();
    let mut number = 0;
    for event in &record.events {
        match event {
            Event::Table { rows, .. } => {
                table = rows.iter().map(|row| record.places[&row.id]).collect();
            }
            Event::Pick(pick) => {
                fleet.advance(pick.now, |_| {});
                let chosen = pick.chosen.and_then(|p| table.get(p as usize));
                match (chosen, record.came[number]) {
                    (Some(target), Some(came)) => {
                        fleet.send(*target, pick.now, (came, true), None);
                    }
                    (Some(_), None) => {}
                    (None, _) => fleet.refuse(pick.now),
                }
                number += 1;
            }
            Event::Ended { .. } | Event::Outcome { .. } => {}
        }
    }
    fleet.finish(maker, scenario)
}

/// Has another balancer choose for the requests of a trace. Returns the outcome, and the share of
/// requests for which it chose as the recorded one did.
fn ask(
    engine: &Arc<Engine>,
    contender: &Contender,
    record: &Record,
    scenario: &Scenario,
) -> anyhow::Result<(SimulationResult, f64)> {
    let plugin = Arc::clone(&contender.plugin);
    let config = contender.config.clone();
    let balancer = Balancer::new(Arc::clone(engine), &contender.name, plugin, config).shared();
    let mut fleet = Fleet::new(record, scenario);
    let mut endpoints: HashMap<u64, Arc<Endpoint>> = HashMap::new();
    let mut table: Vec<usize> = Vec::new();
    let (mut requests, mut same) = (0_u64, 0_u64);
    let mut number = 0;
    for event in &record.events {
        match event {
            Event::Table { rows, facts, .. } => {
                table = rows.iter().map(|row| record.places[&row.id]).collect();
                let mut labels = labels(facts);
                let rows = rows.iter().zip(0..).map(|(row, position)| {
                    let labels = labels.remove(&position);
                    let labels = Labels::new([], &labels.unwrap_or_default());
                    let known = endpoints.get(&row.id);
                    let known = known.filter(|e| e.weight == row.weight && e.labels == labels);
                    let new = || Arc::new(endpoint(*row, labels));
                    let endpoint = known.map_or_else(new, Arc::clone);
                    endpoints.insert(row.id, Arc::clone(&endpoint));
                    endpoint
                });
                balancer.set_endpoints(rows.collect());
            }
            Event::Pick(pick) => {
                let came = record.came[number];
                number += 1;
                // A recorded retry was caused by what the recorded balancer chose. This balancer
                // causes retries of its own.
                if pick.attempt > 0 {
                    continue;
                }
                requests += 1;
                let learns = balancer.wants(Observed::Latency);
                fleet.advance(pick.now, |sent| learn(learns, sent));
                let was = pick.chosen.and_then(|p| table.get(p as usize)).copied();
                let chosen = send(&balancer, record, &mut fleet, pick, was.zip(came));
                same += u64::from(chosen == was);
            }
            Event::Ended { .. } | Event::Outcome { .. } => {}
        }
        if let Some(fault) = balancer.counters().last_fault {
            bail!("{} failed: {fault}", contender.name);
        }
    }
    let agreement = same as f64 / requests.max(1) as f64;
    Ok((fleet.finish(contender, scenario), agreement))
}

/// Sends a request to a target, and to another one if that does not respond. Returns the first
/// target.
fn send(
    balancer: &Balancer,
    record: &Record,
    fleet: &mut Fleet<'_>,
    pick: &Pick,
    was: Option<(usize, Came)>,
) -> Option<usize> {
    let mut tried = Vec::new();
    let mut first = None;
    let told = Told(&pick.facts);
    loop {
        let attempt = tried.len() as u32;
        let request = PickRequest {
            now: pick.now,
            entropy: pick.entropy.wrapping_add(u64::from(attempt)),
            affinity: pick.affinity,
            attempt,
            last_status: None,
            facts: Some(&told),
            note: None,
        };
        let is_timed = balancer.wants(Observed::Body);
        let placed = |endpoint, details: ChoiceDetails| {
            InFlight::new(endpoint)
                .weighing(details.cost, is_timed, pick.now)
                .noted(details.notes)
        };
        let Choice::Endpoint(mut in_flight) = balancer.place(request, &tried, placed) else {
            fleet.refuse(pick.now);
            return first;
        };
        let id = in_flight.endpoint().id;
        let target = record.places[&id];
        first = first.or(Some(target));
        let (came, is_known) = match was {
            // The recorded outcome of this very request is the best estimate.
            Some((known, came)) if known == target => (came, true),
            _ => record.answer(target, pick.now),
        };
        if came.status == 0 && attempt < RETRIES {
            end_try(&mut in_flight, came, pick.now);
            tried.push(id);
            continue;
        }
        fleet.send(target, pick.now, (came, is_known), Some(in_flight));
        return first;
    }
}

/// Notes for a balancer that is told of it how a try ends, as far as the trace tells.
fn end_try(in_flight: &mut InFlight, came: Came, now: u64) {
    let Some(notes) = in_flight.notes() else {
        return;
    };
    if came.status == 0 {
        return notes.end(EndReason::Broken, now);
    }
    notes.note_status(came.status, None);
    notes.note_bytes(0, || now);
    notes.end(EndReason::Complete, now);
}

fn learn(wanted: bool, sent: &mut Sent) {
    let end = sent.at.saturating_add(sent.came.latency);
    if let Some(in_flight) = &mut sent.in_flight {
        in_flight.note_body(|| end);
        end_try(in_flight, sent.came, end);
    }
    if let (true, Some(in_flight)) = (wanted, &sent.in_flight) {
        let took = match sent.came.status {
            0 => sent.came.latency.max(UNANSWERED.as_micros() as u64),
            _ => sent.came.latency,
        };
        let endpoint = in_flight.endpoint();
        endpoint.observe_latency(end, took, in_flight.ahead());
    }
}

fn endpoint(row: Row, labels: Labels) -> Endpoint {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut endpoint = Endpoint::new(row.id, address, String::new(), row.weight);
    endpoint.labels = labels;
    endpoint
}

/// The labels of the endpoints by position, as far as the recorded balancer has asked for them.
fn labels(facts: &[EndpointFact]) -> HashMap<u32, BTreeMap<String, String>> {
    let mut labels = HashMap::<_, BTreeMap<_, _>>::new();
    for fact in facts {
        if let EndpointQuestion::Label(key) = &fact.asked {
            let own = labels.entry(fact.position).or_default();
            own.insert(key.clone(), fact.answer.clone());
        }
    }
    labels
}
