//! One instance of a component, in a store of its own: a trap takes the store, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::{self, BalancerIndices, Description, HandOver, HandOverIndices};
use super::check::{Interests, LoadError};
use super::choose::SHARE_PER_MILLE;
use super::engine::{Engine, GUEST_STACK, Plugin};
use super::limits::Limits;
use super::output::Output;
use super::sandbox::{self, Denied, Ear, Guest, Overdue};
use crate::clock::thread_cpu_time;
use crate::endpoint::Endpoint;

/// Calls other than picks may take this many times as long.
const PATIENCE: u32 = 10;

/// A call that is past its deadline by the wall clock, but has used little CPU time, is waiting for a
/// processor. It is left alone up to this many times its deadline.
const STARVATION: u32 = 50;

/// Memory that the host sets aside for what one call hands it, in bytes: strings of a description, or a
/// message for the log.
const HOSTCALL_FUEL: usize = 1 << 20;

/// What wasmtime says where that is exceeded.
const HOSTCALL_FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// What a guest did wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It trapped, or panicked: the cause, and what it said last.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Deadline,
    /// It answered, and its picks took more CPU time than they may.
    #[error(
        "{picks} of its picks took more than {limit:?} of CPU time (setting balancer_pick_cost), {excess:?} more \
         in all, and that is more than {SHARE_PER_MILLE} thousandths of the time since"
    )]
    Cost {
        /// How many they were.
        picks: u32,
        /// CPU time that one of them may take.
        limit: Duration,
        /// CPU time beyond that, of all of them.
        excess: Duration,
    },
    /// It wanted more memory than it may have, or larger tables.
    #[error("{0}")]
    Memory(String),
    /// It consists of more than an instance may, or hands over more than a call may.
    #[error("{0}")]
    Limit(String),
    /// Its answer is no position of the table.
    #[error("it chose position {position} of a table of {length}")]
    OutOfRange {
        /// The answer.
        position: u32,
        /// Endpoints in the table.
        length: usize,
    },
    /// It refused its settings.
    #[error("it refused its settings: {0}")]
    Configuration(String),
    /// What it saved is too much.
    #[error("it saved {size} bytes, and may save {limit}")]
    StateSize {
        /// Bytes that it saved.
        size: usize,
        /// Bytes that it may save.
        limit: usize,
    },
    /// It refused what its predecessor saved.
    #[error("it refused what was saved: {0}")]
    State(String),
}

/// The error that ends a call past its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
struct Late;

/// A component that is linked, with the places of what it exports.
pub(super) struct Prepared {
    pre: InstancePre<Guest>,
    policy: BalancerIndices,
    hand_over: Option<HandOverIndices>,
    /// Set when handing over took too long.
    slow: AtomicBool,
}

impl Prepared {
    /// Looks the exports up: those of `policy`, and those of `state` where it `hands_over`.
    pub(super) fn new(pre: InstancePre<Guest>, hands_over: bool) -> wasmtime::Result<Self> {
        let hand_over = hands_over.then(|| HandOverIndices::new(&pre));
        Ok(Self {
            policy: BalancerIndices::new(&pre)?,
            hand_over: hand_over.transpose()?,
            slow: AtomicBool::new(false),
            pre,
        })
    }

    /// Whether its state can be handed over.
    pub(super) fn hands_over(&self) -> bool {
        self.hand_over.is_some()
    }

    /// Takes note that it took too long to hand over. Whoever changes a thousand upstreams cannot wait for
    /// it a thousand times.
    pub(super) fn mark_slow(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    /// Whether it took too long once, at whatever upstream.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    fn instantiate(&self, mut store: &mut Store<Guest>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate(&mut store)?;
        let hand_over = self.hand_over.as_ref();
        let hand_over = hand_over.map(|indices| indices.load(&mut store, &instance));
        Ok(Exports {
            policy: self.policy.load(store, &instance)?,
            hand_over: hand_over.transpose()?,
        })
    }
}

/// What can be called.
struct Exports {
    policy: bindings::Balancer,
    hand_over: Option<HandOver>,
}

/// What an instance is made from.
pub(super) struct Order<'a> {
    pub(super) engine: &'a Engine,
    pub(super) plugin: &'a Plugin,
    /// Whose requests it is to place.
    pub(super) upstream: &'a str,
    pub(super) config: &'a str,
    pub(super) limits: Limits,
    /// Whether what it is answered is kept for [`Instance::heard`].
    pub(super) listen: bool,
}

pub(super) struct Instance {
    store: Store<Guest>,
    exports: Exports,
    /// Ticks of the clock that a pick may take.
    pick_ticks: u64,
    /// Instructions that it may take, where these are counted.
    fuel: Option<u64>,
    /// Largest state, in bytes.
    state: usize,
    /// CPU time of the last call behind a tick of the clock that it has met, if it has met one.
    overrun: Option<Duration>,
}

impl Instance {
    /// An instance that knows its settings and its table, and what another one has saved, if that is
    /// something. What it asks for is added to `interests`.
    pub(super) fn start(
        order: &Order<'_>,
        saved: &[u8],
        table: &Arc<[Arc<Endpoint>]>,
        interests: &Arc<Interests>,
    ) -> Result<Self, Fault> {
        let mut instance = Self::configured(order, interests)?;
        if !saved.is_empty() {
            instance.restore(saved)?;
        }
        instance.set_endpoints(table)?;
        Ok(instance)
    }

    /// An instance that knows its settings, and waits for its table.
    pub(super) fn configured(order: &Order<'_>, interests: &Arc<Interests>) -> Result<Self, Fault> {
        let plugin = order.plugin;
        let output = Output::new(order.upstream, &plugin.name, plugin.journal.get().cloned());
        let mut guest = Guest::new(order.limits.memory, output, Arc::clone(interests));
        if order.listen {
            guest.ear = Ear::Listening(Vec::new());
        }
        let mut instance = Self::new(order.engine, &plugin.prepared, guest, order.limits)?;
        instance
            .call(PATIENCE, |exports, store| {
                exports
                    .policy
                    .pointsman_balancer_policy()
                    .call_configure(store, order.config)
            })?
            .map_err(Fault::Configuration)?;
        Ok(instance)
    }

    /// Tries settings out, in an instance that is then thrown away.
    ///
    /// # Errors
    /// What the plugin says of them, or how it fails.
    pub(super) fn configure(engine: &Engine, plugin: &Plugin, config: &str) -> Result<(), Fault> {
        let none: Arc<[Arc<Endpoint>]> = Arc::new([]);
        let order = Order {
            engine,
            plugin,
            upstream: "",
            config,
            limits: engine.limits(),
            listen: false,
        };
        Self::start(&order, &[], &none, &Arc::default()).map(|_| ())
    }

    /// Asks a component what it is, in an instance that is then thrown away.
    pub(super) fn describe(
        engine: &Engine,
        prepared: &Prepared,
        digest: &str,
    ) -> Result<Description, LoadError> {
        let describe = || {
            let limits = engine.limits();
            let output = Output::new("", digest, None);
            let guest = Guest::new(limits.memory, output, Arc::default());
            let mut instance = Self::new(engine, prepared, guest, limits)?;
            instance.call(PATIENCE, |exports, store| {
                let policy = exports.policy.pointsman_balancer_policy();
                policy.call_describe(store)
            })
        };
        describe().map_err(|fault: Fault| match fault {
            Fault::Limit(_) | Fault::Memory(_) => LoadError::Limit(fault.to_string()),
            other => LoadError::Describe(other.to_string()),
        })
    }

    fn new(
        engine: &Engine,
        prepared: &Prepared,
        guest: Guest,
        limits: Limits,
    ) -> Result<Self, Fault> {
        let mut store = Store::new(&engine.wasm, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        let budget = limits.pick_timeout;
        let ticks = budget.as_nanos().div_ceil(engine.tick.as_nanos());
        let pick_ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        store
            .epoch_deadline_callback(move |mut context| check_deadline(context.data_mut(), budget));
        // Instantiation runs the guest's start code.
        store.set_epoch_deadline(first_look(pick_ticks, PATIENCE));
        if let Some(fuel) = engine.fuel {
            refuel(&mut store, fuel * u64::from(PATIENCE));
        }
        let exports = catch_unwind(AssertUnwindSafe(|| prepared.instantiate(&mut store)))
            .unwrap_or_else(|_| Err(wasmtime::Error::msg("the host panicked")))
            .map_err(|error| fault(&mut store, &error))?;
        store.data_mut().overdue = None;
        Ok(Self {
            store,
            exports,
            pick_ticks,
            fuel: engine.fuel,
            state: limits.state,
            overrun: None,
        })
    }

    /// A lower bound of the CPU time of the last pick, if the clock has ticked during it. That is so for any
    /// part of picks as likely as it is long, and no guest can know when it will be.
    #[inline]
    pub(super) fn take_overrun(&mut self) -> Option<Duration> {
        self.overrun.take()
    }

    /// What it hands over; empty for nothing.
    pub(super) fn save(&mut self) -> Result<Vec<u8>, Fault> {
        let limit = self.state;
        if limit == 0 {
            return Ok(Vec::new());
        }
        // A little too much is told in figures; all that is more is not copied at all.
        self.store
            .set_hostcall_fuel(limit.saturating_add(HOSTCALL_FUEL));
        let saved = self.call(PATIENCE, |exports, store| match &exports.hand_over {
            Some(hand_over) => hand_over.pointsman_balancer_state().call_save(store),
            None => Ok(Vec::new()),
        });
        self.store.set_hostcall_fuel(HOSTCALL_FUEL);
        let saved = saved?;
        match saved.len() {
            size if size > limit => Err(Fault::StateSize { size, limit }),
            _ => Ok(saved),
        }
    }

    /// Takes over what another instance has saved, before its first table.
    pub(super) fn restore(&mut self, saved: &[u8]) -> Result<(), Fault> {
        self.call(PATIENCE, |exports, store| match &exports.hand_over {
            Some(hand_over) => hand_over
                .pointsman_balancer_state()
                .call_restore(store, saved),
            None => Ok(Err("it has no interface for that".into())),
        })?
        .map_err(Fault::State)
    }

    /// Adds what it has asked for, and what it will, to these.
    pub(super) fn report_to(&mut self, interests: &Arc<Interests>) {
        self.store.data_mut().report_to(interests);
    }

    /// What the gateway answered to questions of the last call, if somebody listens.
    pub(super) fn heard(&self) -> &[u64] {
        match &self.store.data().ear {
            Ear::Listening(heard) => heard,
            Ear::Deaf | Ear::Prompted(_) => &[],
        }
    }

    /// Answers questions of the next call from here, and not from the endpoints.
    pub(super) fn prompt(&mut self, answers: Vec<u64>) {
        self.store.data_mut().ear = Ear::Prompted(answers.into_iter());
    }

    /// Bytes of memory that it has taken.
    pub(super) fn memory(&self) -> usize {
        self.store.data().limits.memory
    }

    /// Replaces the table that positions refer to.
    pub(super) fn set_endpoints(&mut self, table: &Arc<[Arc<Endpoint>]>) -> Result<(), Fault> {
        self.store.data_mut().set_endpoints(table);
        let rows: Vec<bindings::Endpoint> = table
            .iter()
            .map(|endpoint| bindings::Endpoint {
                id: endpoint.id,
                weight: endpoint.weight,
            })
            .collect();
        self.call(PATIENCE, |exports, store| {
            exports
                .policy
                .pointsman_balancer_policy()
                .call_endpoints_changed(store, &rows)
        })
    }

    /// Asks for a position.
    pub(super) fn pick(&mut self, request: bindings::Request) -> Result<Option<u32>, Fault> {
        self.store.data_mut().now = request.now;
        self.call(1, |exports, store| {
            exports
                .policy
                .pointsman_balancer_policy()
                .call_pick(store, request)
        })
    }

    /// Asks for a position, with load columns.
    pub(super) fn pick_by_load(
        &mut self,
        request: bindings::Request,
        load: &[u32],
    ) -> Result<Option<u32>, Fault> {
        self.store.data_mut().now = request.now;
        self.call(1, |exports, store| {
            exports
                .policy
                .pointsman_balancer_policy()
                .call_pick_by_load(store, request, load)
        })
    }

    #[inline]
    fn call<T>(
        &mut self,
        patience: u32,
        call: impl FnOnce(&Exports, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        // At a pick the next tick is looked at, whatever it may take: see `take_overrun`.
        let first = match patience {
            1 => 1,
            more => first_look(self.pick_ticks, more),
        };
        self.store.set_epoch_deadline(first);
        if let Some(fuel) = self.fuel {
            refuel(&mut self.store, fuel * u64::from(patience));
        }
        if let Ear::Listening(heard) = &mut self.store.data_mut().ear {
            heard.clear();
        }
        // wasmtime is not known to panic here; if it does, it costs an instance and no worker.
        let called = catch_unwind(AssertUnwindSafe(|| call(&self.exports, &mut self.store)));
        let outcome = match called {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(fault(&mut self.store, &error)),
            Err(_) => Err(Fault::Trap("the host panicked".into())),
        };
        let guest = self.store.data_mut();
        if let Some(overdue) = guest.overdue.take() {
            let rest = thread_cpu_time().saturating_sub(overdue.cpu);
            self.overrun = (patience == 1).then_some(rest);
        }
        // A growth that was denied and that the guest coped with is no part of a later fault.
        guest.limits.denied = None;
        guest.output.end_call();
        outcome
    }
}

/// Ticks after which it is looked at for the first time how long a call takes. Its time counts from there.
fn first_look(pick_ticks: u64, patience: u32) -> u64 {
    let ticks = pick_ticks.saturating_mul(u64::from(patience));
    ticks.saturating_sub(1).max(1)
}

fn refuel(store: &mut Store<Guest>, fuel: u64) {
    // It fails where the engine counts nothing, and then there is no limit to set.
    let _ = store.set_fuel(fuel);
}

/// Called when a deadline has passed by the wall clock. The guest is late only if it used the time:
/// on a busy machine it may not have run at all. The CPU clock is read here and nowhere else, so it
/// costs nothing while guests are quick.
fn check_deadline(guest: &mut Guest, budget: Duration) -> wasmtime::Result<UpdateDeadline> {
    let cpu = thread_cpu_time();
    let Some(overdue) = guest.overdue else {
        let at = Instant::now();
        guest.overdue = Some(Overdue { cpu, at });
        return Ok(UpdateDeadline::Continue(1));
    };
    let used = cpu.saturating_sub(overdue.cpu);
    if used >= budget || overdue.at.elapsed() >= budget * STARVATION {
        return Err(Late.into());
    }
    Ok(UpdateDeadline::Continue(1))
}

/// What a guest did wrong, with what it said about it: the words of a panic tell more than its trap.
pub(super) fn fault(store: &mut Store<Guest>, error: &wasmtime::Error) -> Fault {
    let most = store.hostcall_fuel() >> 10;
    let guest = store.data_mut();
    let denied = guest.limits.denied.take();
    let trap = error.downcast_ref::<Trap>();
    if error.is::<Late>() || matches!(trap, Some(Trap::Interrupt | Trap::OutOfFuel)) {
        return Fault::Deadline;
    }
    let mut cause = error.root_cause().to_string();
    if let Some(reason) = sandbox::too_many(&cause) {
        return Fault::Limit(reason);
    }
    if trap == Some(&Trap::StackOverflow) {
        cause = format!("{cause}, of which it may have {} KiB", GUEST_STACK >> 10);
    }
    if cause.contains(HOSTCALL_FUEL_EXHAUSTED) {
        cause = format!("it handed over too much data in one call, more than {most} KiB");
    }
    let words = guest.output.last_words();
    match (denied, trap) {
        // It could not even be made.
        (Some(denied @ Denied::Table(_)), None) => Fault::Limit(denied.to_string()),
        (Some(denied), _) => Fault::Memory(quoting(format!("{denied}: {cause}"), words)),
        (None, _) => Fault::Trap(quoting(cause, words)),
    }
}

fn quoting(cause: String, words: Option<String>) -> String {
    match words {
        Some(words) => format!("{cause}; it said: {words}"),
        None => cause,
    }
}
