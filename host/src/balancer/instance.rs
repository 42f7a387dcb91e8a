//! One instance of a balancer: its calls and its answers.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;

use super::bindings::{self, Description};
use super::check::LoadError;
use super::columns::Interests;
use super::fault::Fault;
use super::imports::{EarlierTries, Guest, LoadAnswers, LoadView};
use super::limits::PickLimits;
use super::loaded::{Exports, LoadedBalancer, Prepared};
use super::request::Refusal;
use crate::component::{ComponentHost, GuestFault, Output, Sandbox};
use crate::endpoint::{EndedTry, Endpoint, RequestCost};
use crate::trace::EndpointFact;

/// What an instance is made from.
pub(super) struct InstanceSpec<'a> {
    pub(super) host: &'a ComponentHost,
    pub(super) plugin: &'a LoadedBalancer,
    /// The upstream whose requests it places.
    pub(super) upstream: &'a str,
    pub(super) config: &'a str,
    pub(super) limits: PickLimits,
    /// Whether the answers to its questions are kept for [`Instance::recorded_answers`].
    pub(super) record: bool,
}

/// An instance in its sandbox.
pub(super) struct Instance {
    sandbox: Sandbox<LoadView>,
    exports: Exports,
    /// Largest state that may be saved, in bytes.
    max_state: usize,
}

impl Instance {
    /// An instance that has its settings, the saved state of another one if that is not empty, and
    /// its table. The columns that it asks for are added to `interests`.
    pub(super) fn start(
        spec: &InstanceSpec<'_>,
        saved: &[u8],
        table: &Arc<[Arc<Endpoint>]>,
        interests: &Arc<Interests>,
    ) -> Result<Self, Fault> {
        let mut instance = Self::configured(spec, interests)?;
        if !saved.is_empty() {
            instance.restore(saved)?;
        }
        instance.set_endpoints(table)?;
        Ok(instance)
    }

    /// An instance that has its settings, and no table yet.
    pub(super) fn configured(
        spec: &InstanceSpec<'_>,
        interests: &Arc<Interests>,
    ) -> Result<Self, Fault> {
        let plugin = spec.plugin;
        let output = Output::new(spec.upstream, &plugin.identity.name, plugin.journal.clone());
        let answers = if spec.record {
            LoadAnswers::Recorded(Vec::new())
        } else {
            LoadAnswers::Live
        };
        let load = LoadView::new(answers, Arc::clone(interests));
        let guest = Guest::new(spec.limits.memory, output, load);
        let mut instance = Self::new(spec.host, &plugin.prepared, guest, spec.limits)?;
        instance
            .call_outside_pick(|exports, store| {
                exports
                    .policy
                    .pointsman_balancer_policy()
                    .call_configure(store, spec.config)
            })?
            .map_err(Fault::Configuration)?;
        Ok(instance)
    }

    /// Tries settings, in an instance that is then dropped.
    ///
    /// # Errors
    /// The plugin's message about them, or its fault.
    pub(super) fn configure(
        host: &ComponentHost,
        limits: PickLimits,
        plugin: &LoadedBalancer,
        config: &str,
    ) -> Result<(), Fault> {
        let none: Arc<[Arc<Endpoint>]> = Arc::new([]);
        let spec = InstanceSpec {
            host,
            plugin,
            upstream: "",
            config,
            limits,
            record: false,
        };
        Self::start(&spec, &[], &none, &Arc::default()).map(|_| ())
    }

    /// Has a component describe itself, in an instance that is then dropped.
    pub(super) fn describe(
        host: &ComponentHost,
        limits: PickLimits,
        prepared: &Prepared,
        digest: &str,
    ) -> Result<Description, LoadError> {
        let describe = || {
            let output = Output::new("", digest, None);
            let load = LoadView::new(LoadAnswers::Live, Arc::default());
            let guest = Guest::new(limits.memory, output, load);
            let mut instance = Self::new(host, prepared, guest, limits)?;
            instance.call_outside_pick(|exports, store| {
                let policy = exports.policy.pointsman_balancer_policy();
                policy.call_describe(store)
            })
        };
        describe().map_err(|fault: Fault| match fault {
            Fault::Guest(GuestFault::Limit(_) | GuestFault::Memory(_)) => {
                LoadError::Limit(fault.to_string())
            }
            other => LoadError::Describe(other.to_string()),
        })
    }

    fn new(
        host: &ComponentHost,
        prepared: &Prepared,
        guest: Guest,
        limits: PickLimits,
    ) -> Result<Self, Fault> {
        let (sandbox, exports) = Sandbox::new(host, guest, limits.pick_timeout, |store| {
            prepared.instantiate(store)
        })?;
        Ok(Self {
            sandbox,
            exports,
            max_state: limits.state,
        })
    }

    /// A lower bound of the CPU time of the last pick, if the clock ticked during it. The longer a
    /// part of a pick takes, the likelier a tick falls into it, and no guest can know when one
    /// will.
    #[inline]
    pub(super) fn take_overrun(&mut self) -> Option<Duration> {
        self.sandbox.take_overrun()
    }

    /// The state that it saves for its successor; empty if it saves none.
    pub(super) fn save(&mut self) -> Result<Vec<u8>, Fault> {
        let limit = self.max_state;
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.forget_recorded();
        let exports = &self.exports;
        let saved = self
            .sandbox
            .call_for_bytes(limit, |store| match &exports.hand_over {
                Some(hand_over) => hand_over.pointsman_balancer_state().call_save(store),
                None => Ok(Vec::new()),
            })?;
        match saved.len() {
            size if size > limit => Err(Fault::StateSize { size, limit }),
            _ => Ok(saved),
        }
    }

    /// Restores the state that another instance has saved, before the first table.
    pub(super) fn restore(&mut self, saved: &[u8]) -> Result<(), Fault> {
        self.call_outside_pick(|exports, store| match &exports.hand_over {
            Some(hand_over) => hand_over
                .pointsman_balancer_state()
                .call_restore(store, saved),
            None => Ok(Err("it has no interface for that".into())),
        })?
        .map_err(Fault::State)
    }

    /// Adds what it has asked for, and what it asks for from now on, to these.
    pub(super) fn report_to(&mut self, interests: &Arc<Interests>) {
        self.sandbox.guest_mut().own.report_to(interests);
    }

    /// Has its log lines be those of this balancer, which is of the same component, from now on.
    pub(super) fn belongs_to(&mut self, plugin: &LoadedBalancer) {
        let output = &mut self.sandbox.guest_mut().output;
        output.belongs_to(&plugin.identity.name, plugin.journal.clone());
    }

    /// The host's answers to questions of the last call, if they are recorded.
    pub(super) fn recorded_answers(&self) -> &[u64] {
        match &self.sandbox.guest().own.answers {
            LoadAnswers::Recorded(answers) => answers,
            LoadAnswers::Live | LoadAnswers::Replayed(_) => &[],
        }
    }

    /// The host's answers to questions about the endpoints of the present table, if they are
    /// recorded.
    pub(super) fn recorded_endpoint_facts(&self) -> Vec<EndpointFact> {
        self.sandbox.guest().own.facts.recorded()
    }

    /// Answers questions about the endpoints of the next table with these facts, and not from the
    /// endpoints.
    pub(super) fn replay_endpoint_facts(&mut self, facts: &[EndpointFact]) {
        self.sandbox.guest_mut().own.facts.replay(facts);
    }

    /// Answers questions of the next call with these answers, and not from the endpoints.
    pub(super) fn replay(&mut self, answers: Vec<u64>) {
        self.sandbox.guest_mut().own.answers = LoadAnswers::Replayed(answers.into_iter());
    }

    /// Answers its questions about the tries of a request from now on, until it is told otherwise
    /// after the pick. `tried` has the ids of endpoints.
    pub(super) fn begin_tries(&mut self, last_status: Option<u16>, tried: &[u64]) {
        self.sandbox.guest_mut().own.tries = Some(EarlierTries {
            last_status,
            tried: tried.to_vec(),
        });
    }

    /// Answers no more questions about tries.
    pub(super) fn end_tries(&mut self) {
        self.sandbox.guest_mut().own.tries = None;
    }

    /// How it has said that the request is refused, if the last pick returned none.
    pub(super) fn take_refusal(&mut self) -> Option<Refusal> {
        self.sandbox.guest_mut().own.refusal.take()
    }

    /// The tag that it has given to the last pick; 0 for none.
    pub(super) fn tag(&self) -> u64 {
        self.sandbox.guest().own.tag
    }

    /// Tells it of a try that has ended, if it exports `outcome`.
    pub(super) fn try_ended(&mut self, ended: &EndedTry) -> Result<(), Fault> {
        self.sandbox.guest_mut().now = ended.now;
        let ended = bindings::Ended {
            endpoint: ended.endpoint,
            tag: ended.tag,
            now: ended.now,
            status: ended.status,
            retry_after: ended.retry_after,
            first_byte: ended.first_byte,
            took: ended.took,
            bytes: ended.bytes,
            why: ended.why.name(),
        };
        self.call(|exports, store| match &exports.outcome_aware {
            Some(outcome_aware) => outcome_aware
                .pointsman_balancer_outcome()
                .call_try_ended(store, ended),
            None => Ok(()),
        })
    }

    /// Instructions of the last pick, of an engine that counts them.
    #[cfg(test)]
    pub(super) fn instructions(&self) -> Option<u64> {
        self.sandbox.instructions()
    }

    /// Bytes of memory that it has taken.
    pub(super) fn memory(&self) -> usize {
        self.sandbox.memory()
    }

    /// Replaces the table that positions refer to.
    pub(super) fn set_endpoints(&mut self, table: &Arc<[Arc<Endpoint>]>) -> Result<(), Fault> {
        let own = &mut self.sandbox.guest_mut().own;
        own.set_endpoints(table);
        own.facts.open();
        let rows: Vec<bindings::Endpoint> = table
            .iter()
            .map(|endpoint| bindings::Endpoint {
                id: endpoint.id,
                weight: endpoint.weight,
            })
            .collect();
        let told = self.call_outside_pick(|exports, store| {
            exports
                .policy
                .pointsman_balancer_policy()
                .call_endpoints_changed(store, &rows)
        });
        self.sandbox.guest_mut().own.facts.close();
        told
    }

    /// Asks for a position.
    pub(super) fn pick(&mut self, request: bindings::Request) -> Result<Option<u32>, Fault> {
        self.begin_pick(request.now);
        self.call(|exports, store| {
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
        self.begin_pick(request.now);
        self.call(|exports, store| {
            exports
                .policy
                .pointsman_balancer_policy()
                .call_pick_by_load(store, request, load)
        })
    }

    /// Asks for a position and for what the request weighs, of a plugin that says it.
    pub(super) fn pick_weighted(
        &mut self,
        request: bindings::Request,
        load: &[u32],
    ) -> Result<Option<(u32, RequestCost)>, Fault> {
        let bindings::Request {
            entropy,
            now,
            affinity,
            attempt,
        } = request;
        self.begin_pick(now);
        let weighted = self.call(|exports, store| match &exports.weighing {
            Some(weighing) => weighing
                .pointsman_balancer_work()
                .call_pick_weighted(store, entropy, now, affinity, attempt, load),
            None => Err(wasmtime::Error::msg("it does not export pick-weighted")),
        })?;
        Ok(weighted.map(|weighted| {
            let cost = RequestCost {
                first_byte: weighted.first_byte,
                rest: weighted.rest,
            };
            (weighted.position, cost)
        }))
    }

    #[inline]
    fn begin_pick(&mut self, now: u64) {
        let guest = self.sandbox.guest_mut();
        guest.now = now;
        // What it has said in another call is not about this pick.
        guest.own.refusal = None;
        guest.own.tag = 0;
    }

    #[inline]
    fn call<T>(
        &mut self,
        call: impl FnOnce(&Exports, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.forget_recorded();
        let exports = &self.exports;
        Ok(self.sandbox.call(|store| call(exports, store))?)
    }

    fn call_outside_pick<T>(
        &mut self,
        call: impl FnOnce(&Exports, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.forget_recorded();
        let exports = &self.exports;
        Ok(self
            .sandbox
            .call_outside_pick(|store| call(exports, store))?)
    }

    #[inline]
    fn forget_recorded(&mut self) {
        if let LoadAnswers::Recorded(answers) = &mut self.sandbox.guest_mut().own.answers {
            answers.clear();
        }
    }
}
