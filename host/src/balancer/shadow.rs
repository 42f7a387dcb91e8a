//! A second balancer that chooses beside the first, without effect.
//!
//! A pick of the first balancer is noted while its lock is held, so that the order of picks and the
//! table are those of the first. It is then sent to one thread of low priority. No worker waits for
//! that thread: if its queue is full, picks are dropped. Faults of the second balancer happen on
//! that thread only.

mod report;
mod tally;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::body::BODY_MOST;
use super::choose::Balancer;
use super::engine::Engine;
use super::facts::{BODY_START, RequestFacts};
use super::kept_facts::{FactsBudget, KeptFacts};
use super::limits::PickLimits;
use super::loaded::LoadedBalancer;
use super::observer::PickObserver;
use super::request::{Choice, PickRequest};
use crate::clock::{self, thread_cpu_time};
use crate::endpoint::{Endpoint, WorkInFlight};
use crate::priority::Background;
use crate::split_mix::mixed;
pub use report::Report;
use report::{Bodies, Difference, Share, Side};
use tally::{Figures, Tally};

/// Picks that may wait to be compared, of all upstreams together: some milliseconds of a busy
/// gateway.
const QUEUE: usize = 1024;

/// Its stack: that of a worker, for the same guests.
const STACK: usize = 4 << 20;

/// Bytes that the facts of these picks may have together. Bodies are most of it, and their length
/// is the clients' choice.
const QUEUED_FACTS: usize = 16 << 20;

/// The thread that compares picks, for all shadows of the gateway. It is started with the first
/// shadow.
#[derive(Default)]
pub struct ShadowThread(OnceLock<Option<Queue>>);

/// The queue of that thread.
#[derive(Clone)]
struct Queue {
    picks: SyncSender<Pick>,
    thread: Thread,
    facts: FactsBudget,
}

impl ShadowThread {
    fn queue(&self) -> Option<Queue> {
        self.0.get_or_init(start).clone()
    }
}

impl std::fmt::Debug for ShadowThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShadowThread").finish_non_exhaustive()
    }
}

impl Drop for ShadowThread {
    fn drop(&mut self) {
        if let Some(Some(queue)) = self.0.take() {
            // The thread then finds the queue closed, and ends.
            drop(queue.picks);
            queue.thread.unpark();
        }
    }
}

/// A pick of the first balancer, to be compared.
struct Pick {
    shadow: Arc<Shadow>,
    request: PickRequest<'static>,
    /// What the shadow may ask about the request.
    facts: Option<Box<KeptFacts>>,
    tried: Box<[u64]>,
    /// The position that the first balancer chose, and the requests in flight there before; none if
    /// it refused.
    first: Option<(usize, WorkInFlight)>,
    /// Number of the table that the position refers to.
    table: u64,
}

fn start() -> Option<Queue> {
    let (sender, picks) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new()
        .name("shadow".into())
        .stack_size(STACK)
        .spawn(move || run(&picks));
    match thread {
        Ok(thread) => Some(Queue {
            picks: sender,
            thread: thread.thread().clone(),
            facts: FactsBudget::new(QUEUED_FACTS),
        }),
        Err(error) => {
            tracing::error!("cannot start the thread of shadow balancers: {error}");
            None
        }
    }
}

fn run(picks: &Receiver<Pick>) {
    Background::Idle.lower_this_thread();
    let clock = CpuClock::new();
    loop {
        match picks.try_recv() {
            Ok(pick) => {
                let compared =
                    catch_unwind(AssertUnwindSafe(|| pick.shadow.compare(&pick, &clock)));
                if compared.is_err() {
                    tracing::error!("comparing a shadow's pick has panicked");
                }
            }
            Err(TryRecvError::Empty) => std::thread::park(),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// The settings of a shadow. Other settings make another shadow.
#[derive(Debug, Clone)]
pub struct ShadowSettings {
    /// The plugin that chooses.
    pub plugin: Arc<LoadedBalancer>,
    /// Its settings.
    pub config: String,
    /// Its limits.
    pub limits: PickLimits,
    /// Name of the balancer.
    pub name: String,
    /// How many of the picks are compared, 0 to 100.
    pub sample_percent: f64,
}

/// A balancer that chooses beside another one, with the comparison of the two.
pub struct Shadow {
    /// Itself, to be sent to the thread that compares.
    own: Weak<Self>,
    settings: ShadowSettings,
    /// Digest and settings of the balancer that it is beside.
    beside: (String, String),
    /// What it asks for and does not get.
    lacks: Vec<&'static str>,
    /// How many of 2^32 picks are compared.
    sampled: u64,
    queue: Queue,
    balancer: Balancer,
    table: Mutex<Arc<[Arc<Endpoint>]>>,
    /// Counts the tables.
    newest: AtomicU64,
    view: Mutex<View>,
    /// Picks that were to be compared.
    noted: AtomicU64,
    /// Picks that were not compared, since too many waited or the table changed meanwhile.
    dropped: AtomicU64,
    tally: Mutex<Tally>,
    since: SystemTime,
}

/// The table of the shadow's instance. Only the thread that compares uses it.
#[derive(Default)]
struct View {
    number: u64,
    endpoints: Vec<Arc<Endpoint>>,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shadow({})", self.settings.name)
    }
}

impl Shadow {
    /// A shadow beside a balancer of an upstream, which has compared no pick yet. None, with an
    /// error in the log, if the thread cannot be started.
    pub fn new(
        thread: &ShadowThread,
        engine: &Arc<Engine>,
        upstream: &str,
        beside: &Balancer,
        settings: ShadowSettings,
    ) -> Option<Arc<Self>> {
        let queue = thread.queue()?;
        let (plugin, config) = beside.current();
        let balancer = Balancer::new(
            Arc::clone(engine),
            &format!("{upstream} (shadow)"),
            Arc::clone(&settings.plugin),
            settings.config.clone(),
        );
        balancer.set_limits(settings.limits);
        Some(Arc::new_cyclic(|own| Self {
            own: own.clone(),
            balancer,
            lacks: lacking(&settings.plugin, &plugin),
            beside: (plugin.digest.clone(), config),
            sampled: (settings.sample_percent.clamp(0.0, 100.0) / 100.0 * 2_f64.powi(32)) as u64,
            settings,
            queue,
            table: Mutex::new(Arc::new([])),
            newest: AtomicU64::new(0),
            view: Mutex::default(),
            noted: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            tally: Mutex::default(),
            since: SystemTime::now(),
        }))
    }

    /// Has the picks of a balancer compared from the next one on; with none, no longer.
    pub fn set(balancer: &Balancer, shadow: Option<Arc<Self>>) {
        balancer.set_observer(shadow.map(|shadow| shadow as Arc<dyn PickObserver>));
    }

    /// Whether it has these settings, and is beside this balancer with its present plugin and
    /// settings.
    pub fn is(&self, beside: &Balancer, settings: &ShadowSettings) -> bool {
        let (plugin, config) = beside.current();
        let own = &self.settings;
        self.beside == (plugin.digest.clone(), config)
            && own.plugin.digest == settings.plugin.digest
            && own.config == settings.config
            && own.limits == settings.limits
            && own.name == settings.name
            && own
                .sample_percent
                .total_cmp(&settings.sample_percent)
                .is_eq()
    }

    fn compare(&self, pick: &Pick, clock: &CpuClock) {
        let mut view = self.view.lock();
        let (table, number) = {
            let table = self.table.lock();
            (Arc::clone(&table), self.newest.load(Ordering::Relaxed))
        };
        if number != pick.table {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if view.number != number {
            view.number = number;
            view.endpoints = table
                .iter()
                .map(|endpoint| Arc::new(endpoint.view()))
                .collect();
            self.balancer
                .set_endpoints(view.endpoints.as_slice().into());
            self.tally.lock().keep(&view.endpoints);
        }
        let endpoints = &view.endpoints;
        // The request of the first balancer counts at the endpoint by now, and did not when it
        // chose.
        let pinned = pick
            .first
            .map(|(position, before)| endpoints[position].pin(before));
        let facts = pick.facts.as_ref().map(|facts| facts.view());
        let facts = facts.as_ref().map(|facts| facts as &dyn RequestFacts);
        if let Some(facts) = facts {
            self.balancer.prepare(facts);
        }
        let request = PickRequest {
            facts,
            ..pick.request
        };
        // The time to make an instance is not part of a pick, and neither is that of the scans of a
        // body which a gateway makes before.
        let had_instance = self.balancer.has_instance();
        let start = clock.now();
        let second = self.balancer.ask(request, &pick.tried);
        let cost = clock.since(start);
        let figures = |position: usize| {
            let endpoint = &endpoints[position];
            Figures {
                id: endpoint.id,
                address: endpoint.address.clone(),
                in_flight: endpoint.in_flight(),
                latency: endpoint.latency(pick.request.now),
            }
        };
        let first = pick.first.map(|(position, _)| figures(position));
        let mut tally = self.tally.lock();
        let is_cut = pick.facts.as_ref().and_then(|facts| facts.is_body_cut());
        if let Some(is_cut) = is_cut {
            tally.bodies[usize::from(is_cut)] += 1;
        }
        match second {
            None => tally.unanswered += 1,
            // The table of the first is empty then too, and no pick was noted.
            Some(Choice::Empty) => {}
            Some(Choice::Refused(_)) => tally.add(first, None),
            Some(Choice::Endpoint((position, ..))) => tally.add(first, Some(figures(position))),
        }
        if had_instance && second.is_some() {
            tally.cost += cost;
            tally.costed += 1;
        }
        drop(pinned);
    }

    /// Whether it is told of this request, and may ask about it.
    fn asks_about(&self, request: &PickRequest<'_>) -> bool {
        self.settings.plugin.reads_facts && mixed(request.entropy) < self.sampled
    }

    /// The results so far.
    pub fn report(&self) -> Report {
        let counters = self.balancer.counters();
        let tally = self.tally.lock();
        let both = tally.both as f64;
        let mean = |sum: u64, count: f64| (count > 0.0).then(|| sum as f64 / count);
        let latencies = tally.latencies as f64;
        let [first, second] = [0, 1].map(|side| Side {
            refused: tally.refused[side],
            in_flight: mean(tally.in_flight[side], both),
            latency_us: mean(tally.latency[side], latencies),
            pick_ns: None,
        });
        let difference = |a: Option<f64>, b: Option<f64>| Some(b? - a?);
        let placed = |side: usize| {
            tally
                .picks
                .values()
                .map(|picks| picks.of[side])
                .sum::<u64>()
        };
        let (all_first, all_second) = (placed(0) as f64, placed(1) as f64);
        let mut endpoints: Vec<Share> = tally
            .picks
            .iter()
            .map(|(id, picks)| Share {
                id: format!("{id:016x}"),
                address: picks.address.clone(),
                first: picks.of[0],
                shadow: picks.of[1],
                first_share: picks.of[0] as f64 / all_first.max(1.0),
                shadow_share: picks.of[1] as f64 / all_second.max(1.0),
            })
            .collect();
        endpoints.sort_by(|a, b| a.address.cmp(&b.address));
        Report {
            balancer: self.settings.name.clone(),
            version: self.settings.plugin.digest.clone(),
            sample_percent: self.settings.sample_percent,
            since: clock::since_1970(self.since).as_secs(),
            sampled: self.noted.load(Ordering::Relaxed),
            compared: tally.compared,
            agreed: tally.agreed,
            agreement: mean(tally.agreed, tally.compared as f64),
            unanswered: tally.unanswered,
            dropped: self.dropped.load(Ordering::Relaxed),
            lacks: self.lacks.clone(),
            bodies: self.settings.plugin.reads_facts.then(|| Bodies {
                whole: tally.bodies[0],
                cut: tally.bodies[1],
            }),
            difference: Difference {
                in_flight: difference(first.in_flight, second.in_flight),
                latency_us: difference(first.latency_us, second.latency_us),
            },
            first,
            shadow: Side {
                pick_ns: mean(
                    u64::try_from(tally.cost.as_nanos()).unwrap_or(u64::MAX),
                    tally.costed as f64,
                ),
                ..second
            },
            endpoints,
            instances: counters.instances,
            faults: counters.faults,
            last_fault: counters.last_fault,
        }
    }
}

impl PickObserver for Shadow {
    fn set_endpoints(&self, table: &Arc<[Arc<Endpoint>]>) {
        let mut newest = self.table.lock();
        *newest = Arc::clone(table);
        self.newest.fetch_add(1, Ordering::Relaxed);
    }

    fn body(&self) -> usize {
        match &self.settings.plugin {
            plugin if plugin.scans_bodies => BODY_MOST,
            plugin if plugin.reads_bodies => BODY_START,
            _ => 0,
        }
    }

    fn keep(&self, request: &PickRequest<'_>) -> Option<Box<KeptFacts>> {
        let facts = request.facts.filter(|_| self.asks_about(request))?;
        KeptFacts::of(facts, self.body(), &self.queue.facts)
    }

    fn note(
        &self,
        request: PickRequest<'_>,
        facts: &mut Option<Box<KeptFacts>>,
        tried: &[u64],
        table: &[Arc<Endpoint>],
        chosen: Option<usize>,
    ) -> Option<Thread> {
        if mixed(request.entropy) >= self.sampled {
            return None;
        }
        self.noted.fetch_add(1, Ordering::Relaxed);
        if facts.is_none() && request.facts.is_some() && self.asks_about(&request) {
            // The facts of those that wait have taken all the memory.
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let pick = Pick {
            request: request.in_numbers(),
            facts: facts.take(),
            tried: tried.into(),
            first: chosen.map(|position| (position, table[position].work())),
            table: self.newest.load(Ordering::Relaxed),
            shadow: self.own.upgrade()?,
        };
        if let Err(TrySendError::Full(pick) | TrySendError::Disconnected(pick)) =
            self.queue.picks.try_send(pick)
        {
            *facts = pick.facts;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.queue.thread.clone())
    }
}

/// What a shadow asks for and does not get beside this balancer; see [`Report::lacks`].
fn lacking(shadow: &LoadedBalancer, beside: &LoadedBalancer) -> Vec<&'static str> {
    let awaits_body = match shadow {
        plugin if plugin.scans_bodies => beside.scans_bodies,
        plugin if plugin.reads_bodies => beside.scans_bodies || beside.reads_bodies,
        _ => true,
    };
    let lacks = [
        ("outcomes", shadow.prepared.takes_outcomes()),
        (
            "costs",
            shadow.prepared.weighs() && !beside.prepared.weighs(),
        ),
        ("bodies", !awaits_body),
    ];
    let lacks = lacks.into_iter().filter(|(_, lacks)| *lacks);
    lacks.map(|(name, _)| name).collect()
}

/// A clock of the thread's CPU time, since this thread of low priority is often preempted in the
/// middle of a pick.
struct CpuClock {
    /// The time that reading the clock takes.
    look: Duration,
}

impl CpuClock {
    fn new() -> Self {
        let mut clock = Self {
            look: Duration::ZERO,
        };
        let looks = (0..16).map(|_| clock.since(clock.now()));
        clock.look = looks.min().unwrap_or_default();
        clock
    }

    fn now(&self) -> Duration {
        thread_cpu_time()
    }

    fn since(&self, start: Duration) -> Duration {
        self.now().saturating_sub(start).saturating_sub(self.look)
    }
}
