//! The balancer of one upstream: asks its instance, and chooses by itself where that fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::bindings;
use super::check::{Column, Interests, Observed};
use super::engine::{Engine, Plugin};
use super::instance::{Fault, Instance};
use crate::upstream::Endpoint;

/// A plugin that behaved this long is forgiven its earlier faults.
const PROBATION: Duration = Duration::from_secs(60);

/// First and longest pause before a faulty instance is replaced; each fault doubles it. The very
/// first replacement is at once.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A time on the clock that balancers are handed, in microseconds since the process began to use it.
pub fn micros(time: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(time.saturating_duration_since(*START).as_micros()).unwrap_or(u64::MAX)
}

/// A request to be placed; see `wit/balancer.wit`.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Microseconds on a clock that never goes back.
    pub now: u64,
    /// Uniform random bits.
    pub entropy: u64,
    /// Hash of what the upstream hashes on.
    pub affinity: Option<u64>,
    /// 0 for the first try.
    pub attempt: u32,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Choice<T = Arc<Endpoint>> {
    /// To this endpoint.
    Endpoint(T),
    /// Nowhere: the plugin refused it.
    Refused,
    /// Nowhere: there is no endpoint.
    Empty,
}

impl<T> Choice<T> {
    fn map<U>(self, to: impl FnOnce(T) -> U) -> Choice<U> {
        match self {
            Self::Endpoint(endpoint) => Choice::Endpoint(to(endpoint)),
            Self::Refused => Choice::Refused,
            Self::Empty => Choice::Empty,
        }
    }
}

/// What the plugin of a balancer has done since it took over.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Counters {
    /// Picks asked for.
    pub picks: u64,
    /// Picks that the host made by itself, for whatever reason.
    pub host_choices: u64,
    /// Requests that the plugin refused.
    pub refused: u64,
    /// Instances made.
    pub instances: u64,
    /// Picks that did not wait for the instance any longer.
    pub busy: u64,
    /// Faults of the plugin by kind.
    pub faults: Faults,
    /// The last fault, in words.
    pub last_fault: Option<String>,
}

/// Faults of a plugin by kind.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Faults {
    /// Traps and panics.
    pub trap: u64,
    /// Calls that took too long.
    pub deadline: u64,
    /// Traps after more memory was asked for than there may be.
    pub memory: u64,
    /// Answers that are no position of the table.
    pub out_of_range: u64,
    /// Settings refused.
    pub configuration: u64,
}

/// The balancer of one upstream, shared by all workers.
pub struct Balancer {
    engine: Arc<Engine>,
    upstream: String,
    inner: Mutex<Inner>,
    /// The table once more, for a pick that cannot wait for the lock.
    table: RwLock<Arc<[Arc<Endpoint>]>>,
    /// Picks that did not wait any longer.
    busy: AtomicU64,
    /// Set while the lock is held for longer than a pick may wait: who comes next does not wait at
    /// all, or a slow guest would stop its workers once for each request.
    stuck: AtomicBool,
    /// What the plugin looks at.
    interests: Arc<Interests>,
}

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Balancer({})", self.upstream)
    }
}

/// What the lock guards: a position is only ever read against the table that the instance was told of.
struct Inner {
    plugin: Arc<Plugin>,
    config: String,
    table: Arc<[Arc<Endpoint>]>,
    seat: Seat,
    /// Faults in a row, each within [`PROBATION`] of the one before.
    faults: u32,
    last_fault: Option<Instant>,
    /// Reused for the columns of every pick.
    load: Vec<u32>,
    counters: Counters,
}

enum Seat {
    /// An instance is made when the next pick asks for one.
    Vacant,
    Taken(Box<Instance>),
    /// The last instance failed; another one is not made before this.
    Closed(Instant),
}

impl Balancer {
    /// A balancer without endpoints. Its instance is made when it is first asked.
    pub fn new(engine: Arc<Engine>, upstream: &str, plugin: Arc<Plugin>, config: String) -> Self {
        let table: Arc<[Arc<Endpoint>]> = Arc::new([]);
        Self {
            interests: Arc::new(Interests::new(&plugin.columns)),
            engine,
            upstream: upstream.into(),
            inner: Mutex::new(Inner {
                plugin,
                config,
                table: Arc::clone(&table),
                seat: Seat::Vacant,
                faults: 0,
                last_fault: None,
                load: Vec::new(),
                counters: Counters::default(),
            }),
            table: RwLock::new(table),
            busy: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
        }
    }

    /// Lets another plugin, or the same with other settings, choose from the next pick on. Nothing
    /// happens if both are what they were: the turn of a round robin is not lost.
    pub fn replace(&self, plugin: Arc<Plugin>, config: String) {
        let mut inner = self.inner.lock();
        if inner.plugin.digest != plugin.digest || inner.config != config {
            self.interests.reset(&plugin.columns);
            inner.plugin = plugin;
            inner.config = config;
            inner.seat = Seat::Vacant;
            inner.faults = 0;
            inner.last_fault = None;
            // They are shown as the plugin's own.
            inner.counters = Counters::default();
            self.busy.store(0, Ordering::Relaxed);
        }
    }

    /// Whether this has to be taken note of for the plugin.
    pub fn wants(&self, observed: Observed) -> bool {
        self.interests.contains(observed)
    }

    /// The plugin that chooses now.
    pub fn plugin(&self) -> Arc<Plugin> {
        Arc::clone(&self.inner.lock().plugin)
    }

    /// Makes these the endpoints to choose from.
    pub fn set_endpoints(&self, table: Arc<[Arc<Endpoint>]>) {
        let mut inner = self.inner.lock();
        *self.table.write() = Arc::clone(&table);
        inner.table = table;
        let inner = &mut *inner;
        if let Seat::Taken(instance) = &mut inner.seat
            && let Err(fault) = instance.set_endpoints(&inner.table)
        {
            inner.blame(&self.upstream, &fault);
        }
    }

    /// What the balancer has done so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.inner.lock().counters.clone();
        counters.busy = self.busy.load(Ordering::Relaxed);
        counters.picks += counters.busy;
        counters.host_choices += counters.busy;
        counters
    }

    /// Chooses an endpoint. One whose id is in `tried` is chosen only if no other is left, whatever
    /// the plugin says. `claim` is called with it before the next pick is asked for, so that what it counts
    /// is known to that.
    pub fn pick<T>(
        &self,
        request: Request,
        tried: &[u64],
        claim: impl FnOnce(Arc<Endpoint>) -> T,
    ) -> Choice<T> {
        let locked = if self.stuck.load(Ordering::Relaxed) {
            self.inner.try_lock()
        } else {
            self.inner.try_lock_for(self.engine.settings.pick_timeout)
        };
        let Some(mut inner) = locked else {
            self.stuck.store(true, Ordering::Relaxed);
            self.busy.fetch_add(1, Ordering::Relaxed);
            let table = self.table.read();
            return host_choice(&table, request.entropy, tried).map(claim);
        };
        if self.stuck.load(Ordering::Relaxed) {
            self.stuck.store(false, Ordering::Relaxed);
        }
        inner.counters.picks += 1;
        if inner.table.is_empty() {
            return Choice::Empty;
        }
        match inner.ask(self, request) {
            Ok(Some(position)) => Choice::Endpoint(claim(untried(&inner.table, position, tried))),
            Ok(None) => {
                inner.counters.refused += 1;
                Choice::Refused
            }
            Err(Unavailable) => {
                inner.counters.host_choices += 1;
                host_choice(&inner.table, request.entropy, tried).map(claim)
            }
        }
    }
}

/// The plugin has no answer, and why has been counted.
struct Unavailable;

impl Inner {
    /// The position that the plugin chooses, which is one of the table.
    fn ask(&mut self, balancer: &Balancer, request: Request) -> Result<Option<usize>, Unavailable> {
        if !matches!(self.seat, Seat::Taken(_)) {
            self.take_seat(balancer)?;
        }
        let Seat::Taken(instance) = &mut self.seat else {
            return Err(Unavailable);
        };
        let guest_request = bindings::Request {
            entropy: request.entropy,
            now: request.now,
            affinity: request.affinity,
            attempt: request.attempt,
        };
        let answer = if self.plugin.columns.is_empty() {
            instance.pick(guest_request)
        } else {
            self.load.clear();
            for column in &self.plugin.columns {
                let (table, now) = (self.table.iter(), request.now);
                match column {
                    // Apart, so that what is the same for all is not asked for each.
                    Column::InFlight => self.load.extend(table.map(|e| e.in_flight())),
                    Column::Latency => self.load.extend(table.map(|e| e.latency(now))),
                    other => self.load.extend(table.map(|e| other.value(e, now))),
                }
            }
            instance.pick_by_load(guest_request, &self.load)
        };
        let length = self.table.len();
        let fault = match answer {
            Ok(None) => return Ok(None),
            Ok(Some(position)) if (position as usize) < length => {
                return Ok(Some(position as usize));
            }
            Ok(Some(position)) => Fault::OutOfRange { position, length },
            Err(fault) => fault,
        };
        self.blame(&balancer.upstream, &fault);
        Err(Unavailable)
    }

    #[cold]
    fn take_seat(&mut self, balancer: &Balancer) -> Result<(), Unavailable> {
        if let Seat::Closed(until) = self.seat
            && Instant::now() < until
        {
            return Err(Unavailable);
        }
        self.counters.instances += 1;
        let started = Instance::start(
            &balancer.engine,
            &self.plugin,
            &balancer.upstream,
            &self.config,
            &self.table,
            &balancer.interests,
        );
        match started {
            Ok(instance) => {
                self.seat = Seat::Taken(Box::new(instance));
                Ok(())
            }
            Err(fault) => {
                self.blame(&balancer.upstream, &fault);
                Err(Unavailable)
            }
        }
    }

    /// Throws the instance away and decides when there may be another.
    #[cold]
    fn blame(&mut self, upstream: &str, fault: &Fault) {
        let now = Instant::now();
        if self.last_fault.is_none_or(|last| now - last > PROBATION) {
            self.faults = 0;
        }
        self.last_fault = Some(now);
        let pause = match self.faults {
            0 => Duration::ZERO,
            more => (PAUSE.0 * 2_u32.saturating_pow(more - 1)).min(PAUSE.1),
        };
        self.faults = (self.faults + 1).min(16);
        self.seat = Seat::Closed(now + pause);
        let faults = &mut self.counters.faults;
        match fault {
            Fault::Trap(_) => faults.trap += 1,
            Fault::Deadline => faults.deadline += 1,
            Fault::Memory(_) => faults.memory += 1,
            Fault::OutOfRange { .. } => faults.out_of_range += 1,
            Fault::Configuration(_) => faults.configuration += 1,
        }
        let text = fault.to_string();
        let plugin = self.plugin.name.as_str();
        tracing::warn!(
            upstream,
            plugin,
            "the balancer failed: {text}; the gateway chooses by itself, and makes a new instance in {pause:?}"
        );
        self.counters.last_fault = Some(text);
    }
}

/// The endpoint at a position, or the next one that has not been tried.
fn untried(table: &[Arc<Endpoint>], position: usize, tried: &[u64]) -> Arc<Endpoint> {
    let chosen = &table[position];
    if tried.is_empty() || !tried.contains(&chosen.id) {
        return Arc::clone(chosen);
    }
    let (before, from) = table.split_at(position);
    let next = from
        .iter()
        .chain(before)
        .find(|endpoint| !tried.contains(&endpoint.id));
    Arc::clone(next.unwrap_or(chosen))
}

/// The host's own choice: by weight, at random, among those that have not been tried.
fn host_choice(table: &[Arc<Endpoint>], entropy: u64, tried: &[u64]) -> Choice {
    let total: u64 = table
        .iter()
        .map(|endpoint| u64::from(endpoint.weight))
        .sum();
    let Some(mut ticket) = entropy.checked_rem(total) else {
        return Choice::Empty;
    };
    let drawn = table.iter().position(|endpoint| {
        let weight = u64::from(endpoint.weight);
        let hit = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        hit
    });
    match drawn {
        Some(position) => Choice::Endpoint(untried(table, position, tried)),
        None => Choice::Empty,
    }
}
