//! A loaded balancer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::bindings::{
    self, BalancerIndices, HandOver, HandOverIndices, OutcomeAware, OutcomeAwareIndices, Weighing,
    WeighingIndices,
};
use super::check;
use super::columns::Column;
use super::imports::Guest;
use super::note::BalancerVersion;
use crate::component::{InUse, Journal};

/// A component that was checked and is ready to be instantiated, for one balancer. Balancers of the
/// same component share what it was compiled to.
#[derive(Clone)]
pub struct LoadedBalancer {
    /// SHA-256 of the component, in lower-case hex.
    pub digest: String,
    /// Size of the component, in bytes.
    pub size: usize,
    /// The name that the plugin gives itself.
    pub name: String,
    /// The version that the plugin gives itself.
    pub version: String,
    /// Its digest and version, with the name of the balancer that it is used as: for the log, and
    /// for records that outlive the plugin.
    pub identity: Arc<BalancerVersion>,
    /// JSON Schema of its settings.
    pub config_schema: serde_json::Value,
    /// The load columns that it asks for.
    pub columns: Vec<Column>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The interfaces that it imports, all of which this gateway provides.
    pub imports: Vec<String>,
    /// Whether it may ask about the requests that it chooses for.
    pub(super) reads_facts: bool,
    /// Whether it may ask for the start of their bodies.
    pub(super) reads_bodies: bool,
    /// Whether it may ask about bodies beyond their start.
    pub(super) scans_bodies: bool,
    /// Whether it may ask about earlier tries of a request.
    pub(super) asks_about_tries: bool,
    /// Whether a trace of it may have what earlier versions of the contract do not know.
    pub(super) needs_new_trace: bool,
    pub(super) prepared: Arc<Prepared>,
    /// Where the log lines of the balancer are kept; none before it is used as one.
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) _in_use: InUse,
}

impl std::fmt::Debug for LoadedBalancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadedBalancer({} {})", self.name, self.version)
    }
}

impl LoadedBalancer {
    /// Whether it may ask about the requests that it chooses for.
    pub fn asks_about_requests(&self) -> bool {
        self.reads_facts
    }

    /// Whether it says what requests weigh.
    pub fn weighs_requests(&self) -> bool {
        self.prepared.weighs()
    }
}

/// A component that is linked, with the indices of its exports.
pub(super) struct Prepared {
    pre: InstancePre<Guest>,
    policy: BalancerIndices,
    hand_over: Option<HandOverIndices>,
    weighing: Option<WeighingIndices>,
    outcome_aware: Option<OutcomeAwareIndices>,
    /// Set when a hand-over took too long.
    slow: AtomicBool,
}

/// The functions that can be called.
pub(super) struct Exports {
    pub(super) policy: bindings::Balancer,
    pub(super) hand_over: Option<HandOver>,
    pub(super) weighing: Option<Weighing>,
    pub(super) outcome_aware: Option<OutcomeAware>,
}

impl Prepared {
    /// Looks the exports up: those of `policy`, and those of the optional interfaces that are among
    /// `exports`.
    pub(super) fn new(pre: InstancePre<Guest>, exports: &[String]) -> wasmtime::Result<Self> {
        let hand_over = check::hands_over(exports).then(|| HandOverIndices::new(&pre));
        let weighing = check::weighs(exports).then(|| WeighingIndices::new(&pre));
        let outcome_aware = check::takes_outcomes(exports).then(|| OutcomeAwareIndices::new(&pre));
        Ok(Self {
            policy: BalancerIndices::new(&pre)?,
            hand_over: hand_over.transpose()?,
            weighing: weighing.transpose()?,
            outcome_aware: outcome_aware.transpose()?,
            slow: AtomicBool::new(false),
            pre,
        })
    }

    /// Whether it can save and restore its state.
    pub(super) fn hands_over(&self) -> bool {
        self.hand_over.is_some()
    }

    /// Whether it says what requests weigh.
    pub(super) fn weighs(&self) -> bool {
        self.weighing.is_some()
    }

    /// Whether it is told what came of its picks.
    #[inline]
    pub(super) fn takes_outcomes(&self) -> bool {
        self.outcome_aware.is_some()
    }

    /// Notes that a hand-over took too long. A change of a thousand upstreams must not wait for it
    /// a thousand times.
    pub(super) fn mark_slow(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    /// Whether a hand-over took too long once, at any upstream.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    pub(super) fn instantiate(&self, mut store: &mut Store<Guest>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate(&mut store)?;
        let hand_over = self.hand_over.as_ref();
        let hand_over = hand_over.map(|indices| indices.load(&mut store, &instance));
        let weighing = self.weighing.as_ref();
        let weighing = weighing.map(|indices| indices.load(&mut store, &instance));
        let outcome_aware = self.outcome_aware.as_ref();
        let outcome_aware = outcome_aware.map(|indices| indices.load(&mut store, &instance));
        Ok(Exports {
            weighing: weighing.transpose()?,
            outcome_aware: outcome_aware.transpose()?,
            policy: self.policy.load(store, &instance)?,
            hand_over: hand_over.transpose()?,
        })
    }
}
