//! What the gateway tells clients about itself: `GET /` and `GET /endpoints`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::Error;
use super::{Admin, Listening, plugins};
use crate::config::{Config, DnsType, Listen, ListenAddress, ListenKeepalive};
use crate::entity::Kind;
use crate::node;

/// The release of Kong whose Admin API this one implements: clients choose their dialect by it.
pub(super) const KONG_VERSION: &str = "3.9.1";

/// `GET /`: what clients of Kong read first, with Pointsman's own name beside it.
pub(super) async fn root(State(admin): State<Admin>) -> Result<Json<Value>, Error> {
    let alive = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    Ok(Json(json!({
        "tagline": "Welcome to Pointsman",
        "version": KONG_VERSION,
        "edition": "community",
        "pointsman": { "name": "pointsman", "version": env!("CARGO_PKG_VERSION") },
        "hostname": node::hostname(),
        "node_id": node::id(),
        "lua_version": "none",
        "pids": { "master": std::process::id(), "workers": [] },
        // Kong's timers are its tasks besides requests: here, the tasks of the control plane.
        "timers": { "running": alive, "pending": 0 },
        "plugins": plugins::overview(&admin, KONG_VERSION)?,
        "configuration": configuration(&admin),
    })))
}

/// The settings under Kong's names, with the values that Kong would show for what this gateway
/// does. As in Kong, a setting without a value is left out.
fn configuration(admin: &Admin) -> Value {
    let config = &admin.config;
    let Listening {
        proxy,
        admin: admin_listens,
        gui,
        status,
        stream,
    } = &*admin.listening;
    let mut shown = json!({
        // Clients read here whether they may write; "off" would mean that they may not.
        "database": if config.database { "postgres" } else { "off" },
        "role": "traditional",
        "router_flavor": config.proxy.router_flavor.name(),
        "worker_consistency": "strict",
        "log_level": admin.log_level.shown(),
        "prefix": config.data_dir,
        "data_dir": config.data_dir,
        "plugins": ["bundled"],
        "anonymous_reports": false,
        "kic": false,
        "wasm": false,
        "client_ssl": false,
        "allow_debug_header": config.proxy.allow_debug_header,
        "proxy_listen": written(proxy),
        "proxy_listeners": listeners(proxy),
        "proxy_ssl_enabled": has_tls(proxy),
        "admin_listen": written(admin_listens),
        "admin_listeners": listeners(admin_listens),
        "admin_ssl_enabled": has_tls(admin_listens),
        "admin_gui_url": config.admin_access.urls,
        "admin_gui_origin": config.admin_access.origins,
        "admin_gui_listen": written(gui),
        "admin_gui_path": admin_gui_path(config),
        "admin_gui_ssl_enabled": has_tls(gui),
        "status_listen": written(status),
        "status_listeners": listeners(status),
        "status_ssl_enabled": has_tls(status),
        "stream_listen": written(stream),
        "stream_listeners": stream_listeners(stream),
        "stream_proxy_ssl_enabled": has_tls(stream),
        "cluster_listen": ["off"],
        // Empty lists, in the form in which Kong shows them.
        "admin_gui_listeners": listeners(gui),
        "cluster_listeners": {},
        "nginx_worker_processes": config.workers.to_string(),
        "client_body_buffer_size": config.proxy.client_body_buffer_size.to_string(),
        "upstream_keepalive_pool_size": config.proxy.keepalive_pool_size,
        "upstream_keepalive_max_requests": config.proxy.keepalive_max_requests.unwrap_or(0),
        "upstream_keepalive_idle_timeout":
            config.proxy.keepalive_idle_timeout.map_or(0, |timeout| timeout.as_secs()),
        "lua_max_req_headers": config.proxy.max_headers,
        "dns_order": dns_order(config),
        "dns_hostsfile": config.dns.hosts_file,
    });
    shown["headers"] = json!(config.proxy.headers.names());
    shown["headers_upstream"] = json!(config.proxy.headers.upstream_names());
    // No charset is added to the type of a response.
    shown["nginx_http_charset"] = "off".into();
    let real_ip = &config.proxy.real_ip;
    shown["trusted_ips"] = json!(real_ip.trusted.written);
    shown["real_ip_header"] = json!(real_ip.source.name());
    shown["real_ip_recursive"] = json!(if real_ip.recursive { "on" } else { "off" });
    let tracing = &config.policies.tracing;
    shown["tracing_instrumentations"] = json!(tracing.instrumentations.names());
    shown["tracing_sampling_rate"] = json!(tracing.sampling_rate);
    if config.database {
        show_store(&mut shown, config);
    }
    if !config.dns.resolvers.is_empty() {
        shown["dns_resolver"] = json!(config.dns.resolvers);
    }
    shown
}

/// Where the entities are stored, under the names of Kong's database, which Kong Manager shows: the
/// first member of etcd, or this machine.
fn show_store(shown: &mut Value, config: &Config) {
    let member = config.etcd.endpoints.first();
    let Some(member) = member.filter(|_| config.shares_store) else {
        shown["pg_host"] = node::hostname().into();
        shown["pg_ssl"] = false.into();
        return;
    };
    shown["pg_host"] = member.host.clone().into();
    shown["pg_port"] = member.port.into();
    shown["pg_ssl"] = member.tls.into();
    if !config.etcd.user.is_empty() {
        shown["pg_user"] = config.etcd.user.clone().into();
    }
}

/// The setting `dns_order` as Kong writes it.
fn dns_order(config: &Config) -> Vec<&'static str> {
    let types = config.dns.order.iter();
    types
        .map(|kind| match kind {
            DnsType::Srv => "SRV",
            DnsType::A => "A",
            DnsType::Aaaa => "AAAA",
            DnsType::Last => "LAST",
        })
        .collect()
}

/// The setting `admin_gui_path` as Kong writes it.
fn admin_gui_path(config: &Config) -> &str {
    match &*config.gui_path {
        "" => "/",
        path => path,
    }
}

/// A list of addresses, as it is written in a setting.
fn written(listens: &[Listen]) -> Vec<String> {
    match listens {
        [] => vec!["off".to_owned()],
        listens => listens.iter().map(ToString::to_string).collect(),
    }
}

fn has_tls(listens: &[Listen]) -> bool {
    listens.iter().any(|listen| listen.ssl)
}

/// A list of addresses, each with all flags that Kong knows. An empty list is an object, as in
/// Kong.
fn listeners(listens: &[Listen]) -> Value {
    match listens {
        [] => json!({}),
        listens => listens.iter().map(listener).collect(),
    }
}

/// A list of addresses of streams, which have other flags.
fn stream_listeners(listens: &[Listen]) -> Value {
    let mut shown = listeners(listens);
    if let Some(entries) = shown.as_array_mut() {
        for (entry, listen) in entries.iter_mut().zip(listens) {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("http2");
                entry.remove("deferred");
                entry.insert("udp".to_owned(), listen.udp.into());
            }
        }
    }
    shown
}

/// A listening address. A flag with a value has that value in its name; where it is not set, Kong
/// shows its pattern.
fn listener(listen: &Listen) -> Value {
    let ip = match &listen.address {
        ListenAddress::Ip(address) if address.is_ipv6() => format!("[{}]", address.ip()),
        ListenAddress::Ip(address) => address.ip().to_string(),
        ListenAddress::Unix(_) => listen.address.to_string(),
    };
    // Kong leaves `http2` out of this text, because nginx has a directive of its own for it.
    let text = Listen {
        http2: false,
        ..listen.clone()
    };
    let mut shown = json!({
        "ip": ip,
        "port": listen.address.ip().map(|address| address.port()),
        "listener": text.to_string(),
        "ssl": listen.ssl,
        "http2": listen.http2,
        "proxy_protocol": listen.proxy_protocol,
        "deferred": listen.deferred,
        "bind": listen.bind,
        "reuseport": listen.reuseport,
        "ipv6only=on": listen.ipv6only == Some(true),
        "ipv6only=off": listen.ipv6only == Some(false),
        "so_keepalive=on": listen.keepalive == Some(ListenKeepalive::On),
        "so_keepalive=off": listen.keepalive == Some(ListenKeepalive::Off),
    });
    let backlog = listen.backlog.map(|backlog| format!("backlog={backlog}"));
    let times = (listen.keepalive)
        .filter(|keepalive| matches!(keepalive, ListenKeepalive::Times { .. }))
        .map(|keepalive| format!("so_keepalive={keepalive}"));
    for (set, pattern) in [
        (backlog, "backlog=%d+"),
        (times, "so_keepalive=%w*:%w*:%d*"),
    ] {
        let is_set = set.is_some();
        shown[set.as_deref().unwrap_or(pattern)] = json!(is_set);
    }
    shown
}

/// `GET /endpoints`: every path, with names for its parts.
pub(super) fn endpoints(paths: &[String]) -> Json<Value> {
    Json(json!({ "data": paths }))
}

/// Paths as they are shown: each part that a client fills in has the name of its collection, as in
/// `/services/{services}/routes/{routes}`, and a path stands before those below it. Source: Kong.
pub(super) fn shown_paths<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut shown: Vec<String> = paths.map(shown_path).collect();
    // Segment by segment: no character is before the end of a segment.
    shown.sort_by(|one, other| one.split('/').cmp(other.split('/')));
    shown
}

/// A path as it is shown: as in Kong, the key of an entity has the name of its collection in the
/// database, which is not always that in the path.
pub(super) fn shown_path(path: &str) -> String {
    match path {
        "/cache/{key}" => return path.to_owned(),
        "/proxy-cache/{key}" => return "/proxy-cache/{cache_key}".into(),
        "/proxy-cache/{key}/caches/{nested}" => {
            return "/proxy-cache/{plugin_id}/caches/{cache_key}".into();
        }
        _ => {}
    }
    let mut collection = "";
    let segments = path.split('/').map(|segment| {
        let before = std::mem::replace(&mut collection, segment);
        match segment {
            "{key}" | "{nested}" => format!("{{{}}}", name_of(before)),
            _ => segment.to_owned(),
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// The name of the collection that a segment of a path stands for.
fn name_of(segment: &str) -> String {
    let kind = Kind::ALL.into_iter().map(Kind::declaration);
    let mut kind = kind.filter(|kind| [kind.path, kind.nested_path].contains(&segment));
    match kind.next() {
        Some(kind) => kind.name.to_owned(),
        None => segment.replace('-', "_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_in_the_order_of_their_segments_and_name_their_parts() {
        let paths = ["/ab", "/a/{key}/b-c/{nested}", "/a/z", "/ab/a", "/a", "/"];
        assert_eq!(
            shown_paths(paths.into_iter()),
            ["/", "/a", "/a/z", "/a/{a}/b-c/{b_c}", "/ab", "/ab/a"]
        );
        for (path, shown) in [
            ("/basic-auths/{key}", "/basic-auths/{basicauth_credentials}"),
            (
                "/consumers/{key}/jwt/{nested}",
                "/consumers/{consumers}/jwt/{jwt_secrets}",
            ),
            ("/key-sets/{key}", "/key-sets/{key_sets}"),
            ("/cache/{key}", "/cache/{key}"),
            ("/proxy-cache/{key}", "/proxy-cache/{cache_key}"),
        ] {
            assert_eq!(shown_path(path), shown);
        }
    }
}
