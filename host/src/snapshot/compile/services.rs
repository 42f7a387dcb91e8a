//! Services, and the upstreams of those whose host is not an upstream of the Admin API.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::super::new_names::NewNames;
use super::super::{Http2, KeepAlive, Service};
use super::client_tls::{CaCertificates, ClientCertificates};
use super::context::Context;
use super::upstreams::Upstreams;
use super::users::Users;
use super::{Part, view};
use crate::authority::Host;
use crate::endpoint::Labels;
use crate::entity::service::Service as Entity;
use crate::entity::target::CircuitBreakers;
use crate::entity::upstream::Probe;
use crate::entity::{Kind, Row};
use crate::retry::Retry;
use crate::shared_map::SharedMap;
use crate::tls::{TlsClient, TlsOptions, Trust, VERIFY_DEPTH};
use crate::upstream::{ConfiguredTarget, Names, Upstream};

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
    compiled: SharedMap<Uuid, Arc<Service>>,
    plain: PlainUpstreams,
    /// The services that have to be compiled.
    changed: HashSet<Uuid>,
    /// Those that keep their former upstream until the name of their host is looked up.
    waiting: BTreeSet<Uuid>,
    /// The services of each host, by the name that is sent to DNS.
    pub(super) hosts: Users<String>,
    /// The names that services have begun or ceased to have as their hosts.
    pub(super) names_touched: HashSet<String>,
    /// The services of each certificate, of clients and of authorities.
    by_certificate: Users<Uuid>,
    /// The services that were enabled or disabled since these were last taken.
    toggled: HashSet<Uuid>,
}

/// A host and a port.
type HostPort = (String, u16);

/// The upstreams of services whose host is not an upstream of the Admin API, one for each host and
/// port.
#[derive(Default)]
struct PlainUpstreams {
    /// By the name that is sent to DNS and the port.
    all: BTreeMap<HostPort, PlainUpstream>,
    /// Where each service goes that uses one.
    by_service: HashMap<Uuid, HostPort>,
    /// Those that no service uses any longer, to be retired.
    left: Vec<Arc<Upstream>>,
}

struct PlainUpstream {
    host: Host<'static>,
    upstream: Arc<Upstream>,
    services: usize,
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
        if let Some(old) = self.settings.remove(&id) {
            let host = old.host.dns_name();
            self.hosts.remove(host, id);
            self.names_touched.insert(host.to_owned());
            for certificate in certificates_of(&old) {
                self.by_certificate.remove(&certificate, id);
            }
        }
        if let Some(service) = service {
            let host = service.host.dns_name();
            self.hosts.add(host.to_owned(), id);
            self.names_touched.insert(host.to_owned());
            for certificate in certificates_of(&service) {
                self.by_certificate.add(certificate, id);
            }
            self.settings.insert(id, service);
        }
        if self.is_enabled(id) != was_enabled {
            self.toggled.insert(id);
        }
        self.changed.insert(id);
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
    pub(super) fn compiled(&self) -> &SharedMap<Uuid, Arc<Service>> {
        &self.compiled
    }

    /// Has the next rebuild compile the services that keep their former upstream, since the names
    /// of their hosts may be looked up now.
    pub(super) fn compile_waiting(&mut self) {
        self.changed.extend(&self.waiting);
    }

    /// Has the next rebuild compile the services that name one of these certificates.
    pub(super) fn change_users_of(&mut self, certificates: &HashSet<Uuid>) {
        for certificate in certificates {
            self.changed.extend(self.by_certificate.of(certificate));
        }
    }

    /// Sets the present addresses of these names where they are the hosts of services.
    pub(super) fn refresh(&self, changed: &HashSet<String>, names: &Names) {
        for name in changed {
            let ports = (name.clone(), 0)..=(name.clone(), u16::MAX);
            for ((_, port), plain) in self.plain.all.range(ports) {
                set_plain_target(&plain.upstream, &plain.host, *port, names);
            }
        }
    }

    /// Whether requests to a service go to this upstream, which is deleted.
    pub(super) fn uses(&self, upstream: &Arc<Upstream>) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|id| {
            let service = self.compiled.get(id);
            service.is_some_and(|service| Arc::ptr_eq(&service.upstream, upstream))
        })
    }

    /// The upstreams of hosts that no service has any longer since these were last taken. They are
    /// to be retired once no new request can find them: those that wait for an address are told.
    pub(super) fn take_left(&mut self) -> Vec<Arc<Upstream>> {
        std::mem::take(&mut self.plain.left)
    }

    /// Compiles the services that have changed, and those whose hosts lead to other upstreams:
    /// `hosts`. Returns whether there are any.
    pub(super) fn rebuild(&mut self, parts: &Parts<'_>, hosts: &HashSet<String>) -> bool {
        let mut changed = std::mem::take(&mut self.changed);
        for host in hosts {
            changed.extend(self.hosts.of(host));
            // The same host, as an absolute name.
            changed.extend(self.hosts.of(&format!("{host}.")));
        }
        for id in &changed {
            self.compile(*id, parts);
        }
        !changed.is_empty()
    }

    fn compile(&mut self, id: Uuid, parts: &Parts<'_>) {
        self.waiting.remove(&id);
        let Some(service) = self.settings.get(&id) else {
            self.compiled.remove(&id);
            self.plain.leave(id);
            return;
        };
        let former = self.compiled.get(&id).map(|old| &old.upstream);
        let upstream = match (parts.upstreams.of_host(&service.host), former) {
            (Some(upstream), _) => {
                self.plain.leave(id);
                Arc::clone(upstream)
            }
            // Until the new host has an address, requests go to the former upstream.
            (None, Some(former)) if parts.new_names.is_awaited(&service.host) => {
                self.waiting.insert(id);
                Arc::clone(former)
            }
            (None, _) => self
                .plain
                .of(id, &service.host, service.port, parts.context),
        };
        let compiled = compile_service(service, upstream, parts);
        self.compiled.insert(id, Arc::new(compiled));
    }
}

impl PlainUpstreams {
    /// The upstream of a host and a port, to which a service goes from now on.
    fn of(
        &mut self,
        service: Uuid,
        host: &Host<'static>,
        port: u16,
        context: &Context,
    ) -> Arc<Upstream> {
        let host_port = (host.dns_name().to_owned(), port);
        let plain = self.all.entry(host_port.clone()).or_insert_with(|| {
            let name = format!("{host}:{port}");
            let plugin = Arc::clone(&context.default);
            let upstream = context.new_upstream(&name, false, plugin, "{}".into());
            set_plain_target(&upstream, host, port, &context.names);
            PlainUpstream {
                host: host.clone(),
                upstream: Arc::new(upstream),
                services: 0,
            }
        });
        // Counted before the former one is left, which may be the same one.
        plain.services += 1;
        let upstream = Arc::clone(&plain.upstream);
        self.leave(service);
        self.by_service.insert(service, host_port);
        upstream
    }

    /// A service goes to none of them any longer.
    fn leave(&mut self, service: Uuid) {
        let Some(host_port) = self.by_service.remove(&service) else {
            return;
        };
        if let Some(plain) = self.all.get_mut(&host_port) {
            plain.services -= 1;
            if plain.services == 0
                && let Some(plain) = self.all.remove(&host_port)
            {
                self.left.push(plain.upstream);
            }
        }
    }
}

/// The certificates that a service names: the one that it shows, and those of the authorities that
/// it accepts.
fn certificates_of(service: &Entity) -> impl Iterator<Item = Uuid> {
    let shown = service.client_certificate.iter().map(|named| named.id);
    let authorities = service.ca_certificates.iter().flatten().copied();
    shown.chain(authorities)
}

fn set_plain_target(upstream: &Upstream, host: &Host<'static>, port: u16, names: &Names) {
    let target = ConfiguredTarget {
        id: Uuid::nil(),
        host: host.clone(),
        port,
        socket: None,
        weight: 1,
        failover: false,
        labels: Labels::default(),
        probe: Probe::default(),
        limits: CircuitBreakers::default(),
    };
    upstream.set_targets(&[target], names);
}

fn compile_service(service: &Entity, upstream: Arc<Upstream>, parts: &Parts<'_>) -> Service {
    let timeout = |ms: Option<u64>| Duration::from_millis(ms.unwrap_or(TIMEOUT_MS));
    Service {
        name: match &service.name {
            Some(name) => name.as_str().into(),
            None => service.id.to_string().into(),
        },
        unsupported: (!is_http(&service.protocol)).then(|| {
            format!(
                "requests are sent over http, https, grpc and grpcs, and the service asks for {}",
                service.protocol
            )
        }),
        tls: matches!(&*service.protocol, "https" | "grpcs" | "tls")
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

#[cfg(test)]
mod tests;
