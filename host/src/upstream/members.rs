//! All addresses of an upstream with what is known of them.
//!
//! What is known belongs to the address and outlives every change of targets and settings: nothing
//! is rebuilt, only compared. A removed address is remembered for a while, as in Kong, since it
//! often comes back at once with another weight.

mod report;
mod table;
mod targets;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use uuid::Uuid;

use super::memory::Memory;
use super::policy::Policy;
use super::resolve::WantedNames;
use crate::authority::Host;
use crate::balancer::{Balancer, Refusal};
use crate::endpoint::health::Source;
use crate::endpoint::{Endpoint, Labels, Live, Places};
use crate::endpoint_address::EndpointAddress;
use crate::entity::target::CircuitBreakers;
use crate::entity::upstream::Probe;
pub use report::{AddressReport, Weights};
use report::{describe, passes, weights};
pub use targets::ConfiguredTarget;

/// Why there is nothing to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NoPeer {
    /// There is no target, or none with a weight.
    NoTargets,
    /// No name of a target has an address.
    NoAddress,
    /// Every address is unavailable.
    NoneAvailable,
    /// Less of the weight is available than `healthchecks.threshold` asks for.
    BelowThreshold,
    /// The balancer refused the request.
    Refused,
    /// Every address has reached its limit of requests, and the queue is full or the wait took too
    /// long.
    Overflow,
}

/// Why a request was not placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unplaced {
    /// Why there is nothing to choose from.
    pub reason: NoPeer,
    /// How the client is answered, if the balancer has said it.
    pub refusal: Option<Refusal>,
}

impl From<NoPeer> for Unplaced {
    fn from(reason: NoPeer) -> Self {
        let refusal = None;
        Self { reason, refusal }
    }
}

impl NoPeer {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NoTargets,
        Self::NoAddress,
        Self::NoneAvailable,
        Self::BelowThreshold,
        Self::Refused,
        Self::Overflow,
    ];

    /// A code for programs; it does not change.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoTargets => "no_targets",
            Self::NoAddress => "no_address",
            Self::NoneAvailable => "none_available",
            Self::BelowThreshold => "below_threshold",
            Self::Refused => "refused_by_balancer",
            Self::Overflow => "overflow",
        }
    }
}

/// An address of a target.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) target: Uuid,
    pub(super) host: Host<'static>,
    pub(super) address: EndpointAddress,
    /// As configured.
    pub(super) weight: u32,
    pub(super) failover: bool,
    pub(super) probe: Probe,
    limits: CircuitBreakers,
    labels: Labels,
    pub(super) live: Arc<Live>,
    /// When it joined, or last became available again.
    since: Instant,
    /// Whether it was available, and healthy, when endpoints were last chosen.
    was_available: bool,
    was_healthy: bool,
}

impl Member {
    /// Whether checks and outlier detection let it be chosen.
    pub(super) fn is_available(&self) -> bool {
        self.live.health.is_available() && !self.live.ejection.is_on()
    }

    /// Whether it gets no new sessions, since its weight is 0, and is available for those that it
    /// has.
    fn rests(&self) -> bool {
        self.weight == 0 && self.is_available()
    }

    /// The endpoint that balancers and requests use.
    fn endpoint(&self, weight: u32) -> Arc<Endpoint> {
        let mut endpoint = Endpoint::sharing(
            self.id,
            self.address.clone(),
            self.host.clone(),
            weight,
            Arc::clone(&self.live),
        );
        endpoint.limits = self.limits;
        endpoint.labels = self.labels.clone();
        Arc::new(endpoint)
    }
}

/// All addresses of an upstream.
#[derive(Debug)]
pub(super) struct Members {
    memory: Arc<Memory>,
    places: Arc<Places>,
    inner: Mutex<Inner>,
    policy: RwLock<Arc<Policy>>,
    balancer: Arc<Balancer>,
    /// The [`NoPeer`] for when the table is empty.
    reason: AtomicU8,
    /// Whether there are addresses that only keep their present sessions.
    keeps_sessions: AtomicBool,
    /// Whether there are failover targets, and endpoints in the table.
    has_failover: AtomicBool,
    /// Whether a target limits its requests.
    is_limited: AtomicBool,
    /// Whether there is no address yet, and names are being looked up for the first time.
    awaits_names: AtomicBool,
    /// Notified when that is no longer so.
    looked_up: Notify,
    /// Where names are noted that requests need an address of, if there is none.
    wanted: OnceLock<Arc<WantedNames>>,
}

#[derive(Debug)]
struct Inner {
    /// Of the upstream.
    name: Arc<str>,
    targets: Vec<ConfiguredTarget>,
    members: Vec<Member>,
    gone: Gone,
    /// The addresses that another gateway has found unhealthy, in ascending order, while it probes
    /// for this one.
    findings: Option<Vec<u64>>,
    /// Ids and weights of the table that the balancer has.
    table: Vec<(u64, u32)>,
    /// Whether the upstream was deleted: then the balancer keeps the table that it has.
    is_retired: bool,
}

/// What is known of addresses that were removed, and when that was.
type Gone = HashMap<u64, (Arc<Live>, Instant)>;

impl Members {
    /// `places` is notified of endpoints that join, and of new limits.
    pub(super) fn new(
        upstream: &str,
        balancer: Arc<Balancer>,
        memory: Arc<Memory>,
        places: Arc<Places>,
    ) -> Self {
        Self {
            memory,
            places,
            inner: Mutex::new(Inner {
                name: upstream.into(),
                targets: Vec::new(),
                members: Vec::new(),
                gone: HashMap::new(),
                findings: None,
                table: Vec::new(),
                is_retired: false,
            }),
            policy: RwLock::default(),
            balancer,
            reason: AtomicU8::new(NoPeer::NoTargets as u8),
            keeps_sessions: AtomicBool::new(false),
            has_failover: AtomicBool::new(false),
            is_limited: AtomicBool::new(false),
            awaits_names: AtomicBool::new(false),
            looked_up: Notify::new(),
            wanted: OnceLock::new(),
        }
    }

    /// The name of the upstream.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.inner.lock().name)
    }

    /// Renames the upstream; what is known of its addresses stays.
    pub(super) fn rename(&self, name: &str) {
        let mut inner = self.inner.lock();
        self.memory.rename(&inner.name, name);
        inner.name = name.into();
    }

    /// Whether the upstream was deleted.
    pub(super) fn is_retired(&self) -> bool {
        self.inner.lock().is_retired
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().members.is_empty()
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read())
    }

    /// Why the table is empty, if it is.
    pub(super) fn reason(&self) -> NoPeer {
        let reason = usize::from(self.reason.load(Ordering::Relaxed));
        *NoPeer::ALL.get(reason).unwrap_or(&NoPeer::NoneAvailable)
    }

    pub(super) fn set_policy(&self, policy: Arc<Policy>) {
        let mut inner = self.inner.lock();
        if !policy.is_checked() {
            // Without checks no report would make it available again.
            for member in &inner.members {
                if !member.live.health.is_available() {
                    member.live.health.set(true, Source::Recovery);
                }
            }
            for id in std::mem::take(&mut inner.gone).into_keys() {
                self.memory.forget(&inner.name, id);
            }
        }
        if !policy.watches_outliers() {
            let gone = inner.gone.values().map(|(live, _)| live);
            let all = inner.members.iter().map(|member| &member.live).chain(gone);
            all.for_each(|live| live.ejection.lift());
        }
        *self.policy.write() = policy;
        self.choose(&mut inner);
    }

    /// Chooses the endpoints of the table anew, after an address became available or unavailable.
    pub(super) fn refresh(&self) {
        self.choose(&mut self.inner.lock());
    }

    /// What `map` makes of each member.
    pub(super) fn each<T>(&self, map: impl FnMut(&Member) -> T) -> Vec<T> {
        self.inner.lock().members.iter().map(map).collect()
    }

    /// Whether some weight still ramps up.
    pub(super) fn is_ramping(&self) -> bool {
        let window = self.policy().slow_start();
        let inner = self.inner.lock();
        let ramping = |member: &Member| member.since.elapsed() < window;
        !window.is_zero() && inner.members.iter().any(ramping)
    }

    pub(super) fn weights(&self, of: impl Fn(&Member) -> bool) -> Weights {
        let inner = self.inner.lock();
        weights(inner.members.iter().filter(|member| of(member)))
    }

    /// Whether the upstream may be used at all: enough of its weight is available. Source: Kong.
    pub(super) fn is_healthy(&self) -> bool {
        passes(weights(&self.inner.lock().members), self.policy().threshold)
    }

    pub(super) fn report(&self) -> Vec<AddressReport> {
        self.each(describe)
    }

    /// The addresses that a trial may bring back.
    pub(super) fn awaiting_trial(&self) -> Vec<u64> {
        let inner = self.inner.lock();
        let waiting = inner.members.iter();
        let waiting = waiting.filter(|member| member.live.health.awaits_trial());
        waiting.map(|member| member.id).collect()
    }

    /// Sets the health of the addresses that `wanted` selects. Returns whether there are any.
    pub(super) fn set_health(
        &self,
        available: bool,
        wanted: impl Fn(&AddressReport) -> bool,
    ) -> bool {
        let mut found = false;
        let inner = self.inner.lock();
        for member in &inner.members {
            if wanted(&describe(member)) {
                found = true;
                member.live.health.set(available, Source::Manual);
                // Even if nothing changes: from now on it is set by an operator.
                self.remember(&inner.name, member.id, &member.live);
            }
        }
        found
    }

    /// Calls a function with each address of a target.
    pub(super) fn of_target(
        &self,
        target: Uuid,
        mut call: impl FnMut(&EndpointAddress, &Arc<Live>),
    ) {
        let inner = self.inner.lock();
        let own = inner
            .members
            .iter()
            .filter(|member| member.target == target);
        own.for_each(|member| call(&member.address, &member.live));
    }

    /// The addresses that probes have found unhealthy, in ascending order.
    pub(super) fn found_unhealthy(&self) -> Vec<u64> {
        let inner = self.inner.lock();
        let found = inner.members.iter();
        let found = found.filter(|member| member.live.health.is_out_by(Source::Active));
        let mut ids: Vec<u64> = found.map(|member| member.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Applies what another gateway has found, also to the addresses that join later.
    pub(super) fn apply_findings(&self, unhealthy: &[u64]) {
        let mut unhealthy = unhealthy.to_vec();
        unhealthy.sort_unstable();
        let mut inner = self.inner.lock();
        let mut changed = false;
        for member in &inner.members {
            changed |= apply_finding(
                &inner.name,
                &member.address,
                member.id,
                &member.live,
                &unhealthy,
            );
        }
        inner.findings = Some(unhealthy);
        if changed {
            self.choose(&mut inner);
        }
    }

    /// Has what another gateway has found count for no address that joins from now on, since this
    /// gateway probes them.
    pub(super) fn forget_findings(&self) {
        self.inner.lock().findings = None;
    }

    /// The member of this id as an endpoint, whether it may be chosen or not.
    pub(super) fn endpoint(&self, id: u64) -> Option<Arc<Endpoint>> {
        let inner = self.inner.lock();
        let member = inner.members.iter().find(|member| member.id == id)?;
        Some(member.endpoint(member.weight.max(1)))
    }

    /// The endpoint of a session, if it is not in the balancer's table because it gets no new
    /// sessions: its weight is 0, and it is available.
    pub(super) fn of_session(&self, id: u64) -> Option<Arc<Endpoint>> {
        if !self.keeps_sessions.load(Ordering::Relaxed) {
            return None;
        }
        let inner = self.inner.lock();
        let mut all = inner.members.iter();
        let member = all.find(|member| member.id == id && member.rests())?;
        Some(member.endpoint(1))
    }

    /// A failover target for a request that has failed at all other targets: chosen by weight, and
    /// none of `tried`.
    pub(super) fn failover(&self, tried: &[u64], entropy: u64) -> Option<Arc<Endpoint>> {
        if !self.has_failover.load(Ordering::Relaxed) {
            return None;
        }
        let inner = self.inner.lock();
        let left = |member: &&Member| {
            let usable = member.failover && member.weight > 0 && member.is_available();
            usable && !tried.contains(&member.id)
        };
        let total: u64 = (inner.members.iter().filter(left))
            .map(|member| u64::from(member.weight))
            .sum();
        let mut ticket = entropy.checked_rem(total)?;
        let chosen = inner.members.iter().filter(left).find(|member| {
            let weight = u64::from(member.weight);
            let hit = ticket < weight;
            ticket = ticket.saturating_sub(weight);
            hit
        })?;
        Some(chosen.endpoint(chosen.weight))
    }

    /// Whether there is no address yet, and names are being looked up for the first time.
    pub(super) fn awaits_names(&self) -> bool {
        self.awaits_names.load(Ordering::Acquire)
    }

    /// Waits until that is no longer so.
    pub(super) async fn looked_up(&self) {
        loop {
            // No notification that comes from here on is missed.
            let looked_up = self.looked_up.notified();
            if !self.awaits_names() {
                return;
            }
            looked_up.await;
        }
    }

    /// Has the names of its targets looked up soon. None of its targets has an address.
    pub(super) fn want_addresses(&self) {
        if let Some(wanted) = self.wanted.get() {
            let inner = self.inner.lock();
            let is_name =
                |target: &&ConfiguredTarget| target.socket.is_none() && target.host.ip().is_none();
            let named = inner.targets.iter().filter(is_name);
            wanted.extend(named.map(|target| target.host.dns_name()));
        }
    }

    /// Whether a target limits its requests.
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    fn remember(&self, upstream: &str, id: u64, live: &Live) {
        match live.health.taken_out_by() {
            Some(by) => self.memory.keep(upstream, id, by),
            None => self.memory.forget(upstream, id),
        }
    }
}

/// Applies to an address what another gateway has found, unless requests or operators have taken it
/// out here. Returns whether that has changed its state.
fn apply_finding(
    upstream: &str,
    address: &EndpointAddress,
    id: u64,
    live: &Live,
    unhealthy: &[u64],
) -> bool {
    let health = &live.health;
    let is_found = unhealthy.binary_search(&id).is_ok();
    let (available, verdict) = match (is_found, health.is_available()) {
        (true, true) => (false, "unhealthy"),
        (false, false) if health.is_out_by(Source::Active) => (true, "healthy"),
        _ => return false,
    };
    health.set(available, Source::Active);
    tracing::warn!(
        upstream, %address,
        "active check of another gateway: target marked {verdict}"
    );
    true
}
