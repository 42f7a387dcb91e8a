//! Another plugin, other settings or other limits for an upstream, under traffic.
//!
//! The old instance serves picks until the new one is in its slot. If both plugins can save and
//! restore a state, the new instance takes over the state of the old one. In that case the new
//! instance is made and configured while the old one still serves. Picks wait only for the
//! hand-over of the state, up to their own bound; beyond that the host chooses by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Balancer, CostBudget, Counters, Handover, Inner, Slot, in_micros};
use crate::balancer::columns::Interests;
use crate::balancer::fault::Fault;
use crate::balancer::instance::{Instance, InstanceSpec};
use crate::balancer::limits::PickLimits;
use crate::balancer::loaded::LoadedBalancer;
use crate::balancer::tally::TIMED;
use crate::component::GuestFault;

/// Why no instance is asked for its state.
const SLOW: &str = "an earlier hand-over took too long, perhaps for another upstream";

/// What is to choose next.
struct Successor {
    plugin: Arc<LoadedBalancer>,
    config: String,
    limits: PickLimits,
}

impl Balancer {
    /// Switches to another plugin, or to other settings, from the next pick on. Does nothing if
    /// both are unchanged, so that a round robin keeps its position.
    pub fn replace(&self, plugin: Arc<LoadedBalancer>, config: String) {
        let limits = self.inner.lock().limits;
        self.switch(Successor {
            plugin,
            config,
            limits,
        });
    }

    /// Sets other limits for the plugin, from the next pick on.
    pub fn set_limits(&self, limits: PickLimits) {
        let (plugin, config) = {
            let inner = self.inner.lock();
            (Arc::clone(&inner.plugin), inner.config.clone())
        };
        self.switch(Successor {
            plugin,
            config,
            limits,
        });
    }

    fn switch(&self, next: Successor) {
        let (takes_over, slow) = {
            let mut inner = self.inner.lock();
            if inner.is_as(&next) {
                inner.rename(next.plugin);
                return;
            }
            let slow = inner.plugin.prepared.is_slow() || next.plugin.prepared.is_slow();
            (inner.can_hand_over_to(&next.plugin), slow)
        };
        let interests = Arc::new(Interests::new(&next.plugin.columns));
        // If there is no state to take over, or the hand-over is known to be slow, the next pick
        // makes the instance.
        let instance = (takes_over && !slow).then(|| {
            let spec = InstanceSpec {
                host: &self.engine.components,
                plugin: &next.plugin,
                upstream: &self.upstream,
                config: &next.config,
                limits: next.limits,
                record: false,
            };
            Instance::configured(&spec, &interests)
        });
        // Dropped after the lock is released.
        let _old = {
            let mut inner = self.inner.lock();
            self.busy.store(0, Ordering::Relaxed);
            self.quarantine_picks.store(0, Ordering::Relaxed);
            self.quarantined_until.store(0, Ordering::Relaxed);
            let patience = in_micros(next.limits.pick_timeout);
            self.patience.store(patience, Ordering::Relaxed);
            let predecessor = Arc::clone(&inner.plugin);
            let mut old = inner.make_way(next);
            inner.begin_outcomes(self);
            // A trace is of one balancer, so the recording ends.
            inner.end_recording(&self.recorded);
            if takes_over && slow {
                inner.lose_state(&self.upstream, SLOW.into());
            }
            self.interests.reset(&inner.plugin.columns);
            let plugin = &inner.plugin;
            for (flag, value) in [
                (&self.reads_bodies, plugin.reads_bodies),
                (&self.scans_bodies, plugin.scans_bodies),
            ] {
                flag.store(value, Ordering::Relaxed);
            }
            match (instance, &mut old) {
                (Some(Ok(new)), Slot::Running(old)) => {
                    self.install(&mut inner, new, old, &predecessor)
                }
                (Some(Err(fault)), _) => {
                    note_slowness(&inner.plugin, &fault);
                    inner.counters.instances += 1;
                    inner.record_fault(&self.upstream, &fault);
                }
                // The old instance has failed meanwhile, or the next pick makes the new one.
                (Some(Ok(_)), _) | (None, _) => {}
            }
            old
        };
    }

    /// Puts an instance into the slot, with the state of the one before.
    fn install(
        &self,
        inner: &mut Inner,
        mut new: Instance,
        old: &mut Instance,
        predecessor: &LoadedBalancer,
    ) {
        let saved = match old.save() {
            Ok(saved) => saved,
            Err(fault) => {
                note_slowness(predecessor, &fault);
                inner.lose_state(&self.upstream, fault.to_string());
                Vec::new()
            }
        };
        if !saved.is_empty() {
            if let Err(fault) = new.restore(&saved) {
                // It may have restored half of the state: the next pick makes another instance.
                note_slowness(&inner.plugin, &fault);
                inner.lose_state(&self.upstream, fault.to_string());
                return;
            }
            inner.counters.handover = Some(Handover {
                bytes: saved.len(),
                failure: None,
            });
        }
        inner.counters.instances += 1;
        new.report_to(&self.interests);
        match new.set_endpoints(&inner.table) {
            Ok(()) => inner.slot = Slot::Running(Box::new(new)),
            Err(fault) => inner.record_fault(&self.upstream, &fault),
        }
    }
}

impl Balancer {
    /// The state that the instance saves for an instance of this plugin, while it stays in service;
    /// none if there is no state to take over.
    ///
    /// # Errors
    /// Why the state cannot be saved.
    pub(in crate::balancer) fn saved_for(
        &self,
        next: &LoadedBalancer,
    ) -> Result<Option<Vec<u8>>, String> {
        let mut inner = self.inner.lock();
        if !inner.can_hand_over_to(next) {
            return Ok(None);
        }
        if inner.tape.is_some() {
            return Err("a recording is running, and a trace cannot hold a hand-over".into());
        }
        if inner.plugin.prepared.is_slow() || next.prepared.is_slow() {
            return Err(SLOW.into());
        }
        let Slot::Running(instance) = &mut inner.slot else {
            return Ok(None);
        };
        let fault = match instance.save() {
            Ok(saved) => return Ok(Some(saved).filter(|saved| !saved.is_empty())),
            Err(fault) => fault,
        };
        note_slowness(&inner.plugin, &fault);
        // An instance that has trapped cannot be called again; one that saved too much can.
        if !matches!(fault, Fault::StateSize { .. }) {
            inner.record_fault(&self.upstream, &fault);
        }
        Err(fault.to_string())
    }

    /// Makes the instance, with the saved state of another one.
    ///
    /// # Errors
    /// The fault of the instance. The next pick makes one without that state.
    pub(crate) fn start_from(&self, saved: &[u8]) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let started = inner.fill_slot(self, saved);
        started.map_err(|_| inner.counters.last_fault.clone().unwrap_or_default())
    }
}

fn note_slowness(plugin: &LoadedBalancer, fault: &Fault) {
    if matches!(fault, Fault::Guest(GuestFault::Deadline)) {
        plugin.prepared.mark_slow();
    }
}

impl Inner {
    fn is_as(&self, next: &Successor) -> bool {
        self.plugin.digest == next.plugin.digest
            && self.config == next.config
            && self.limits == next.limits
    }

    /// Has the plugin be that of a balancer of another name, of the same component. The instance
    /// stays.
    fn rename(&mut self, plugin: Arc<LoadedBalancer>) {
        if self.plugin.identity.name == plugin.identity.name {
            return;
        }
        if let Slot::Running(instance) = &mut self.slot {
            instance.belongs_to(&plugin);
        }
        self.plugin = plugin;
    }

    /// Whether there is a state to take over: there is an instance, its plugin has the same name,
    /// and both plugins can save and restore a state.
    fn can_hand_over_to(&self, next: &LoadedBalancer) -> bool {
        matches!(self.slot, Slot::Running(_))
            && self.plugin.name == next.name
            && self.plugin.prepared.hands_over()
            && next.prepared.hands_over()
    }

    /// Empties the slot for another plugin, and returns what was in it.
    fn make_way(&mut self, next: Successor) -> Slot {
        let changes = self.plugin.digest != next.plugin.digest || self.config != next.config;
        let switches = self.counters.switches + u64::from(changes);
        self.plugin = next.plugin;
        self.config = next.config;
        self.limits = next.limits;
        self.faults = 0;
        self.last_fault = None;
        self.budget = CostBudget::NEW;
        self.next_timed = TIMED;
        if let Some(outcomes) = &self.outcomes {
            outcomes.forget_dropped();
        }
        // The counters are shown as those of the plugin, so they start anew.
        self.counters = Counters {
            switches,
            ..Counters::default()
        };
        std::mem::replace(&mut self.slot, Slot::Empty)
    }

    fn lose_state(&mut self, upstream: &str, failure: String) {
        let plugin = self.plugin.identity.name.as_str();
        tracing::warn!(
            upstream,
            plugin,
            "the state was not handed over, and the new instance starts without: {failure}"
        );
        self.counters.faults.state += 1;
        self.note_judged(upstream, &failure);
        self.counters.handover = Some(Handover {
            bytes: 0,
            failure: Some(failure),
        });
    }
}
