//! Upstreams: what requests can be sent to by name.

mod shadow;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::balancers::{Balancers, DEFAULT_BALANCER, complete};
use super::client_tls::ClientCertificates;
use super::context::Context;
use super::{Part, view};
use crate::authority::Host;
use crate::balancer::Plugin;
use crate::entity::upstream::Upstream as Entity;
use crate::entity::{Kind, Row};
use crate::upstream::{Policy, Upstream};

/// The upstreams of the Admin API.
#[derive(Default)]
pub(super) struct Upstreams {
    settings: BTreeMap<Uuid, Entity>,
    compiled: Arc<HashMap<Uuid, Arc<Upstream>>>,
    /// The upstreams whose settings have changed since the last rebuild.
    changed: HashSet<Uuid>,
    /// Whether there are names that no longer have to be looked up, or now have to be: a service's
    /// host that is the name of an upstream is not looked up.
    pub(super) names_changed: bool,
}

/// The result of a rebuild.
#[derive(Default)]
pub(super) struct Rebuilt {
    /// The upstreams that are new, have new settings, or are deleted.
    pub(super) changed: HashSet<Uuid>,
    /// The deleted upstreams, to be retired once no new request can find them.
    pub(super) deleted: Vec<Arc<Upstream>>,
}

impl Part for Upstreams {
    fn put(&mut self, id: Uuid, row: Row) {
        if let Some(upstream) = view(Kind::Upstream, id, row) {
            self.changed.insert(id);
            self.names_changed = true;
            self.settings.insert(id, upstream);
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.changed.insert(id);
        self.names_changed = true;
        self.settings.remove(&id);
    }
}

impl Upstreams {
    pub(super) fn get(&self, id: Uuid) -> Option<&Arc<Upstream>> {
        self.compiled.get(&id)
    }

    /// All of them, as requests find them.
    pub(super) fn compiled(&self) -> &Arc<HashMap<Uuid, Arc<Upstream>>> {
        &self.compiled
    }

    /// Whether settings have changed since the last rebuild.
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Has the next rebuild compile the upstreams that name one of these certificates.
    pub(super) fn change_users_of(&mut self, certificates: &HashSet<Uuid>) {
        if certificates.is_empty() {
            return;
        }
        for (id, upstream) in &self.settings {
            let named = upstream.client_certificate.as_ref();
            if named.is_some_and(|named| certificates.contains(&named.id)) {
                self.changed.insert(*id);
            }
        }
    }

    /// The hosts that lead to an upstream.
    pub(super) fn hosts(&self) -> HashSet<Host<'_>> {
        let names = self.settings.values();
        let names = names.filter_map(|upstream| Host::of_setting(&upstream.name));
        names.collect()
    }

    /// The upstreams by the hosts that lead to them. If the names of two differ only in spelling,
    /// which an earlier version accepted, the one whose name is less as text is used.
    pub(super) fn by_host(&self) -> HashMap<Host<'_>, &Arc<Upstream>> {
        let mut by_host: HashMap<Host<'_>, &Arc<Upstream>> = HashMap::new();
        for upstream in self.compiled.values() {
            if let Some(host) = Host::of_setting(&upstream.name) {
                let first = by_host.entry(host).or_insert(upstream);
                if upstream.name < first.name {
                    *first = upstream;
                }
            }
        }
        by_host
    }

    /// The versions that upstreams name, each with the name of its balancer.
    pub(super) fn pinned_versions(&self) -> impl Iterator<Item = (&String, &String)> {
        self.settings.values().flat_map(|upstream| {
            let extension = &upstream.pointsman;
            let own = Some(&upstream.algorithm).zip(extension.balancer_version.as_ref());
            let shadow = extension.shadow.as_ref();
            let shadow =
                shadow.and_then(|shadow| shadow.balancer.as_ref().zip(shadow.version.as_ref()));
            own.into_iter().chain(shadow)
        })
    }

    /// Rebuilds the upstreams whose settings have changed. If `balancers_changed`, also gives all
    /// of them the balancer that their algorithm now stands for.
    pub(super) fn rebuild(
        &mut self,
        context: &Context,
        balancers: &Balancers,
        balancers_changed: bool,
        certificates: &ClientCertificates,
    ) -> Rebuilt {
        let changed = std::mem::take(&mut self.changed);
        let mut deleted = Vec::new();
        for id in &changed {
            deleted.extend(self.rebuild_one(*id, context, balancers, certificates));
        }
        if balancers_changed {
            for (id, settings) in &self.settings {
                if let Some(upstream) = self.compiled.get(id) {
                    let plugin = plugin_or_default(context, balancers, settings);
                    let config = config_of(settings, &plugin);
                    upstream.balancer().replace(plugin, config);
                    set_canary(context, balancers, upstream, settings);
                    shadow::set(context, balancers, upstream, settings);
                }
            }
        }
        Rebuilt { changed, deleted }
    }

    /// Returns the upstream of this id if it was deleted.
    fn rebuild_one(
        &mut self,
        id: Uuid,
        context: &Context,
        balancers: &Balancers,
        certificates: &ClientCertificates,
    ) -> Option<Arc<Upstream>> {
        let compiled = Arc::make_mut(&mut self.compiled);
        let Some(settings) = self.settings.get(&id) else {
            return compiled.remove(&id);
        };
        let plugin = plugin_or_default(context, balancers, settings);
        let config = config_of(settings, &plugin);
        let mut upstream = match compiled.get(&id) {
            Some(old) => {
                old.balancer().replace(plugin, config);
                Upstream::clone(old)
            }
            None => context.new_upstream(&settings.name, true, plugin, config),
        };
        if *upstream.name != *settings.name {
            upstream.rename(&settings.name);
        }
        let limits = context
            .engine
            .limits_for(&settings.pointsman.balancer_limits);
        upstream.balancer().set_limits(limits);
        upstream.host_header = settings.host_header.clone().map(Arc::new);
        let certificate = match &settings.client_certificate {
            Some(named) => certificates.get(named.id).cloned(),
            None => context.client_certificate.clone(),
        };
        let policy = Policy::of(settings, certificate);
        upstream.set_policy(policy.with_session_key(&context.sessions));
        set_canary(context, balancers, &upstream, settings);
        shadow::set(context, balancers, &upstream, settings);
        compiled.insert(id, Arc::new(upstream));
        None
    }
}

/// The balancer that an upstream asks for, or the default with a message in the log.
fn plugin_or_default(context: &Context, balancers: &Balancers, upstream: &Entity) -> Arc<Plugin> {
    let pin = upstream.pointsman.balancer_version.as_ref();
    balancers
        .plugin(&upstream.algorithm, pin)
        .unwrap_or_else(|| {
            if upstream.algorithm != DEFAULT_BALANCER {
                tracing::warn!(
                    upstream = upstream.name,
                    "no balancer {:?} is loaded: {DEFAULT_BALANCER} serves in its place",
                    upstream.algorithm
                );
            }
            balancers.default_plugin(context)
        })
}

/// Gives an upstream its part of the canary of its balancer, unless it pins a version.
fn set_canary(context: &Context, balancers: &Balancers, upstream: &Upstream, settings: &Entity) {
    let follows = settings.pointsman.balancer_version.is_none();
    let canary = balancers.canary(&settings.algorithm).filter(|_| follows);
    let part = canary.map(|canary| {
        let given = settings.pointsman.balancer_config.clone();
        (
            Arc::clone(canary),
            complete(given, settings.slots, &canary.plugin),
            context
                .engine
                .limits_for(&settings.pointsman.balancer_limits),
        )
    });
    upstream.balancer().set_canary(part);
}

/// The settings of an upstream's balancer.
fn config_of(upstream: &Entity, plugin: &Plugin) -> String {
    let given = upstream.pointsman.balancer_config.clone();
    complete(given, upstream.slots, plugin)
}
