//! What the gateway tells clients about itself: `GET /` and `GET /endpoints`.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::error::Error;
use super::{Admin, plugins};
use crate::config::{Config, DnsType};
use crate::node;
pub(super) use crate::node::ID as NODE;

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
        "node_id": *NODE,
        "lua_version": "none",
        "pids": { "master": std::process::id(), "workers": [] },
        // Kong's timers are its tasks besides requests: here, the tasks of the control side.
        "timers": { "running": alive, "pending": 0 },
        "plugins": plugins::overview(&admin, KONG_VERSION)?,
        "configuration": configuration(&admin),
    })))
}

/// The settings under Kong's names, with the values that Kong would show for what this gateway
/// does. As in Kong, a setting without a value is left out.
fn configuration(admin: &Admin) -> Value {
    let config = &admin.config;
    let (proxy, admin_address) = admin.addresses;
    let mut shown = json!({
        // Clients read here whether they may write; "off" would mean that they may not.
        "database": "postgres",
        "role": "traditional",
        "router_flavor": "traditional_compatible",
        "worker_consistency": "strict",
        "log_level": admin.log_level.shown(),
        "prefix": config.data_dir,
        "data_dir": config.data_dir,
        "plugins": ["bundled"],
        "anonymous_reports": false,
        "kic": false,
        "wasm": false,
        "client_ssl": false,
        "allow_debug_header": false,
        "proxy_listen": [proxy.to_string()],
        "proxy_listeners": [listener(proxy, true)],
        "proxy_ssl_enabled": false,
        "admin_listen": [admin_address.to_string()],
        "admin_listeners": [listener(admin_address, false)],
        "admin_ssl_enabled": false,
        "admin_gui_url": config.admin_access.urls,
        "admin_gui_origin": config.admin_access.origins,
        "admin_gui_listen": ["off"],
        "admin_gui_ssl_enabled": false,
        "status_listen": ["off"],
        "status_ssl_enabled": false,
        "stream_listen": ["off"],
        "stream_proxy_ssl_enabled": false,
        "cluster_listen": ["off"],
        // Empty lists, in the form in which Kong shows them.
        "admin_gui_listeners": {},
        "status_listeners": {},
        "stream_listeners": {},
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
    if !config.dns.resolvers.is_empty() {
        shown["dns_resolver"] = json!(config.dns.resolvers);
    }
    shown
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

/// A listening address, with Kong's flags for one.
fn listener(address: SocketAddr, reuseport: bool) -> Value {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    json!({
        "ip": ip,
        "port": address.port(),
        "listener": address.to_string(),
        "ssl": false,
        "http2": false,
        "proxy_protocol": false,
        "deferred": false,
        "bind": false,
        "reuseport": reuseport,
        "backlog=%d+": false,
        "ipv6only=on": false,
        "ipv6only=off": false,
        "so_keepalive=on": false,
        "so_keepalive=off": false,
        "so_keepalive=%w*:%w*:%d*": false,
    })
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

/// A path as it is shown.
pub(super) fn shown_path(path: &str) -> String {
    let mut collection = "";
    let segments = path.split('/').map(|segment| {
        let before = std::mem::replace(&mut collection, segment);
        match segment {
            "{key}" | "{nested}" => format!("{{{}}}", before.replace('-', "_")),
            _ => segment.to_owned(),
        }
    });
    segments.collect::<Vec<_>>().join("/")
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
    }
}
