//! Services, and the upstreams of those whose host is not an upstream of the Admin API.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::super::new_names::NewNames;
use super::super::{Http2, KeepAlive, Service};
use super::client_tls::{CaCertificates, ClientCertificates};
use super::context::Context;
use super::upstreams::Upstreams;
use super::{Part, view};
use crate::authority::Host;
use crate::entity::service::Service as Entity;
use crate::entity::target::CircuitBreakers;
use crate::entity::upstream::Probe;
use crate::entity::{Kind, Row};
use crate::retry::Retry;
use crate::tls::{TlsClient, TlsOptions, Trust, VERIFY_DEPTH};
use crate::upstream::{Names, Target, Upstream};

/// Kong's default for the three timeouts of a service.
const TIMEOUT_MS: u64 = 60_000;

/// What services are compiled from.
pub(super) struct Parts<'a> {
    pub(super) context: &'a Context,
    pub(super) upstreams: &'a Upstreams,
    pub(super) client_certificates: &'a ClientCertificates,
    pub(super) ca_certificates: &'a CaCertificates,
    pub(super) new_names: &'a NewNames,
}

/// The services.
#[derive(Default)]
pub(super) struct Services {
    settings: BTreeMap<Uuid, Entity>,
    compiled: Arc<foldhash::HashMap<Uuid, Service>>,
    /// The upstreams of services whose host is not an upstream, by the name that is sent to DNS and
    /// the port.
    plain: HashMap<(String, u16), (Host<'static>, Arc<Upstream>)>,
    /// Whether one has changed since the last rebuild.
    changed: bool,
    /// The services that were enabled or disabled since these were last taken.
    toggled: HashSet<Uuid>,
    /// Whether names to look up were added or removed.
    pub(super) names_changed: bool,
}

impl Part for Services {
    fn put(&mut self, id: Uuid, row: Row) {
        if let Some(service) = view(Kind::Service, id, row) {
            self.change(id, Some(service));
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.change(id, None);
    }
}

impl Services {
    fn change(&mut self, id: Uuid, service: Option<Entity>) {
        let was_enabled = self.is_enabled(id);
        match service {
            Some(service) => self.settings.insert(id, service),
            None => self.settings.remove(&id),
        };
        if self.is_enabled(id) != was_enabled {
            self.toggled.insert(id);
        }
        self.changed = true;
        self.names_changed = true;
    }

    /// Whether the routes of a service are in effect.
    pub(super) fn is_enabled(&self, id: Uuid) -> bool {
        self.settings.get(&id).is_none_or(|service| service.enabled)
    }

    /// The services that were enabled or disabled since these were last taken.
    pub(super) fn take_toggled(&mut self) -> HashSet<Uuid> {
        std::mem::take(&mut self.toggled)
    }

    /// All of them, as requests find them.
    pub(super) fn compiled(&self) -> &Arc<foldhash::HashMap<Uuid, Service>> {
        &self.compiled
    }

    /// The hosts of all services.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host<'static>> {
        self.settings.values().map(|service| &service.host)
    }

    /// Has the next rebuild compile all services, since their names may have new addresses, or
    /// certificates have changed.
    pub(super) fn recompile(&mut self) {
        self.changed = true;
    }

    /// Sets the present addresses of the hosts that are not upstreams.
    pub(super) fn refresh(&self, names: &Names) {
        for ((_, port), (host, upstream)) in &self.plain {
            set_plain_target(upstream, host, *port, names);
        }
    }

    /// Whether requests to a service go to this upstream.
    pub(super) fn uses(&self, upstream: &Arc<Upstream>) -> bool {
        let mut services = self.compiled.values();
        services.any(|service| Arc::ptr_eq(&service.upstream, upstream))
    }

    /// Compiles the services if one has changed, or an upstream. Returns whether they were
    /// compiled.
    pub(super) fn rebuild(&mut self, parts: &Parts<'_>, upstreams_changed: bool) -> bool {
        let changed = std::mem::take(&mut self.changed) || upstreams_changed;
        if changed {
            self.compile(parts);
        }
        changed
    }

    fn compile(&mut self, parts: &Parts<'_>) {
        let context = parts.context;
        let by_host = parts.upstreams.by_host();
        let mut plain = HashMap::new();
        let mut compiled = foldhash::HashMap::default();
        for (id, service) in &self.settings {
            let awaited = parts.new_names.is_awaited(&service.host);
            let upstream = match (by_host.get(&service.host), self.compiled.get(id)) {
                (Some(upstream), _) => Arc::clone(upstream),
                // Until the new host has an address, requests go to the former upstream.
                (None, Some(old)) if awaited => Arc::clone(&old.upstream),
                (None, _) => {
                    let (host, port) = (&service.host, service.port);
                    let key = (host.dns_name().to_owned(), port);
                    let known = self.plain.get(&key).map(|(_, upstream)| upstream);
                    let upstream = known.cloned().unwrap_or_else(|| {
                        let name = format!("{host}:{port}");
                        let plugin = Arc::clone(&context.default);
                        Arc::new(context.new_upstream(&name, false, plugin, "{}".into()))
                    });
                    set_plain_target(&upstream, host, port, &context.names);
                    plain.insert(key, (host.clone(), Arc::clone(&upstream)));
                    upstream
                }
            };
            compiled.insert(*id, compile_service(service, upstream, parts));
        }
        self.plain = plain;
        self.compiled = Arc::new(compiled);
    }
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

fn compile_service(service: &Entity, upstream: Arc<Upstream>, parts: &Parts<'_>) -> Service {
    let timeout = |ms: Option<u64>| Duration::from_millis(ms.unwrap_or(TIMEOUT_MS));
    Service {
        name: service
            .name
            .clone()
            .unwrap_or_else(|| service.id.to_string()),
        unsupported: (!is_http(&service.protocol)).then(|| {
            format!(
                "requests are sent over http, https, grpc and grpcs, and the service asks for {}",
                service.protocol
            )
        }),
        tls: matches!(&*service.protocol, "https" | "grpcs")
            .then(|| tls_client(service, &upstream, parts)),
        http2: http2(service),
        grpc: is_grpc(&service.protocol),
        path: service.path.clone().unwrap_or_else(|| "/".into()),
        retries: service.retries.unwrap_or(5),
        retry: Retry::of(&service.pointsman.retry),
        connect_timeout: timeout(service.connect_timeout),
        write_timeout: timeout(service.write_timeout),
        read_timeout: timeout(service.read_timeout),
        upstream,
    }
}

fn is_http(protocol: &str) -> bool {
    matches!(protocol, "http" | "https") || is_grpc(protocol)
}

fn is_grpc(protocol: &str) -> bool {
    matches!(protocol, "grpc" | "grpcs")
}

fn http2(service: &Entity) -> Option<Http2> {
    let extension = &service.pointsman;
    let grpc = is_grpc(&service.protocol);
    let interval = Duration::try_from_secs_f64(extension.http2_keepalive.interval);
    let timeout = Duration::try_from_secs_f64(extension.http2_keepalive.timeout);
    let keepalive = interval.ok().zip(timeout.ok());
    (grpc || extension.http2).then(|| Http2 {
        or_http1: !grpc && service.protocol == "https",
        keepalive: keepalive
            .filter(|(interval, _)| !interval.is_zero())
            .map(|(interval, timeout)| KeepAlive { interval, timeout }),
    })
}

/// How requests of a service are sent over TLS. What the upstream sets under `pointsman.tls` comes
/// before the settings of the service.
fn tls_client(service: &Entity, upstream: &Upstream, parts: &Parts<'_>) -> Arc<TlsClient> {
    let policy = upstream.policy();
    let trust = policy.trust().cloned().unwrap_or_else(|| {
        let ids = service.ca_certificates.as_ref();
        let name = service.name.as_deref().unwrap_or(&upstream.name);
        ids.map_or(Trust::System, |ids| parts.ca_certificates.trust(ids, name))
    });
    // Off unless configured. Source: Kong, `proxy_ssl_verify`.
    let verify = service.tls_verify.unwrap_or(false);
    TlsClient::of(TlsOptions {
        trust: trust.if_verified(policy.verifies(verify)),
        max_intermediates: Some(service.tls_verify_depth.unwrap_or(VERIFY_DEPTH)),
        certificate: match &service.client_certificate {
            Some(named) => parts.client_certificates.get(named.id).cloned(),
            None => {
                let shown = policy.client_certificate().cloned();
                shown.or_else(|| parts.context.client_certificate.clone())
            }
        },
    })
}
