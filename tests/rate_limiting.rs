//! The plugin `rate-limiting`, with its counts in the memory of the gateway.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, Reply, Setup, until, with_backend};

/// Adds the plugin for all requests.
fn limit(gateway: &Gateway, config: &Value) -> Value {
    let plugin = json!({ "name": "rate-limiting", "config": config });
    let made = gateway.admin_json("POST", "/plugins", &plugin);
    made.expect(201).json()["id"].clone()
}

/// The headers that tell a client of its limits.
fn told(reply: &Reply) -> Vec<(String, String)> {
    let headers = reply.headers.iter();
    let of_limits = headers
        .filter(|(name, _)| name.as_str().contains("ratelimit") || name.as_str() == "retry-after");
    let mut told: Vec<(String, String)> = of_limits
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    told.sort();
    told
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// Waits until a minute does not end soon, and with it no hour: 20 seconds suffice also on a busy
/// machine.
fn wait_for_a_window_with_time_left() {
    until("a minute that does not end soon", || seconds() % 60 < 40);
}

#[test]
fn the_request_past_the_limit_is_refused_as_by_kong() {
    let (gateway, backend) = with_backend(Setup::new());
    limit(
        &gateway,
        &json!({ "minute": 5, "hour": 100, "policy": "local" }),
    );
    wait_for_a_window_with_time_left();
    for left in ["4", "3", "2", "1", "0"] {
        let reply = gateway.get("/").expect(200);
        for (name, value) in [
            ("x-ratelimit-limit-minute", "5"),
            ("x-ratelimit-remaining-minute", left),
            ("x-ratelimit-limit-hour", "100"),
            ("ratelimit-limit", "5"),
            ("ratelimit-remaining", left),
        ] {
            assert_eq!(reply.header(name), value, "{name}");
        }
        let reset: u64 = reply.header("ratelimit-reset").parse().unwrap();
        assert!((1..=60).contains(&reset), "{reset}");
        assert!(!reply.headers.contains_key("retry-after"));
    }
    let refused = gateway.get("/").expect(429);
    let document = refused.json();
    assert_eq!(document["message"], "API rate limit exceeded");
    assert!(document["request_id"].is_string());
    for (name, value) in [
        ("x-ratelimit-limit-minute", "5"),
        ("x-ratelimit-remaining-minute", "0"),
        // It took nothing from the other limit.
        ("x-ratelimit-remaining-hour", "95"),
        ("ratelimit-limit", "5"),
        ("ratelimit-remaining", "0"),
        ("retry-after", refused.header("ratelimit-reset")),
    ] {
        assert_eq!(refused.header(name), value, "{name}");
    }
    assert_eq!(backend.served(), 5);
}

#[test]
fn every_period_has_its_headers() {
    let (gateway, _backend) = with_backend(Setup::new());
    let config = json!({
        "second": 10, "minute": 20, "hour": 30, "day": 40, "month": 50, "year": 60.5,
    });
    limit(&gateway, &config);
    let reply = gateway.get("/").expect(200);
    for (period, limit, left) in [
        ("second", "10", "9"),
        ("minute", "20", "19"),
        ("hour", "30", "29"),
        ("day", "40", "39"),
        ("month", "50", "49"),
        ("year", "60.5", "59.5"),
    ] {
        let header = |kind| {
            reply
                .header(&format!("x-ratelimit-{kind}-{period}"))
                .to_owned()
        };
        assert_eq!(
            (&*header("limit"), &*header("remaining")),
            (limit, left),
            "{period}"
        );
    }
    assert_eq!(reply.header("ratelimit-limit"), "10");
    assert_eq!(reply.header("ratelimit-reset"), "1");
}

#[test]
fn a_limit_is_exact_for_64_clients_over_all_workers() {
    let (gateway, backend) = with_backend(Setup::new());
    limit(&gateway, &json!({ "day": 500 }));
    let tally = Load::run(gateway.proxy, "/", 64, 20);
    assert_eq!(tally.by_backend["b"], 500);
    assert_eq!(tally.failures.len(), 64 * 20 - 500);
    let refused = |failure: &&String| !failure.starts_with("429");
    assert_eq!(tally.failures.iter().find(refused), None);
    assert_eq!(backend.served(), 500);
}

#[test]
fn a_limit_is_full_again_in_the_next_window() {
    let (gateway, _backend) = with_backend(Setup::new());
    limit(&gateway, &json!({ "second": 1 }));
    for _ in 0..3 {
        until("a request passes", || gateway.get("/").status == 200);
        until("a request is refused", || gateway.get("/").status == 429);
    }
}

#[test]
fn clients_are_told_apart_by_what_the_plugin_names() {
    let (gateway, _backend) = with_backend(Setup::new());
    let two = Backend::start("two");
    gateway.balanced_as("two", "/two", &[(two.address, 100)]);
    let a: &[(&str, &str)] = &[("x-client", "a")];
    let b: &[(&str, &str)] = &[("x-client", "b")];
    let empty: &[(&str, &str)] = &[("x-client", "")];
    let none: &[(&str, &str)] = &[];
    for (config, requests) in [
        (
            json!({ "day": 1, "limit_by": "ip" }),
            vec![("/", a, 200), ("/two", b, 429)],
        ),
        (
            json!({ "day": 1, "limit_by": "header", "header_name": "X-Client" }),
            vec![
                ("/", a, 200),
                ("/two", a, 429),
                ("/", b, 200),
                ("/", empty, 200),
            ],
        ),
        // By the address where the header is missing: as counted above.
        (
            json!({ "day": 1, "limit_by": "header", "header_name": "x-client" }),
            vec![("/", none, 429), ("/", a, 429)],
        ),
        (
            json!({ "day": 1, "limit_by": "service" }),
            vec![
                ("/", a, 200),
                ("/", b, 429),
                ("/two", a, 200),
                ("/two", b, 429),
            ],
        ),
        // Other paths are counted by address.
        (
            json!({ "day": 1, "limit_by": "path", "path": "/x" }),
            vec![
                ("/x", a, 200),
                ("/x?q", b, 429),
                ("/./x", a, 429),
                ("/y", a, 429),
            ],
        ),
        // Without a consumer or a credential, the address counts.
        (json!({ "day": 1 }), vec![("/", a, 429)]),
        (
            json!({ "day": 1, "limit_by": "credential" }),
            vec![("/", a, 429)],
        ),
    ] {
        let id = limit(&gateway, &config);
        for (path, headers, status) in requests {
            let reply = gateway.get_with(path, headers);
            assert_eq!(reply.status, status, "{config} {path} {headers:?}");
        }
        let path = format!("/plugins/{}", id.as_str().unwrap());
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
}

#[test]
fn counts_belong_to_the_route_and_service_of_the_plugin() {
    let (gateway, _backend) = with_backend(Setup::new());
    let two = Backend::start("two");
    gateway.balanced_as("two", "/two", &[(two.address, 100)]);
    // The plugin of a service is in the place of the one for all requests.
    limit(&gateway, &json!({ "day": 2 }));
    let own = json!({ "name": "rate-limiting", "config": { "day": 3 } });
    gateway
        .admin_json("POST", "/services/two-service/plugins", &own)
        .expect(201);
    for (path, status) in [
        ("/", 200),
        ("/", 200),
        ("/", 429),
        ("/two", 200),
        ("/two", 200),
        ("/two", 200),
        ("/two", 429),
    ] {
        assert_eq!(gateway.get(path).status, status, "{path}");
    }
}

#[test]
fn counts_outlive_a_change_of_the_limit() {
    let (gateway, _backend) = with_backend(Setup::new());
    let id = limit(&gateway, &json!({ "day": 2 }));
    gateway.get("/").expect(200);
    gateway.get("/").expect(200);
    gateway.get("/").expect(429);
    let path = format!("/plugins/{}", id.as_str().unwrap());
    let more = json!({ "config": { "day": 3 } });
    gateway.admin_json("PATCH", &path, &more).expect(200);
    assert_eq!(
        gateway.get("/").expect(200).header("ratelimit-remaining"),
        "0"
    );
    gateway.get("/").expect(429);
}

#[test]
fn the_refusal_and_the_headers_are_as_the_settings_say() {
    let (gateway, _backend) = with_backend(Setup::new());
    let config = json!({
        "day": 1,
        "hide_client_headers": true,
        "error_code": 404,
        "error_message": "slow down",
    });
    limit(&gateway, &config);
    assert_eq!(told(&gateway.get("/").expect(200)), []);
    let refused = gateway.get("/").expect(404);
    assert_eq!(refused.json()["message"], "slow down");
    assert_eq!(told(&refused), []);
}

#[test]
fn answers_of_later_plugins_have_the_headers_too() {
    let (gateway, _backend) = with_backend(Setup::new());
    limit(&gateway, &json!({ "day": 3 }));
    let plugin = json!({ "name": "request-termination" });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    let answered = gateway.get("/").expect(503);
    assert_eq!(answered.header("x-ratelimit-remaining-day"), "2");
}

#[test]
fn consumers_and_credentials_are_counted_by_themselves() {
    let (gateway, _backend) = with_backend(Setup::new());
    let plugin = json!({ "name": "key-auth" });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    for (name, keys) in [("a", &["a1", "a2"][..]), ("b", &["b1"])] {
        gateway
            .admin("POST", "/consumers", &[("username", name)])
            .expect(201);
        for key in keys {
            let path = format!("/consumers/{name}/key-auth");
            gateway.admin("POST", &path, &[("key", key)]).expect(201);
        }
    }
    let send = |key: &str| gateway.get_with("/", &[("apikey", key)]);
    let id = limit(&gateway, &json!({ "day": 1 }));
    for (key, status) in [("a1", 200), ("a2", 429), ("b1", 200), ("a1", 429)] {
        assert_eq!(send(key).status, status, "{key}");
    }
    // A consumer may have limits of its own, which take the place of those for all.
    let own = json!({ "name": "rate-limiting", "config": { "day": 3 } });
    gateway
        .admin_json("POST", "/consumers/a/plugins", &own)
        .expect(201);
    let reply = send("a2").expect(200);
    assert_eq!(reply.header("x-ratelimit-limit-day"), "3");
    send("b1").expect(429);
    let path = format!("/plugins/{}", id.as_str().unwrap());
    let by_credential = json!({ "config": { "limit_by": "credential" } });
    gateway
        .admin_json("PATCH", &path, &by_credential)
        .expect(200);
    send("b1").expect(200);
    send("b1").expect(429);
}
