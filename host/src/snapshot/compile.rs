//! Entities to snapshot: follows the store's watch.

mod canary;
mod shadow;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

use super::new_names::NewNames;
use super::{Published, Service, Snapshot, Tls};
use crate::authority::{Authority, Host};
use crate::balancer::{Balancer, Canary, Engine, Plugin, ShadowThread};
use crate::entity::target::CircuitBreakers;
use crate::entity::upstream::Probe;
use crate::entity::{self, Kind, Row};
use crate::retry::Retry;
use crate::router::{Route, Router};
use crate::store::{Change, Commit, Revision, Store};
use crate::upstream::{Memory, Names, Policy, SessionKey, Target, Upstream};

/// Kong's default for the three timeouts of a service.
const TIMEOUT_MS: u64 = 60_000;

/// Name of the balancer that serves where the one asked for is not loaded.
const DEFAULT_BALANCER: &str = "round-robin";

/// Follows the store and publishes what it compiles.
pub struct Compiler {
    published: Arc<Published>,
    store: Arc<dyn Store>,
    engine: Arc<Engine>,
    default: Arc<Plugin>,
    names: Arc<Names>,
    new_names: NewNames,
    /// What an earlier run knew.
    memory: Arc<Memory>,
    /// Where probes run.
    probing: Handle,
    /// What the cookies of sessions are made with.
    sessions: Arc<SessionKey>,

    services: BTreeMap<Uuid, entity::service::Service>,
    routes: BTreeMap<Uuid, Arc<Route>>,
    /// Routes whose regular expressions have no room beside those of the others, for now.
    set_aside: BTreeMap<Uuid, entity::route::Route>,
    /// The least that was left, in bytes, when one of those was tried last.
    tried_with: usize,
    upstreams: BTreeMap<Uuid, entity::upstream::Upstream>,
    /// Targets by upstream, in the order of their ids, and the upstream of each.
    targets: HashMap<Uuid, BTreeMap<Uuid, Target>>,
    parents: HashMap<Uuid, Uuid>,
    balancers: HashMap<Uuid, entity::balancer::Balancer>,
    versions: HashMap<Uuid, entity::version::Version>,
    /// The components that upstreams may need now, by digest; none for one that does not load.
    plugins: HashMap<String, Option<Arc<Plugin>>>,
    /// The canaries that are going on, by balancer.
    canaries: HashMap<Uuid, Arc<Canary>>,
    /// Where shadows compare what they would have picked.
    shadows: ShadowThread,

    named: HashMap<Uuid, Arc<Upstream>>,
    /// Those of services whose host is not an upstream, by its name as DNS is asked for it and its port.
    plain: HashMap<(String, u16), (Host<'static>, Arc<Upstream>)>,
    router: Router,
}

/// What a commit made stale.
#[derive(Default)]
struct Stale {
    router: bool,
    services: bool,
    names: bool,
    /// Upstreams whose targets changed.
    targets: HashSet<Uuid>,
    /// Upstreams whose settings changed.
    upstreams: HashSet<Uuid>,
    plugins: bool,
}

impl Compiler {
    /// A compiler that has seen nothing yet. `default` serves where no other balancer does.
    pub fn new(
        published: Arc<Published>,
        store: Arc<dyn Store>,
        engine: Arc<Engine>,
        default: Arc<Plugin>,
        names: Arc<Names>,
        memory: Arc<Memory>,
        probing: Handle,
    ) -> Self {
        engine.name_plugin(&default, DEFAULT_BALANCER);
        Self {
            published,
            store,
            engine,
            default,
            new_names: NewNames::new(Arc::clone(&names)),
            names,
            memory,
            probing,
            sessions: SessionKey::of_process(),
            services: BTreeMap::new(),
            routes: BTreeMap::new(),
            tried_with: usize::MAX,
            set_aside: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            targets: HashMap::new(),
            parents: HashMap::new(),
            balancers: HashMap::new(),
            versions: HashMap::new(),
            plugins: HashMap::new(),
            canaries: HashMap::new(),
            shadows: ShadowThread::default(),
            named: HashMap::new(),
            plain: HashMap::new(),
            router: Router::default(),
        }
    }

    /// Has the cookies of sessions made with this key, and not with one that ends with the process.
    #[must_use]
    pub fn with_session_key(mut self, key: Arc<SessionKey>) -> Self {
        self.sessions = key;
        self
    }

    /// Applies commits until the store ends, and looks at names again now and then.
    pub async fn run(mut self, mut commits: mpsc::UnboundedReceiver<Commit>) {
        let (refreshed, mut changed) = mpsc::channel(1);
        let names = Arc::clone(&self.names);
        let refresh = tokio::spawn(async move {
            // A word that still waits to be heard stands for this one as well.
            let tell = || !matches!(refreshed.try_send(()), Err(TrySendError::Closed(())));
            names.follow(tell).await;
        });
        loop {
            tokio::select! {
                commit = commits.recv() => match commit {
                    Some(commit) => self.apply(commit).await,
                    None => break,
                },
                Some(()) = changed.recv() => self.retarget_all(),
                Some(revision) = self.new_names.next() => self.resolved(revision),
            }
        }
        refresh.abort();
    }

    async fn apply(&mut self, commit: Commit) {
        let mut stale = Stale::default();
        for change in commit.changes {
            match change {
                Change::Put { kind, id, row } => self.put(kind, id, row, &mut stale),
                Change::Delete { kind, id } => self.delete(kind, id, &mut stale),
            }
        }
        if stale.router {
            self.take_back();
        }
        let resolved = if stale.names {
            let names = self.names_in_use();
            self.new_names.begin(commit.revision, names).await
        } else {
            true
        };
        if stale.plugins || !stale.upstreams.is_empty() {
            self.load_plugins().await;
            self.set_canaries();
        }
        self.rebuild(stale);
        self.published.mark_applied(commit.revision, resolved);
    }

    /// Puts into effect what is known of the names of a commit.
    fn resolved(&mut self, revision: Revision) {
        self.retarget_all();
        self.rebuild(Stale {
            services: true,
            ..Stale::default()
        });
        self.published.mark_resolved(revision);
    }

    fn put(&mut self, kind: Kind, id: Uuid, row: Row, stale: &mut Stale) {
        match kind {
            Kind::Service => {
                if let Some(service) = view::<entity::service::Service>(kind, id, row) {
                    stale.services = true;
                    stale.names = true;
                    let old = self.services.insert(id, service);
                    stale.router |=
                        old.map(|old| old.enabled) != self.services.get(&id).map(|new| new.enabled);
                }
            }
            Kind::Route => {
                if let Some(route) = view::<entity::route::Route>(kind, id, row) {
                    stale.router = true;
                    self.compile_route(id, route);
                }
            }
            Kind::Upstream => {
                if let Some(upstream) = view(kind, id, row) {
                    stale.upstreams.insert(id);
                    // A service's host of this name is no longer, or again, a name to look up.
                    stale.names = true;
                    self.upstreams.insert(id, upstream);
                }
            }
            Kind::Target => {
                if let Some(target) = view::<entity::target::Target>(kind, id, row) {
                    let Authority { host, port } = target.target;
                    let port = port.unwrap_or(entity::target::DEFAULT_PORT);
                    let parent = target.upstream.id;
                    self.remove_target(id, stale);
                    stale.names |= host.ip().is_none();
                    stale.targets.insert(parent);
                    let target = Target {
                        id,
                        host,
                        port,
                        weight: target.weight,
                        failover: target.failover,
                        limits: target.pointsman.circuit_breakers,
                        probe: target.pointsman.probe,
                    };
                    self.targets.entry(parent).or_default().insert(id, target);
                    self.parents.insert(id, parent);
                }
            }
            Kind::Balancer => {
                if let Some(balancer) = view::<entity::balancer::Balancer>(kind, id, row) {
                    // Its row is written again whenever an upstream comes to rely on it.
                    stale.plugins |= self.balancers.get(&id) != Some(&balancer);
                    self.balancers.insert(id, balancer);
                }
            }
            Kind::BalancerVersion => {
                if let Some(version) = view::<entity::version::Version>(kind, id, row) {
                    if let Some(None) = self.plugins.get(&version.digest) {
                        self.plugins.remove(&version.digest);
                        stale.plugins = true;
                    }
                    self.versions.insert(id, version);
                }
            }
        }
    }

    fn delete(&mut self, kind: Kind, id: Uuid, stale: &mut Stale) {
        match kind {
            Kind::Service => {
                stale.services = true;
                stale.names = true;
                self.services.remove(&id);
            }
            Kind::Route => {
                stale.router = true;
                self.remove_route(id);
            }
            Kind::Upstream => {
                stale.upstreams.insert(id);
                stale.names = true;
                self.upstreams.remove(&id);
            }
            Kind::Target => self.remove_target(id, stale),
            Kind::Balancer => {
                stale.plugins = true;
                self.balancers.remove(&id);
            }
            Kind::BalancerVersion => {
                self.versions.remove(&id);
            }
        }
    }

    /// Compiles a route in the memory that the others leave, or sets it aside.
    fn compile_route(&mut self, id: Uuid, route: entity::route::Route) {
        self.remove_route(id);
        let patterns = &self.published.patterns;
        let left = patterns.left_for(id);
        match Route::compile(route.clone(), left) {
            Ok(compiled) => {
                patterns.set(id, compiled.pattern_memory);
                self.routes.insert(id, Arc::new(compiled));
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

    fn remove_route(&mut self, id: Uuid) {
        self.routes.remove(&id);
        self.set_aside.remove(&id);
        self.published.patterns.set(id, 0);
    }

    /// Tries those again that were set aside, if there is more room than there was.
    fn take_back(&mut self) {
        let left = self.published.patterns.left_for(Uuid::nil());
        if !self.set_aside.is_empty() && left > self.tried_with {
            self.tried_with = usize::MAX;
            for (id, route) in std::mem::take(&mut self.set_aside) {
                self.compile_route(id, route);
            }
        }
    }

    fn remove_target(&mut self, id: Uuid, stale: &mut Stale) {
        let Some(parent) = self.parents.remove(&id) else {
            return;
        };
        stale.targets.insert(parent);
        if let Some(siblings) = self.targets.get_mut(&parent) {
            let old = siblings.remove(&id);
            stale.names |= old.is_some_and(|old| old.host.ip().is_none());
            if siblings.is_empty() {
                self.targets.remove(&parent);
            }
        }
    }

    /// Loads what is active, a canary or pinned and not loaded yet, and forgets what is none of these.
    async fn load_plugins(&mut self) {
        let active = self.balancers.iter();
        let active = active.map(|(id, balancer)| (balancer.digest.clone(), *id));
        let canaries = self.balancers.iter().filter_map(|(id, balancer)| {
            let canary = balancer.live_canary()?;
            Some((canary.version.clone(), *id))
        });
        let pins = self.upstreams.values().flat_map(|upstream| {
            let extension = &upstream.pointsman;
            let own = Some(&upstream.algorithm).zip(extension.balancer_version.as_ref());
            let shadow = extension.shadow.as_ref();
            let shadow =
                shadow.and_then(|shadow| shadow.balancer.as_ref().zip(shadow.version.as_ref()));
            own.into_iter().chain(shadow)
        });
        let pinned =
            pins.filter_map(|(name, digest)| Some((digest.clone(), self.balancer(name)?.id)));
        let needed: HashMap<String, Uuid> = active.chain(canaries).chain(pinned).collect();
        self.plugins.retain(|digest, _| needed.contains_key(digest));
        for (digest, balancer) in needed {
            if !self.plugins.contains_key(&digest) {
                // Compiled. The Admin API has checked it, so it comes from the cache; only a cache that was
                // lost makes this slow.
                let loaded = match self.component(balancer, &digest) {
                    Ok(component) => {
                        let loaded = self.engine.load(component).await;
                        loaded.map_err(|error| error.to_string())
                    }
                    Err(reason) => Err(reason),
                };
                if let Err(reason) = &loaded {
                    tracing::error!(
                        balancer = self.balancers.get(&balancer).map(|b| &b.name),
                        version = digest,
                        "cannot load the component: {reason}"
                    );
                }
                if let (Ok(plugin), Some(balancer)) = (&loaded, self.balancers.get(&balancer)) {
                    self.engine.name_plugin(plugin, &balancer.name);
                }
                self.plugins.insert(digest, loaded.ok());
            }
        }
    }

    /// The component of a version.
    fn component(&self, balancer: Uuid, digest: &str) -> Result<Bytes, String> {
        let mut versions = self.versions.iter();
        let id = versions
            .find(|(_, version)| version.balancer.id == balancer && version.digest == digest)
            .map(|(id, _)| *id);
        let blob = id.map(|id| self.store.blob(Kind::BalancerVersion, id));
        let blob = blob.transpose().map_err(|error| error.to_string())?;
        Ok(blob.flatten().ok_or("it is not in the store")?)
    }

    /// The names of all hosts, as DNS is asked for them.
    fn names_in_use(&self) -> HashSet<String> {
        // A host that names an upstream is never looked up.
        let upstreams: HashSet<Host<'_>> = (self.upstreams.values())
            .filter_map(|upstream| Host::of_setting(&upstream.name))
            .collect();
        let targets = self.targets.values().flat_map(BTreeMap::values);
        let targets = targets.map(|target| &target.host);
        let services = self.services.values().map(|service| &service.host);
        let services = services.filter(|host| !upstreams.contains(*host));
        let names = targets.chain(services).filter(|host| host.ip().is_none());
        names.map(|host| host.dns_name().to_owned()).collect()
    }

    fn rebuild(&mut self, stale: Stale) {
        let upstreams_changed = !stale.upstreams.is_empty();
        let mut deleted = Vec::new();
        for id in &stale.upstreams {
            deleted.extend(self.rebuild_upstream(*id));
        }
        if stale.plugins {
            self.rebalance_all();
        }
        for id in stale.targets.union(&stale.upstreams) {
            self.retarget(*id);
        }
        if stale.router {
            let routes = self.routes.values();
            self.router = routes.filter(|route| self.is_enabled(route)).collect();
        }
        if stale.services || upstreams_changed {
            let services = Arc::new(self.compile_services());
            self.published.publish(Snapshot {
                router: self.router.clone(),
                services,
                upstreams: Arc::new(self.named.clone()),
            });
        } else if stale.router {
            let (_, old) = self.published.current();
            self.published.publish(Snapshot {
                router: self.router.clone(),
                services: Arc::clone(&old.services),
                upstreams: Arc::clone(&old.upstreams),
            });
        }
        // Last, so that no request that begins now meets an upstream without targets.
        for upstream in deleted {
            upstream.retire(&self.names);
        }
    }

    fn is_enabled(&self, route: &Route) -> bool {
        route
            .service
            .and_then(|id| self.services.get(&id))
            .is_none_or(|service| service.enabled)
    }

    fn balancer(&self, name: &str) -> Option<&entity::balancer::Balancer> {
        let mut balancers = self.balancers.values();
        balancers.find(|balancer| balancer.name == name)
    }

    /// The version of a balancer that is pinned, or the active one.
    fn plugin(&self, algorithm: &str, pin: Option<&String>) -> Option<Arc<Plugin>> {
        let active = &self.balancer(algorithm)?.digest;
        self.plugins.get(pin.unwrap_or(active))?.clone()
    }

    /// The balancer that an upstream asks for, or the default with a word in the log.
    fn plugin_or_default(&self, upstream: &entity::upstream::Upstream) -> Arc<Plugin> {
        let pin = upstream.pointsman.balancer_version.as_ref();
        self.plugin(&upstream.algorithm, pin).unwrap_or_else(|| {
            if upstream.algorithm != DEFAULT_BALANCER {
                tracing::warn!(
                    upstream = upstream.name,
                    "no balancer {:?} is loaded: {DEFAULT_BALANCER} serves in its place",
                    upstream.algorithm
                );
            }
            self.plugin(DEFAULT_BALANCER, None)
                .unwrap_or_else(|| Arc::clone(&self.default))
        })
    }

    /// Returns the upstream of this id if it was deleted.
    fn rebuild_upstream(&mut self, id: Uuid) -> Option<Arc<Upstream>> {
        let Some(settings) = self.upstreams.get(&id) else {
            return self.named.remove(&id);
        };
        let plugin = self.plugin_or_default(settings);
        let mut upstream = match self.named.get(&id) {
            Some(old) => {
                let config = config_of(settings, &plugin);
                old.balancer().replace(plugin, config);
                Upstream::clone(old)
            }
            None => {
                let config = config_of(settings, &plugin);
                self.new_upstream(&settings.name, true, plugin, config)
            }
        };
        if *upstream.name != *settings.name {
            upstream.rename(&settings.name);
        }
        let limits = self.engine.limits_for(&settings.pointsman.balancer_limits);
        upstream.balancer().set_limits(limits);
        upstream.host_header = settings.host_header.clone().map(Arc::new);
        upstream.set_policy(Policy::of(settings).with_session_key(&self.sessions));
        self.set_canary(&upstream, settings);
        self.set_shadow(&upstream, settings);
        self.named.insert(id, Arc::new(upstream));
        None
    }

    fn new_upstream(
        &self,
        name: &str,
        named: bool,
        plugin: Arc<Plugin>,
        config: String,
    ) -> Upstream {
        let engine = Arc::clone(&self.engine);
        Upstream::new(
            name,
            named,
            Balancer::new(engine, name, plugin, config),
            &self.memory,
            &self.probing,
        )
    }

    /// Gives every upstream the balancer that its algorithm now stands for.
    fn rebalance_all(&self) {
        for (id, settings) in &self.upstreams {
            if let Some(upstream) = self.named.get(id) {
                let plugin = self.plugin_or_default(settings);
                let config = config_of(settings, &plugin);
                upstream.balancer().replace(plugin, config);
                self.set_canary(upstream, settings);
                self.set_shadow(upstream, settings);
            }
        }
    }

    /// Sets the targets of an upstream, in the order of their ids.
    fn retarget(&self, id: Uuid) {
        if let Some(upstream) = self.named.get(&id) {
            let targets = self.targets.get(&id).into_iter().flat_map(BTreeMap::values);
            let targets: Vec<Target> = targets.cloned().collect();
            upstream.set_targets(&targets, &self.names);
        }
    }

    fn retarget_all(&self) {
        for id in self.targets.keys() {
            self.retarget(*id);
        }
        for ((_, port), (host, upstream)) in &self.plain {
            set_plain_target(upstream, host, *port, &self.names);
        }
    }

    fn compile_services(&mut self) -> foldhash::HashMap<Uuid, Service> {
        let by_name = self.upstreams_by_name();
        let (_, old) = self.published.current();
        let mut plain = HashMap::new();
        let mut compiled = foldhash::HashMap::default();
        for (id, service) in &self.services {
            let awaited = self.new_names.is_awaited(&service.host);
            let upstream = match (by_name.get(&service.host), old.services.get(id)) {
                (Some(upstream), _) => Arc::clone(upstream),
                // Until there is an address, requests go where they went.
                (None, Some(old)) if awaited => Arc::clone(&old.upstream),
                (None, _) => {
                    let (host, port) = (&service.host, service.port);
                    let key = (host.dns_name().to_owned(), port);
                    let known = self.plain.get(&key).map(|(_, upstream)| upstream);
                    let upstream = known.cloned().unwrap_or_else(|| {
                        let name = format!("{host}:{port}");
                        let plugin = Arc::clone(&self.default);
                        Arc::new(self.new_upstream(&name, false, plugin, "{}".into()))
                    });
                    set_plain_target(&upstream, host, port, &self.names);
                    plain.insert(key, (host.clone(), Arc::clone(&upstream)));
                    upstream
                }
            };
            compiled.insert(*id, compile_service(service, upstream));
        }
        self.plain = plain;
        compiled
    }

    /// The upstreams by the hosts that lead to them. Of two whose names differ in their spelling alone,
    /// which an earlier version let in, it is the one whose name is less as text.
    fn upstreams_by_name(&self) -> HashMap<Host<'_>, &Arc<Upstream>> {
        let mut by_name: HashMap<Host<'_>, &Arc<Upstream>> = HashMap::new();
        for upstream in self.named.values() {
            if let Some(host) = Host::of_setting(&upstream.name) {
                let first = by_name.entry(host).or_insert(upstream);
                if upstream.name < first.name {
                    *first = upstream;
                }
            }
        }
        by_name
    }
}

/// The settings of an upstream's balancer.
fn config_of(upstream: &entity::upstream::Upstream, plugin: &Plugin) -> String {
    let given = upstream.pointsman.balancer_config.clone();
    complete(given, upstream.slots, plugin)
}

/// The settings of a balancer. Kong's one field that is a setting goes to a balancer that knows a setting
/// of that name.
pub(crate) fn complete(given: Option<Value>, slots: u32, plugin: &Plugin) -> String {
    let mut config = given.unwrap_or_else(|| json!({}));
    let known = plugin.config_schema.pointer("/properties/slots");
    if let (Some(fields), Some(_)) = (config.as_object_mut(), known) {
        fields.entry("slots").or_insert(slots.into());
    }
    config.to_string()
}

fn set_plain_target(upstream: &Upstream, host: &Host<'static>, port: u16, names: &Names) {
    let target = Target {
        id: Uuid::nil(),
        host: host.clone(),
        port,
        weight: 1,
        failover: false,
        probe: Probe::default(),
        limits: CircuitBreakers::default(),
    };
    upstream.set_targets(&[target], names);
}

fn compile_service(service: &entity::service::Service, upstream: Arc<Upstream>) -> Service {
    let timeout = |ms: Option<u64>| Duration::from_millis(ms.unwrap_or(TIMEOUT_MS));
    Service {
        name: service
            .name
            .clone()
            .unwrap_or_else(|| service.id.to_string()),
        unsupported: (!matches!(service.protocol.as_str(), "http" | "https")).then(|| {
            format!(
                "this version of Pointsman sends requests over http and https only, and the service \
                 asks for {}",
                service.protocol
            )
        }),
        tls: (service.protocol == "https").then(|| Tls {
            // Off unless asked for. Source: Kong, `proxy_ssl_verify`.
            verify: service.tls_verify.unwrap_or(false),
        }),
        path: service.path.clone().unwrap_or_else(|| "/".into()),
        retries: service.retries.unwrap_or(5),
        retry: Retry::of(&service.pointsman.retry),
        connect_timeout: timeout(service.connect_timeout),
        write_timeout: timeout(service.write_timeout),
        read_timeout: timeout(service.read_timeout),
        upstream,
    }
}

/// A row as the data plane reads it. The Admin API let only valid rows in, so one that does not fit
/// was written by another version; it is left out, and said so.
fn view<T: DeserializeOwned>(kind: Kind, id: Uuid, row: Row) -> Option<T> {
    match entity::view(kind, row) {
        Ok(view) => Some(view),
        Err(error) => {
            tracing::error!(entity = kind.name(), %id, "a stored row is left out: {error}");
            None
        }
    }
}
