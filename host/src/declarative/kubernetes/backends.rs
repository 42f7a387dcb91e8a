//! Where the requests of a rule go: the services of Kubernetes, with their endpoints where the file
//! has them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{At, Left, Manifests};
use crate::entity::Row;

/// The largest weight of a target.
const MAX_WEIGHT: u64 = 65_535;

/// A service of Kubernetes, by its namespace and its name.
type Key = (String, String);

/// What the file says of services.
pub(super) struct Backends<'r> {
    services: BTreeMap<Key, At<'r>>,
    slices: BTreeMap<Key, Vec<At<'r>>>,
    policies: BTreeMap<Key, Value>,
}

/// Where requests go.
#[derive(Default)]
pub(super) struct Destination {
    /// Targets with their weights.
    pub(super) targets: Vec<(String, u64)>,
    /// The name and the port of the only target, if it is a name.
    pub(super) single: Option<(String, u64)>,
    /// Whether HTTP/2 is spoken without TLS.
    pub(super) is_h2c: bool,
    /// What is verified of the endpoints' certificates, if TLS is spoken.
    pub(super) tls: Option<Value>,
}

impl<'r> Backends<'r> {
    pub(super) fn read(manifests: &'r Manifests, left: &mut Left) -> Self {
        let mut services = BTreeMap::new();
        let mut slices: BTreeMap<Key, Vec<At<'r>>> = BTreeMap::new();
        for service in manifests.of_kind("Service") {
            let key = (service.namespace.clone(), service.name.clone());
            services.insert(key, At::top(service));
        }
        for slice in manifests.of_kind("EndpointSlice") {
            let of = slice
                .value
                .pointer("/metadata/labels/kubernetes.io~1service-name");
            match of.and_then(Value::as_str) {
                Some(name) => {
                    let key = (slice.namespace.clone(), name.to_owned());
                    slices.entry(key).or_default().push(At::top(slice));
                }
                None => left.add(
                    &At::top(slice),
                    "it has no label kubernetes.io/service-name",
                ),
            }
        }
        let mut policies = BTreeMap::new();
        for policy in manifests.of_kind("BackendTLSPolicy") {
            let top = At::top(policy);
            let Some(spec) = top.get("spec") else {
                left.add(&top, "it has no spec");
                continue;
            };
            left.others(&spec, &["targetRefs", "validation"]);
            let Some(tls) = validation(&spec, manifests, left) else {
                continue;
            };
            for target in spec.list("targetRefs") {
                if let Some(section) = target.get("sectionName") {
                    left.add(
                        &section,
                        "the policy is converted for all ports of the service",
                    );
                }
                match target.refers("Service", "") {
                    Some(key) => drop(policies.insert(key, tls.clone())),
                    None => left.add(&target, "not converted"),
                }
            }
        }
        Self {
            services,
            slices,
            policies,
        }
    }

    /// Where the requests of a rule go; none if they go nowhere.
    pub(super) fn destination(&self, rule: &At<'_>, left: &mut Left) -> Option<Destination> {
        let mut parts = Vec::new();
        let mut destination = Destination::default();
        for reference in rule.list("backendRefs") {
            left.others(
                &reference,
                &["group", "kind", "namespace", "name", "port", "weight"],
            );
            // They would change what is passed on.
            if reference.list("filters").into_iter().next().is_some() {
                return None;
            }
            let Some(key) = reference.refers("Service", "") else {
                left.add(&reference, "only a Service is a backend");
                continue;
            };
            let Some(port) = reference.number("port") else {
                left.add(&reference, "it has no port");
                continue;
            };
            let weight = reference.number("weight").unwrap_or(1);
            let namespace = reference.text("namespace");
            if namespace.is_some_and(|named| named != rule.resource.namespace) {
                let why = "a ReferenceGrant decides whether this backend may be used, and grants are not \
                           read: requests of the rule are answered with 503";
                left.add(&reference, why);
                return None;
            }
            destination.is_h2c |= self.protocol(&key, port) == Some("kubernetes.io/h2c");
            if let Some(tls) = self.policies.get(&key) {
                if destination.tls.as_ref().is_some_and(|known| known != tls) {
                    left.add(
                        &reference,
                        "the backends of a rule have one BackendTLSPolicy",
                    );
                }
                destination.tls.get_or_insert_with(|| tls.clone());
            } else if self.protocol(&key, port) == Some("https") {
                destination
                    .tls
                    .get_or_insert_with(|| json!({ "verify": false }));
            }
            parts.push((self.addresses(&key, port), weight));
        }
        let is_served = |(addresses, weight): &(Vec<_>, u64)| *weight > 0 && !addresses.is_empty();
        if !parts.iter().any(is_served) {
            return None;
        }
        if let [(addresses, _)] = parts.as_slice()
            && let [(name, port)] = addresses.as_slice()
        {
            destination.single = Some((name.clone(), *port));
        }
        destination.targets = weighted(&parts);
        Some(destination)
    }

    /// A port of a service: what the file says of it.
    fn port(&self, key: &Key, port: u64) -> Option<At<'r>> {
        let spec = self.services.get(key)?.get("spec")?;
        let mut ports = spec.list("ports").into_iter();
        ports.find(|at| at.number("port") == Some(port))
    }

    fn protocol(&self, key: &Key, port: u64) -> Option<&'r str> {
        self.port(key, port)?.text("appProtocol")
    }

    /// The addresses of a service, or its name if the file does not have them.
    fn addresses(&self, key: &Key, port: u64) -> Vec<(String, u64)> {
        let service = self
            .services
            .get(key)
            .and_then(|service| service.get("spec"));
        if let Some(external) = service.as_ref().and_then(|spec| spec.text("externalName")) {
            return vec![(external.to_owned(), port)];
        }
        let name = self.port(key, port).and_then(|at| at.text("name"));
        let mut addresses = Vec::new();
        for slice in self.slices.get(key).into_iter().flatten() {
            let ports = slice.list("ports");
            let own = ports.iter().find(|at| {
                let own = at.text("name").filter(|name| !name.is_empty());
                own == name || ports.len() == 1 && name.is_none()
            });
            let Some(number) = own.and_then(|at| at.number("port")) else {
                continue;
            };
            for endpoint in slice.list("endpoints") {
                let is_ready = endpoint.value.pointer("/conditions/ready");
                if is_ready.and_then(Value::as_bool) == Some(false) {
                    continue;
                }
                for address in endpoint.list("addresses") {
                    if let Some(text) = address.value.as_str() {
                        addresses.push((text.to_owned(), number));
                    }
                }
            }
        }
        if addresses.is_empty() && !self.slices.contains_key(key) {
            let (namespace, name) = key;
            addresses.push((format!("{name}.{namespace}.svc"), port));
        }
        addresses
    }
}

/// The targets of backends, each of whose weight is shared by its addresses. An address of several
/// backends is one target with the sum of its shares.
fn weighted(parts: &[(Vec<(String, u64)>, u64)]) -> Vec<(String, u64)> {
    let counts = parts.iter().map(|(addresses, _)| addresses.len() as u64);
    let shared = counts
        .filter(|count| *count > 0)
        .fold(1, least_common_multiple);
    let share = |weight: u64, count: u64| u128::from(weight) * u128::from(shared / count.max(1));
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut targets: Vec<(String, u128)> = Vec::new();
    for (addresses, weight) in parts {
        let own = share(*weight, addresses.len() as u64);
        for (address, port) in addresses {
            let target = match address.contains(':') {
                true => format!("[{address}]:{port}"),
                false => format!("{address}:{port}"),
            };
            let place = *places.entry(target.to_lowercase()).or_insert(targets.len());
            match targets.get_mut(place) {
                Some((_, known)) => *known = known.saturating_add(own),
                None => targets.push((target, own)),
            }
        }
    }
    let largest = targets.iter().map(|(_, own)| *own).max().unwrap_or(0);
    let divisor = u128::from(shared).max(1);
    let weight = |own: u128| {
        // Without a remainder where all weights are multiples, and within the bound otherwise.
        let own = if parts.len() == 1 {
            u128::from(own > 0) * 100
        } else if largest <= u128::from(MAX_WEIGHT) {
            own
        } else {
            (own * u128::from(MAX_WEIGHT)).div_ceil(largest.max(divisor))
        };
        u64::try_from(own).unwrap_or(MAX_WEIGHT).min(MAX_WEIGHT)
    };
    let targets = targets.into_iter();
    targets.map(|(target, own)| (target, weight(own))).collect()
}

fn least_common_multiple(one: u64, other: u64) -> u64 {
    let (mut a, mut b) = (one, other);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    // Thousands of endpoints could overflow; their shares are then only nearly even.
    (one / a.max(1))
        .checked_mul(other)
        .map_or(one, |both| both.min(1 << 32))
}

/// What a BackendTLSPolicy verifies.
fn validation(spec: &At<'_>, manifests: &Manifests, left: &mut Left) -> Option<Value> {
    let validation = spec.get("validation")?;
    left.others(
        &validation,
        &["hostname", "caCertificateRefs", "wellKnownCACertificates"],
    );
    let mut tls = Row::from_iter([("verify".to_owned(), true.into())]);
    if let Some(hostname) = validation.text("hostname") {
        tls.insert("server_name".into(), hostname.into());
    }
    let mut authorities = Vec::new();
    for reference in validation.list("caCertificateRefs") {
        let named = reference.refers("ConfigMap", "");
        let map = named.and_then(|named| manifests.find("ConfigMap", &named));
        let pem = map.and_then(|map| map.value.get("data")?.get("ca.crt")?.as_str());
        match pem {
            Some(pem) => authorities.push(pem.to_owned()),
            None => left.add(
                &reference,
                "no ConfigMap of the file has these certificates under ca.crt: add them to \
                 pointsman.tls.ca_certificates of the upstream",
            ),
        }
    }
    if !authorities.is_empty() {
        tls.insert("ca_certificates".into(), json!(authorities));
    }
    Some(tls.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_of_a_backend_is_shared_by_its_addresses() {
        let part = |count: usize, weight| {
            let addresses = (0..count).map(|number| (format!("10.0.0.{number}"), 80));
            (addresses.collect::<Vec<_>>(), weight)
        };
        let weights = |parts: &[(Vec<(String, u64)>, u64)]| {
            let all = weighted(parts).into_iter();
            all.map(|(_, weight)| weight).collect::<Vec<_>>()
        };
        let one = |weight| (vec![("a".to_owned(), 80)], weight);
        assert_eq!(weights(&[part(2, 9), one(1)]), [9, 9, 2]);
        assert_eq!(weights(&[part(1, 1), one(0)]), [1, 0]);
        assert_eq!(weights(&[part(3, 7)]), [100, 100, 100]);
        assert_eq!(
            weights(&[part(1, 1_000_000), one(500_000)]),
            [65_535, 32_768]
        );
        // The first address of each is the same one.
        assert_eq!(weights(&[part(1, 3), part(2, 4)]), [10, 4]);
    }
}
