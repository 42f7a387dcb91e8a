//! The shipped balancers on real traffic, and the affinity of requests to endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, Setup, patch_upstream, until};

/// All shipped balancers except `sticky-sessions`, which needs a field of its own.
const ALL: [&str; 10] = [
    "round-robin",
    "consistent-hashing",
    "latency",
    "least-connections",
    "maglev",
    "p2c",
    "prefix-affinity",
    "prequal",
    "random",
    "token-load",
];

fn with_backends() -> (Gateway, Vec<Backend>) {
    let gateway = Gateway::start();
    let backends: Vec<Backend> = ["a", "b", "c", "d"].map(Backend::start).into();
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 100)).collect();
    gateway.balanced(&targets);
    (gateway, backends)
}

/// The usage of a balancer by the upstream `u`.
fn usage(gateway: &Gateway, name: &str) -> Value {
    let shown = gateway.admin("GET", &format!("/balancers/{name}"), &[]);
    shown.expect(200).json()["usage"]["u"].clone()
}

#[test]
fn every_shipped_balancer_makes_all_its_picks() {
    let (gateway, _backends) = with_backends();
    for name in ALL {
        let mut settings = json!({"algorithm": name});
        if name == "consistent-hashing" {
            // Without a field to hash on, the Admin API stores round-robin. No request has this
            // header.
            settings["hash_on"] = "header".into();
            settings["hash_on_header"] = "x-none".into();
        }
        patch_upstream(&gateway, &settings);
        let tally = Load::run(gateway.proxy, "/", 4, 50);
        assert_eq!(tally.failures, [""; 0], "{name}");
        // Requests without a key, at idle targets, are spread over all of them. To prefix-affinity
        // all of these requests have the same prefix.
        let least = if name == "prefix-affinity" { 1 } else { 4 };
        assert!(tally.by_backend.len() >= least, "{name}: {tally:?}");
        let usage = usage(&gateway, name);
        assert_eq!(usage["picks"], 200, "{name}");
        assert_eq!(usage["host_choices"], 0, "{name}: {usage}");
    }
}

#[test]
fn frequent_switches_of_the_balancer_cost_no_request() {
    let (gateway, _backends) = with_backends();
    patch_upstream(&gateway, &json!({"sticky_sessions_cookie": "session"}));
    let load = Load::start(gateway.proxy, "/", 4);
    for _ in 0..5 {
        for name in ["sticky-sessions"].iter().chain(&ALL) {
            let mut settings = json!({"algorithm": name});
            if ["consistent-hashing", "maglev"].contains(name) {
                settings["hash_on"] = "ip".into();
            } else if *name == "round-robin" {
                // With a field to hash on, the Admin API stores consistent-hashing.
                settings["hash_on"] = "none".into();
            }
            patch_upstream(&gateway, &settings);
            load.wait_for(20);
            // All picks are made by this balancer, and none by the host.
            let usage = usage(&gateway, name);
            assert!(usage["picks"].as_u64() >= Some(15), "{name}: {usage}");
            assert_eq!(usage["host_choices"], 0, "{name}: {usage}");
        }
    }
    assert_eq!(load.stop().failures, [""; 0]);
}

/// Components of the contract's versions 1.0 to 1.3; those of 1.1 and 1.2 import what their version
/// added.
#[test]
fn components_built_for_earlier_versions_still_load() {
    let (gateway, _backends) = with_backends();
    for (file, exports) in [
        (
            "round-robin-1.0.0",
            &["pointsman:balancer/policy@1.0.0"][..],
        ),
        ("p2c-1.1.0", &["pointsman:balancer/policy@1.1.0"]),
        (
            "asks-1.2.0",
            &[
                "pointsman:balancer/policy@1.2.0",
                "pointsman:balancer/state@1.2.0",
            ],
        ),
        (
            "p2c-1.3.0",
            &[
                "pointsman:balancer/policy@1.3.0",
                "pointsman:balancer/state@1.3.0",
            ],
        ),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/components");
        let component = std::fs::read(folder.join(format!("{file}.wasm"))).unwrap();
        let made = gateway.upload(file, component).expect(201).json();
        assert_eq!(made["exports"], json!(exports));
        patch_upstream(&gateway, &json!({"algorithm": file}));
        let picks: Vec<String> = (0..8).map(|_| gateway.backend_of("/")).collect();
        if file == "round-robin-1.0.0" {
            assert_eq!(picks[..4], picks[4..]);
            assert_eq!(picks.iter().collect::<BTreeSet<_>>().len(), 4);
        }
        assert_eq!(usage(&gateway, file)["picks"], 8);
        assert_eq!(usage(&gateway, file)["host_choices"], 0);
    }
}

/// The backend of each of 40 keys, asked twice; both answers have to be the same.
fn backends_of_keys(mut ask: impl FnMut(&str) -> String) -> BTreeMap<String, String> {
    let keys = (0..40).map(|number| format!("user-{number}"));
    let places: BTreeMap<String, String> = keys.map(|key| (key.clone(), ask(&key))).collect();
    for (key, place) in &places {
        assert_eq!(ask(key), *place, "{key}");
    }
    let used: BTreeSet<&String> = places.values().collect();
    assert!(used.len() >= 3, "{places:?}");
    places
}

#[test]
fn a_key_keeps_its_target_for_every_hash_on() {
    let (gateway, backends) = with_backends();
    let by_header = |key: &str| {
        let headers = [("x-user", key)];
        gateway
            .get_with("/", &headers)
            .expect(200)
            .header("x-backend")
            .to_owned()
    };
    patch_upstream(
        &gateway,
        &json!({"hash_on": "header", "hash_on_header": "x-user"}),
    );
    let shown = gateway.admin("GET", "/upstreams/u", &[]).json();
    assert_eq!(shown["algorithm"], "consistent-hashing");
    let places = backends_of_keys(by_header);
    // Only the keys of the deleted target move.
    let gone = format!("/upstreams/u/targets/{}", backends[0].address);
    gateway.admin("DELETE", &gone, &[]).expect(204);
    for (key, place) in &places {
        let now = by_header(key);
        assert!(now == *place || place == "a", "{key}: {place}, {now}");
    }
    gateway.add_target("u", backends[0].address, 100);
    assert_eq!(backends_of_keys(by_header), places);
    // Another algorithm that hashes the key keeps it at one target as well.
    patch_upstream(&gateway, &json!({"algorithm": "maglev"}));
    backends_of_keys(by_header);

    let hash = |settings: Value| {
        let mut settings = settings;
        settings["algorithm"] = "consistent-hashing".into();
        patch_upstream(&gateway, &settings);
    };
    hash(json!({"hash_on": "path"}));
    backends_of_keys(|key| gateway.backend_of(&format!("/{key}?x=1")));
    hash(json!({"hash_on": "query_arg", "hash_on_query_arg": "u"}));
    backends_of_keys(|key| gateway.backend_of(&format!("/?a=1&u={key}")));
    hash(json!({"hash_on": "cookie", "hash_on_cookie": "id"}));
    backends_of_keys(|key| {
        let cookie = format!("a=1; id={key}");
        let answer = gateway.get_with("/", &[("cookie", &cookie)]).expect(200);
        assert_eq!(answer.header("set-cookie"), "");
        answer.header("x-backend").to_owned()
    });
    hash(json!({"hash_on": "ip"}));
    let first = gateway.backend_of("/");
    assert!((0..20).all(|_| gateway.backend_of("/") == first));
    // The fallback is hashed where the first field is missing.
    let fallback = |on: &str, more: Value| {
        let mut settings = json!({
            "hash_on": "header", "hash_on_header": "x-none", "hash_fallback": on,
        });
        let fields = more.as_object().unwrap().clone();
        settings.as_object_mut().unwrap().extend(fields);
        hash(settings);
    };
    fallback("path", json!({}));
    backends_of_keys(|key| gateway.backend_of(&format!("/{key}")));
    fallback("header", json!({"hash_fallback_header": "x-user"}));
    backends_of_keys(by_header);
    // The two names must differ, even if only one is used. Source: Kong.
    let query_arg = json!({"hash_on_query_arg": null, "hash_fallback_query_arg": "u"});
    fallback("query_arg", query_arg);
    backends_of_keys(|key| gateway.backend_of(&format!("/?u={key}")));
    fallback("ip", json!({}));
    let first = gateway.backend_of("/");
    assert!((0..20).all(|_| gateway.backend_of("/") == first));
    fallback("cookie", json!({"hash_on_cookie": "id"}));
    let made = gateway.get("/").expect(200);
    let cookie = made
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    assert!(cookie.starts_with("id="), "{cookie}");
    let again = gateway.get_with("/", &[("cookie", &cookie)]).expect(200);
    assert_eq!(again.header("x-backend"), made.header("x-backend"));
    let routes = json!({"paths": ["~/users/(?<id>[^/]+)"], "strip_path": false});
    gateway
        .admin_json("POST", "/services/u-service/routes", &routes)
        .expect(201);
    fallback("uri_capture", json!({"hash_fallback_uri_capture": "id"}));
    let mut calls = 100;
    backends_of_keys(|key| {
        calls += 1;
        gateway.backend_of(&format!("/users/{key}/{calls}"))
    });
    hash(json!({
        "hash_on": "uri_capture", "hash_on_uri_capture": "id",
        "hash_fallback": "none", "hash_fallback_uri_capture": null,
    }));
    let mut calls = 0;
    backends_of_keys(|key| {
        calls += 1;
        gateway.backend_of(&format!("/users/{key}/{calls}"))
    });
}

#[test]
fn a_missing_cookie_to_hash_on_is_set() {
    let (gateway, _backends) = with_backends();
    let settings = json!({
        "hash_on": "cookie", "hash_on_cookie": "id", "hash_on_cookie_path": "/shop",
    });
    patch_upstream(&gateway, &settings);
    for _ in 0..10 {
        let answer = gateway.get("/").expect(200);
        let set_cookie = answer.header("set-cookie");
        let (cookie, attributes) = set_cookie.split_once(';').unwrap();
        assert!(
            cookie.starts_with("id=") && cookie.len() > 20,
            "{set_cookie}"
        );
        assert_eq!(attributes, " Path=/shop; SameSite=Lax; HttpOnly");
        let again = gateway.get_with("/", &[("cookie", cookie)]).expect(200);
        assert_eq!(again.header("x-backend"), answer.header("x-backend"));
        assert_eq!(again.header("set-cookie"), "");
    }
}

#[test]
fn a_session_keeps_its_target_while_it_exists() {
    let (gateway, backends) = with_backends();
    let missing = gateway.admin_json(
        "PATCH",
        "/upstreams/u",
        &json!({"algorithm": "sticky-sessions"}),
    );
    assert!(
        missing
            .expect(400)
            .text()
            .contains("sticky_sessions_cookie")
    );
    let settings = json!({
        "algorithm": "sticky-sessions", "sticky_sessions_cookie": "session",
        "sticky_sessions_cookie_path": "/app",
    });
    patch_upstream(&gateway, &settings);
    let mut seen = BTreeSet::new();
    // The targets of new sessions are random.
    for number in 0..1000 {
        if number >= 20 && seen.len() == 4 {
            break;
        }
        let answer = gateway.get("/").expect(200);
        let backend = answer.header("x-backend").to_owned();
        let cookie = answer
            .header("set-cookie")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        assert!(answer.header("set-cookie").contains("Path=/app;"));
        for _ in 0..3 {
            let again = gateway.get_with("/", &[("cookie", &cookie)]).expect(200);
            assert_eq!(again.header("x-backend"), backend);
            assert_eq!(again.header("set-cookie"), "");
        }
        seen.insert((backend, cookie));
    }
    // There is one cookie for each target, and every target has sessions.
    assert_eq!(seen.len(), 4, "{seen:?}");
    let (_, cookie) = seen.iter().find(|(backend, _)| backend == "a").unwrap();
    let gone = format!("/upstreams/u/targets/{}", backends[0].address);
    gateway.admin("DELETE", &gone, &[]).expect(204);
    let moved = gateway.get_with("/", &[("cookie", cookie)]).expect(200);
    assert_ne!(moved.header("x-backend"), "a");
    assert!(moved.header("set-cookie").starts_with("session="));
    // An invalid cookie is ignored.
    gateway
        .get_with("/", &[("cookie", "session=%%%")])
        .expect(200);
}

#[test]
fn latency_and_prequal_avoid_a_slow_target() {
    let (gateway, backends) = with_backends();
    // Slower than a busy machine makes the others.
    backends[3].respond_with(0, 500);
    for name in ["latency", "prequal"] {
        patch_upstream(&gateway, &json!({"algorithm": name}));
        let tally = Load::run(gateway.proxy, "/", 4, 100);
        let slow = tally.by_backend.get("d").copied().unwrap_or(0);
        // An equal share would be 100.
        assert!(slow <= 40, "{name}: {tally:?}");
        assert_eq!(tally.failures, [""; 0]);
    }
}

#[test]
fn load_is_compared_exactly_over_all_workers() {
    let (gateway, backends) = with_backends();
    for name in ["least-connections", "p2c"] {
        patch_upstream(&gateway, &json!({"algorithm": name}));
        let served = || -> Vec<u64> { backends.iter().map(Backend::served).collect() };
        let before = served();
        std::thread::scope(|scope| {
            // None is answered before all of them are in flight.
            for _ in 0..40 {
                scope.spawn(|| Load::run(gateway.proxy, "/held", 1, 1));
            }
            let mut came = Vec::new();
            until("all are in flight", || {
                let now = served();
                came = now
                    .iter()
                    .zip(&before)
                    .map(|(now, then)| now - then)
                    .collect();
                came.iter().sum::<u64>() == 40
            });
            backends.iter().for_each(Backend::release);
            match name {
                "least-connections" => assert_eq!(came, [10; 4]),
                _ => assert!(
                    came.iter().all(|count| (6..=14).contains(count)),
                    "{came:?}"
                ),
            }
        });
        backends.iter().for_each(Backend::hold);
    }
}

#[test]
fn settings_must_match_the_schema_of_the_balancer() {
    let gateway = Setup::new().start();
    let backend = Backend::start("a");
    gateway.balanced(&[(backend.address, 100)]);
    let with = |algorithm: &str, config: Value| {
        let settings = json!({"algorithm": algorithm, "pointsman": {"balancer_config": config}});
        gateway.admin_json("PATCH", "/upstreams/u", &settings)
    };
    let wrong = with("maglev", json!({"table_size": 1})).expect(400).json();
    let said = &wrong["fields"]["pointsman"]["balancer_config"]["table_size"];
    assert!(said.as_str().unwrap().contains('2'), "{wrong}");
    // A rule that a schema cannot express: the component checks it.
    let wrong = with("maglev", json!({"table_size": 65536}))
        .expect(400)
        .json();
    assert!(
        wrong["message"].as_str().unwrap().contains("prime"),
        "{wrong}"
    );
    assert!(
        with("maglev", json!({"size": 7}))
            .expect(400)
            .text()
            .contains("size")
    );
    with("maglev", json!(5)).expect(400);
    let shown = with("maglev", json!({"table_size": 101}))
        .expect(200)
        .json();
    assert_eq!(shown["pointsman"]["balancer_config"]["table_size"], 101);
    assert_eq!(gateway.backend_of("/"), "a");
    // Settings of one balancer are not those of another.
    let other = gateway.admin("PATCH", "/upstreams/u", &[("algorithm", "prequal")]);
    assert!(other.expect(400).text().contains("table_size"));
    let form = [
        ("algorithm", "prequal"),
        ("pointsman.balancer_config.pool_size", "8"),
        ("pointsman.balancer_config.hot_quantile", "0.5"),
    ];
    let made = gateway
        .admin("PUT", "/upstreams/v", &form)
        .expect(200)
        .json();
    assert_eq!(
        made["pointsman"]["balancer_config"],
        json!({"pool_size": 8, "hot_quantile": 0.5})
    );
}

/// A cookie from the time of sticky sessions must not be hashed.
#[test]
fn hashing_ignores_a_left_over_session_cookie() {
    let (gateway, _backends) = with_backends();
    for algorithm in ["consistent-hashing", "maglev", "round-robin"] {
        let settings = json!({
            "algorithm": algorithm, "sticky_sessions_cookie": "session",
            "hash_on": if algorithm == "round-robin" { "none" } else { "ip" },
        });
        patch_upstream(&gateway, &settings);
        let places: BTreeSet<String> = (0..12)
            .map(|number| {
                let cookie = format!("session={number}");
                let answer = gateway.get_with("/", &[("cookie", &cookie)]).expect(200);
                assert_eq!(answer.header("set-cookie"), "", "{algorithm}");
                answer.header("x-backend").to_owned()
            })
            .collect();
        let expected = if algorithm == "round-robin" { 4 } else { 1 };
        assert_eq!(places.len(), expected, "{algorithm}: {places:?}");
    }
}

/// The load that targets report in their responses (ORCA) reaches a balancer that reads it.
#[test]
fn prequal_avoids_a_target_that_reports_a_high_load() {
    let (gateway, backends) = with_backends();
    for (backend, load) in backends.iter().zip(["0.99", "0.2", "0.2", "0.2"]) {
        backend.respond_with_header(
            "endpoint-load-metrics",
            &format!("TEXT cpu_utilization={load}"),
        );
    }
    let config = json!({"hot_load": 0.9});
    patch_upstream(
        &gateway,
        &json!({"algorithm": "prequal", "pointsman": {"balancer_config": config}}),
    );
    // The first picks are made before any target has reported its load.
    let tally = Load::run(gateway.proxy, "/", 2, 200);
    assert_eq!(tally.failures, [""; 0]);
    let full = tally.by_backend.get("a").copied().unwrap_or(0);
    // An equal share would be 100.
    assert!(full <= 50, "{tally:?}");
}
