//! Targets, by upstream.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::upstreams::Upstreams;
use super::users::Users;
use super::{Part, view};
use crate::authority::{Authority, Host};
use crate::endpoint::Labels;
use crate::entity::target::{DEFAULT_PORT, Location, Target as Entity};
use crate::entity::{Kind, Row};
use crate::upstream::{ConfiguredTarget, Names};

/// The targets of all upstreams.
#[derive(Default)]
pub(super) struct Targets {
    /// By upstream, in the order of their ids.
    by_upstream: HashMap<Uuid, BTreeMap<Uuid, ConfiguredTarget>>,
    /// The upstream of each.
    parents: HashMap<Uuid, Uuid>,
    /// Upstreams whose targets have changed since the last rebuild.
    changed: HashSet<Uuid>,
    /// The targets of each name that is looked up.
    pub(super) names: Users<String>,
    /// The names that targets have begun or ceased to have.
    pub(super) names_touched: HashSet<String>,
}

impl Part for Targets {
    fn put(&mut self, id: Uuid, row: Row) {
        let Some(target) = view::<Entity>(Kind::Target, id, row) else {
            return;
        };
        self.delete(id);
        let (host, port, socket) = match target.target {
            Location::Host(Authority { host, port }) => (host, port, None),
            Location::Unix(path) => (Host::localhost(), None, Some(path)),
        };
        let parent = target.upstream.id;
        let tags = target.tags.iter().flatten().map(String::as_str);
        let labels = Labels::new(tags, &target.pointsman.labels.unwrap_or_default());
        if host.ip().is_none() && socket.is_none() {
            let name = host.dns_name().to_owned();
            self.names_touched.insert(name.clone());
            self.names.add(name, id);
        }
        self.changed.insert(parent);
        let target = ConfiguredTarget {
            id,
            host,
            port: port.unwrap_or(DEFAULT_PORT),
            socket,
            weight: target.weight,
            failover: target.failover,
            labels,
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
            if let Some(old) = siblings.remove(&id) {
                let name = old.host.dns_name();
                self.names.remove(name, id);
                self.names_touched.insert(name.to_owned());
            }
            if siblings.is_empty() {
                self.by_upstream.remove(&parent);
            }
        }
    }
}

impl Targets {
    /// Sets the targets of the upstreams whose targets have changed, and of those of `new`.
    pub(super) fn rebuild(&mut self, upstreams: &Upstreams, new: &HashSet<Uuid>, names: &Names) {
        for id in std::mem::take(&mut self.changed).union(new) {
            self.set(*id, upstreams, names);
        }
    }

    /// Sets the targets of the upstreams that have a target with one of these names, with the
    /// present addresses of their names.
    pub(super) fn refresh(&self, changed: &HashSet<String>, upstreams: &Upstreams, names: &Names) {
        let targets = changed.iter().flat_map(|name| self.names.of(name));
        let parents = targets.filter_map(|target| self.parents.get(&target));
        for id in parents.collect::<HashSet<_>>() {
            self.set(*id, upstreams, names);
        }
    }

    /// Sets the targets of an upstream, in the order of their ids.
    fn set(&self, id: Uuid, upstreams: &Upstreams, names: &Names) {
        if let Some(upstream) = upstreams.get(id) {
            let targets = self.by_upstream.get(&id);
            let targets = targets.into_iter().flat_map(BTreeMap::values);
            let targets: Vec<ConfiguredTarget> = targets.cloned().collect();
            upstream.set_targets(&targets, names);
        }
    }
}
