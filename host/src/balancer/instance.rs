//! One instance of a component, in a store of its own: a trap takes the store, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::{self, BalancerPre, Description};
use super::check::{Interests, LoadError};
use super::engine::{Engine, Plugin};
use super::sandbox::{Ear, Guest, Overdue};
use crate::upstream::Endpoint;

/// Calls other than picks may take this many times as long.
const PATIENCE: u32 = 10;

/// A call that is past its deadline by the wall clock, but has used little CPU time, is waiting for a
/// processor. It is left alone up to this many times its deadline.
const STARVATION: u32 = 50;

/// Memory that the host sets aside for what one call returns, in bytes: strings of a description.
const HOSTCALL_FUEL: usize = 1 << 20;

/// What a guest did wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It trapped, or panicked.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Deadline,
    /// It wanted more memory than it may have.
    #[error("it wanted more memory than it may have: {0}")]
    Memory(String),
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
}

/// The error that ends a call past its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
struct Late;

pub(super) struct Instance {
    store: Store<Guest>,
    balancer: bindings::Balancer,
    /// Ticks of the clock that a pick may take.
    pick_ticks: u64,
    /// Instructions that it may take, where these are counted.
    fuel: Option<u64>,
}

impl Instance {
    /// An instance that knows its settings and its table. What it asks for is added to `interests`; with
    /// `listen`, what it is answered is kept for [`Instance::heard`].
    pub(super) fn start(
        engine: &Engine,
        plugin: &Plugin,
        upstream: &str,
        config: &str,
        table: &Arc<[Arc<Endpoint>]>,
        interests: &Arc<Interests>,
        listen: bool,
    ) -> Result<Self, Fault> {
        let mut instance = Self::configured(engine, plugin, upstream, config, interests, listen)?;
        instance.set_endpoints(table)?;
        Ok(instance)
    }

    /// The same without a table.
    pub(super) fn configured(
        engine: &Engine,
        plugin: &Plugin,
        upstream: &str,
        config: &str,
        interests: &Arc<Interests>,
        listen: bool,
    ) -> Result<Self, Fault> {
        let mut guest = Guest::new(
            engine.settings.memory,
            upstream,
            &plugin.name,
            Arc::clone(interests),
        );
        if listen {
            guest.ear = Ear::Listening(Vec::new());
        }
        let mut instance = Self::new(engine, &plugin.pre, guest)?;
        instance
            .call(PATIENCE, |balancer, store| {
                balancer
                    .pointsman_balancer_policy()
                    .call_configure(store, config)
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
        Self::start(engine, plugin, "", config, &none, &Arc::default(), false).map(|_| ())
    }

    /// Asks a component what it is, in an instance that is then thrown away.
    pub(super) fn describe(
        engine: &Engine,
        pre: &BalancerPre<Guest>,
        digest: &str,
    ) -> Result<Description, LoadError> {
        let describe = || {
            let guest = Guest::new(engine.settings.memory, "", digest, Arc::default());
            let mut instance = Self::new(engine, pre, guest)?;
            instance.call(PATIENCE, |balancer, store| {
                balancer.pointsman_balancer_policy().call_describe(store)
            })
        };
        describe().map_err(|fault: Fault| LoadError::Describe(fault.to_string()))
    }

    fn new(engine: &Engine, pre: &BalancerPre<Guest>, guest: Guest) -> Result<Self, Fault> {
        let settings = &engine.settings;
        let mut store = Store::new(&engine.wasm, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        let ticks = settings
            .pick_timeout
            .as_nanos()
            .div_ceil(engine.tick.as_nanos());
        let pick_ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        let budget = settings.pick_timeout;
        store
            .epoch_deadline_callback(move |mut context| check_deadline(context.data_mut(), budget));
        // Instantiation runs the guest's start code.
        store.set_epoch_deadline(pick_ticks * u64::from(PATIENCE));
        if let Some(fuel) = engine.fuel {
            refuel(&mut store, fuel * u64::from(PATIENCE));
        }
        let balancer = catch_unwind(AssertUnwindSafe(|| pre.instantiate(&mut store)))
            .unwrap_or_else(|_| Err(wasmtime::Error::msg("the host panicked")))
            .map_err(|error| fault(&mut store, &error))?;
        store.data_mut().overdue = None;
        Ok(Self {
            store,
            balancer,
            pick_ticks,
            fuel: engine.fuel,
        })
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
        self.call(PATIENCE, |balancer, store| {
            balancer
                .pointsman_balancer_policy()
                .call_endpoints_changed(store, &rows)
        })
    }

    /// Bytes of memory that it has taken.
    pub(super) fn memory(&self) -> usize {
        self.store.data().limits.memory
    }

    /// Asks for a position.
    pub(super) fn pick(&mut self, request: bindings::Request) -> Result<Option<u32>, Fault> {
        self.store.data_mut().now = request.now;
        self.call(1, |balancer, store| {
            balancer
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
        self.call(1, |balancer, store| {
            balancer
                .pointsman_balancer_policy()
                .call_pick_by_load(store, request, load)
        })
    }

    #[inline]
    fn call<T>(
        &mut self,
        patience: u32,
        call: impl FnOnce(&bindings::Balancer, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.store
            .set_epoch_deadline(self.pick_ticks * u64::from(patience));
        if let Some(fuel) = self.fuel {
            refuel(&mut self.store, fuel * u64::from(patience));
        }
        if let Ear::Listening(heard) = &mut self.store.data_mut().ear {
            heard.clear();
        }
        // wasmtime is not known to panic here; if it does, it costs an instance and no worker.
        let called = catch_unwind(AssertUnwindSafe(|| call(&self.balancer, &mut self.store)));
        let outcome = match called {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(fault(&mut self.store, &error)),
            Err(_) => Err(Fault::Trap("the host panicked".into())),
        };
        let guest = self.store.data_mut();
        guest.overdue = None;
        // A growth that was denied and that the guest coped with is no part of a later fault.
        guest.limits.denied = false;
        guest.output.end_call();
        outcome
    }
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

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn fault(store: &mut Store<Guest>, error: &wasmtime::Error) -> Fault {
    let guest = store.data_mut();
    let denied = std::mem::take(&mut guest.limits.denied);
    let trap = error.downcast_ref::<Trap>();
    if error.is::<Late>() || matches!(trap, Some(Trap::Interrupt | Trap::OutOfFuel)) {
        return Fault::Deadline;
    }
    let cause = error.root_cause().to_string();
    if denied {
        Fault::Memory(cause)
    } else {
        Fault::Trap(cause)
    }
}
