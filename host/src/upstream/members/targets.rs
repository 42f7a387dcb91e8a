//! The addresses that targets lead to: which of them join, which stay, and which leave.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use uuid::Uuid;

use super::super::memory::REMEMBERED;
use super::super::resolve::Names;
use super::{Gone, Inner, Member, Members, apply_finding};
use crate::authority::{Host, written_out};
use crate::endpoint::{Endpoint, Labels, Live};
use crate::endpoint_address::EndpointAddress;
use crate::entity::target::CircuitBreakers;
use crate::entity::upstream::Probe;

/// A target as configured: where requests may go before names are resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfiguredTarget {
    /// The entity; nil for the plain host of a service.
    pub id: Uuid,
    /// An address or a name; `localhost` for a Unix socket.
    pub host: Host<'static>,
    /// Port; not used for a Unix socket.
    pub port: u16,
    /// The path of the Unix socket that is connected to, if it is one.
    pub socket: Option<Arc<Path>>,
    /// Share of the traffic, 0 to 65535.
    pub weight: u32,
    /// Whether it is used only while every other target is unavailable.
    pub failover: bool,
    /// The labels of each of its addresses.
    pub labels: Labels,
    /// How it is probed.
    pub probe: Probe,
    /// The limits of each of its addresses. Where one is not set, that of the upstream applies.
    pub limits: CircuitBreakers,
}

/// An address that a target resolves to.
struct ResolvedAddress {
    address: EndpointAddress,
    /// The weight and the name of an SRV record that leads to it.
    weight: Option<u32>,
    name: Option<String>,
}

impl ConfiguredTarget {
    /// The addresses that it resolves to: a Unix socket, or the present addresses of its host.
    fn resolve(&self, names: &Names) -> Vec<ResolvedAddress> {
        if let Some(path) = &self.socket {
            return vec![ResolvedAddress {
                address: EndpointAddress::Unix(Arc::clone(path)),
                weight: None,
                name: None,
            }];
        }
        let found = names.addresses(&self.host).into_iter();
        found
            .map(|found| {
                let port = found.port.unwrap_or(self.port);
                ResolvedAddress {
                    address: SocketAddr::new(found.ip, port).into(),
                    weight: found.weight,
                    name: found.name,
                }
            })
            .collect()
    }
}

impl Members {
    /// Replaces the targets; addresses that stay keep what is known of them.
    pub(in crate::upstream) fn set_targets(&self, targets: &[ConfiguredTarget], names: &Names) {
        let now = Instant::now();
        let policy = self.policy();
        let (share, srv_names) = (policy.extension.share_weight, policy.use_srv_name);
        let checked = policy.is_checked();
        let shares_probes = policy.shares_probes();
        let mut inner = self.inner.lock();
        let Inner {
            name,
            members,
            gone,
            findings,
            table,
            ..
        } = &mut *inner;
        gone.retain(|_, (_, since)| now - *since < REMEMBERED);
        // Looked at before the addresses: a first look-up that ends in between is told of again.
        let is_awaited = |target: &ConfiguredTarget| names.is_awaited(&target.host);
        let awaits_name = targets.iter().any(is_awaited);
        let mut seen = HashSet::new();
        let mut old: HashMap<u64, Member> = members.drain(..).map(|m| (m.id, m)).collect();
        for target in targets {
            let addresses = target.resolve(names);
            let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
            for found in addresses {
                let weight = match (target.weight, found.weight) {
                    (0, _) => 0,
                    // An SRV record has its own weight. Source: Kong.
                    (_, Some(weight)) => weight,
                    (weight, None) if share => (weight / count).max(1),
                    (weight, None) => weight,
                };
                let address = found.address;
                let id = Endpoint::id_of(&identity(&target.host), address.clone());
                if !seen.insert(id) {
                    // Two records lead to the same address.
                    continue;
                }
                let srv_name = found.name.as_deref().filter(|_| srv_names);
                let host = match srv_name.and_then(Host::parse) {
                    Some(name) => name.into_owned(),
                    None => target.host.clone(),
                };
                let known = old.remove(&id);
                if known.as_ref().is_some_and(|known| {
                    known.host != host
                        || known.limits != target.limits
                        || known.labels != target.labels
                }) {
                    // The ids and weights are unchanged, but the endpoints are not.
                    table.clear();
                }
                let joins = known.is_none();
                let since = known.as_ref().map_or(now, |known| known.since);
                let was_available = known.as_ref().is_none_or(|known| known.was_available);
                let was_healthy = known.as_ref().is_none_or(|known| known.was_healthy);
                let live = known
                    .map(|known| known.live)
                    .or_else(|| gone.remove(&id).map(|(live, _)| live))
                    .unwrap_or_default();
                if joins && checked {
                    self.recall(name, id, &live);
                }
                if let Some(unhealthy) = findings
                    && joins
                    && shares_probes
                {
                    // What this gateway remembers may be of long ago, and it does not probe.
                    apply_finding(name, &address, id, &live, unhealthy);
                }
                members.push(Member {
                    id,
                    target: target.id,
                    host,
                    address,
                    weight,
                    failover: target.failover,
                    probe: target.probe.clone(),
                    limits: target.limits,
                    labels: target.labels.clone(),
                    live,
                    since,
                    was_available,
                    was_healthy,
                });
            }
        }
        for member in old.into_values() {
            self.leave(name, member, gone);
        }
        inner.targets = targets.to_vec();
        self.choose(&mut inner);
        let awaits = inner.members.is_empty() && awaits_name;
        self.wanted.get_or_init(|| Arc::clone(names.wanted()));
        self.awaits_names.store(awaits, Ordering::Release);
        if !awaits {
            self.looked_up.notify_waiters();
        }
    }

    /// Ends the use of all addresses, since the upstream was deleted. The balancer keeps its table:
    /// a request may have been routed here and have no endpoint yet, because its body is still
    /// read.
    pub(in crate::upstream) fn retire(&self) {
        let mut inner = self.inner.lock();
        let Inner {
            name,
            members,
            gone,
            targets,
            is_retired,
            ..
        } = &mut *inner;
        *is_retired = true;
        targets.clear();
        for member in members.drain(..) {
            self.leave(name, member, gone);
        }
        self.awaits_names.store(false, Ordering::Release);
        self.looked_up.notify_waiters();
    }

    /// Has an address leave the upstream of this name.
    fn leave(&self, upstream: &str, member: Member, gone: &mut Gone) {
        let now = Instant::now();
        let drain = self.policy().drain_timeout();
        member.live.leave(drain.map(|timeout| now + timeout));
        self.memory.release(upstream, member.id);
        gone.insert(member.id, (member.live, now));
    }

    /// Restores what an earlier run of the gateway, or an earlier upstream of this name, has left
    /// about an address that joins.
    fn recall(&self, upstream: &str, id: u64, live: &Live) {
        let known = self.memory.recall(upstream, id);
        if let Some(by) = known
            && live.health.is_available()
        {
            live.health.restore(by);
        }
    }
}

/// The part of an endpoint's id that comes from its host. IPv6 is written out in full, as in the
/// stored text of a target: another form would move the keys of every gateway that is upgraded.
fn identity<'a>(host: &'a Host<'a>) -> Cow<'a, str> {
    match host.ip() {
        Some(IpAddr::V6(address)) => written_out(address).into(),
        _ => host.as_str().into(),
    }
}
