//! Upstreams: where requests can go, and what is known of each address.
//!
//! A balancer sees only the endpoints that may be chosen. This module decides which these are: by
//! health (reports of probes and of requests), by outlier detection and by failover.

mod affinity;
mod budget;
mod members;
mod memory;
mod outlier;
mod policy;
pub mod probe;
mod recovery;
mod resolve;
mod session;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

pub use affinity::{AffinityPolicy, Cookie, Key};
pub use budget::RetryPermit;
pub use members::{AddressReport, NoPeer, Target, Weights};
pub use memory::Memory;
pub use policy::Policy;
pub use resolve::Names;
pub use session::SessionKey;

use crate::authority::Authority;
use crate::balancer::{self, Balancer, Choice, Observed, Shadow};
use crate::clock;
use crate::endpoint::health::{Report, Source};
use crate::endpoint::{Endpoint, InFlight, LoadReport, Outcome, OutcomeObserver, Places};
use crate::entity::upstream::RetryBudget;
use members::Members;
use probe::Probes;
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

/// Longest time that a waiting request goes without looking for a free place again.
const LOOK: Duration = Duration::from_secs(1);

impl Upstream {
    /// An upstream without endpoints. Its probes run on `probing`.
    pub fn new(
        name: &str,
        named: bool,
        balancer: Balancer,
        memory: &Arc<Memory>,
        probing: &tokio::runtime::Handle,
    ) -> Self {
        let balancer = Arc::new(balancer);
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
        self.await_trials();
        self.shared.probes.sync();
        self.shared.outliers.sync();
    }

    /// Renames it. All that is known of its addresses stays, and so do the state of its balancer,
    /// its probes and its requests in flight.
    pub fn rename(&mut self, name: &str) {
        self.shared.members.rename(name);
        self.name = name.into();
    }

    /// Stops its background work, since it was deleted: no address is left to be probed, and the
    /// addresses that it had are drained. A worker whose last request was long ago may still hold
    /// the upstream; that keeps none of this work running.
    pub fn retire(&self, names: &Names) {
        self.set_targets(&[], names);
    }

    /// Replaces the targets to choose from. Endpoints that stay keep what is known of them, and the
    /// balancer is told only if its table changes.
    pub fn set_targets(&self, targets: &[Target], names: &Names) {
        self.shared.members.set_targets(targets, names);
        self.await_trials();
        self.shared.probes.sync();
        self.shared.outliers.sync();
    }

    /// Schedules trials of the addresses that became unavailable before the policy asked for
    /// trials.
    fn await_trials(&self) {
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
        if self.balancer.wants(Observed::Report)
            && let Some(report) = LoadReport::of(headers)
        {
            endpoint.observe_report(clock::micros(Instant::now()), report);
        }
    }

    /// Chooses an endpoint and counts the request there; see [`Balancer::pick`]. `may_trial` says
    /// that the request may be a trial, since it can be sent to another endpoint whatever becomes
    /// of this try.
    ///
    /// # Errors
    /// Why no endpoint was chosen.
    pub fn pick(
        &self,
        request: balancer::PickRequest<'_>,
        tried: &[u64],
        may_trial: bool,
    ) -> Result<InFlight, NoPeer> {
        self.choose(
            request,
            tried,
            &[],
            may_trial,
            |endpoint, trial, observer| {
                InFlight::new(endpoint)
                    .on_trial(trial)
                    .observed_by(observer)
            },
        )
    }

    /// Chooses an endpoint. It is not one of `full`, and one of `tried` only if no other is left.
    /// Before the next one is chosen, `claim` is called with the endpoint, whether this is a trial,
    /// and the observer to notify of the outcome.
    fn choose<T>(
        &self,
        request: balancer::PickRequest,
        tried: &[u64],
        full: &[u64],
        may_trial: bool,
        claim: impl Fn(Arc<Endpoint>, bool, Option<Arc<dyn OutcomeObserver>>) -> T,
    ) -> Result<T, NoPeer> {
        let recovery = self.policy.recovery();
        let session = match self.policy.affinity {
            Some(AffinityPolicy::Session(..)) => request.affinity,
            _ => None,
        };
        if let Some((_, longest)) = recovery
            && request.attempt == 0
            && may_trial
            // A trial elsewhere would end the session.
            && session.is_none()
            && let Some(endpoint) = self.trial(request.now, longest)
        {
            return Ok(claim(endpoint, true, None));
        }
        if let Some(id) = session
            && !tried.contains(&id)
            && !full.contains(&id)
            && let Some(endpoint) = self.shared.members.of_session(id)
        {
            return Ok(claim(endpoint, false, None));
        }
        let passed = match full {
            [] => Cow::Borrowed(tried),
            full => [tried, full].concat().into(),
        };
        let picked = self.balancer.place(request, &passed, |endpoint, placed| {
            // The request has failed at every endpoint of the table: failover targets come next.
            let again = full.is_empty() && tried.contains(&endpoint.id);
            if again {
                Err(endpoint)
            } else {
                let observer = placed.map(|placed| placed as Arc<dyn OutcomeObserver>);
                Ok(claim(endpoint, false, observer))
            }
        });
        match picked {
            Choice::Endpoint(Ok(claimed)) => Ok(claimed),
            Choice::Endpoint(Err(again)) => {
                let failover = self.shared.members.failover(tried, request.entropy);
                Ok(claim(failover.unwrap_or(again), false, None))
            }
            Choice::Refused => Err(NoPeer::Refused),
            Choice::Empty => {
                // No endpoint is available, so nothing is lost by a trial.
                let trial = recovery.and_then(|(_, longest)| self.trial(request.now, longest));
                let trial = trial.ok_or_else(|| self.shared.members.reason())?;
                Ok(claim(trial, true, None))
            }
        }
    }

    fn trial(&self, now: u64, longest: Duration) -> Option<Arc<Endpoint>> {
        let id = self.shared.trials.take(now, longest)?;
        match self.shared.members.endpoint(id) {
            Some(endpoint) if endpoint.live().health.awaits_trial() => Some(endpoint),
            _ => {
                self.shared.trials.remove(id);
                None
            }
        }
    }

    /// Chooses an endpoint that has room for another request, and takes the place. If none has
    /// room, it waits for `patience` at most. `shares` is whether requests share connections, so that
    /// a limit of connections is none of requests.
    ///
    /// # Errors
    /// Why no place was taken.
    pub async fn place(
        &self,
        request: balancer::PickRequest<'_>,
        tried: &[u64],
        may_trial: bool,
        patience: Duration,
        shares: bool,
    ) -> Result<InFlight, NoPeer> {
        let mut waiting = None;
        let deadline = tokio::time::Instant::now() + patience;
        let places = &self.shared.places;
        let freed = if tried.is_empty() {
            &places.first
        } else {
            &places.again
        };
        loop {
            let freed = freed.notified();
            let mut freed = std::pin::pin!(freed);
            // From here on, no place that becomes free is missed.
            freed.as_mut().enable();
            // The limits in force now, not those from when the request arrived.
            let policy = self.shared.members.policy();
            let limits = &policy.extension.circuit_breakers;
            let (mut full, mut queues) = (Vec::new(), Vec::new());
            loop {
                let entered = self.choose(
                    request,
                    tried,
                    &full,
                    may_trial,
                    |endpoint, trial, observer| {
                        let id = endpoint.id;
                        // Endpoints not yet tried are only full: wait for one of them rather than
                        // try one twice.
                        if full.contains(&id) || (!full.is_empty() && tried.contains(&id)) {
                            return Err(None);
                        }
                        let limit = endpoint.max_requests(limits, shares);
                        match InFlight::within(endpoint, limit, places) {
                            Ok(entered) => Ok(entered.on_trial(trial).observed_by(observer)),
                            Err(endpoint) => Err(Some(endpoint)),
                        }
                    },
                );
                // A request that was notified of a place and does not take it notifies the next
                // one.
                let entered = entered.inspect_err(|_| places.first.notify_one())?;
                match entered {
                    Ok(entered) => return Ok(entered),
                    Err(None) => break,
                    Err(Some(endpoint)) => {
                        full.push(endpoint.id);
                        queues.push(endpoint);
                    }
                }
            }
            if waiting.is_none() {
                waiting = Some(self.wait(&queues, limits.max_pending_requests)?);
            }
            // Requests that began before there was a limit notify no waiter when they end.
            let look = deadline.min(tokio::time::Instant::now() + LOOK);
            if tokio::time::timeout_at(look, freed).await.is_err() && look == deadline {
                return Err(NoPeer::Overflow);
            }
        }
    }

    /// Joins the queue of the upstream, and that of the first of these endpoints whose own queue
    /// has room.
    fn wait(&self, queues: &[Arc<Endpoint>], limit: u32) -> Result<impl Drop + use<>, NoPeer> {
        struct Waiting(Arc<Shared>, Arc<Endpoint>);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.pending.fetch_sub(1, Ordering::Relaxed);
                self.1.live().pending.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let join = |pending: &AtomicU32, limit| {
            let more = |waiting| (waiting < limit).then_some(waiting + 1);
            let joined = pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            joined.is_ok()
        };
        if !join(&self.shared.pending, limit) {
            return Err(NoPeer::Overflow);
        }
        let joined = queues.iter().find(|endpoint| {
            let limit = endpoint.limits.max_pending_requests.unwrap_or(u32::MAX);
            join(&endpoint.live().pending, limit)
        });
        match joined {
            Some(endpoint) => Ok(Waiting(Arc::clone(&self.shared), Arc::clone(endpoint))),
            None => {
                self.shared.pending.fetch_sub(1, Ordering::Relaxed);
                Err(NoPeer::Overflow)
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

    /// Counts a request that found no endpoint.
    pub fn note_without_peer(&self, reason: NoPeer) {
        self.shared.without_peer[reason as usize].fetch_add(1, Ordering::Relaxed);
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
            let (upstream, address) = (&*self.name, endpoint.address);
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

    /// Why there is no endpoint to choose, if there is none.
    pub fn reason(&self) -> NoPeer {
        self.shared.members.reason()
    }

    /// All addresses with what is known of them.
    pub fn addresses(&self) -> Vec<AddressReport> {
        self.shared.members.report()
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
