//! A request in flight at an endpoint, and the places that it may wait for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Endpoint, Outcome, OutcomeObserver};

/// Notifies requests that a place at some endpoint is free.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// For the request that has waited the longest.
    pub(crate) first: Notify,
    /// For all requests that have been tried somewhere. The place may be at an endpoint that they
    /// do not go back to; then it is left to another request.
    pub(crate) again: Notify,
}

impl Places {
    /// Has all waiting requests look again: there may be a place where there was none.
    pub(crate) fn look(&self) {
        self.first.notify_waiters();
        self.again.notify_waiters();
    }
}

/// Counts one request of an endpoint until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// Requests that were in flight there before.
    ahead: u32,
    /// Notified when the place is free again, where places are limited.
    places: Option<Arc<Places>>,
    /// Whether it is a trial, to find out whether the endpoint works again.
    trial: bool,
    /// Notified of the outcome.
    observer: Option<Arc<dyn OutcomeObserver>>,
}

impl InFlight {
    /// Counts a request that is about to be sent.
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            ahead: endpoint.live.begin(),
            endpoint,
            places: None,
            trial: false,
            observer: None,
        }
    }

    /// The same, as a trial or not.
    pub(crate) fn on_trial(mut self, trial: bool) -> Self {
        self.trial = trial;
        self
    }

    /// The same, with the observer to notify of the outcome, if there is one.
    pub(crate) fn observed_by(mut self, observer: Option<Arc<dyn OutcomeObserver>>) -> Self {
        self.observer = observer;
        self
    }

    /// The same, unless more than `limit` would be in flight; 0 means no limit.
    pub(crate) fn within(
        endpoint: Arc<Endpoint>,
        limit: u32,
        places: &Arc<Places>,
    ) -> Result<Self, Arc<Endpoint>> {
        let limit = if limit == 0 { u32::MAX } else { limit };
        match endpoint.live.begin_within(limit) {
            Some(ahead) => Ok(Self {
                endpoint,
                ahead,
                places: Some(Arc::clone(places)),
                trial: false,
                observer: None,
            }),
            None => Err(endpoint),
        }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Requests that were in flight at the endpoint when this one was added.
    pub fn ahead(&self) -> u32 {
        self.ahead
    }

    /// Whether it is a trial, to find out whether the endpoint works again.
    pub fn is_trial(&self) -> bool {
        self.trial
    }

    /// Notifies the observer of the outcome, after so long; without one it does nothing.
    pub fn tell(&self, outcome: Outcome, took: Duration) {
        if let Some(observer) = &self.observer {
            observer.observe(outcome, took);
        }
    }

    /// The endpoint, for a caller that keeps it.
    pub fn shared(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.live.end();
        if let Some(places) = &self.places {
            places.first.notify_one();
            places.again.notify_waiters();
        }
    }
}
