//! Where requests can go: the upstreams with all that is known of their addresses.
//!
//! A balancer only ever sees endpoints that may be chosen. Which these are is decided here: by health
//! (reports of probes and of requests), by outlier detection, by tier.

mod affinity;
mod budget;
mod changes;
mod endpoint;
mod health;
mod latency;
mod members;
mod memory;
mod orca;
mod outlier;
mod policy;
pub mod probe;
mod recovery;
mod resolve;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

pub use affinity::{Affinity, Cookie, Key};
pub use budget::Spender;
pub use changes::Changes;
pub use endpoint::{Endpoint, InFlight, authority};
pub use health::{Condition, Event, Report, Source};
pub use members::{AddressReport, NoPeer, Target, Weights};
pub use memory::Memory;
pub use orca::LoadReport;
pub use policy::Policy;
pub use resolve::{Names, is_name};

use crate::balancer::{self, Balancer, Choice, Observed};
use members::Members;
use probe::Probes;
use recovery::Trials;

/// A set of endpoints with the balancer that chooses among them: an upstream of the Admin API, or the
/// plain host of a service.
///
/// A clone is the same upstream: it shares the balancer, its instance and every live number.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Name of the upstream, or `host:port`.
    pub name: Arc<str>,
    /// Whether this is an upstream of the Admin API.
    pub named: bool,
    /// `Host` to send in place of the target's own.
    pub host_header: Option<Arc<str>>,
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
    budget: Arc<budget::Budget>,
    /// Told when an endpoint has room for a request again.
    place: Arc<Notify>,
    /// Requests that wait for that.
    pending: AtomicU32,
}

/// What a try without an answer took at least, for balancers that look at latencies.
pub(crate) const UNANSWERED: Duration = Duration::from_secs(1);

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The head of a response with this status came in.
    Answered(u16),
    /// There was no connection, or it broke off.
    Broken,
    /// There was no answer in time.
    Timeout,
}

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
        let members = Arc::new(Members::new(
            name,
            Arc::clone(&balancer),
            Arc::clone(memory),
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
                budget: Arc::default(),
                place: Arc::default(),
                pending: AtomicU32::new(0),
            }),
        }
    }

    /// The balancer, to switch it or to read its counters.
    pub fn balancer(&self) -> &Arc<Balancer> {
        &self.balancer
    }

    /// What it asks for.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Makes this what it asks for, from the next request on. What is known of addresses stays.
    pub fn set_policy(&mut self, policy: Policy) {
        if *self.policy == policy {
            return;
        }
        self.policy = Arc::new(policy);
        self.shared.members.set_policy(Arc::clone(&self.policy));
        self.await_trials();
        self.shared.probes.sync();
        self.shared.outliers.sync();
    }

    /// Gives it another name. All that is known of its addresses stays, and so do its turn, its probes
    /// and its requests in flight.
    pub fn rename(&mut self, name: &str) {
        self.shared.members.rename(name);
        self.name = name.into();
    }

    /// Ends what it does by itself, since it was deleted: no address is left that is probed, and those
    /// that it had are drained. Who holds it still, as a worker may do whose last request was long ago,
    /// keeps nothing going.
    pub fn retire(&self, names: &Names) {
        self.set_targets(&[], names);
    }

    /// Makes these targets the ones to choose from. Endpoints that stay keep what is known of them,
    /// and a balancer whose table stays hears nothing.
    pub fn set_targets(&self, targets: &[Target], names: &Names) {
        self.shared.members.set_targets(targets, names);
        self.await_trials();
        self.shared.probes.sync();
        self.shared.outliers.sync();
    }

    /// Has addresses tried that were unavailable before trials were asked for.
    fn await_trials(&self) {
        let Some((pause, _)) = self.policy.recovery() else {
            return;
        };
        let now = balancer::micros(Instant::now());
        for address in self.shared.members.report() {
            let by = address.condition.changed_by;
            if !address.available && matches!(by, Some(Source::Passive | Source::Restored)) {
                self.shared.trials.expect(address.id, now, pause);
            }
        }
    }

    /// Takes note of what an endpoint says of its load, where somebody looks at it.
    pub fn report_load(&self, endpoint: &Endpoint, headers: &http::HeaderMap) {
        if self.balancer.wants(Observed::Report)
            && let Some(report) = LoadReport::of(headers)
        {
            endpoint.observe_report(balancer::micros(Instant::now()), report);
        }
    }

    /// Chooses an endpoint; see [`Balancer::pick`]. `repeatable` says that the request may be sent to
    /// another one if this one fails.
    ///
    /// # Errors
    /// Why there is none.
    pub fn pick<T>(
        &self,
        request: balancer::Request,
        tried: &[u64],
        repeatable: bool,
        claim: impl Fn(Arc<Endpoint>) -> T,
    ) -> Result<T, NoPeer> {
        if let Some((_, longest)) = self.policy.recovery()
            && request.attempt == 0
            && repeatable
            && let Some(endpoint) = self.trial(request.now, longest)
        {
            return Ok(claim(endpoint));
        }
        match self.balancer.pick(request, tried, &claim) {
            Choice::Endpoint(claimed) => Ok(claimed),
            Choice::Refused => Err(NoPeer::Refused),
            Choice::Empty => {
                // Nothing is lost by trying what is there.
                let trial = self.policy.recovery();
                let trial = trial.and_then(|(_, longest)| self.trial(request.now, longest));
                trial.map(claim).ok_or_else(|| self.shared.members.reason())
            }
        }
    }

    fn trial(&self, now: u64, longest: Duration) -> Option<Arc<Endpoint>> {
        let id = self.shared.trials.take(now, longest)?;
        match self.shared.members.endpoint(id) {
            Some(endpoint) if !endpoint.live().health.is_available() => Some(endpoint),
            _ => {
                self.shared.trials.remove(id);
                None
            }
        }
    }

    /// Chooses an endpoint that has room for another request, and takes the place; waits `patience` for
    /// one if none has.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn place(
        &self,
        request: balancer::Request,
        tried: &[u64],
        repeatable: bool,
        patience: Duration,
    ) -> Result<InFlight, NoPeer> {
        let limits = &self.policy.extension.circuit_breakers;
        let mut waiting = None;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let freed = self.shared.place.notified();
            let mut freed = std::pin::pin!(freed);
            // From here on no place that gets free is missed.
            freed.as_mut().enable();
            let mut full = tried.to_vec();
            loop {
                let entered = self.pick(request, &full, repeatable, |endpoint| {
                    InFlight::within(endpoint, limits.max_requests, &self.shared.place)
                })?;
                match entered {
                    Ok(entered) => return Ok(entered),
                    Err(endpoint) if full[tried.len()..].contains(&endpoint.id) => break,
                    Err(endpoint) => full.push(endpoint.id),
                }
            }
            if waiting.is_none() {
                waiting = Some(self.wait(limits.max_pending_requests)?);
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return Err(NoPeer::Overflow);
            }
        }
    }

    /// Joins the queue, if it is not full.
    fn wait(&self, limit: u32) -> Result<impl Drop + use<>, NoPeer> {
        struct Waiting(Arc<Shared>);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.pending.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let joined =
            self.shared
                .pending
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
                    (pending < limit).then_some(pending + 1)
                });
        match joined {
            Ok(_) => Ok(Waiting(Arc::clone(&self.shared))),
            Err(_) => Err(NoPeer::Overflow),
        }
    }

    /// Whether requests to an endpoint are limited, so that [`Upstream::place`] is to be used.
    pub fn is_limited(&self) -> bool {
        self.policy.extension.circuit_breakers.max_requests > 0
    }

    /// Whether requests in flight are cut off at addresses that leave.
    pub fn drains(&self) -> bool {
        self.policy.drain_timeout().is_some()
    }

    /// Counts a request for the retry budget, if there is one.
    pub fn spender(&self) -> Option<Spender> {
        let limited = self.policy.extension.retry_budget.budget_percent > 0.0;
        limited.then(|| Spender::new(&self.shared.budget))
    }

    /// Whether a request may be sent once more.
    pub fn may_retry(&self, spender: &mut Option<Spender>) -> bool {
        let settings = &self.policy.extension.retry_budget;
        (spender.as_mut()).is_none_or(|spender| spender.retry(settings))
    }

    /// Takes note of what came of a try, which found so many others `ahead`. `detail` says it in words,
    /// and is asked only if they are kept.
    pub fn report(
        &self,
        endpoint: &Endpoint,
        ahead: u32,
        outcome: Outcome,
        latency: impl Fn() -> Duration,
        detail: impl FnOnce() -> String,
    ) {
        let live = endpoint.live();
        if self.balancer.wants(Observed::Latency) {
            let took = latency();
            // What fails quickly is not quick.
            let took = match outcome {
                Outcome::Answered(_) => took,
                Outcome::Broken | Outcome::Timeout => took.max(UNANSWERED),
            };
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            endpoint.observe_latency(balancer::micros(Instant::now()), took, ahead);
        }
        if self.policy.watches_outliers() {
            let failed = !matches!(outcome, Outcome::Answered(..500));
            live.window.requests.fetch_add(1, Ordering::Relaxed);
            live.window
                .failures
                .fetch_add(u32::from(failed), Ordering::Relaxed);
            let latency = u64::try_from(latency().as_micros()).unwrap_or(u64::MAX);
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
        let well = matches!(report, None | Some(Report::Success));
        if well && !live.health.is_available() && self.policy.recovery().is_some() {
            // Only a trial comes here, or a request that was under way.
            if live.health.set(true, Source::Recovery) {
                self.shared.trials.remove(endpoint.id);
                self.shared.members.refresh();
            }
            return;
        }
        let Some(report) = report else {
            return;
        };
        if live
            .health
            .report(Source::Passive, report, &judge.limits, detail)
        {
            self.shared.members.refresh();
            if let Some((pause, _)) = self.policy.recovery()
                && !live.health.is_available()
            {
                let now = balancer::micros(Instant::now());
                self.shared.trials.add(endpoint.id, now, pause);
            }
            tracing::warn!(
                upstream = &*self.name,
                address = %endpoint.address,
                available = live.health.is_available(),
                "requests changed the health of an address"
            );
        }
    }

    /// Sets by hand whether the addresses that `wanted` names may be chosen. Returns whether there is
    /// any.
    pub fn set_health(&self, available: bool, wanted: impl Fn(&AddressReport) -> bool) -> bool {
        let members = &self.shared.members;
        let found = members.set_health(available, wanted);
        members.refresh();
        found
    }

    /// All addresses with what is known of them.
    pub fn addresses(&self) -> Vec<AddressReport> {
        self.shared.members.report()
    }

    /// Whether enough of its weight is available for it to be used.
    pub fn is_healthy(&self) -> bool {
        self.shared.members.is_healthy()
    }

    /// The weights of one target's addresses, or of all.
    pub fn weights(&self, target: Option<Uuid>) -> Weights {
        let members = &self.shared.members;
        members.weights(|member| target.is_none_or(|target| member.target == target))
    }
}

/// Splits `host:port`, the host of an IPv6 address in brackets, as targets are stored.
pub fn split_target(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_target_splits_into_host_and_port() {
        assert_eq!(split_target("a.example:80"), Some(("a.example".into(), 80)));
        assert_eq!(split_target("[::1]:8000"), Some(("::1".into(), 8000)));
        assert_eq!(split_target("a.example"), None);
        assert_eq!(split_target("a.example:port"), None);
    }
}
