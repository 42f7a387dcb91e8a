//! A balancer on trial: an instance of its own, simulated endpoints, and a stream of requests that
//! is the same in every run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use fastrand::Rng;

use super::asked::Asked;
use super::{Subject, output, progress};
use crate::balancer::{Balancer, Choice, ChoiceDetails, PickRequest};
use crate::endpoint::{EndReason, Endpoint, Labels, RequestCost, TryNotes};
use crate::named::Named;

/// Seed of the random numbers of each trial.
const SEED: u64 = 1;

/// The status of the answer to a request that a balancer refuses without saying another one.
const UNAVAILABLE: u16 = 503;

/// Microseconds between two requests.
const GAP: u64 = 1000;

/// The balancer has failed, for the reason in this sentence.
#[derive(Debug)]
pub(super) struct Wrong(pub(super) String);

pub(super) struct CheckRun {
    balancer: Balancer,
    named: Vec<Named>,
    labels: Vec<BTreeMap<String, String>>,
    pub(super) chance: Rng,
    /// The table that the balancer got last.
    pub(super) table: Vec<Arc<Endpoint>>,
    /// Microseconds on the balancer's clock.
    pub(super) now: u64,
    /// Picks so far.
    pub(super) picks: u64,
    /// Requests that the balancer refused.
    pub(super) refused: u64,
    /// The statuses that their clients would get.
    pub(super) statuses: BTreeSet<u16>,
    /// Whether some requests are tied to an endpoint, as by a session.
    pub(super) sessions: bool,
    /// Whether the balancer can ask about the requests, if it does.
    pub(super) has_requests: bool,
    /// What the last request weighs.
    pub(super) cost: RequestCost,
    /// Whether tries end in every way and with every number, and not just with an answer.
    pub(super) has_hostile_ends: bool,
}

impl CheckRun {
    /// A trial with a table of these weights.
    pub(super) fn new(subject: &Subject, weights: &[u32]) -> Result<Self, Wrong> {
        let plugin = Arc::clone(&subject.plugin);
        let config = subject.config.clone();
        let balancer = Balancer::new(Arc::clone(&subject.engine), "check", plugin, config);
        let mut trial = Self {
            balancer,
            named: subject.named.clone(),
            labels: subject.labels.clone(),
            chance: Rng::with_seed(SEED),
            table: Vec::new(),
            now: 1_000_000,
            picks: 0,
            refused: 0,
            statuses: BTreeSet::new(),
            sessions: false,
            has_requests: false,
            cost: RequestCost::NONE,
            has_hostile_ends: false,
        };
        let table = (0..)
            .zip(weights)
            .map(|(number, weight)| trial.endpoint(number, *weight));
        let table = table.collect();
        trial.tell(table)?;
        Ok(trial)
    }

    /// Creates the instance, which the first pick does otherwise.
    pub(super) fn begin(&mut self) -> Result<(), Wrong> {
        // An error is counted as a fault.
        let _ = self.balancer.start_from(&[]);
        self.fault(|| "when it was made".into())
    }

    /// The simulated endpoint of this number, to which no request is sent. The first numbers are
    /// the endpoints that the author has named.
    pub(super) fn endpoint(&self, number: u32, weight: u32) -> Arc<Endpoint> {
        let (address, host) = (address(number), format!("endpoint-{number}"));
        let named = self.named.get(number as usize);
        let id = named.and_then(|named| named.id().ok());
        let id = id.unwrap_or_else(|| Endpoint::id_of(&host, address));
        let mut endpoint = Endpoint::new(id, address, host, weight);
        if !self.labels.is_empty() {
            let own = &self.labels[number as usize % self.labels.len()];
            endpoint.labels = Labels::new([], own);
        }
        Arc::new(endpoint)
    }

    /// Gives the balancer a new table.
    pub(super) fn tell(&mut self, table: Vec<Arc<Endpoint>>) -> Result<(), Wrong> {
        self.balancer.set_endpoints(table.iter().cloned().collect());
        self.table = table;
        let count = self.table.len();
        self.fault(|| format!("when it was told of {count} endpoints"))
    }

    /// Asks for the next request, a millisecond after the last one.
    pub(super) fn pick(&mut self) -> Result<Option<Arc<Endpoint>>, Wrong> {
        self.now += GAP;
        let request = self.request();
        if !self.has_requests || !self.balancer.plugin().asks_about_requests() {
            return self.ask(request);
        }
        let asked = Asked::draw(&mut self.chance);
        let facts = asked.facts();
        self.ask(PickRequest {
            facts: Some(&facts),
            ..request
        })
    }

    /// The next request: most have a hash or a session, and a few are retries.
    pub(super) fn request(&mut self) -> PickRequest<'static> {
        let affinity = match self.chance.u8(0..4) {
            0 => None,
            1 if self.sessions && !self.table.is_empty() => {
                Some(self.table[self.chance.usize(0..self.table.len())].id)
            }
            _ => Some(self.chance.u64(..)),
        };
        let attempt = u32::from(self.chance.u8(0..16) == 0);
        PickRequest {
            now: self.now,
            entropy: self.chance.u64(..),
            affinity,
            attempt,
            // Every other retry follows a try without a response.
            last_status: (attempt > 0 && self.chance.bool()).then_some(503),
            facts: None,
            note: None,
        }
    }

    /// Asks for one request.
    pub(super) fn ask(&mut self, request: PickRequest<'_>) -> Result<Option<Arc<Endpoint>>, Wrong> {
        self.picks += 1;
        progress::pick();
        let claim = |endpoint, details: ChoiceDetails| (endpoint, details);
        let choice = self.balancer.place(request, &[], claim);
        let (pick, count) = (self.picks, self.table.len());
        self.fault(|| format!("at pick {pick}, of {count} endpoints"))?;
        Ok(match choice {
            Choice::Endpoint((endpoint, details)) => {
                self.cost = details.cost;
                if let Some(notes) = details.notes {
                    self.end(*notes);
                }
                Some(endpoint)
            }
            Choice::Empty => None,
            Choice::Refused(refusal) => {
                self.refused += 1;
                let status = refusal.map_or(UNAVAILABLE, |refusal| refusal.status);
                self.statuses.insert(status);
                None
            }
        })
    }

    /// Ends a try that the balancer is told of.
    fn end(&mut self, mut notes: TryNotes) {
        let now = self.now;
        if !self.has_hostile_ends {
            notes.note_status(200, None);
            notes.note_bytes(1000, || now);
            return notes.end(EndReason::Complete, now);
        }
        let chance = &mut self.chance;
        if chance.bool() {
            let seconds = [0, 1, 30, u32::MAX][chance.usize(0..4)];
            let status = [0, 200, 429, 503, u16::MAX][chance.usize(0..5)];
            notes.note_status(status, chance.bool().then_some(seconds));
        }
        let number = [0, now, u64::MAX][chance.usize(0..3)];
        if chance.bool() {
            notes.note_bytes(number, || number);
        }
        let why = EndReason::ALL[chance.usize(0..EndReason::ALL.len())];
        notes.end(why, [now, number][chance.usize(0..2)]);
    }

    /// Whether the gateway has told the balancer how tries have ended.
    pub(super) fn takes_outcomes(&self) -> bool {
        self.balancer.counters().outcomes > 0
    }

    /// Asks for each of these requests, and ignores the choices.
    pub(super) fn ask_all(&mut self, requests: &[PickRequest<'_>]) {
        for request in requests {
            std::hint::black_box(self.balancer.pick(*request, &[], drop));
        }
        progress::picks(requests.len() as u64);
    }

    /// Bytes of memory that the instance has taken.
    pub(super) fn memory(&self) -> Option<usize> {
        self.balancer.memory()
    }

    /// Fails if the gateway had to discard the instance.
    pub(super) fn fault(&self, when: impl FnOnce() -> String) -> Result<(), Wrong> {
        match self.balancer.counters().last_fault {
            None => Ok(()),
            Some(fault) => Err(Wrong(output::with(format!("{}: {fault}", when())))),
        }
    }
}

fn address(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + number), 80))
}
