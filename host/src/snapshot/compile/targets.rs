//! Targets, by upstream.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::upstreams::Upstreams;
use super::{Part, view};
use crate::authority::{Authority, Host};
use crate::entity::target::{DEFAULT_PORT, Target as Entity};
use crate::entity::{Kind, Row};
use crate::upstream::{Names, Target};

/// The targets of all upstreams.
#[derive(Default)]
pub(super) struct Targets {
    /// By upstream, in the order of their ids.
    by_upstream: HashMap<Uuid, BTreeMap<Uuid, Target>>,
    /// The upstream of each.
    parents: HashMap<Uuid, Uuid>,
    /// Upstreams whose targets have changed since the last rebuild.
    changed: HashSet<Uuid>,
    /// Whether names to look up were added or removed.
    pub(super) names_changed: bool,
}

impl Part for Targets {
    fn put(&mut self, id: Uuid, row: Row) {
        let Some(target) = view::<Entity>(Kind::Target, id, row) else {
            return;
        };
        self.delete(id);
        let Authority { host, port } = target.target;
        let parent = target.upstream.id;
        self.names_changed |= host.ip().is_none();
        self.changed.insert(parent);
        let target = Target {
            id,
            host,
            port: port.unwrap_or(DEFAULT_PORT),
            weight: target.weight,
            failover: target.failover,
            limits: target.pointsman.circuit_breakers,
            probe: target.pointsman.probe,
        };
        let siblings = self.by_upstream.entry(parent).or_default();
        siblings.insert(id, target);
        self.parents.insert(id, parent);
    }

    fn delete(&mut self, id: Uuid) {
        let Some(parent) = self.parents.remove(&id) else {
            return;
        };
        self.changed.insert(parent);
        if let Some(siblings) = self.by_upstream.get_mut(&parent) {
            let old = siblings.remove(&id);
            self.names_changed |= old.is_some_and(|old| old.host.ip().is_none());
            if siblings.is_empty() {
                self.by_upstream.remove(&parent);
            }
        }
    }
}

impl Targets {
    /// The hosts of all targets.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host<'static>> {
        let targets = self.by_upstream.values().flat_map(BTreeMap::values);
        targets.map(|target| &target.host)
    }

    /// Sets the targets of the upstreams whose targets have changed, and of those of `new`.
    pub(super) fn rebuild(&mut self, upstreams: &Upstreams, new: &HashSet<Uuid>, names: &Names) {
        for id in std::mem::take(&mut self.changed).union(new) {
            self.set(*id, upstreams, names);
        }
    }

    /// Sets the targets of all upstreams, with the present addresses of their names.
    pub(super) fn refresh(&self, upstreams: &Upstreams, names: &Names) {
        for id in self.by_upstream.keys() {
            self.set(*id, upstreams, names);
        }
    }

    /// Sets the targets of an upstream, in the order of their ids.
    fn set(&self, id: Uuid, upstreams: &Upstreams, names: &Names) {
        if let Some(upstream) = upstreams.get(id) {
            let targets = self.by_upstream.get(&id);
            let targets = targets.into_iter().flat_map(BTreeMap::values);
            let targets: Vec<Target> = targets.cloned().collect();
            upstream.set_targets(&targets, names);
        }
    }
}
