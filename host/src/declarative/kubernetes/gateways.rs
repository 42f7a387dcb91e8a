//! Gateways: what their listeners say of the routes that name them, and the certificates that they
//! show.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{At, Left, Lists, Manifests};

/// The API group of gateways and their routes.
const GROUP: &str = "gateway.networking.k8s.io";

/// The listeners of all gateways.
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// The gateways of the file, with listeners or without.
    gateways: BTreeSet<(String, String)>,
}

/// A listener of a gateway.
struct Listener {
    gateway: (String, String),
    name: String,
    port: Option<u64>,
    hostname: Option<String>,
    has_tls: bool,
    /// Whether routes of other namespaces may name it.
    is_open: bool,
}

/// Hosts with the protocols in which requests for them come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hosts: BTreeSet<String>,
    /// Whether over TLS; none if both.
    pub(super) has_tls: Option<bool>,
}

impl Listeners {
    pub(super) fn read(manifests: &Manifests, left: &mut Left, lists: &mut Lists) -> Self {
        let (mut all, mut gateways) = (Vec::new(), BTreeSet::new());
        for gateway in manifests.of_kind("Gateway") {
            gateways.insert((gateway.namespace.clone(), gateway.name.clone()));
            let top = At::top(gateway);
            let Some(spec) = top.get("spec") else {
                left.add(&top, "it has no spec");
                continue;
            };
            left.others(&spec, &["gatewayClassName", "listeners", "tls"]);
            let asks = tls_of_gateway(&spec, left);
            let own = all.len();
            for at in spec.list("listeners") {
                let listener = listener(&at, left, manifests, lists);
                all.extend(listener.filter(|listener| !asks.of(listener)));
            }
            isolation(&spec, &all[own..], left);
        }
        Self { all, gateways }
    }

    /// Where requests for a route with these host names come in.
    pub(super) fn entries(&self, spec: &At<'_>, left: &mut Left) -> Vec<Entry> {
        let own: Vec<&str> = spec
            .list("hostnames")
            .iter()
            .filter_map(|at| at.value.as_str())
            .collect();
        let anywhere = |has_tls| Entry {
            hosts: own.iter().map(|host| (*host).to_owned()).collect(),
            has_tls,
        };
        let parents = spec.list("parentRefs");
        if parents.is_empty() {
            left.add(
                spec,
                "it names no gateway: it is converted for all addresses",
            );
            return vec![anywhere(None)];
        }
        let mut entries: Vec<Entry> = Vec::new();
        for parent in parents {
            left.others(
                &parent,
                &["group", "kind", "namespace", "name", "sectionName", "port"],
            );
            let Some(gateway) = parent.refers("Gateway", GROUP) else {
                left.add(&parent, "only gateways are parents of routes");
                continue;
            };
            if !self.gateways.contains(&gateway) {
                left.add(
                    &parent,
                    "this gateway is not in the file: the route is converted for all addresses",
                );
                entries.push(anywhere(None));
                continue;
            }
            let is_named = |listener: &&Listener| {
                let section = parent.text("sectionName");
                let port = parent.number("port");
                listener.gateway == gateway
                    && section.is_none_or(|name| listener.name == name)
                    && port.is_none_or(|port| listener.port == Some(port))
                    && (listener.is_open || parent.resource.namespace == gateway.0)
            };
            let mut found = false;
            for listener in self.all.iter().filter(is_named) {
                if let Some(hosts) = common_hosts(listener.hostname.as_deref(), &own) {
                    found = true;
                    entries.push(Entry {
                        hosts,
                        has_tls: Some(listener.has_tls),
                    });
                }
            }
            if !found {
                left.add(&parent, "no listener of this gateway takes the route");
            }
        }
        joined(entries)
    }
}

/// Why a listener that verifies clients' certificates takes no route.
const UNVERIFIED: &str = "no certificate of a client is verified: the listener takes no route";

/// Which listeners of a gateway ask clients for certificates.
#[derive(Default)]
struct Asks {
    /// All that no port of the list is for.
    by_default: bool,
    by_port: Vec<(u64, bool)>,
}

impl Asks {
    fn of(&self, listener: &Listener) -> bool {
        let own = |(port, _): &&(u64, bool)| Some(*port) == listener.port;
        let by_port = self.by_port.iter().find(own);
        listener.has_tls && by_port.map_or(self.by_default, |(_, asks)| *asks)
    }
}

/// What a gateway says of TLS for all its listeners.
fn tls_of_gateway(spec: &At<'_>, left: &mut Left) -> Asks {
    let mut asks = Asks::default();
    let Some(tls) = spec.get("tls") else {
        return asks;
    };
    // The certificate that endpoints are shown is listed.
    left.others(&tls, &["frontend"]);
    let Some(frontend) = tls.get("frontend") else {
        return asks;
    };
    left.others(&frontend, &["default", "perPort"]);
    let mut asks_in = |at: &At<'_>| match at.get("validation") {
        Some(validation) => {
            left.add(&validation, UNVERIFIED);
            true
        }
        None => false,
    };
    asks.by_default = frontend.get("default").is_some_and(|at| asks_in(&at));
    for at in frontend.list("perPort") {
        let own = at.get("tls").is_some_and(|tls| asks_in(&tls));
        asks.by_port
            .extend(at.number("port").map(|port| (port, own)));
    }
    asks
}

/// Lists the listeners whose hosts another listener of the same port has as well. With Kubernetes,
/// only the routes of the one with the narrowest host get a request.
fn isolation(spec: &At<'_>, listeners: &[Listener], left: &mut Left) {
    for at in spec.list("listeners") {
        let Some(own) = (listeners.iter()).find(|own| at.text("name") == Some(&*own.name)) else {
            continue;
        };
        let Some(host) = &own.hostname else {
            continue;
        };
        let is_wider = |other: &&Listener| {
            let takes = |wide: &str| wide != host && narrower(wide, host) == Some(host);
            (other.port, other.has_tls) == (own.port, own.has_tls)
                && other.name != own.name
                && other.hostname.as_deref().is_none_or(takes)
        };
        if let Some(wider) = listeners.iter().find(is_wider) {
            let why = format!(
                "listeners are not isolated: a request for {host} that no route of this listener takes can \
                 take a route of {}; name the hosts of its routes",
                wider.name
            );
            left.add(&at, &why);
        }
    }
}

/// Joins entries for the same hosts.
fn joined(entries: Vec<Entry>) -> Vec<Entry> {
    let mut joined: Vec<Entry> = Vec::new();
    for entry in entries {
        match joined.iter_mut().find(|known| known.hosts == entry.hosts) {
            Some(known) if known.has_tls != entry.has_tls => known.has_tls = None,
            Some(_) => {}
            None => joined.push(entry),
        }
    }
    joined
}

/// The hosts that a listener and a route have in common; none if there are none. An empty set
/// stands for all hosts.
fn common_hosts(listener: Option<&str>, own: &[&str]) -> Option<BTreeSet<String>> {
    match (listener, own) {
        (None, own) => Some(own.iter().map(|host| (*host).to_owned()).collect()),
        (Some(host), []) => Some(BTreeSet::from([host.to_owned()])),
        (Some(host), own) => {
            let common = own.iter().filter_map(|other| narrower(host, other));
            let common: BTreeSet<String> = common.map(str::to_owned).collect();
            (!common.is_empty()).then_some(common)
        }
    }
}

/// The narrower one of two hosts, of which each may be a wildcard.
fn narrower<'h>(one: &'h str, other: &'h str) -> Option<&'h str> {
    let contains = |wide: &str, host: &str| {
        let suffix = wide.strip_prefix('*');
        wide == host
            || suffix.is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
    };
    if contains(one, other) {
        Some(other)
    } else {
        contains(other, one).then_some(one)
    }
}

fn listener(
    at: &At<'_>,
    left: &mut Left,
    manifests: &Manifests,
    lists: &mut Lists,
) -> Option<Listener> {
    left.others(
        at,
        &[
            "name",
            "hostname",
            "port",
            "protocol",
            "tls",
            "allowedRoutes",
        ],
    );
    let has_tls = match at.text("protocol") {
        Some("HTTP") => false,
        Some("HTTPS") => true,
        _ => {
            left.add(at, "only the protocols HTTP and HTTPS are converted");
            return None;
        }
    };
    if let Some(port) = at.get("port") {
        left.add(&port, "addresses are in the setting proxy_listen");
    }
    let hostname = at.text("hostname");
    if let Some(tls) = at.get("tls") {
        if let Some(validation) = tls.get("frontendValidation") {
            left.add(&validation, UNVERIFIED);
            return None;
        }
        certificates(&tls, hostname, left, manifests, lists);
    }
    let mut is_open = false;
    if let Some(allowed) = at.get("allowedRoutes") {
        left.others(&allowed, &["namespaces"]);
        if let Some(namespaces) = allowed.get("namespaces") {
            match namespaces.text("from") {
                None | Some("Same") => {}
                Some("All") => is_open = true,
                Some(_) => {
                    let why = "no selector is evaluated: the listener takes no route";
                    left.add(&namespaces, why);
                    return None;
                }
            }
        }
    }
    Some(Listener {
        gateway: (at.resource.namespace.clone(), at.resource.name.clone()),
        name: at.text("name").unwrap_or_default().to_owned(),
        port: at.number("port"),
        hostname: hostname.map(str::to_owned),
        has_tls,
        is_open,
    })
}

/// The certificates of a listener, if the file has them.
fn certificates(
    tls: &At<'_>,
    hostname: Option<&str>,
    left: &mut Left,
    manifests: &Manifests,
    lists: &mut Lists,
) {
    left.others(tls, &["mode", "certificateRefs"]);
    if tls.text("mode").is_some_and(|mode| mode != "Terminate") {
        left.add(tls, "only the mode Terminate is converted");
        return;
    }
    let refs = tls.list("certificateRefs");
    for (place, reference) in refs.iter().enumerate() {
        let named = reference.refers("Secret", "");
        let secret = named.and_then(|named| manifests.find("Secret", &named));
        let Some(secret) = secret else {
            left.add(
                reference,
                "this Secret is not in the file: add its certificate",
            );
            continue;
        };
        let pem = |name| secret_value(&secret.value, name);
        let (Some(cert), Some(key)) = (pem("tls.crt"), pem("tls.key")) else {
            left.add(reference, "the Secret has no tls.crt and tls.key");
            continue;
        };
        if place > 0 {
            left.add(
                reference,
                "a server name has one certificate: this one is left out",
            );
            continue;
        }
        let sni = json!({ "name": hostname.unwrap_or("*") });
        let has_other = |known: &Value| {
            let snis = known["snis"].as_array();
            known["cert"] != *cert && snis.is_some_and(|snis| snis.contains(&sni))
        };
        if lists.certificates.iter().any(has_other) {
            left.add(reference, "its server name has another certificate already");
            continue;
        }
        let known = lists
            .certificates
            .iter_mut()
            .find(|known| known["cert"] == *cert);
        match known.and_then(|known| known.get_mut("snis")?.as_array_mut()) {
            Some(snis) if snis.contains(&sni) => {}
            Some(snis) => snis.push(sni),
            None => {
                let id = super::super::ids::of("certificates", &cert);
                let row = json!({ "id": id, "cert": cert, "key": key, "snis": [sni] });
                lists.add_certificate(row, reference);
            }
        }
    }
}

/// A value of a Secret, in clear or in base64.
fn secret_value(secret: &Value, name: &str) -> Option<String> {
    use base64::Engine;
    if let Some(clear) = secret.get("stringData").and_then(|data| data.get(name)) {
        return clear.as_str().map(str::to_owned);
    }
    let encoded = secret.get("data")?.get(name)?.as_str()?;
    let encoded: String = encoded.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_takes_the_hosts_that_its_listener_has_as_well() {
        let hosts = |listener, own: &[&str]| {
            common_hosts(listener, own).map(|hosts| hosts.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(hosts(None, &[]), Some(vec![]));
        assert_eq!(
            hosts(Some("a.example"), &[]),
            Some(vec!["a.example".into()])
        );
        assert_eq!(
            hosts(Some("*.example"), &["a.example", "example", "b.other"]),
            Some(vec!["a.example".into()])
        );
        assert_eq!(
            hosts(Some("a.b.example"), &["*.example"]),
            Some(vec!["a.b.example".into()])
        );
        assert_eq!(hosts(Some("a.example"), &["b.example"]), None);
    }
}
