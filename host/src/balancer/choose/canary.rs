//! The balancer of a canary: another version at the same upstream, which takes a share of the
//! picks.
//!
//! It has a balancer of its own: its instance, lock, faults and quarantines do not affect the
//! active version. Both get the same tables, and see the same load, because the endpoints count it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Balancer, By, Choice, ChoiceDetails, Inner, PickRequest};
use crate::balancer::canary::{Placed, RunningCanary, Side};
use crate::balancer::columns::Observed;
use crate::balancer::limits::PickLimits;
use crate::endpoint::Endpoint;

/// The canary at this upstream.
pub(super) struct CanaryBalancer {
    canary: Arc<RunningCanary>,
    balancer: Arc<Balancer>,
    /// The observers of requests' outcomes, by the side that placed the request.
    placed: [Arc<Placed>; 2],
}

impl CanaryBalancer {
    pub(super) fn tell(&self, table: Arc<[Arc<Endpoint>]>) {
        self.balancer.tell(table);
    }
}

impl Balancer {
    /// Gives a canary its share from the next pick on, with these settings and limits; with none,
    /// ends the present canary. If this canary runs already, it goes on with these settings and
    /// limits. A new one begins with the state of the active version, if it can restore that. A
    /// recording ends, since it would hold only a part of the requests.
    pub fn set_canary(&self, wanted: Option<(Arc<RunningCanary>, String, PickLimits)>) {
        let Some((canary, config, limits)) = wanted else {
            self.end_canary();
            return;
        };
        let running = self.canary.read().clone();
        if let Some(other) = running.filter(|other| Arc::ptr_eq(&other.canary, &canary)) {
            let plugin = Arc::clone(&canary.plugin);
            other.balancer.replace(plugin, config);
            other.balancer.set_limits(limits);
            return;
        }
        self.end_canary();
        let table = self.endpoints();
        let other = self.canary_balancer(canary, config, limits, &table);
        let mut place = self.canary.write();
        // From here on, `set_endpoints` waits for this lock, finds the new canary and passes the
        // table on to it.
        let newest = self.endpoints();
        if !Arc::ptr_eq(&newest, &table) {
            other.tell(newest);
        }
        {
            let mut inner = self.inner.lock();
            inner.judged = Some((Arc::clone(&other.canary), Side::Stable));
            inner.end_recording(&self.recorded);
        }
        *place = Some(Arc::new(other));
        self.shared.store(true, Ordering::Relaxed);
    }

    fn end_canary(&self) {
        // From here on, new picks do not read `canary`, so none waits while it is changed.
        if !self.shared.swap(false, Ordering::Relaxed) {
            return;
        }
        self.inner.lock().judged = None;
        // The instance is dropped after the lock is released and the last pick that uses it has
        // ended.
        let before = self.canary.write().take();
        drop(before);
    }

    fn canary_balancer(
        &self,
        canary: Arc<RunningCanary>,
        config: String,
        limits: PickLimits,
        table: &Arc<[Arc<Endpoint>]>,
    ) -> CanaryBalancer {
        let plugin = Arc::clone(&canary.plugin);
        let balancer = Balancer::new(
            Arc::clone(&self.engine),
            &format!("{} (canary)", self.upstream),
            plugin,
            config,
        )
        .shared();
        balancer.set_limits(limits);
        balancer.tell(Arc::clone(table));
        balancer.inner.lock().judged = Some((Arc::clone(&canary), Side::Canary));
        // Without a state to take over, the first pick makes its instance.
        if let Ok(Some(saved)) = self.saved_for(&canary.plugin) {
            // A failure is a fault, which has been counted.
            let _ = balancer.start_from(&saved);
        }
        let placed = Side::ALL.map(|side| {
            let canary = Arc::clone(&canary);
            Arc::new(Placed { canary, side })
        });
        CanaryBalancer {
            canary,
            balancer,
            placed,
        }
    }

    pub(super) fn canary_wants(&self, observed: Observed) -> bool {
        let wants = |other: &Arc<CanaryBalancer>| other.balancer.interests.contains(observed);
        self.shared.load(Ordering::Relaxed) && self.canary.read().as_ref().is_some_and(wants)
    }

    /// Whether there is a canary of which this is true.
    pub(super) fn canary_any(&self, is: impl Fn(&Balancer) -> bool) -> bool {
        let is = |other: &Arc<CanaryBalancer>| is(&other.balancer);
        self.shared.load(Ordering::Relaxed) && self.canary.read().as_ref().is_some_and(is)
    }

    /// Determines the side of the request, and has the version of that side choose.
    #[inline(never)]
    pub(super) fn place_by_side<T>(
        &self,
        request: PickRequest<'_>,
        tried: &[u64],
        claim: impl FnOnce(Arc<Endpoint>, ChoiceDetails) -> T,
    ) -> Choice<T> {
        let other = self.canary.read().clone();
        let side = other
            .as_ref()
            .and_then(|other| Some((other, other.canary.side_of(&request)?)));
        let Some((other, side)) = side else {
            return self.choose(request, tried, |endpoint, _, details| {
                claim(endpoint, details)
            });
        };
        let canary = &other.canary;
        canary.note_pick(side);
        let balancer = match side {
            Side::Stable => self,
            Side::Canary => &*other.balancer,
        };
        let choice = balancer.choose(request, tried, |endpoint, by, mut details| {
            // The outcome of the host's own choice counts for neither side.
            details.observer = (by == By::Plugin).then(|| Arc::clone(&other.placed[side as usize]));
            claim(endpoint, details)
        });
        if side == Side::Canary
            && let Some(note) = request.note
        {
            note.set_canary();
        }
        if matches!(choice, Choice::Refused(_)) {
            canary.note_refusal(side);
        }
        choice
    }
}

impl Inner {
    /// Counts a fault at the canary, if there is one.
    pub(super) fn note_judged(&self, upstream: &str, fault: &str) {
        if let Some((canary, side)) = &self.judged {
            canary.note_fault(*side, upstream, fault);
        }
    }
}
