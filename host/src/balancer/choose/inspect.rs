//! Access to a balancer from outside: an observer of its picks, its parts, and what it would
//! answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Balancer, Choice, PickRequest, Slot, Unavailable, untried};
use crate::balancer::facts::RequestFacts;
use crate::balancer::kept_facts::KeptFacts;
use crate::balancer::limits::PickLimits;
use crate::balancer::loaded::LoadedBalancer;
use crate::balancer::observer::PickObserver;
use crate::endpoint::{Endpoint, RequestCost};

impl Balancer {
    /// Sets the observer of its picks from the next one on, or none.
    pub(in crate::balancer) fn set_observer(&self, observer: Option<Arc<dyn PickObserver>>) {
        let mut inner = self.inner.lock();
        if let Some(observer) = &observer {
            observer.set_endpoints(&inner.table);
        }
        self.observed.store(observer.is_some(), Ordering::Relaxed);
        self.observer.write().clone_from(&observer);
        let before = std::mem::replace(&mut inner.observer, observer);
        // This may drop an instance, which takes longer than other picks should wait for the lock.
        drop(inner);
        drop(before);
    }

    /// How many bytes of a request's body an observer may ask about. No request waits for them.
    pub fn observed_body(&self) -> usize {
        if !self.observed.load(Ordering::Relaxed) {
            return 0;
        }
        let observer = self.observer.read();
        observer.as_ref().map_or(0, |observer| observer.body())
    }

    /// Copies the facts of a request for an observer.
    #[inline]
    pub(super) fn keep_facts(&self, request: &PickRequest<'_>) -> Option<Box<KeptFacts>> {
        if !self.observed.load(Ordering::Relaxed) {
            return None;
        }
        let observer = self.observer.read().clone()?;
        observer.keep(request)
    }

    /// Has the questions about bodies that the plugin has asked lately answered for a request.
    pub(in crate::balancer) fn prepare(&self, facts: &dyn RequestFacts) {
        self.interests.prepare(facts);
    }

    /// The current plugin, and its settings.
    pub fn current(&self) -> (Arc<LoadedBalancer>, String) {
        let inner = self.inner.lock();
        (Arc::clone(&inner.plugin), inner.config.clone())
    }

    /// The limits of its plugin.
    pub fn limits(&self) -> PickLimits {
        self.inner.lock().limits
    }

    /// The endpoints to choose from.
    pub fn endpoints(&self) -> Arc<[Arc<Endpoint>]> {
        Arc::clone(&self.table.read())
    }

    /// Whether there is an instance.
    pub(in crate::balancer) fn has_instance(&self) -> bool {
        matches!(self.inner.lock().slot, Slot::Running(_))
    }

    /// Asks the plugin for a position to which the caller sends no request, for what that would
    /// weigh, and for its tag. None if it has no answer.
    pub(in crate::balancer) fn ask(
        &self,
        request: PickRequest<'_>,
        tried: &[u64],
    ) -> Option<Choice<(usize, RequestCost, u64)>> {
        let mut inner = self.inner.lock();
        inner.counters.picks += 1;
        if inner.table.is_empty() {
            return Some(Choice::Empty);
        }
        match inner.ask(self, request, tried) {
            Ok(Some((position, cost))) => {
                let position = untried(&inner.table, position, tried);
                let tag = match &inner.slot {
                    Slot::Running(instance) => instance.tag(),
                    Slot::Empty | Slot::Quarantined(_) => 0,
                };
                Some(Choice::Endpoint((position, cost, tag)))
            }
            Ok(None) => {
                inner.counters.refused += 1;
                Some(Choice::Refused(inner.refusal))
            }
            Err(Unavailable(cause)) => {
                inner.counters.fallback_picks += 1;
                inner.counters.fallback_picks_by_kind.add(cause);
                None
            }
        }
    }
}
