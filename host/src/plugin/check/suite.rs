//! The behaviour suite: situations that every balancer meets in time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::run::{CheckRun, Wrong};
use super::{Finding, Subject, output, progress};
use crate::endpoint::{Endpoint, InFlight, LoadReport, RequestCost};

/// The outcome of a check without a failure.
enum Note {
    Fine(String),
    /// Worth a look.
    Odd(String),
}

use Note::{Fine, Odd};

type Check = fn(&Subject) -> Result<Note, Wrong>;

const CHECKS: &[(&str, Check)] = &[
    ("one", one),
    ("many", many),
    ("empty", empty),
    ("weights", weights),
    ("ties", ties),
    ("starvation", starvation),
    ("changes", changes),
    ("hostile", hostile),
    ("requests", requests),
    ("work", work),
    ("outcomes", outcomes),
    ("large", large),
    ("repeat", repeat),
    ("output", output),
];

/// A share of the picks counts as near to the weight's if it differs by at most this part of it.
const NEAR: f64 = 0.1;

/// The largest share that one of several equal endpoints may get, in multiples of the mean, before
/// it counts as favoured. Hashing onto a ring with few points for each endpoint comes near to it.
const FAVOURED: f64 = 2.0;

/// Runs all checks. A component that fails one is checked further, so that its author learns all
/// failures in one run.
pub(super) fn run(subject: &Subject) -> Vec<Finding> {
    let run = |&(id, check): &(&'static str, Check)| {
        // Discards what an earlier check printed.
        output::take();
        progress::begin(id);
        match check(subject) {
            Ok(Fine(sentence)) => Finding::pass(id, sentence),
            Ok(Odd(sentence)) => Finding::warn(id, sentence),
            Err(Wrong(sentence)) => Finding::fail(id, sentence),
        }
    };
    CHECKS.iter().map(run).collect()
}

/// Requests in flight, the oldest first, so that endpoints have load and known latencies.
#[derive(Default)]
struct Traffic(VecDeque<InFlight>);

impl Traffic {
    /// Sends one more request, and ends the oldest ones until at most so many are left.
    fn send(&mut self, trial: &mut CheckRun, to: Arc<Endpoint>, most: usize) {
        let now = trial.now;
        self.0
            .push_back(InFlight::new(to).weighing(trial.cost, true, now));
        // The next part of a response that is half done: the first one answers the request.
        let half = self.0.len() / 2;
        if let Some(half_done) = self.0.get_mut(half) {
            half_done.note_body(|| now);
        }
        while self.0.len() > most {
            if let Some(done) = self.0.pop_front() {
                let latency = trial.chance.u64(1_000..50_000);
                let endpoint = Arc::clone(done.shared());
                endpoint.observe_latency(trial.now, latency, done.ahead());
            }
        }
    }
}

/// How often each endpoint is picked, for successive requests of which none is tied to a session
/// and at most so many are in flight.
fn tally(trial: &mut CheckRun, picks: u64, most: usize) -> Result<HashMap<u64, u64>, Wrong> {
    let mut counts = HashMap::new();
    let mut traffic = Traffic::default();
    for _ in 0..picks {
        if let Some(endpoint) = trial.pick()? {
            *counts.entry(endpoint.id).or_default() += 1;
            if most > 0 {
                traffic.send(trial, endpoint, most);
            }
        }
    }
    refusals(trial)?;
    Ok(counts)
}

/// The outcome of a trial with refusals; none if there were none.
fn refusals(trial: &CheckRun) -> Result<Option<Note>, Wrong> {
    let (refused, picks) = (trial.refused, trial.picks);
    let statuses: Vec<String> = trial.statuses.iter().map(u16::to_string).collect();
    let statuses = statuses.join(" or ");
    if refused == picks {
        return Err(Wrong(format!(
            "it refused all of {picks} requests although there were endpoints: each client gets a {statuses}"
        )));
    }
    Ok((refused > 0).then(|| {
        Odd(format!(
            "it refused {refused} of {picks} requests although there were endpoints: each client gets a {statuses}"
        ))
    }))
}

fn one(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[100])?;
    trial.sessions = true;
    for _ in 0..100 {
        trial.pick()?;
    }
    let fine = || Fine("it chooses the one endpoint that there is".into());
    Ok(refusals(&trial)?.unwrap_or_else(fine))
}

fn many(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[100; 50])?;
    (trial.sessions, trial.has_requests) = (true, true);
    let mut traffic = Traffic::default();
    for _ in 0..5000 {
        if let Some(endpoint) = trial.pick()? {
            let most = trial.chance.usize(0..200);
            traffic.send(&mut trial, endpoint, most);
        }
    }
    let fine = || Fine("it chooses among 50 endpoints under changing load".into());
    Ok(refusals(&trial)?.unwrap_or_else(fine))
}

/// Without endpoints the balancer is not asked for picks, but it gets the empty table.
fn empty(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[])?;
    let table: Vec<_> = (0..3).map(|number| trial.endpoint(number, 100)).collect();
    for _ in 0..3 {
        trial.tell(table.clone())?;
        for _ in 0..10 {
            trial.pick()?;
        }
        trial.tell(Vec::new())?;
        trial.pick()?;
    }
    Ok(Fine(
        "it takes an empty table, and goes on once there are endpoints".into(),
    ))
}

fn weights(subject: &Subject) -> Result<Note, Wrong> {
    let weights = [100, 200, 300, 400];
    let mut trial = CheckRun::new(subject, &weights)?;
    let picks = 20_000;
    // Of an idle fleet, a balancer that weighs work may well use the largest endpoint alone.
    let in_flight = match subject.plugin.weighs_requests() {
        true => 100,
        false => 0,
    };
    let counts = tally(&mut trial, picks, in_flight)?;
    let share = |endpoint: &Arc<Endpoint>| {
        counts.get(&endpoint.id).copied().unwrap_or(0) as f64 / picks as f64
    };
    let shares: Vec<f64> = trial.table.iter().map(share).collect();
    let total: u32 = weights.iter().sum();
    let off = shares.iter().zip(weights).map(|(share, weight)| {
        let due = f64::from(weight) / f64::from(total);
        (share / due - 1.0).abs()
    });
    let off = off.fold(0.0, f64::max);
    if off <= NEAR {
        return Ok(Fine(format!(
            "shares follow the weights, within {:.1} % of each",
            off * 100.0
        )));
    }
    let shown: Vec<String> = shares
        .iter()
        .map(|share| format!("{:.0} %", share * 100.0))
        .collect();
    Ok(Odd(format!(
        "shares do not follow the weights: endpoints of weight 100, 200, 300 and 400 got {}; that is right \
         only for a balancer with a reason of its own",
        shown.join(", ")
    )))
}

/// All endpoints are equal, and each request ends before the next one starts.
fn ties(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[100; 8])?;
    let picks = 8000;
    let counts = tally(&mut trial, picks, 0)?;
    let most = counts.values().copied().max().unwrap_or(0);
    let mean = picks as f64 / trial.table.len() as f64;
    let ratio = most as f64 / mean;
    Ok(if ratio <= FAVOURED {
        Fine(format!(
            "of eight equal endpoints none gets more than {ratio:.2} times the mean"
        ))
    } else {
        Odd(format!(
            "of eight equal endpoints one gets {:.0} % of all requests: where several are equally good, \
             take turns, or use the request's entropy",
            most as f64 * 100.0 / picks as f64
        ))
    })
}

/// One endpoint was slow and loaded. Then all have the same load and latency, for longer than the
/// gateway remembers latencies.
fn starvation(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[100; 8])?;
    let slow = Arc::clone(&trial.table[0]);
    let stuck: Vec<InFlight> = (0..20).map(|_| InFlight::new(Arc::clone(&slow))).collect();
    slow.observe_latency(trial.now, 2_000_000, 0);
    for _ in 0..200 {
        if let Some(endpoint) = trial.pick()? {
            let latency = if endpoint.id == slow.id {
                2_000_000
            } else {
                5_000
            };
            endpoint.observe_latency(trial.now, latency, 0);
        }
    }
    drop(stuck);
    let picks = 20_000;
    let mut chosen = HashSet::new();
    for _ in 0..picks {
        // With the millisecond of each pick, 10 ms apart: 200 seconds in all.
        trial.now += 9_000;
        if let Some(endpoint) = trial.pick()? {
            endpoint.observe_latency(trial.now, 5_000, 0);
            chosen.insert(endpoint.id);
        }
    }
    refusals(&trial)?;
    let starved = trial.table.len() - chosen.len();
    if starved == 0 {
        return Ok(Fine(
            "it comes back to every endpoint, one that had been slow included".into(),
        ));
    }
    let which = if !chosen.contains(&slow.id) && starved == 1 {
        ", the one that had been slow"
    } else {
        ""
    };
    Ok(Odd(format!(
        "{starved} of 8 equally loaded endpoints{which} got none of {picks} requests: \
         an endpoint that is never chosen again cannot show that it is well"
    )))
}

/// Endpoints join, leave, and change their positions and weights, with requests in flight.
fn changes(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[100; 5])?;
    (trial.sessions, trial.has_requests) = (true, true);
    let picked = churn(&mut trial, 200)?;
    let picks = picked.len();
    Ok(Fine(format!(
        "it chooses on through 200 changes of its table, {picks} times"
    )))
}

/// Changes the table so many times, and returns the ids that are picked in between, 0 for none, and
/// what the requests weigh.
fn churn(trial: &mut CheckRun, rounds: u32) -> Result<Vec<(u64, RequestCost)>, Wrong> {
    let mut traffic = Traffic::default();
    let mut picked = Vec::new();
    let mut next = 1000;
    for _ in 0..rounds {
        let mut table = trial.table.clone();
        match trial.chance.u8(0..5) {
            0 | 1 => {
                next += 1;
                let weight = trial.chance.u32(1..=65_535);
                table.push(trial.endpoint(next, weight));
            }
            2 if table.len() > 1 => {
                table.swap_remove(trial.chance.usize(0..table.len()));
            }
            3 => {
                let keep = trial.chance.usize(0..=table.len());
                table.truncate(keep);
            }
            _ => trial.chance.shuffle(&mut table),
        }
        trial.tell(table)?;
        for _ in 0..20 {
            let endpoint = trial.pick()?;
            let id = endpoint.as_ref().map_or(0, |endpoint| endpoint.id);
            picked.push((id, trial.cost));
            if let Some(endpoint) = endpoint {
                traffic.send(trial, endpoint, 30);
            }
        }
    }
    Ok(picked)
}

/// Load columns with values that no gateway has.
fn hostile(subject: &Subject) -> Result<Note, Wrong> {
    const MAX: u32 = u32::MAX;
    let patterns: [fn(usize, usize) -> u32; 5] = [
        |_, _| 0,
        |_, _| MAX,
        |position, _| if position % 2 == 0 { 0 } else { MAX },
        |position, pick| {
            if (position + pick).is_multiple_of(2) {
                0
            } else {
                MAX
            }
        },
        |position, pick| (position * 7919 + pick) as u32,
    ];
    let mut trial = CheckRun::new(subject, &[1])?;
    for load in patterns {
        let weights = [1, 65_535, 100, 65_535, 1, 1, 65_535, 65_535];
        let table: Vec<_> = (0..)
            .zip(weights)
            .map(|(n, weight)| trial.endpoint(n, weight))
            .collect();
        trial.tell(table)?;
        for pick in 0..200 {
            for (position, endpoint) in trial.table.iter().enumerate() {
                let value = load(position, pick);
                endpoint.pretend_in_flight(value);
                endpoint.observe_latency(trial.now, value.into(), value);
                let (load, queue) = (value, value);
                endpoint.observe_report(trial.now, LoadReport { load, queue });
                endpoint.pretend_work(trial.now, value);
            }
            trial.pick()?;
        }
    }
    Ok(Fine(
        "it answers whatever the load says, up to 4294967295 requests, costs and microseconds"
            .into(),
    ))
}

/// Requests that balancers ask about: with prompts, long, cut off, no JSON, and without a body.
fn requests(subject: &Subject) -> Result<Note, Wrong> {
    if !subject.plugin.asks_about_requests() {
        return Ok(Fine("it does not ask about requests".into()));
    }
    let mut trial = CheckRun::new(subject, &[100; 5])?;
    trial.has_requests = true;
    let mut traffic = Traffic::default();
    for _ in 0..1000 {
        if let Some(endpoint) = trial.pick()? {
            traffic.send(&mut trial, endpoint, 50);
        }
    }
    let fine = || {
        Fine(
            "it chooses for requests with prompts, with bodies that are long, cut off or not JSON, and without"
                .into(),
        )
    };
    Ok(refusals(&trial)?.unwrap_or_else(fine))
}

/// What requests weigh, some of them with the first byte of the response and some without.
fn work(subject: &Subject) -> Result<Note, Wrong> {
    if !subject.plugin.weighs_requests() {
        return Ok(Fine("it does not say what requests weigh".into()));
    }
    let mut trial = CheckRun::new(subject, &[100; 5])?;
    trial.has_requests = true;
    let mut traffic = Traffic::default();
    let mut costs = Vec::new();
    for _ in 0..1000 {
        if let Some(endpoint) = trial.pick()? {
            costs.push(u64::from(trial.cost.first_byte) + u64::from(trial.cost.rest));
            traffic.send(&mut trial, endpoint, 50);
        }
    }
    let (least, most) = (costs.iter().min(), costs.iter().max());
    Ok(match (least, most) {
        (_, None | Some(0)) => {
            Odd("it exports work, and says of no request that it weighs anything".into())
        }
        (least, Some(most)) if least == Some(most) => Fine(format!("each request weighs {most}")),
        (least, Some(most)) => Fine(format!("requests weigh {} to {most}", least.unwrap_or(&0))),
    })
}

/// Tries that end in every way, with numbers that no gateway has.
fn outcomes(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[100; 5])?;
    trial.has_hostile_ends = true;
    for _ in 0..2000 {
        trial.pick()?;
    }
    Ok(Fine(match trial.takes_outcomes() {
        true => "it can be told of tries however they end".into(),
        false => "it does not ask how its tries end".into(),
    }))
}

fn large(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &vec![100; 10_000])?;
    let mut traffic = Traffic::default();
    for _ in 0..2 {
        for _ in 0..500 {
            if let Some(endpoint) = trial.pick()? {
                traffic.send(&mut trial, endpoint, 100);
            }
        }
        let mut table = trial.table.clone();
        table.swap_remove(0);
        trial.tell(table)?;
    }
    Ok(Fine("it chooses among 10000 endpoints".into()))
}

/// The same calls to two instances: recorded traffic can be replayed only if both choose alike.
fn repeat(subject: &Subject) -> Result<Note, Wrong> {
    let run = || {
        let mut trial = CheckRun::new(subject, &[100, 200, 300])?;
        (trial.sessions, trial.has_requests) = (true, true);
        churn(&mut trial, 50)
    };
    let (first, second) = (run()?, run()?);
    match first
        .iter()
        .zip(&second)
        .position(|(one, other)| one != other)
    {
        None => Ok(Fine(
            "two instances that are asked the same choose the same".into(),
        )),
        Some(pick) => Err(Wrong(format!(
            "two instances that were asked the same chose or weighed differently at pick {pick}: \
             what it says must come from its arguments alone"
        ))),
    }
}

fn output(subject: &Subject) -> Result<Note, Wrong> {
    let mut trial = CheckRun::new(subject, &[100; 3])?;
    // Output while the balancer gets its settings and its table is not part of a pick.
    trial.begin()?;
    output::take();
    for _ in 0..3 {
        trial.pick()?;
    }
    let said = output::with(String::new());
    Ok(if said.is_empty() {
        Fine("it prints nothing at picks".into())
    } else {
        Odd(format!(
            "it prints at picks, which goes to the gateway's log and slows each request down{said}"
        ))
    })
}
