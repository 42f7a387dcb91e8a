//! What the stages of a request note for its record.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::balancer::PickNote;
use crate::clock;
use crate::endpoint_address::EndpointAddress;
use crate::policy::record::{Latencies, Stages, Try, TryOutcome};
use crate::router::Route;
use crate::snapshot::Service;

/// What the stages of a request note for its record.
#[derive(Default)]
pub(super) struct Trace {
    /// What the request was matched to.
    pub(super) matched_entities: MatchedEntities,
    /// When its route was found.
    matched_at: Option<Instant>,
    /// When its policies had decided.
    admitted: Cell<Option<Instant>>,
    /// How the endpoint of the current try is chosen.
    pub(super) pick: PickNote,
    /// The tries that have ended, in their order.
    pub(super) tries: RefCell<Vec<Try>>,
    /// The try in progress.
    current: Cell<Option<CurrentTry>>,
    /// Path and query of the request to the endpoint.
    pub(super) upstream_target: RefCell<Option<Arc<str>>>,
    /// When the first try began.
    first: Cell<Option<Instant>>,
    /// When the last one ended.
    last: Cell<Option<Instant>>,
}

/// What a request was matched to.
#[derive(Default)]
pub(super) struct MatchedEntities {
    pub(super) route: Option<Uuid>,
    pub(super) route_name: Option<Arc<str>>,
    pub(super) service: Option<Uuid>,
    pub(super) service_name: Option<Arc<str>>,
    /// The name of the upstream.
    pub(super) upstream: Option<Arc<str>>,
}

struct CurrentTry {
    address: EndpointAddress,
    began: Instant,
    picked_in: Duration,
}

impl Trace {
    /// Notes that the route was found now, and its service.
    pub(super) fn note_match(&mut self, route: &Route, service: Option<&Service>) {
        self.note_match_at(Instant::now(), route, service);
    }

    /// Notes the route that was found `at` a time, and its service.
    pub(super) fn note_match_at(&mut self, at: Instant, route: &Route, service: Option<&Service>) {
        self.matched_at = Some(at);
        self.matched_entities = MatchedEntities {
            route: Some(route.id),
            route_name: route.name.clone(),
            service: route.service,
            service_name: service.map(|service| Arc::clone(&service.name)),
            upstream: service.map(|service| Arc::clone(&service.upstream.name)),
        };
    }

    /// Notes that the policies have decided now.
    pub(super) fn note_access(&self) {
        self.admitted.set(Some(Instant::now()));
    }

    /// Notes that an endpoint was chosen, in a try that began at `began`.
    pub(super) fn begin_try(&self, address: &EndpointAddress, target: &[u8], began: Instant) {
        if self.first.get().is_none() {
            self.first.set(Some(began));
            let target = String::from_utf8_lossy(target);
            *self.upstream_target.borrow_mut() = Some(target.into());
        }
        self.current.set(Some(CurrentTry {
            address: address.clone(),
            began,
            picked_in: began.elapsed(),
        }));
    }

    /// Notes where a request would have been sent that a policy has answered: the path without the
    /// query, which Kong adds last.
    pub(super) fn note_unsent(&self, path: Option<&str>, target: &[u8]) {
        let target = path.map_or(target, str::as_bytes);
        let path = target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        let path = String::from_utf8_lossy(path);
        *self.upstream_target.borrow_mut() = Some(path.into());
    }

    /// Notes the end of the try: the head of the response, or a failure with its code.
    pub(super) fn end_try(&self, outcome: TryOutcome, failure: Option<&'static str>, now: Instant) {
        if let Some(CurrentTry {
            address,
            began,
            picked_in,
        }) = self.current.take()
        {
            self.last.set(Some(now));
            self.tries.borrow_mut().push(Try {
                address,
                pick: self.pick.take(),
                started: clock::time_of_day(began),
                balancer: picked_in,
                took: now - began,
                outcome,
                failure,
            });
        }
    }

    /// The times of a request that began at `started` and has ended at `now`.
    pub(super) fn latencies(&self, started: Instant, now: Instant) -> Latencies {
        let total = now - started;
        let last = self.last.get().unwrap_or(now);
        let upstream = self.first.get().map(|first| last - first);
        let is_answered = |last: &Try| matches!(last.outcome, TryOutcome::Answered(_));
        let receive = match self.tries.borrow().last().is_some_and(is_answered) {
            true => now - last,
            false => Duration::ZERO,
        };
        Latencies {
            total,
            gateway: total.saturating_sub(upstream.unwrap_or_default() + receive),
            upstream,
            receive,
        }
    }

    /// The times of the stages of a request that began at `started`.
    pub(super) fn stages(&self, started: Instant) -> Stages {
        let admitted = self.admitted.get();
        let before_body = admitted.or(self.matched_at);
        Stages {
            matched: self.matched_at.map(|matched| matched - started),
            access: admitted.and_then(|admitted| Some(admitted - self.matched_at?)),
            body: self
                .first
                .get()
                .and_then(|first| Some(first.saturating_duration_since(before_body?))),
        }
    }
}
