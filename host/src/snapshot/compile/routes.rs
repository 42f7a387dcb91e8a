//! Routes: their regular expressions, compiled once and within a memory limit, and the router.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::services::Services;
use super::{Part, view};
use crate::entity::route::Route as Entity;
use crate::entity::{Kind, Row};
use crate::pattern::PatternMemory;
use crate::router::{Route, Router};

/// The routes, and the router that finds them.
pub(super) struct Routes {
    /// The memory of the regular expressions of all routes.
    patterns: Arc<PatternMemory>,
    compiled: BTreeMap<Uuid, Arc<Route>>,
    /// Routes whose regular expressions do not fit in the memory that the others leave, for now.
    set_aside: BTreeMap<Uuid, Entity>,
    /// The least memory that was left, in bytes, when one of those was last tried.
    tried_with: usize,
    /// The routes that are compiled but not in the router yet.
    waiting: Vec<Uuid>,
    /// The router, with the routes whose service is enabled.
    router: Router,
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
            patterns,
            compiled: BTreeMap::new(),
            set_aside: BTreeMap::new(),
            tried_with: usize::MAX,
            waiting: Vec::new(),
            router: Router::default(),
            changed: false,
        }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// Brings the router up to date. `toggled` are the services that were enabled or disabled.
    /// Returns whether the router has changed.
    pub(super) fn rebuild(&mut self, services: &Services, toggled: &HashSet<Uuid>) -> bool {
        let changed = std::mem::take(&mut self.changed);
        if changed {
            self.retry_set_aside();
        }
        let is_toggled = |route: &Route| route.service.is_some_and(|id| toggled.contains(&id));
        if !toggled.is_empty() {
            for route in self.compiled.values().filter(|route| is_toggled(route)) {
                self.router.remove(route);
                self.waiting.push(route.id);
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
            }
        }
        changed || !toggled.is_empty()
    }

    /// Compiles a route in the memory that the others leave, or sets it aside.
    fn compile(&mut self, id: Uuid, route: Entity) {
        self.remove(id);
        let left = self.patterns.left_for(id);
        match Route::compile(route.clone(), left) {
            Ok(compiled) => {
                self.patterns.set(id, compiled.pattern_memory);
                self.compiled.insert(id, Arc::new(compiled));
                self.waiting.push(id);
            }
            Err(error) => {
                tracing::error!(
                    route = route.name,
                    %id,
                    "a stored route is set aside, {}: {error}",
                    error.field
                );
                if error.is_want_of_room() {
                    self.set_aside.insert(id, route);
                    self.tried_with = self.tried_with.min(left);
                }
            }
        }
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(route) = self.compiled.remove(&id) {
            self.router.remove(&route);
        }
        self.set_aside.remove(&id);
        self.patterns.set(id, 0);
    }

    /// Tries the routes again that were set aside, if there is more memory than there was.
    fn retry_set_aside(&mut self) {
        let left = self.patterns.left_for(Uuid::nil());
        if !self.set_aside.is_empty() && left > self.tried_with {
            self.tried_with = usize::MAX;
            for (id, route) in std::mem::take(&mut self.set_aside) {
                self.compile(id, route);
            }
        }
    }
}

#[cfg(test)]
mod tests;
