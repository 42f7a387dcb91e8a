//! A request in flight at an endpoint, and the places that it may wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;

use super::ended::TryNotes;
use super::work::Work;
use super::{Endpoint, Outcome, OutcomeObserver, RequestCost};
use crate::clock::micros;
use crate::trace::EndReason;

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
    /// Wakes all waiting requests: there may be a place where there was none.
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
    /// What only some balancers ask for. Boxed, since most requests have none of it.
    extras: Option<Box<Extras>>,
}

#[derive(Debug, Default)]
struct Extras {
    /// What the request weighs, if a balancer has said it or reads how bodies stream.
    work: Option<Work>,
    /// What a balancer is told when it ends.
    notes: Option<Box<TryNotes>>,
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
            extras: None,
        }
    }

    /// Says whether the request is a trial.
    pub(crate) fn on_trial(mut self, trial: bool) -> Self {
        self.trial = trial;
        self
    }

    /// Sets the observer to notify of the outcome, if there is one.
    pub(crate) fn observed_by(mut self, observer: Option<Arc<dyn OutcomeObserver>>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets what the request weighs from `now` on, in microseconds. If a balancer reads how bodies
    /// stream, it `is_timed`.
    pub(crate) fn weighing(mut self, cost: RequestCost, is_timed: bool, now: u64) -> Self {
        if is_timed || cost != RequestCost::NONE {
            let work = Work::begin(&self.endpoint.live, cost, is_timed, now);
            self.extras.get_or_insert_default().work = Some(work);
        }
        self
    }

    /// Sets what a balancer is told when the request ends, if it is told anything.
    pub(crate) fn noted(mut self, notes: Option<Box<TryNotes>>) -> Self {
        if let Some(mut notes) = notes {
            notes.begin();
            self.extras.get_or_insert_default().notes = Some(notes);
        }
        self
    }

    /// Notes that a part of the response's body has come. `now` is called if the time is needed.
    #[inline]
    pub(crate) fn note_body(&mut self, now: impl FnOnce() -> u64) {
        if let Some(work) = self.extras.as_mut().and_then(|extras| extras.work.as_mut()) {
            work.note_part(&self.endpoint.live, now);
        }
    }

    /// Notes that no further byte is awaited, as once a connection is a tunnel.
    pub(crate) fn note_answered(&mut self) {
        if let Some(work) = self.extras.as_mut().and_then(|extras| extras.work.as_mut()) {
            work.answer(&self.endpoint.live);
        }
    }

    /// Notes the head of the response for a balancer that is told of it.
    #[inline]
    pub(crate) fn note_head(&mut self, status: StatusCode, headers: &HeaderMap) {
        if let Some(notes) = self.notes() {
            notes.note_head(status, headers);
        }
    }

    /// Notes bytes of the body for a balancer that is told of them. `now` is called if the time is
    /// needed.
    #[inline]
    pub(crate) fn note_bytes(&mut self, bytes: u64, now: impl FnOnce() -> u64) {
        if let Some(notes) = self.notes() {
            notes.note_bytes(bytes, now);
        }
    }

    /// Notes the bytes that the endpoint has sent through a tunnel or a stream, for a balancer that
    /// is told of them.
    pub(crate) fn note_passed(&mut self, bytes: u64) {
        if let Some(notes) = self.notes() {
            notes.note_passed(bytes);
        }
    }

    /// Notes why the try ends, for a balancer that is told of it. Of several calls the first one
    /// counts; without a call, the client has left. `now` is called if the time is needed.
    #[inline]
    pub(crate) fn end(&mut self, why: EndReason, now: impl FnOnce() -> u64) {
        if let Some(notes) = self.notes() {
            notes.end(why, now());
        }
    }

    /// Notes that the try ends now; see [`Self::end`].
    #[inline]
    pub(crate) fn end_now(&mut self, why: EndReason) {
        self.end(why, || micros(Instant::now()));
    }

    /// What a balancer is told when it ends, if one is.
    #[inline]
    pub(crate) fn notes(&mut self) -> Option<&mut TryNotes> {
        self.extras.as_mut()?.notes.as_deref_mut()
    }

    /// Counts a request that is about to be sent, unless `limit` are in flight; 0 means no limit.
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
                extras: None,
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
        let mut extras = self.extras.take();
        if let Some(work) = extras.as_mut().and_then(|extras| extras.work.as_mut()) {
            work.end(&self.endpoint.live);
        }
        self.endpoint.live.end();
        if let Some(places) = &self.places {
            places.first.notify_one();
            places.again.notify_waiters();
        }
        // A balancer that is told of the end finds the request no longer in flight.
        drop(extras);
    }
}
