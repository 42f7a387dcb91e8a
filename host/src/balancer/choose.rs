//! The balancer of one upstream: asks its instance, and chooses by itself if that fails.

mod canary;
mod cost;
mod counters;
mod ended;
mod faults;
mod host;
mod inspect;
mod record;
mod switch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::bindings;
use super::canary::{RunningCanary, Side};
use super::columns::{Column, Interests, Observed};
use super::details::ChoiceDetails;
use super::engine::Engine;
use super::facts;
use super::fault::Fault;
use super::instance::{Instance, InstanceSpec};
use super::limits::PickLimits;
use super::loaded::LoadedBalancer;
use super::note::ChosenBy;
use super::observer::PickObserver;
use super::outcomes::Outcomes;
use super::request::{Choice, PickRequest, Refusal};
use super::tally::{BUSY, Cause, TIMED};
use super::tape::Tape;
use crate::clock::micros;
use crate::endpoint::{Endpoint, RequestCost};
pub(crate) use cost::CostBudget;
pub use counters::{Counters, Faults, Handover};
use faults::FAULT_MEMORY;
use host::{fallback_pick, picked, untried};
pub use record::Recording;

/// The balancer of one upstream, shared by all workers.
pub struct Balancer {
    /// Itself, if it is [shared](Balancer::shared).
    own: Weak<Self>,
    engine: Arc<Engine>,
    upstream: String,
    inner: Mutex<Inner>,
    /// A second reference to the table, for a pick that cannot wait for the lock.
    table: RwLock<Arc<[Arc<Endpoint>]>>,
    /// Picks that gave up waiting for the lock.
    busy: AtomicU64,
    /// When the quarantine ends, by the clock of picks; 0 for none.
    quarantined_until: AtomicU64,
    /// Picks that the host made during a quarantine without taking the lock, so that no worker kept
    /// another one waiting.
    quarantine_picks: AtomicU64,
    /// Set while the lock is held for longer than a pick may wait. Later picks then do not wait at
    /// all; otherwise a slow guest would block its workers once for each request.
    stuck: AtomicBool,
    /// What has to be observed for the plugin.
    interests: Arc<Interests>,
    /// Longest wait for the lock, in microseconds: as long as a pick may take.
    patience: AtomicU64,
    /// Whether a recording is running.
    recorded: AtomicBool,
    /// Whether there is an observer of its picks, which may need anything observed.
    observed: AtomicBool,
    /// A second reference to that observer, for what it does without the lock.
    observer: RwLock<Option<Arc<dyn PickObserver>>>,
    /// Whether the plugin asks for the start of bodies, and whether it asks about more of them.
    reads_bodies: AtomicBool,
    scans_bodies: AtomicBool,
    /// Whether a canary takes a share of the picks.
    shared: AtomicBool,
    /// The canary's own balancer.
    canary: RwLock<Option<Arc<canary::CanaryBalancer>>>,
}

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Balancer({})", self.upstream)
    }
}

/// What the lock guards. It includes the table, so that a position always refers to the table that
/// the instance was given.
struct Inner {
    plugin: Arc<LoadedBalancer>,
    config: String,
    limits: PickLimits,
    table: Arc<[Arc<Endpoint>]>,
    slot: Slot,
    observer: Option<Arc<dyn PickObserver>>,
    /// The canary that counts its faults too, and the side that they count for.
    judged: Option<(Arc<RunningCanary>, Side)>,
    /// Faults in a row, each within [`FAULT_MEMORY`] of the one before.
    faults: u32,
    last_fault: Option<Instant>,
    /// The budget of CPU time for picks over their cost.
    budget: CostBudget,
    /// The number of the pick that is timed next.
    next_timed: u64,
    /// Reused for the columns of every pick.
    load: Vec<u32>,
    /// How the last refused request is answered.
    refusal: Option<Refusal>,
    /// The tries that have ended, once there is a plugin that is told of them.
    outcomes: Option<Arc<Outcomes>>,
    /// The number of the instance that is told of them.
    generation: u64,
    tape: Option<Box<Tape>>,
    /// Recordings so far, which is also the number of the present one.
    recordings: u64,
    counters: Counters,
}

enum Slot {
    /// There is no instance; the next pick makes one.
    Empty,
    Running(Box<Instance>),
    /// The last instance failed; no other one is made before this time.
    Quarantined(Instant),
}

impl Balancer {
    /// A balancer without endpoints. The first pick makes its instance.
    pub fn new(
        engine: Arc<Engine>,
        upstream: &str,
        plugin: Arc<LoadedBalancer>,
        config: String,
    ) -> Self {
        let table: Arc<[Arc<Endpoint>]> = Arc::new([]);
        let limits = engine.limits();
        Self {
            own: Weak::new(),
            interests: Arc::new(Interests::new(&plugin.columns)),
            patience: AtomicU64::new(in_micros(limits.pick_timeout)),
            reads_bodies: AtomicBool::new(plugin.reads_bodies),
            scans_bodies: AtomicBool::new(plugin.scans_bodies),
            engine,
            upstream: upstream.into(),
            inner: Mutex::new(Inner {
                plugin,
                config,
                limits,
                table: Arc::clone(&table),
                slot: Slot::Empty,
                observer: None,
                judged: None,
                faults: 0,
                last_fault: None,
                budget: CostBudget::NEW,
                next_timed: TIMED,
                load: Vec::new(),
                refusal: None,
                outcomes: None,
                generation: 0,
                tape: None,
                recordings: 0,
                counters: Counters::default(),
            }),
            table: RwLock::new(table),
            busy: AtomicU64::new(0),
            quarantined_until: AtomicU64::new(0),
            quarantine_picks: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            recorded: AtomicBool::new(false),
            observed: AtomicBool::new(false),
            observer: RwLock::new(None),
            shared: AtomicBool::new(false),
            canary: RwLock::new(None),
        }
    }

    /// Whether this has to be observed: for the plugin, for an observer or for a canary.
    pub fn wants(&self, observed: Observed) -> bool {
        self.interests.contains(observed)
            || self.observed.load(Ordering::Relaxed)
            || self.canary_wants(observed)
    }

    /// Whether the start of a request's body has to be read before the pick, because the plugin or
    /// its canary may ask for it.
    pub fn reads_bodies(&self) -> bool {
        self.reads_bodies.load(Ordering::Relaxed) || self.canary_any(Self::reads_bodies)
    }

    /// Whether as much of a request's body has to be read before the pick as the upstream allows,
    /// because the plugin or its canary may ask for it.
    pub fn scans_bodies(&self) -> bool {
        self.scans_bodies.load(Ordering::Relaxed) || self.canary_any(Self::scans_bodies)
    }

    /// The current plugin.
    pub fn plugin(&self) -> Arc<LoadedBalancer> {
        Arc::clone(&self.inner.lock().plugin)
    }

    /// Replaces the table of endpoints. The caller makes one call at a time.
    pub fn set_endpoints(&self, table: Arc<[Arc<Endpoint>]>) {
        self.tell(Arc::clone(&table));
        let canary = self.canary.read().clone();
        if let Some(canary) = canary {
            canary.tell(table);
        }
    }

    fn tell(&self, table: Arc<[Arc<Endpoint>]>) {
        let mut inner = self.inner.lock();
        *self.table.write() = Arc::clone(&table);
        inner.table = table;
        if let Some(observer) = &inner.observer {
            observer.set_endpoints(&inner.table);
        }
        let inner = &mut *inner;
        if let Slot::Running(instance) = &mut inner.slot {
            let result = instance.set_endpoints(&inner.table);
            if let Some(tape) = &mut inner.tape {
                tape.table(false, &inner.table, instance);
            }
            if let Err(fault) = result {
                inner.record_fault(&self.upstream, &fault);
            }
        }
    }

    /// Chooses an endpoint. One whose id is in `tried` is chosen only if no other is left, whatever
    /// the plugin answers. `claim` is called with it before the next pick begins, so that the next
    /// pick sees what `claim` counts.
    pub fn pick<T>(
        &self,
        request: PickRequest<'_>,
        tried: &[u64],
        claim: impl FnOnce(Arc<Endpoint>) -> T,
    ) -> Choice<T> {
        self.place(request, tried, |endpoint, _| claim(endpoint))
    }

    /// Chooses an endpoint, as [`Self::pick`]. `claim` also gets what the balancer says of its
    /// choice.
    pub fn place<T>(
        &self,
        request: PickRequest<'_>,
        tried: &[u64],
        claim: impl FnOnce(Arc<Endpoint>, ChoiceDetails) -> T,
    ) -> Choice<T> {
        if self.shared.load(Ordering::Relaxed) {
            return self.place_by_side(request, tried, claim);
        }
        self.choose(request, tried, |endpoint, _, details| {
            claim(endpoint, details)
        })
    }

    /// Has the plugin of this balancer choose. `claim` also gets what made the choice, the plugin
    /// or the host.
    fn choose<T>(
        &self,
        request: PickRequest<'_>,
        tried: &[u64],
        claim: impl FnOnce(Arc<Endpoint>, By, ChoiceDetails) -> T,
    ) -> Choice<T> {
        if self.in_quarantine() {
            let cause = (&self.quarantine_picks, Cause::Quarantine.name());
            return self.choose_without_instance(cause, request, tried, claim);
        }
        if let Some(facts) = request.facts {
            self.interests.prepare(facts);
        }
        let mut kept = self.keep_facts(&request);
        let locked = if self.stuck.load(Ordering::Relaxed) {
            self.inner.try_lock()
        } else {
            let patience = self.patience.load(Ordering::Relaxed);
            self.inner.try_lock_for(Duration::from_micros(patience))
        };
        let Some(mut inner) = locked else {
            self.stuck.store(true, Ordering::Relaxed);
            return self.choose_without_instance((&self.busy, BUSY), request, tried, claim);
        };
        if self.stuck.load(Ordering::Relaxed) {
            self.stuck.store(false, Ordering::Relaxed);
        }
        inner.counters.picks += 1;
        if inner.table.is_empty() {
            return Choice::Empty;
        }
        if inner.plugin.prepared.takes_outcomes() {
            inner.deliver_ended(self, ended::BEFORE_A_PICK);
        }
        let answer = inner.ask_timed(self, request, tried);
        let chosen = match answer {
            Ok(Some((position, _))) => Some(untried(&inner.table, position, tried)),
            Ok(None) => None,
            Err(Unavailable(cause)) => {
                if let Slot::Quarantined(until) = inner.slot {
                    self.quarantined_until
                        .store(micros(until), Ordering::Relaxed);
                }
                inner.counters.fallback_picks += 1;
                inner.counters.fallback_picks_by_kind.add(cause);
                fallback_pick(&inner.table, request.entropy, tried)
            }
        };
        let by = if answer.is_ok() { By::Plugin } else { By::Host };
        if let Some(note) = request.note {
            let by = match answer {
                Ok(_) => ChosenBy::Plugin,
                Err(Unavailable(cause)) => ChosenBy::Host(cause.name()),
            };
            note.set(by, Some(Arc::clone(&inner.plugin.identity)));
        }
        if inner.tape.is_some() {
            inner.write_down(&self.recorded, request, answer, chosen);
        }
        if inner.is_over_cost() {
            inner.record_cost_fault(&self.upstream);
        }
        // Before the request counts at the endpoint.
        let observer = inner.observer.as_ref().filter(|_| answer.is_ok());
        let observing = observer
            .and_then(|observer| observer.note(request, &mut kept, tried, &inner.table, chosen));
        let cost = match answer {
            Ok(Some((_, cost))) => cost,
            Ok(None) | Err(_) => RequestCost::NONE,
        };
        let choice = match chosen {
            Some(position) => {
                let endpoint = picked(&inner.table[position]);
                let details = ChoiceDetails {
                    observer: None,
                    cost,
                    notes: inner.notes(by, endpoint.id, request.now),
                };
                Choice::Endpoint(claim(endpoint, by, details))
            }
            None if answer.is_ok() => {
                inner.counters.refused += 1;
                Choice::Refused(inner.refusal)
            }
            None => Choice::Empty,
        };
        drop(inner);
        if let Some(thread) = observing {
            thread.unpark();
        }
        choice
    }
}

/// What made a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Plugin,
    Host,
}

/// The plugin has no answer, for this cause. If that is a fault, the fault has been counted.
#[derive(Debug, Clone, Copy)]
struct Unavailable(Cause);

impl Inner {
    /// The position that the plugin chooses, which is valid for the table, and what the request
    /// weighs; none if it refuses the request. It is told of `tried` if it asks.
    fn ask(
        &mut self,
        balancer: &Balancer,
        request: PickRequest<'_>,
        tried: &[u64],
    ) -> Result<Option<(usize, RequestCost)>, Unavailable> {
        if !matches!(self.slot, Slot::Running(_)) {
            self.fill_slot(balancer, &[])?;
        }
        let Slot::Running(instance) = &mut self.slot else {
            return Err(Unavailable(Cause::Quarantine));
        };
        let asks_about_tries = self.plugin.asks_about_tries;
        if asks_about_tries {
            instance.begin_tries(request.last_status, tried);
        }
        let guest_request = bindings::Request {
            entropy: request.entropy,
            now: request.now,
            affinity: request.affinity,
            attempt: request.attempt,
        };
        let mut ask = || {
            let weighs = self.plugin.prepared.weighs();
            let without_cost = |position: Option<u32>| Some((position?, RequestCost::NONE));
            if self.plugin.columns.is_empty() && !weighs {
                return instance.pick(guest_request).map(without_cost);
            }
            self.load.clear();
            for column in &self.plugin.columns {
                let (table, now) = (self.table.iter(), request.now);
                match column {
                    // These two have match arms of their own, so that the column is not matched
                    // again for each endpoint.
                    Column::InFlight => self.load.extend(table.map(|e| e.in_flight())),
                    Column::Latency => self.load.extend(table.map(|e| e.latency(now))),
                    other => self.load.extend(table.map(|e| other.value(e, now))),
                }
            }
            if weighs {
                return instance.pick_weighted(guest_request, &self.load);
            }
            let answer = instance.pick_by_load(guest_request, &self.load);
            answer.map(without_cost)
        };
        let answer = match request.facts {
            Some(facts) if self.plugin.reads_facts => match &self.tape {
                Some(tape) => tape.record_facts(facts, |facts| facts::at_hand(facts, ask)),
                None => facts::at_hand(facts, ask),
            },
            _ => ask(),
        };
        if asks_about_tries {
            instance.end_tries();
        }
        let length = self.table.len();
        let fault = match answer {
            Ok(None) => {
                self.refusal = instance.take_refusal();
                return Ok(None);
            }
            Ok(Some((position, cost))) if (position as usize) < length => {
                return Ok(Some((position as usize, cost)));
            }
            Ok(Some((position, _))) => Fault::OutOfRange { position, length },
            Err(fault) => fault,
        };
        self.record_fault(&balancer.upstream, &fault);
        Err(Unavailable(Cause::from(&fault)))
    }

    /// Makes an instance, which takes over the saved state of another one, if that is not empty.
    #[cold]
    fn fill_slot(&mut self, balancer: &Balancer, saved: &[u8]) -> Result<(), Unavailable> {
        if let Slot::Quarantined(until) = self.slot
            && Instant::now() < until
        {
            return Err(Unavailable(Cause::Quarantine));
        }
        self.counters.instances += 1;
        self.begin_outcomes(balancer);
        let spec = InstanceSpec {
            host: &balancer.engine.components,
            plugin: &self.plugin,
            upstream: &balancer.upstream,
            config: &self.config,
            limits: self.limits,
            record: self.tape.is_some(),
        };
        self.load.clear();
        let started = Instance::start(&spec, saved, &self.table, &balancer.interests);
        match started {
            Ok(instance) => {
                if let Some(tape) = &mut self.tape {
                    tape.table(true, &self.table, &instance);
                }
                self.slot = Slot::Running(Box::new(instance));
                Ok(())
            }
            Err(fault) => {
                self.record_fault(&balancer.upstream, &fault);
                Err(Unavailable(Cause::from(&fault)))
            }
        }
    }
}

fn in_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
