//! Plugins, as instances of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::super::{Part, view};
use super::rotation::{References, Resolved};
use super::vaults::Vaults;
use crate::entity::plugin::{Plugin, PluginKind};
use crate::entity::{Kind, Row, has_references};
use crate::policy::chain::{Instance, Instances, Policies, Scope};
use crate::policy::{self, Resources};

/// The protocols of requests. A plugin for streams alone has no effect on requests.
const PROTOCOLS: [&str; 4] = ["http", "https", "grpc", "grpcs"];

/// The plugins, as instances of policies.
pub(in super::super) struct Plugins {
    resources: Arc<Resources>,
    instances: Instances,
    pub(super) vaults: Vaults,
    /// The rows with references to vaults, as they are stored.
    with_references: BTreeMap<Uuid, Row>,
    /// Those of them whose references are to be resolved.
    unresolved: BTreeSet<Uuid>,
    /// The same rows with the values that are in effect.
    resolved: BTreeMap<Uuid, Row>,
    /// Counts the changes of these rows, and of the vaults.
    generation: u64,
}

impl Part for Plugins {
    fn put(&mut self, id: Uuid, row: Row) {
        if has_references(Kind::Plugin, &row) {
            // The vaults may be in a later change of the same commit.
            self.with_references.insert(id, row);
            self.unresolved.insert(id);
        } else {
            self.forget_references(id);
            self.put_resolved(id, row);
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.forget_references(id);
        self.instances.remove(id);
    }
}

impl Plugins {
    pub(super) fn new(resources: Arc<Resources>) -> Self {
        Self {
            resources,
            instances: Instances::default(),
            vaults: Vaults::default(),
            with_references: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            resolved: BTreeMap::new(),
            generation: 0,
        }
    }

    fn forget_references(&mut self, id: Uuid) {
        if self.with_references.remove(&id).is_some() {
            self.resolved.remove(&id);
            self.generation += 1;
        }
    }

    /// The references that are to be read again; `None` if there are none.
    pub(in super::super) fn references(&self) -> Option<References> {
        (!self.with_references.is_empty()).then(|| References {
            rows: self.with_references.clone(),
            vaults: self.vaults.compiled(),
            generation: self.generation,
        })
    }

    /// Takes over the values that were read again. Returns whether any has changed.
    pub(in super::super) fn take_over(&mut self, read: Resolved) -> bool {
        if read.generation != self.generation {
            // What was written meanwhile has been resolved since.
            return false;
        }
        let mut is_changed = false;
        for (id, row) in read.rows {
            if self.resolved.get(&id) != Some(&row) {
                tracing::info!(plugin = %id, "a value of a vault has changed");
                self.resolved.insert(id, row.clone());
                self.put_resolved(id, row);
                is_changed = true;
            }
        }
        is_changed
    }

    fn put_resolved(&mut self, id: Uuid, row: Row) {
        let instance = view(Kind::Plugin, id, row).and_then(|plugin| self.build(&plugin));
        match instance {
            Some(instance) => self.instances.put(instance),
            None => self.instances.remove(id),
        }
    }

    /// Takes over the service of a route; `None` for a route that was deleted.
    pub(in super::super) fn put_route(&mut self, route: Uuid, row: Option<&Row>) {
        let service = row.and_then(|row| row.get("service")?.get("id")?.as_str());
        let service = service.and_then(|id| Uuid::try_parse(id).ok());
        self.instances.set_service(route, service);
    }

    /// Brings the chains up to date. Returns whether they have changed.
    pub(super) fn rebuild(&mut self, policies: &mut Policies) -> bool {
        let mut unresolved = std::mem::take(&mut self.unresolved);
        if self.vaults.take_changed() {
            unresolved.extend(self.with_references.keys());
        }
        for id in unresolved {
            if let Some(mut row) = self.with_references.get(&id).cloned() {
                self.vaults.resolve(Kind::Plugin, id, &mut row);
                self.resolved.insert(id, row.clone());
                self.generation += 1;
                self.put_resolved(id, row);
            }
        }
        self.instances.rebuild(policies)
    }

    /// The instance of a plugin; `None` if the plugin is not in effect.
    fn build(&self, plugin: &Plugin) -> Option<Instance> {
        let serves = |name: &String| PROTOCOLS.contains(&&**name);
        if !plugin.enabled || !plugin.protocols.iter().any(serves) {
            return None;
        }
        let kind = PluginKind::named(&plugin.name)?;
        let policy = match policy::build(plugin, &self.resources) {
            Ok(policy) => policy,
            Err(error) => {
                let (name, id) = (&plugin.name, plugin.id);
                tracing::error!(plugin = name, %id, "a stored plugin cannot be used: {error}");
                policy::in_place_of(plugin)?
            }
        };
        Some(Instance {
            id: plugin.id,
            name: kind.schema.name,
            priority: kind.priority,
            scope: Scope {
                route: plugin.route.map(|key| key.id),
                service: plugin.service.map(|key| key.id),
                consumer: plugin.consumer.map(|key| key.id),
            },
            policy,
        })
    }
}
