//! Upstreams: what requests can be sent to by name.

mod shadow;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::balancers::{Balancers, DEFAULT_BALANCER, complete};
use super::client_tls::ClientCertificates;
use super::context::Context;
use super::users::Users;
use super::{Part, view};
use crate::authority::Host;
use crate::balancer::LoadedBalancer;
use crate::entity::upstream::Upstream as Entity;
use crate::entity::{Kind, Row};
use crate::shared_map::SharedMap;
use crate::upstream::{Policy, Upstream};

/// The upstreams of the Admin API.
#[derive(Default)]
pub(super) struct Upstreams {
    settings: BTreeMap<Uuid, Entity>,
    compiled: SharedMap<Uuid, Arc<Upstream>>,
    /// The upstreams whose settings have changed since the last rebuild.
    changed: HashSet<Uuid>,
    /// The hosts that have led to another upstream since the last rebuild.
    hosts_changed: HashSet<String>,
    /// The upstreams that each host leads to. A service's host among them is not looked up.
    pub(super) hosts: Users<String>,
    /// The hosts that have begun or ceased to lead to upstreams.
    pub(super) hosts_touched: HashSet<String>,
    /// The upstreams that show a certificate.
    by_certificate: Users<Uuid>,
    /// The upstreams that name a version, by the name of its balancer and its digest.
    pins: Users<(String, String)>,
    /// Whether those have changed since this was last asked.
    pins_changed: bool,
}

/// The result of a rebuild.
#[derive(Default)]
pub(super) struct Rebuilt {
    /// The upstreams that are new, have new settings, or are deleted.
    pub(super) changed: HashSet<Uuid>,
    /// The hosts that lead, or led, to one of them.
    pub(super) hosts: HashSet<String>,
    /// The deleted upstreams, to be retired once no new request can find them.
    pub(super) deleted: Vec<Arc<Upstream>>,
}

impl Part for Upstreams {
    fn put(&mut self, id: Uuid, row: Row) {
        if let Some(upstream) = view(Kind::Upstream, id, row) {
            self.change(id, Some(upstream));
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.change(id, None);
    }
}

impl Upstreams {
    fn change(&mut self, id: Uuid, upstream: Option<Entity>) {
        self.changed.insert(id);
        if let Some(old) = self.settings.remove(&id) {
            if let Some(host) = host_of(&old) {
                self.hosts.remove(&host, id);
                self.hosts_touched.insert(host.clone());
                self.hosts_changed.insert(host);
            }
            if let Some(named) = &old.client_certificate {
                self.by_certificate.remove(&named.id, id);
            }
            for pin in pins_of(&old) {
                self.pins.remove(&pin, id);
                self.pins_changed = true;
            }
        }
        if let Some(upstream) = upstream {
            if let Some(host) = host_of(&upstream) {
                self.hosts.add(host.clone(), id);
                self.hosts_touched.insert(host);
            }
            if let Some(named) = &upstream.client_certificate {
                self.by_certificate.add(named.id, id);
            }
            for pin in pins_of(&upstream) {
                self.pins.add(pin, id);
                self.pins_changed = true;
            }
            self.settings.insert(id, upstream);
        }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Arc<Upstream>> {
        self.compiled.get(&id)
    }

    /// All of them, as requests find them.
    pub(super) fn compiled(&self) -> &SharedMap<Uuid, Arc<Upstream>> {
        &self.compiled
    }

    /// Has the next rebuild compile the upstreams that name one of these certificates.
    pub(super) fn change_users_of(&mut self, certificates: &HashSet<Uuid>) {
        for certificate in certificates {
            self.changed.extend(self.by_certificate.of(certificate));
        }
    }

    /// The upstream that a host leads to. If the names of two differ only in spelling, which an
    /// earlier version accepted, it is the one whose name is less as text.
    pub(super) fn of_host(&self, host: &Host<'_>) -> Option<&Arc<Upstream>> {
        let upstreams = self.hosts.of(host.as_str());
        let upstreams = upstreams.filter_map(|id| self.compiled.get(&id));
        upstreams.min_by(|one, other| one.name.cmp(&other.name))
    }

    /// Whether the versions that upstreams name have changed since this was last asked.
    pub(super) fn take_pins_changed(&mut self) -> bool {
        std::mem::take(&mut self.pins_changed)
    }

    /// The versions that upstreams name, each with the name of its balancer.
    pub(super) fn pinned_versions(&self) -> impl Iterator<Item = (&String, &String)> {
        self.pins
            .keys()
            .map(|(balancer, version)| (balancer, version))
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
        let mut hosts = std::mem::take(&mut self.hosts_changed);
        let mut deleted = Vec::new();
        for id in &changed {
            hosts.extend(self.settings.get(id).and_then(host_of));
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
        Rebuilt {
            changed,
            hosts,
            deleted,
        }
    }

    /// Returns the upstream of this id if it was deleted.
    fn rebuild_one(
        &mut self,
        id: Uuid,
        context: &Context,
        balancers: &Balancers,
        certificates: &ClientCertificates,
    ) -> Option<Arc<Upstream>> {
        let compiled = &mut self.compiled;
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

/// The host that leads to an upstream, in normal form.
fn host_of(upstream: &Entity) -> Option<String> {
    Host::of_setting(&upstream.name).map(|host| host.as_str().to_owned())
}

/// The versions that an upstream names, each with the name of its balancer.
fn pins_of(upstream: &Entity) -> impl Iterator<Item = (String, String)> {
    let extension = &upstream.pointsman;
    let own = Some(&upstream.algorithm).zip(extension.balancer_version.as_ref());
    let shadow = extension.shadow.as_ref();
    let shadow = shadow.and_then(|shadow| shadow.balancer.as_ref().zip(shadow.version.as_ref()));
    let pins = own.into_iter().chain(shadow);
    pins.map(|(balancer, version)| (balancer.clone(), version.clone()))
}

/// The balancer that an upstream asks for, or the default with a message in the log.
fn plugin_or_default(
    context: &Context,
    balancers: &Balancers,
    upstream: &Entity,
) -> Arc<LoadedBalancer> {
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
fn config_of(upstream: &Entity, plugin: &LoadedBalancer) -> String {
    let given = upstream.pointsman.balancer_config.clone();
    complete(given, upstream.slots, plugin)
}
