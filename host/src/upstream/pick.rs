//! The endpoint of a request: the balancer's choice, or an address that is not in the balancer's
//! table: one on trial, a failover target, or one with weight 0 that serves only its sessions.
//! Where requests are limited, a request also waits here for room.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{AffinityPolicy, NoPeer, Shared, Unplaced, Upstream};
use crate::balancer::{self, Choice, ChoiceDetails, ChosenBy, Observed};
use crate::endpoint::{Endpoint, InFlight, OutcomeObserver};

/// Longest time that a waiting request goes without looking for a free place again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Upstream {
    /// Whether no target has an address yet, and names are being looked up for the first time, so
    /// that [`Upstream::looked_up`] is to be awaited before a pick.
    pub fn awaits_names(&self) -> bool {
        self.shared.members.awaits_names()
    }

    /// Waits for the first addresses of its targets, for `patience` at most, or until there are
    /// none. A name whose DNS server is slow costs no request then. Source: Kong, where a request
    /// looks up the name itself.
    pub async fn looked_up(&self, patience: Duration) {
        // Without addresses, the pick fails.
        let _ = tokio::time::timeout(patience, self.shared.members.looked_up()).await;
    }

    /// Chooses an endpoint and counts the request there; see
    /// [`Balancer::pick`](balancer::Balancer::pick). `may_trial` says that the request may be a
    /// trial, since it can be sent to another endpoint whatever becomes of this try.
    ///
    /// # Errors
    /// Why no endpoint was chosen.
    pub fn pick(
        &self,
        request: balancer::PickRequest<'_>,
        tried: &[u64],
        may_trial: bool,
    ) -> Result<InFlight, Unplaced> {
        self.choose(
            request,
            tried,
            &[],
            may_trial,
            |endpoint, trial, details| {
                let in_flight = InFlight::new(endpoint).on_trial(trial);
                self.placed(in_flight, details, request.now)
            },
        )
    }

    /// Chooses an endpoint. It is not one of `full`, and one of `tried` only if no other is left.
    /// `claim` is called with the endpoint, whether this is a trial, and what the balancer says.
    /// For a choice of the balancer, its lock is still held, so its next pick sees what `claim`
    /// counts.
    fn choose<T>(
        &self,
        request: balancer::PickRequest,
        tried: &[u64],
        full: &[u64],
        may_trial: bool,
        claim: impl Fn(Arc<Endpoint>, bool, ChoiceDetails) -> T,
    ) -> Result<T, Unplaced> {
        // Requests of a deleted upstream are not repeated at addresses that are drained.
        if request.attempt > 0 && self.shared.members.is_retired() {
            return Err(NoPeer::NoTargets.into());
        }
        let note = |by| {
            if let Some(note) = request.note {
                note.set(by, None);
            }
        };
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
            note(ChosenBy::Trial);
            return Ok(claim(endpoint, true, ChoiceDetails::default()));
        }
        if let Some(id) = session
            && !tried.contains(&id)
            && !full.contains(&id)
            && let Some(endpoint) = self.shared.members.of_session(id)
        {
            note(ChosenBy::Session);
            return Ok(claim(endpoint, false, ChoiceDetails::default()));
        }
        let passed = match full {
            [] => Cow::Borrowed(tried),
            full => [tried, full].concat().into(),
        };
        let picked = self.balancer.place(request, &passed, |endpoint, details| {
            // The request has failed at every endpoint of the table: failover targets come next.
            let again = full.is_empty() && tried.contains(&endpoint.id);
            if again {
                Err((endpoint, details))
            } else {
                Ok(claim(endpoint, false, details))
            }
        });
        match picked {
            Choice::Endpoint(Ok(claimed)) => Ok(claimed),
            Choice::Endpoint(Err((again, details))) => {
                let failover = self.shared.members.failover(tried, request.entropy);
                let Some(failover) = failover else {
                    return Ok(claim(again, false, details));
                };
                note(ChosenBy::Failover);
                Ok(claim(failover, false, ChoiceDetails::default()))
            }
            Choice::Refused(refusal) => Err(Unplaced {
                reason: NoPeer::Refused,
                refusal,
            }),
            Choice::Empty => {
                // No endpoint is available, so nothing is lost by a trial.
                let trial = recovery.and_then(|(_, longest)| self.trial(request.now, longest));
                let trial = trial.ok_or_else(|| self.shared.members.reason())?;
                note(ChosenBy::Trial);
                Ok(claim(trial, true, ChoiceDetails::default()))
            }
        }
    }

    /// Notes at a request in flight what the balancer says of it.
    fn placed(&self, in_flight: InFlight, details: ChoiceDetails, now: u64) -> InFlight {
        let observer = details.observer;
        let observer = observer.map(|observer| observer as Arc<dyn OutcomeObserver>);
        let is_timed = self.balancer.wants(Observed::Body);
        in_flight
            .observed_by(observer)
            .weighing(details.cost, is_timed, now)
            .noted(details.notes)
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
    /// room, it waits for `patience` at most. `shares` says that requests share
    /// connections; then `max_connections` does not limit requests.
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
    ) -> Result<InFlight, Unplaced> {
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
                    |endpoint, trial, details| {
                        let id = endpoint.id;
                        // Endpoints not yet tried are only full: wait for one of them rather than
                        // try one twice.
                        if full.contains(&id) || (!full.is_empty() && tried.contains(&id)) {
                            return Err(None);
                        }
                        let limit = endpoint.max_requests(limits, shares);
                        match InFlight::within(endpoint, limit, places) {
                            Ok(entered) => {
                                let entered = entered.on_trial(trial);
                                Ok(self.placed(entered, details, request.now))
                            }
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
                waiting = Some(self.join_queues(&queues, limits.max_pending_requests)?);
            }
            // Requests that began before there was a limit notify no waiter when they end.
            let look = deadline.min(tokio::time::Instant::now() + RECHECK_INTERVAL);
            if tokio::time::timeout_at(look, freed).await.is_err() && look == deadline {
                return Err(NoPeer::Overflow.into());
            }
        }
    }

    /// Counts the request in the queue of the upstream, and in that of the first of these endpoints
    /// whose queue has room, until the result is dropped.
    ///
    /// # Errors
    /// A queue is full.
    fn join_queues(
        &self,
        queues: &[Arc<Endpoint>],
        limit: u32,
    ) -> Result<impl Drop + use<>, NoPeer> {
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
}
