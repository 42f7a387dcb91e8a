//! Plugins, as instances of policies.

use std::sync::Arc;

use uuid::Uuid;

use super::super::{Part, view};
use super::referencing_rows::ReferencingRows;
use super::rotation::Rows;
use super::vaults::Vaults;
use crate::entity::plugin::{Plugin, PluginKind, acme};
use crate::entity::{Kind, Row};
use crate::policy::chain::{Instance, Instances, Policies, Scope};
use crate::policy::{self, Resources};

/// The protocols of requests. A plugin for streams alone has no effect on requests.
const OF_REQUESTS: [&str; 4] = ["http", "https", "grpc", "grpcs"];

/// The protocols of streams. A plugin for requests alone has no effect on streams.
const OF_STREAMS: [&str; 4] = ["tcp", "tls", "tls_passthrough", "udp"];

/// The plugins, as instances of policies.
pub(in super::super) struct Plugins {
    resources: Arc<Resources>,
    /// Those for requests.
    instances: Instances,
    /// Those for streams.
    of_streams: Instances,
    pub(super) vaults: Vaults,
    /// The plugins with references to vaults.
    pub(super) referencing: ReferencingRows,
}

impl Part for Plugins {
    fn put(&mut self, id: Uuid, row: Row) {
        if let Some(row) = self.referencing.put(id, row) {
            self.put_resolved(id, row);
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.referencing.delete(id);
        self.instances.remove(id);
        self.of_streams.remove(id);
    }
}

impl Plugins {
    pub(super) fn new(resources: Arc<Resources>) -> Self {
        Self {
            resources,
            instances: Instances::default(),
            of_streams: Instances::default(),
            vaults: Vaults::default(),
            referencing: ReferencingRows::new(Kind::Plugin),
        }
    }

    /// Takes over the values that were read again. Returns whether any has changed.
    pub(in super::super) fn apply_vault_values(&mut self, read: Rows) -> bool {
        let changed = self.referencing.apply_vault_values(read);
        let is_changed = !changed.is_empty();
        for (id, row) in changed {
            self.put_resolved(id, row);
        }
        is_changed
    }

    fn put_resolved(&mut self, id: Uuid, row: Row) {
        self.instances.remove(id);
        self.of_streams.remove(id);
        let Some(plugin) = view::<Plugin>(Kind::Plugin, id, row) else {
            return;
        };
        let is_for = |family: [&str; 4]| {
            let mut protocols = plugin.protocols.iter();
            plugin.enabled && protocols.any(|name| family.contains(&&**name))
        };
        let (requests, streams) = (is_for(OF_REQUESTS), is_for(OF_STREAMS));
        if !requests && !streams {
            return;
        }
        if let Some(instance) = self.build(&plugin) {
            if streams {
                self.of_streams.put(instance.clone());
            }
            if requests {
                self.instances.put(instance);
            }
        }
    }

    /// Takes over the service of a route; `None` for a route that was deleted.
    pub(in super::super) fn put_route(&mut self, route: Uuid, row: Option<&Row>) {
        let service = row.and_then(|row| row.get("service")?.get("id")?.as_str());
        let service = service.and_then(|id| Uuid::try_parse(id).ok());
        self.instances.set_service(route, service);
        self.of_streams.set_service(route, service);
    }

    /// Brings the chains up to date. Returns whether they have changed.
    pub(super) fn rebuild(&mut self, requests: &mut Policies, streams: &mut Policies) -> bool {
        for (id, row) in self.referencing.resolve(&self.vaults) {
            self.put_resolved(id, row);
        }
        // Both, whether or not the first has changed.
        self.instances.rebuild(requests) | self.of_streams.rebuild(streams)
    }

    /// The instance of a plugin; `None` if it cannot be used.
    fn build(&self, plugin: &Plugin) -> Option<Instance> {
        if plugin.name == acme::NAME {
            // It does nothing with requests: `crate::acme` reads its settings.
            return None;
        }
        let kind = PluginKind::named(&plugin.name)?;
        let policy = match policy::build(plugin, &self.resources) {
            Ok(policy) => policy,
            Err(error) => {
                let (name, id) = (&plugin.name, plugin.id);
                tracing::error!(plugin = name, %id, "a stored plugin cannot be used: {error}");
                policy::blocking_substitute(plugin)?
            }
        };
        Some(Instance {
            id: plugin.id,
            name: kind.schema.name,
            priority: kind.priority,
            scope: Scope {
                route: plugin.route.as_ref().map(|key| key.id),
                service: plugin.service.as_ref().map(|key| key.id),
                consumer: plugin.consumer.as_ref().map(|key| key.id),
            },
            policy,
        })
    }
}
