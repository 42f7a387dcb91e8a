//! Routes: their regular expressions, compiled once and within a memory limit, and the router.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::services::Services;
use super::users::Users;
use super::{Part, view};
use crate::config::RouterFlavor;
use crate::entity::route::Route as Entity;
use crate::entity::{Kind, Row};
use crate::pattern::PatternMemory;
use crate::router::{Route, Router, StreamRoute, StreamRouter};

/// The routes, and the router that finds them.
pub(super) struct Routes {
    /// How routes are written.
    pub(super) flavor: RouterFlavor,
    /// The memory of the regular expressions of all routes.
    patterns: Arc<PatternMemory>,
    compiled: BTreeMap<Uuid, Arc<Route>>,
    /// Those of each service.
    of_service: Users<Uuid>,
    /// Routes whose regular expressions do not fit in the memory that the others leave, for now.
    without_room: BTreeMap<Uuid, Entity>,
    /// The least memory that was left, in bytes, when one of those was last tried.
    tried_with: usize,
    /// The routes that are compiled but not in the router yet.
    waiting: Vec<Uuid>,
    /// The router, with the routes whose service is enabled.
    router: Router,
    /// The routes of streams.
    streams: BTreeMap<Uuid, Arc<StreamRoute>>,
    /// The router of streams, with the routes whose service is enabled.
    stream_router: StreamRouter,
    /// Whether routes were added or removed since the last rebuild.
    changed: bool,
}

impl Part for Routes {
    fn put(&mut self, id: Uuid, row: Row) {
        if let Some(route) = view(Kind::Route, id, row) {
            self.changed = true;
            self.compile(id, route);
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.changed = true;
        self.remove(id);
    }
}

impl Routes {
    pub(super) fn new(patterns: Arc<PatternMemory>) -> Self {
        Self {
            flavor: RouterFlavor::default(),
            patterns,
            compiled: BTreeMap::new(),
            of_service: Users::default(),
            without_room: BTreeMap::new(),
            tried_with: usize::MAX,
            waiting: Vec::new(),
            router: Router::default(),
            streams: BTreeMap::new(),
            stream_router: StreamRouter::default(),
            changed: false,
        }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    pub(super) fn stream_router(&self) -> &StreamRouter {
        &self.stream_router
    }

    /// Brings the router up to date. `toggled` are the services that were enabled or disabled.
    /// Returns whether the router has changed.
    pub(super) fn rebuild(&mut self, services: &Services, toggled: &HashSet<Uuid>) -> bool {
        let changed = std::mem::take(&mut self.changed);
        if changed {
            self.retry_without_room();
        }
        for id in toggled.iter().flat_map(|id| self.of_service.of(id)) {
            if let Some(route) = self.compiled.get(&id) {
                self.router.remove(route);
                self.stream_router.remove(id);
                self.waiting.push(id);
            }
        }
        // The router's lists are in descending order of ids, so this order appends to them.
        self.waiting.sort_unstable_by(|one, other| other.cmp(one));
        self.waiting.dedup();
        for id in self.waiting.drain(..) {
            if let Some(route) = self.compiled.get(&id)
                && route.service.is_none_or(|id| services.is_enabled(id))
            {
                self.router.insert(route);
                if let Some(stream) = self.streams.get(&id) {
                    self.stream_router.insert(stream);
                }
            }
        }
        changed || !toggled.is_empty()
    }

    /// Compiles a route in the memory that the others leave, or leaves it without effect.
    fn compile(&mut self, id: Uuid, route: Entity) {
        self.remove(id);
        let left = self.patterns.left_for(id);
        let stream = StreamRoute::compile(&route, left);
        match stream
            .and_then(|stream| Ok((Route::compile(route.clone(), self.flavor, left)?, stream)))
        {
            Ok((compiled, stream)) => {
                // A route is either of requests or of streams.
                let mut memory = compiled.pattern_memory;
                if let Some(stream) = stream {
                    memory += stream.pattern_memory;
                    self.streams.insert(id, Arc::new(stream));
                }
                self.patterns.set(id, memory);
                if let Some(service) = compiled.service {
                    self.of_service.add(service, id);
                }
                self.compiled.insert(id, Arc::new(compiled));
                self.waiting.push(id);
            }
            Err(error) => {
                tracing::error!(
                    route = route.name,
                    %id,
                    "a stored route has no effect, {}: {error}",
                    error.field
                );
                if error.is_want_of_room() {
                    self.without_room.insert(id, route);
                    self.tried_with = self.tried_with.min(left);
                }
            }
        }
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(route) = self.compiled.remove(&id) {
            self.router.remove(&route);
            if let Some(service) = route.service {
                self.of_service.remove(&service, id);
            }
        }
        if self.streams.remove(&id).is_some() {
            self.stream_router.remove(id);
        }
        self.without_room.remove(&id);
        self.patterns.set(id, 0);
    }

    /// Tries the routes again that there was no room for, if there is more memory than there was.
    fn retry_without_room(&mut self) {
        let left = self.patterns.left_for(Uuid::nil());
        if !self.without_room.is_empty() && left > self.tried_with {
            self.tried_with = usize::MAX;
            for (id, route) in std::mem::take(&mut self.without_room) {
                self.compile(id, route);
            }
        }
    }
}

#[cfg(test)]
mod tests;
