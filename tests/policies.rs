//! Which policies serve a request, whatever they do.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    Gateway, Setup, add_consumer, add_credential, add_plugin, exchange, until, with_route,
};

/// Has requests of a scope answered with a status.
fn terminate(gateway: &Gateway, status: u16, scope: Value) -> String {
    let config = json!({ "status_code": status, "message": status.to_string() });
    add_plugin(gateway, "request-termination", config, scope)
}

fn set_enabled(gateway: &Gateway, plugin: &str, enabled: bool) {
    let change = json!({ "enabled": enabled });
    gateway.admin_json("PATCH", plugin, &change).expect(200);
}

#[test]
fn the_plugin_with_the_most_specific_scope_serves() {
    let (gateway, _backend) = with_route();
    let other_route = json!({ "paths": ["/other"] });
    let other_route = gateway.admin_json("POST", "/services/s/routes", &other_route);
    other_route.expect(201);
    let consumer = add_consumer(&gateway, "c");
    add_credential(&gateway, "c", "key-auth", json!({ "key": "k" }));
    add_consumer(&gateway, "guest");
    add_plugin(
        &gateway,
        "key-auth",
        json!({ "anonymous": "guest" }),
        json!({}),
    );
    let status = |path: &str, key: Option<&str>| {
        let headers: Vec<(&str, &str)> = key.map(|key| ("apikey", key)).into_iter().collect();
        gateway.get_with(path, &headers).status
    };
    let route = json!({ "name": "r" });
    let service = json!({ "name": "s" });
    let consumer = json!({ "id": consumer });
    // From the least specific to the most specific. Each one with whether it is for requests of
    // other consumers, and of other routes.
    let scopes = [
        (json!({}), true, true),
        (json!({ "service": service }), true, true),
        (json!({ "route": route }), true, false),
        (json!({ "consumer": consumer }), false, true),
        (json!({ "route": route, "service": service }), true, false),
        (
            json!({ "service": service, "consumer": consumer }),
            false,
            true,
        ),
        (
            json!({ "route": route, "consumer": consumer }),
            false,
            false,
        ),
        (
            json!({ "route": route, "service": service, "consumer": consumer }),
            false,
            false,
        ),
    ];
    let (mut all, mut others, mut elsewhere) = (200, 200, 200);
    let mut plugins = Vec::new();
    for (number, (scope, for_others, for_elsewhere)) in (0..).zip(scopes) {
        let place = 410 + number;
        let plugin = terminate(&gateway, place, scope);
        plugins.push((plugin, all));
        all = place;
        if for_others {
            others = place;
        }
        if for_elsewhere {
            elsewhere = place;
        }
        assert_eq!(status("/", Some("k")), all);
        assert_eq!(status("/", None), others);
        assert_eq!(status("/other", Some("k")), elsewhere);
    }
    // A disabled plugin is as if absent, so the next one serves.
    while let Some((plugin, next)) = plugins.pop() {
        set_enabled(&gateway, &plugin, false);
        assert_eq!(status("/", Some("k")), next);
        set_enabled(&gateway, &plugin, true);
        gateway.admin("DELETE", &plugin, &[]).expect(204);
        assert_eq!(status("/", Some("k")), next);
    }
}

#[test]
fn a_change_is_in_effect_for_the_next_request() {
    let (gateway, backend) = with_route();
    gateway.get("/").expect(200);
    let plugin = terminate(&gateway, 418, json!({ "route": { "name": "r" } }));
    for status in [451, 503, 599] {
        let change = json!({ "config": { "status_code": status, "message": "m" } });
        gateway.admin_json("PATCH", &plugin, &change).expect(200);
        let reply = gateway.get("/").expect(status);
        assert_eq!(reply.json(), json!({ "message": "m" }));
    }
    gateway.admin("DELETE", &plugin, &[]).expect(204);
    gateway.get("/").expect(200);
    assert_eq!(backend.served(), 2);
    // A deleted route takes its plugins along, and one with its name does not inherit them.
    terminate(&gateway, 418, json!({ "route": { "name": "r" } }));
    gateway.admin("DELETE", "/routes/r", &[]).expect(204);
    let route = json!({ "name": "r", "paths": ["/"] });
    gateway
        .admin_json("POST", "/services/s/routes", &route)
        .expect(201);
    gateway.get("/").expect(200);
}

#[test]
fn a_plugin_of_a_service_follows_the_routes_of_the_service() {
    let (gateway, backend) = with_route();
    let url = format!("http://{}", backend.address);
    let other = json!({ "name": "other", "url": url });
    gateway.admin_json("POST", "/services", &other).expect(201);
    terminate(&gateway, 418, json!({ "service": { "name": "s" } }));
    gateway.get("/").expect(418);
    for (service, status) in [("other", 200), ("s", 418)] {
        let change = json!({ "service": { "name": service } });
        gateway
            .admin_json("PATCH", "/routes/r", &change)
            .expect(200);
        assert_eq!(gateway.get("/").status, status, "{service}");
    }
}

#[test]
fn a_route_without_a_service_is_answered_by_a_plugin() {
    let gateway = Gateway::start();
    let route = json!({ "name": "r", "paths": ["/"] });
    gateway.admin_json("POST", "/routes", &route).expect(201);
    let reply = gateway.get("/").expect(503);
    assert_eq!(
        reply.json()["message"],
        "no Service found with those values"
    );
    let config = json!({ "status_code": 200, "body": "hello", "content_type": "text/plain" });
    add_plugin(
        &gateway,
        "request-termination",
        config,
        json!({ "route": { "name": "r" } }),
    );
    let reply = gateway.get("/").expect(200);
    assert_eq!(
        (reply.text(), reply.header("content-type")),
        ("hello".into(), "text/plain")
    );
}

#[test]
fn a_request_without_a_route_is_answered_as_without_plugins() {
    let gateway = Gateway::start();
    terminate(&gateway, 418, json!({}));
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    let reply = gateway.get("/").expect(404);
    assert_eq!(
        reply.json()["message"],
        "no Route matched with those values"
    );
    let answer = exchange(gateway.proxy, "GET / HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn the_plugins_of_a_restarted_gateway_are_those_before() {
    let (gateway, _backend) = with_route();
    let consumer = add_consumer(&gateway, "c");
    add_credential(&gateway, "c", "key-auth", json!({ "key": "k" }));
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    terminate(&gateway, 418, json!({ "consumer": { "id": consumer } }));
    let data = gateway.data_dir.clone();
    let _folder = gateway.kill();
    let gateway = Setup::with_data(&data).start();
    gateway.get("/").expect(401);
    gateway.get_with("/", &[("apikey", "k")]).expect(418);
}

#[test]
fn requests_in_progress_are_served_while_plugins_change() {
    let (gateway, _backend) = with_route();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let status = gateway.get("/").status;
                        assert!([200, 418].contains(&status), "{status}");
                    }
                })
            })
            .collect();
        while clients.iter().any(|client| !client.is_finished()) {
            let plugin = terminate(&gateway, 418, json!({ "service": { "name": "s" } }));
            gateway.admin("DELETE", &plugin, &[]).expect(204);
        }
    });
}

#[test]
fn later_phases_of_a_policy_run_although_another_one_answers() {
    let (gateway, _backend) = with_route();
    add_plugin(&gateway, "rate-limiting", json!({ "minute": 5 }), json!({}));
    terminate(&gateway, 418, json!({}));
    let reply = gateway.get("/").expect(418);
    assert_eq!(reply.header("x-ratelimit-remaining-minute"), "4");
    // No further policy sees a request that is answered: a request without a key does not count.
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    let reply = gateway.get("/").expect(401);
    assert_eq!(reply.header("x-ratelimit-remaining-minute"), "");
}

#[test]
fn a_policy_before_authentication_has_no_settings_for_single_consumers() {
    let (gateway, _backend) = with_route();
    let consumer = add_consumer(&gateway, "c");
    add_credential(&gateway, "c", "key-auth", json!({ "key": "k" }));
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    let echo = |name: &str| json!({ "header_name": name, "echo_downstream": true });
    let scope = json!({ "consumer": { "id": consumer } });
    add_plugin(&gateway, "correlation-id", echo("x-all"), json!({}));
    add_plugin(&gateway, "correlation-id", echo("x-own"), scope.clone());
    terminate(&gateway, 418, scope);
    // request-termination comes after authentication, and correlation-id before it.
    let reply = gateway.get_with("/", &[("apikey", "k")]).expect(418);
    assert_ne!(reply.header("x-all"), "");
    assert_eq!(reply.header("x-own"), "");
    // Its later phase runs although key-auth has refused the request.
    let reply = gateway.get("/").expect(401);
    assert_ne!(reply.header("x-all"), "");
}

#[test]
fn the_last_phase_runs_for_requests_that_are_refused_and_for_those_without_a_route() {
    let (gateway, _backend) = with_route();
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    let folder = tempfile::tempdir().unwrap();
    let (global, own) = (folder.path().join("global"), folder.path().join("own"));
    add_plugin(&gateway, "file-log", json!({ "path": global }), json!({}));
    let route = json!({ "name": "only", "hosts": ["a.example"], "paths": ["/only"] });
    let path = "/services/s/routes";
    gateway.admin_json("POST", path, &route).expect(201);
    let scope = json!({ "route": { "name": "only" } });
    add_plugin(&gateway, "file-log", json!({ "path": own }), scope);
    let statuses = |file: &Path| -> Vec<Value> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .map(|line: Value| line["response"]["status"].clone())
            .collect()
    };
    gateway.get("/").expect(401);
    gateway.admin("DELETE", "/routes/r", &[]).expect(204);
    // Only the plugins for all requests are for one without a route.
    gateway.get("/").expect(404);
    gateway
        .get_with("/only", &[("host", "a.example")])
        .expect(401);
    until("three records", || {
        statuses(&global).len() + statuses(&own).len() >= 3
    });
    assert_eq!(statuses(&global), [401, 404]);
    assert_eq!(statuses(&own), [401]);
}

#[test]
fn a_termination_is_triggered_and_describes_the_request() {
    let (gateway, backend) = with_route();
    let config = json!({
        "status_code": 200, "message": "m", "echo": true, "trigger": "X-Stop",
    });
    add_plugin(
        &gateway,
        "request-termination",
        config,
        json!({ "route": { "name": "r" } }),
    );
    gateway.get("/").expect(200);
    assert_eq!(backend.served(), 1, "nothing triggers it");
    let by_header = gateway
        .get_with("/?a=1&a=2&flag", &[("x-stop", "")])
        .expect(200)
        .json();
    let by_query = gateway.get("/?X-Stop").expect(200).json();
    assert_eq!(backend.served(), 1);
    assert_eq!(by_header["message"], "m");
    let request = &by_header["request"];
    assert_eq!(request["query"], json!({ "a": ["1", "2"], "flag": true }));
    assert_eq!(
        (&request["method"], &request["path"]),
        (&json!("GET"), &json!("/"))
    );
    assert_eq!(
        (&request["raw_body"], request.get("body")),
        (&json!(""), None)
    );
    assert_eq!(by_query["request"]["query"], json!({ "X-Stop": true }));
    for (field, path) in [
        ("matched_route", "/routes/r"),
        ("matched_service", "/services/s"),
    ] {
        let stored = gateway.admin("GET", path, &[]).expect(200).json();
        assert_eq!(by_header[field]["id"], stored["id"]);
        assert_eq!(by_header[field]["name"], stored["name"]);
        assert_eq!(by_header[field]["tags"], stored["tags"], "the whole entity");
    }
    for key in ["node_id", "worker_pid", "hostname"] {
        assert!(!by_header["kong"][key].is_null(), "{key}");
    }
}

#[test]
fn a_redirect_keeps_the_normalised_path_and_the_query_as_it_was_sent() {
    let (gateway, _backend) = with_route();
    let config = json!({
        "status_code": 302, "location": "https://new.example:8443/x?y#z",
        "keep_incoming_path": true,
    });
    add_plugin(&gateway, "redirect", config, json!({}));
    for (sent, location) in [
        ("/a//b/../%63%2Fd%20e?q=%41&{f}", "/a/c%2Fd%20e?q=%41&{f}#z"),
        ("/a", "/a#z"),
    ] {
        let head = format!("GET {sent} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = exchange(gateway.proxy, &head);
        let expected = format!("location: https://new.example:8443{location}\r\n");
        assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
        assert!(answer.contains(&expected), "{answer}");
    }
}
