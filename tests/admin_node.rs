//! What a node says about itself, and what Kong has beside its entities: tags, cache, log level.

use serde_json::{Value, json};

use crate::harness::{Gateway, Reply, Setup, exchange, until};

fn get(gateway: &Gateway, path: &str) -> Reply {
    gateway.admin("GET", path, &[])
}

#[test]
fn the_root_has_the_settings_that_kongs_clients_read() {
    let gateway = Setup::new()
        .arg("--log", "warn")
        .arg("--dns-resolver", "192.0.2.53")
        .start();
    let root = get(&gateway, "/").expect(200).json();
    assert!(root["timers"]["running"].as_u64().unwrap() > 0, "{root}");
    assert_eq!(root["timers"]["pending"], 0);
    assert_eq!(root["edition"], "community");
    let expected = json!({
        "database": "postgres",
        "role": "traditional",
        "router_flavor": "traditional_compatible",
        "worker_consistency": "strict",
        "log_level": "warn",
        "plugins": ["bundled"],
        "anonymous_reports": false,
        "kic": false,
        "wasm": false,
        "proxy_ssl_enabled": false,
        "admin_ssl_enabled": false,
        "status_ssl_enabled": false,
        "stream_proxy_ssl_enabled": false,
        "pg_host": root["hostname"],
        "pg_ssl": false,
        "status_listen": ["off"],
        "stream_listen": ["off"],
        "admin_gui_listen": ["off"],
        "admin_gui_path": "/",
        "stream_listeners": {},
        "status_listeners": {},
        "admin_gui_listeners": {},
        "dns_order": ["LAST", "SRV", "A", "AAAA"],
        "dns_hostsfile": "/etc/hosts",
        "dns_resolver": ["192.0.2.53:53"],
        "headers": ["server_tokens", "latency_tokens", "X-Kong-Request-Id"],
        "headers_upstream": ["X-Kong-Request-Id"],
        "nginx_http_charset": "off",
        "upstream_keepalive_pool_size": 512,
        "upstream_keepalive_max_requests": 10_000,
        "upstream_keepalive_idle_timeout": 60,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&root["configuration"][name], value, "{name}");
    }
    // A setting without a value is absent.
    let without = Setup::new()
        .arg("--headers", "via, x-kong-request-id")
        .arg("--headers-upstream", "off")
        .start();
    let root = get(&without, "/").expect(200).json();
    assert_eq!(root["configuration"].get("dns_resolver"), None);
    let headers = &root["configuration"]["headers"];
    assert_eq!(*headers, json!(["Via", "X-Kong-Request-Id"]));
    assert_eq!(root["configuration"]["headers_upstream"], json!(["off"]));
}

#[test]
fn status_has_what_kongs_has() {
    let gateway = Gateway::start();
    let status = get(&gateway, "/status").expect(200).json();
    assert_eq!(status["database"], json!({"reachable": true}));
    assert!(status["memory"]["workers_lua_vms"].is_array());
    assert!(status["memory"]["lua_shared_dicts"].is_object());
    for count in [
        "connections_accepted",
        "connections_active",
        "connections_handled",
        "connections_reading",
        "connections_writing",
        "connections_waiting",
        "total_requests",
    ] {
        assert!(status["server"][count].is_u64(), "{count}: {status}");
    }
    // Only without a database.
    assert_eq!(status.get("configuration_hash"), None);
    for (query, ending) in [
        ("", " MiB"),
        ("?unit=k&scale=0", " KiB"),
        ("?unit=G&scale=4", " GiB"),
    ] {
        let status = get(&gateway, &format!("/status{query}")).expect(200).json();
        let resident = status["memory"]["resident"].as_str().unwrap().to_owned();
        assert!(resident.ends_with(ending), "{query}: {resident}");
    }
    let status = get(&gateway, "/status?unit=b").expect(200).json();
    assert!(status["memory"]["resident"].is_u64());
}

#[test]
fn endpoints_are_in_the_order_of_their_segments() {
    let gateway = Gateway::start();
    let endpoints = get(&gateway, "/endpoints").expect(200).json();
    let endpoints: Vec<&str> = endpoints["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    assert!(endpoints.is_sorted_by_key(|path| path.replace('/', "\0")));
    for path in [
        "/",
        "/cache/{key}",
        "/consumers/{consumers}/key-auth/{keyauth_credentials}",
        "/config",
        "/debug/node/log-level/{log_level}",
        "/endpoints",
        "/routes/{routes}/service",
        "/services/{services}/routes/{routes}",
        "/status/ready",
        "/tags/{tags}",
        "/upstreams/{upstreams}/targets/{targets}/{address}/healthy",
    ] {
        assert!(endpoints.contains(&path), "{path}: {endpoints:?}");
    }
}

/// Every entry of a list, page by page.
fn pages(gateway: &Gateway, path: &str) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = get(gateway, &path).expect(200).json();
        entries.extend(page["data"].as_array().unwrap().iter().cloned());
        assert_eq!(page["next"].is_null(), page.get("offset").is_none());
        next = page["next"].as_str().map(str::to_owned);
    }
    entries
}

#[test]
fn tags_lead_to_their_rows_page_by_page() {
    let gateway = Gateway::start();
    assert_eq!(
        get(&gateway, "/tags/unknown").expect(200).json(),
        json!({"data": [], "next": null})
    );
    let make = |path: &str, document: Value| {
        let made = gateway.admin_json("POST", path, &document).expect(201);
        made.json()["id"].clone()
    };
    let service = json!({"name": "s", "host": "h", "tags": ["b", "a"]});
    let service = make("/services", service);
    let route = json!({"paths": ["/"], "tags": ["a"]});
    let route = make("/routes", route);
    make("/upstreams", json!({"name": "u"}));
    let entry = |tag, name, id: &Value| json!({"tag": tag, "entity_name": name, "entity_id": id});
    let all = [
        entry("a", "routes", &route),
        entry("a", "services", &service),
        entry("b", "services", &service),
    ];
    let of_shipped = |entry: &Value| entry["entity_name"] == "balancers";
    for size in ["", "?size=1", "?size=2"] {
        let mut entries = pages(&gateway, &format!("/tags{size}"));
        entries.retain(|entry| !of_shipped(entry));
        assert_eq!(entries, all, "{size}");
        assert_eq!(pages(&gateway, &format!("/tags/a{size}")), all[..2]);
    }
    assert_eq!(pages(&gateway, "/tags/b"), all[2..]);

    for (path, code, name) in [
        ("/tags/a%2Cb", 10, "invalid unique tag"),
        ("/tags/a%2Fb", 10, "invalid unique tag"),
        ("/tags?size=0", 9, "invalid size"),
        ("/tags/a?offset=x", 7, "invalid offset"),
    ] {
        let wrong = get(&gateway, path).expect(400).json();
        assert_eq!(wrong["code"], code, "{path}: {wrong}");
        assert_eq!(wrong["name"], name, "{path}: {wrong}");
    }
}

#[test]
fn the_cache_is_empty_and_there_is_no_document() {
    let gateway = Gateway::start();
    get(&gateway, "/cache/services:x").expect(404);
    for path in ["/cache", "/cache/services:x"] {
        gateway.admin("DELETE", path, &[]).expect(204);
    }
    get(&gateway, "/cache").expect(405);
    for method in ["GET", "POST"] {
        let refused = gateway.admin(method, "/config", &[]).expect(400).json();
        let message =
            "this endpoint is only available when Kong is configured to not use a database";
        assert_eq!(refused, json!({"message": message}), "{method}");
    }
}

#[test]
fn kongs_endpoints_without_meaning_give_the_reason_and_enterprise_ones_are_not_found() {
    let gateway = Gateway::start();
    for (path, reason) in [
        ("/clustering/data-planes", "hybrid mode"),
        ("/clustering/status", "hybrid mode"),
        ("/timers", "timers"),
    ] {
        let refused = get(&gateway, path).expect(404).json();
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(reason), "{path}: {message}");
    }
    for path in [
        "/consumer_groups",
        "/licenses",
        "/workspaces",
        "/workspaces/default",
        "/rbac/users",
        "/rbac/roles",
        "/partials",
        "/event-hooks",
        "/degraphql_routes",
    ] {
        let refused = get(&gateway, path).expect(404).json();
        assert_eq!(refused, json!({"message": "Not found"}), "{path}");
    }
}

#[test]
fn an_unknown_argument_is_no_error() {
    let gateway = Gateway::start();
    gateway
        .admin(
            "POST",
            "/services?expand_partials=true",
            &[("name", "s"), ("host", "h")],
        )
        .expect(201);
    for path in ["/services", "/services/s", "/tags", "/status", "/"] {
        get(
            &gateway,
            &format!("{path}?sort_desc=1&expand_partials=true"),
        )
        .expect(200);
    }
    let service = get(&gateway, "/services/s").json();
    assert_eq!(service.get("expand_partials"), None);
}

#[test]
fn the_level_of_the_log_can_be_changed_for_a_while() {
    let gateway = Setup::new().arg("--log", "warn").start();
    let level = || {
        let shown = get(&gateway, "/debug/node/log-level").expect(200).json();
        shown["message"].as_str().unwrap().to_owned()
    };
    let set = |scope: &str, level: &str, status| {
        let path = format!("/debug/{scope}/log-level/{level}");
        let reply = gateway.admin("PUT", &path, &[]).expect(status).json();
        reply["message"].as_str().unwrap().to_owned()
    };
    let make = |name: &str| {
        gateway
            .admin("POST", "/services", &[("name", name), ("host", "h")])
            .expect(201);
    };
    assert_eq!(level(), "log level: warn");
    make("unlogged");
    assert_eq!(set("node", "warn", 200), "log level is already warn");
    assert_eq!(set("node", "loud", 400), "unknown log level: loud");
    let negative = set("node", "info?timeout=-1", 400);
    assert_eq!(negative, "timeout must be greater than or equal to 0");
    assert_eq!(set("node", "notice?timeout=0", 200), "log level changed");
    assert_eq!(level(), "log level: notice");
    assert_eq!(
        get(&gateway, "/").json()["configuration"]["log_level"],
        "notice"
    );
    make("logged");
    assert_eq!(set("cluster", "debug?timeout=1", 200), "log level changed");
    until("the level of the setting", || level() == "log level: warn");
    make("unlogged-again");
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("service \"logged\""), "{log}");
    assert!(!log.contains("unlogged"), "{log}");
}

#[test]
fn search_engines_are_kept_away_from_every_listener_but_the_proxys() {
    let gateway = Setup::new()
        .arg("--status-listen", "127.0.0.1:0")
        .arg("--admin-gui-listen", "127.0.0.1:0")
        .start();
    for of in ["admin", "status", "gui"] {
        let at = gateway.listener(of, 0);
        let answer = exchange(
            at,
            "GET /robots.txt HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        );
        assert!(answer.starts_with("HTTP/1.1 200 "), "{of}: {answer}");
        assert!(
            answer.contains("\r\ncontent-type: text/plain; charset=utf-8\r\n"),
            "{of}: {answer}"
        );
        assert!(
            answer.ends_with("\r\n\r\nUser-agent: *\nDisallow: /\n"),
            "{of}: {answer}"
        );
    }
    get(&gateway, "/robots.txt").expect(200);
    gateway.get("/robots.txt").expect(404);
}
