//! Upstreams: where requests can go, and what is known of each address.
//!
//! A balancer sees only the endpoints that may be chosen. This module decides which these are: by
//! health (reports of probes and of requests), by outlier detection and by failover.

mod affinity;
mod attempt;
mod budget;
mod members;
mod memory;
mod outlier;
mod pick;
mod policy;
pub mod probe;
mod recovery;
mod resolve;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

pub use affinity::{AffinityPolicy, Cookie, Key};
pub(crate) use attempt::Try;
pub use budget::RetryPermit;
pub use members::{AddressReport, ConfiguredTarget, NoPeer, Unplaced, Weights};
pub use memory::Memory;
pub use policy::Policy;
pub use resolve::Names;
pub use session::SessionKey;

use crate::authority::Authority;
use crate::balancer::{Balancer, Observed, Shadow};
use crate::clock;
use crate::endpoint::health::{Report, Source};
use crate::endpoint::{Endpoint, InFlight, Metrics, Outcome, Places, ReportName, ReportedValue};
use crate::endpoint_address::EndpointAddress;
use crate::entity::upstream::RetryBudget;
use members::Members;
use probe::{Probes, ReportReaders};
use recovery::Trials;

/// A set of endpoints with the balancer that chooses among them: an upstream of the Admin API, or
/// the plain host of a service.
///
/// A clone is the same upstream: it shares the balancer, its instance and every live number.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Name of the upstream, or `host:port`.
    pub name: Arc<str>,
    /// Whether this is an upstream of the Admin API.
    pub named: bool,
    /// `Host` to send in place of the target's own.
    pub host_header: Option<Arc<Authority<'static>>>,
    policy: Arc<Policy>,
    balancer: Arc<Balancer>,
    shared: Arc<Shared>,
}

/// What all clones of an upstream share.
#[derive(Debug)]
struct Shared {
    members: Arc<Members>,
    probes: Probes,
    report_readers: ReportReaders,
    outliers: outlier::Watch,
    trials: Trials,
    /// The shadow: a second balancer that picks for the same requests, without effect.
    shadow: Mutex<Option<Arc<Shadow>>>,
    budget: Arc<budget::Budget>,
    /// Notified when an endpoint has room for a request again.
    places: Arc<Places>,
    /// Requests that wait for room at an endpoint.
    pending: AtomicU32,
    /// Requests that found no endpoint, for each [`NoPeer`].
    without_peer: [AtomicU64; NoPeer::ALL.len()],
}

/// The least latency that a try without an answer counts as, for balancers that read latencies.
pub(crate) const UNANSWERED: Duration = Duration::from_secs(1);

impl Upstream {
    /// An upstream without endpoints. Its probes run on `probing`.
    pub fn new(
        name: &str,
        named: bool,
        balancer: Balancer,
        memory: &Arc<Memory>,
        probing: &tokio::runtime::Handle,
    ) -> Self {
        let balancer = balancer.shared();
        let places = Arc::<Places>::default();
        let members = Arc::new(Members::new(
            name,
            Arc::clone(&balancer),
            Arc::clone(memory),
            Arc::clone(&places),
        ));
        Self {
            name: name.into(),
            named,
            host_header: None,
            policy: Arc::default(),
            balancer,
            shared: Arc::new(Shared {
                probes: Probes::new(&members, probing),
                report_readers: ReportReaders::new(&members, probing),
                outliers: outlier::Watch::new(&members, probing),
                members,
                trials: Trials::default(),
                shadow: Mutex::default(),
                budget: Arc::default(),
                places,
                pending: AtomicU32::new(0),
                without_peer: Default::default(),
            }),
        }
    }

    /// The balancer, to switch it or to read its counters.
    pub fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    /// Sets the shadow, or removes it, from the next pick on.
    pub fn set_shadow(&self, shadow: Option<Arc<Shadow>>) {
        Shadow::set(&self.balancer, shadow.clone());
        let before = std::mem::replace(&mut *self.shared.shadow.lock(), shadow);
        // Dropping the shadow drops its instance, which takes too long to do under the lock.
        drop(before);
    }

    /// The shadow, if there is one.
    pub fn shadow(&self) -> Option<Arc<Shadow>> {
        self.shared.shadow.lock().clone()
    }

    /// The settings that its entity asks for.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Applies a policy from the next request on. What is known of addresses stays.
    pub fn set_policy(&mut self, policy: Policy) {
        if *self.policy == policy {
            return;
        }
        self.policy = Arc::new(policy);
        self.shared.members.set_policy(Arc::clone(&self.policy));
        self.shared.places.look();
        self.follow_members();
    }

    /// Renames it. All that is known of its addresses stays, and so do the state of its balancer,
    /// its probes and its requests in flight.
    pub fn rename(&mut self, name: &str) {
        self.shared.members.rename(name);
        self.name = name.into();
    }

    /// Stops its background work, since it was deleted: no address is left to be probed, and the
    /// addresses that it had are drained. A worker whose last request was long ago may still hold
    /// the upstream; that keeps none of this work running. Requests that have found it before are
    /// still sent to these addresses.
    pub fn retire(&self) {
        self.shared.members.retire();
        self.follow_members();
    }

    /// Replaces the targets to choose from. Endpoints that stay keep what is known of them, and the
    /// balancer is told only if its table changes.
    pub fn set_targets(&self, targets: &[ConfiguredTarget], names: &Names) {
        self.shared.members.set_targets(targets, names);
        self.follow_members();
    }

    /// Has the background work follow the present addresses.
    fn follow_members(&self) {
        self.schedule_trials();
        self.shared.probes.sync();
        self.shared.report_readers.sync();
        self.shared.outliers.sync();
    }

    /// Whether one gateway probes for all of its channel.
    pub fn shares_probes(&self) -> bool {
        self.policy.shares_probes()
    }

    /// Has another gateway probe for this one, or ends that. Addresses that requests have found
    /// unhealthy here are probed here in any case.
    pub fn set_probed_elsewhere(&self, elsewhere: bool) {
        if !elsewhere {
            self.shared.members.forget_findings();
        }
        self.shared.probes.set_elsewhere(elsewhere);
    }

    /// The ids of the endpoints that probes have found unhealthy, in ascending order.
    pub fn found_unhealthy(&self) -> Vec<u64> {
        self.shared.members.found_unhealthy()
    }

    /// Applies what probes of another gateway have found: the endpoints of these ids are unhealthy,
    /// and the others are not, unless requests or operators say so here.
    pub fn apply_findings(&self, unhealthy: &[u64]) {
        self.shared.members.apply_findings(unhealthy);
    }

    /// Schedules trials of the addresses that became unavailable before the policy asked for
    /// trials.
    fn schedule_trials(&self) {
        let Some((pause, _)) = self.policy.recovery() else {
            return;
        };
        let now = clock::micros(Instant::now());
        for id in self.shared.members.awaiting_trial() {
            self.shared.trials.expect(id, now, pause);
        }
    }

    /// Records the load that an endpoint reports, if a balancer reads it.
    pub fn report_load(&self, endpoint: &Endpoint, headers: &http::HeaderMap) {
        let report = self.balancer.wants(Observed::Report);
        let values = self.balancer.wants(Observed::ReportedValues);
        if (report || values)
            && let Some(metrics) = Metrics::of(headers)
        {
            let now = clock::micros(Instant::now());
            endpoint.observe_report(now, metrics.load());
            if values {
                endpoint.observe_metrics(now, &metrics);
            }
        }
    }

    /// The most connections that there may be to an endpoint; 0 means no limit.
    pub fn max_connections(&self, endpoint: &Endpoint) -> u32 {
        endpoint.max_connections(&self.policy.extension.circuit_breakers)
    }

    /// Whether requests to an endpoint are limited, so that [`Upstream::place`] is to be used.
    pub fn is_limited(&self) -> bool {
        let general = &self.policy.extension.circuit_breakers;
        general.limits_requests() || self.shared.members.is_limited()
    }

    /// Whether requests in flight at addresses that leave are cut off after a time.
    pub fn drains(&self) -> bool {
        self.policy.drain_timeout().is_some()
    }

    /// Counts a request for the retry budget, if there is one. `adjust` applies the settings of the
    /// request's route and service to the budget of the upstream.
    pub fn retry_permit(
        &self,
        adjust: impl FnOnce(RetryBudget) -> RetryBudget,
    ) -> Option<RetryPermit> {
        let budget = adjust(self.policy.extension.retry_budget);
        (budget.budget_percent > 0.0).then(|| RetryPermit::new(&self.shared.budget, budget))
    }

    /// Counts a request that found no endpoint. If there is no address, the names are looked up
    /// again soon.
    pub fn note_without_peer(&self, reason: NoPeer) {
        self.shared.without_peer[reason as usize].fetch_add(1, Ordering::Relaxed);
        if reason == NoPeer::NoAddress {
            self.shared.members.want_addresses();
        }
    }

    /// Requests that found no endpoint so far, by the reason.
    pub fn without_peer(&self) -> impl Iterator<Item = (NoPeer, u64)> {
        let counts = self.shared.without_peer.iter();
        NoPeer::ALL
            .into_iter()
            .zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    /// Records how long the head of a response took, for balancers that read latencies.
    pub fn note_latency(&self, in_flight: &InFlight, took: Duration) {
        if self.balancer.wants(Observed::Latency) {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let now = clock::micros(Instant::now());
            in_flight
                .endpoint()
                .observe_latency(now, took, in_flight.ahead());
        }
    }

    /// Whether a response with this status is a failure of its endpoint, whatever its body.
    pub fn is_failure(&self, status: u16) -> bool {
        match &self.policy.passive {
            Some(judge) => judge.of(status) == Some(Report::HttpFailure),
            None => status >= 500,
        }
    }

    /// Records the outcome of a try. `took` is the time until the head of the response, or until it
    /// was known that there would be none. `detail` describes the outcome, and is called only if
    /// the text is kept.
    pub fn report(
        &self,
        in_flight: &InFlight,
        outcome: Outcome,
        took: Duration,
        detail: impl FnOnce() -> String,
    ) {
        let endpoint = in_flight.endpoint();
        let live = endpoint.live();
        if matches!(outcome, Outcome::Broken | Outcome::Timeout) {
            live.note_failure();
            // A failure that comes quickly is not a low latency.
            self.note_latency(in_flight, took.max(UNANSWERED));
        }
        if self.policy.watches_outliers() {
            let failed = !matches!(outcome, Outcome::Answered(..500));
            live.window.requests.fetch_add(1, Ordering::Relaxed);
            live.window
                .failures
                .fetch_add(u32::from(failed), Ordering::Relaxed);
            let latency = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            live.window.latency.fetch_add(latency, Ordering::Relaxed);
        }
        let Some(judge) = &self.policy.passive else {
            return;
        };
        let report = match outcome {
            Outcome::Answered(status) => judge.of(status),
            Outcome::Broken => Some(Report::TcpFailure),
            Outcome::Timeout => Some(Report::Timeout),
        };
        let Some(report) = report else {
            return;
        };
        let well = report == Report::Success;
        let trial = in_flight.is_trial() && live.health.awaits_trial();
        let mut thresholds = judge.thresholds;
        let source = if trial && well {
            // With Kong's default of 0 no request would bring an address back, but a trial has to.
            thresholds.successes = thresholds.successes.max(1);
            Source::Recovery
        } else {
            Source::Passive
        };
        let changed = live.health.report(source, report, &thresholds, detail);
        let available = live.health.is_available();
        if changed {
            self.shared.members.refresh();
            let (upstream, address) = (&*self.name, &endpoint.address);
            let verdict = live.health.verdict();
            tracing::warn!(upstream, %address, "passive check: {verdict}");
        }
        if changed && available {
            self.shared.trials.remove(endpoint.id);
        } else if (changed || (trial && well))
            && let Some((pause, _)) = self.policy.recovery()
        {
            // It is unavailable from now on, or on its way back: the next trial comes after the
            // first pause.
            let now = clock::micros(Instant::now());
            self.shared.trials.add(endpoint.id, now, pause);
        }
    }

    /// Sets by hand whether the addresses that `wanted` selects may be chosen. Returns whether
    /// there are any.
    pub fn set_health(&self, available: bool, wanted: impl Fn(&AddressReport) -> bool) -> bool {
        let members = &self.shared.members;
        let found = members.set_health(available, wanted);
        members.refresh();
        found
    }

    /// Sets reported values of a target's addresses, which balancers read as columns
    /// `reported:NAME`, for the time that the settings say. None removes one. Returns false if an
    /// address has too many.
    pub fn set_reported_values(&self, target: Uuid, values: &[(ReportName, Option<f64>)]) -> bool {
        let now = clock::micros(Instant::now());
        let until = now + self.policy.facts_max_age();
        let mut have_room = true;
        self.shared.members.of_target(target, |_, live| {
            have_room &= live.set_reported(now, values, until);
        });
        have_room
    }

    /// The reported values of a target's addresses, with the seconds that each counts.
    pub fn reported_values(
        &self,
        target: Uuid,
    ) -> Vec<(EndpointAddress, Vec<(ReportedValue, f64)>)> {
        let now = clock::micros(Instant::now());
        let mut all = Vec::new();
        self.shared.members.of_target(target, |address, live| {
            let values = live.reported_values(now).into_iter();
            let values = values.map(|value| {
                let left = value.until - now;
                (value, left as f64 / 1e6)
            });
            all.push((address.clone(), values.collect()));
        });
        all
    }

    /// Why there is no endpoint to choose, if there is none.
    pub fn reason(&self) -> NoPeer {
        self.shared.members.reason()
    }

    /// All addresses with what is known of them.
    pub fn addresses(&self) -> Vec<AddressReport> {
        self.shared.members.report()
    }

    /// The endpoints that wait for a trial, each with the time until then.
    pub fn trials(&self) -> Vec<(u64, Duration)> {
        let due = self.shared.trials.due(clock::micros(Instant::now()));
        let due = due.into_iter();
        due.map(|(id, left)| (id, Duration::from_micros(left)))
            .collect()
    }

    /// Requests that wait for room at an endpoint.
    pub fn pending(&self) -> u32 {
        self.shared.pending.load(Ordering::Relaxed)
    }

    /// Whether enough of its weight is available for the upstream to be used.
    pub fn is_healthy(&self) -> bool {
        self.shared.members.is_healthy()
    }

    /// The weights of one target's addresses, or of all.
    pub fn weights(&self, target: Option<Uuid>) -> Weights {
        let members = &self.shared.members;
        members.weights(|member| target.is_none_or(|target| member.target == target))
    }
}
