//! Health checks of targets, the circuits that they open and close, and how health is shown.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Backend, Gateway, Load, Raw, Setup, active_checks, has_health, health, patch_upstream,
    refusing_address, set_health, set_passive_checks, until,
};

#[test]
fn without_checks_health_is_healthchecks_off() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    assert!(has_health(&gateway, one.address, "HEALTHCHECKS_OFF"));
    let path = format!("/upstreams/u/targets/{}/unhealthy", one.address);
    let refused = gateway.admin("PUT", &path, &[]).expect(400);
    assert_eq!(refused.json()["message"], "no healthchecker found for u");
    let unknown = gateway.admin("PUT", "/upstreams/u/targets/x:1/healthy", &[]);
    unknown.expect(404);
    gateway.admin("GET", "/upstreams/x/health", &[]).expect(404);
}

#[test]
fn health_is_shown_in_kongs_form() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[
        (one.address, 100),
        (two.address, 50),
        (refusing_address(), 0),
    ]);
    set_passive_checks(&gateway, &json!({"http_failures": 1}));
    set_health(&gateway, two.address, "unhealthy");

    let all = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    let all = all.json();
    assert!(all["node_id"].is_string() && all["next"].is_null());
    let states = all["data"].as_array().unwrap().iter();
    let states: Vec<_> = states.map(|row| row["health"].as_str().unwrap()).collect();
    // The newest target is first. A target of weight 0 is not checked.
    assert_eq!(states, ["HEALTHCHECKS_OFF", "UNHEALTHY", "HEALTHY"]);
    let data = &all["data"][1]["data"];
    assert_eq!(data["host"], "127.0.0.1");
    assert_eq!(data["dns"], "A");
    assert_eq!(data["nodeWeight"], 50);
    assert_eq!(
        data["weight"],
        json!({"total": 50, "unavailable": 50, "available": 0})
    );
    let address = &data["addresses"][0];
    assert_eq!(address["health"], "UNHEALTHY");
    assert_eq!(address["port"], two.address.port());
    assert_eq!(address["pointsman"]["changed_by"], "manual");

    let whole = "/upstreams/u/health?balancer_health=1";
    let whole = gateway.admin("GET", whole, &[]).expect(200).json();
    assert_eq!(whole["data"]["health"], "HEALTHY");
    assert_eq!(whole["data"]["balancer_health"], "HEALTHY");
    let details = &whole["data"]["details"];
    assert_eq!(
        details["weight"],
        json!({"total": 150, "unavailable": 50, "available": 100})
    );
    assert_eq!(details["hosts"].as_array().unwrap().len(), 3);
}

#[test]
fn failure_statuses_make_a_target_unhealthy_until_an_operator_resets_it() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    set_passive_checks(&gateway, &json!({"http_failures": 2}));
    two.respond_with(500, 0);
    let statuses: Vec<u16> = (0..12).map(|_| gateway.get("/").status).collect();
    assert_eq!(
        statuses.iter().filter(|s| **s == 500).count(),
        2,
        "{statuses:?}"
    );
    let (state, address) = health(&gateway, two.address);
    assert_eq!(state, "UNHEALTHY");
    let failure = &address["pointsman"]["last_failure"];
    assert_eq!(failure["source"], "passive");
    assert_eq!(failure["report"], "http_failure");
    assert!(failure["detail"].as_str().unwrap().contains("500"));

    // As in Kong, passive checks never make it healthy after some time.
    two.respond_normally();
    assert!((0..10).all(|_| gateway.backend_of("/") == "one"));
    set_health(&gateway, two.address, "healthy");
    let tally = Load::run(gateway.proxy, "/", 2, 10);
    assert_eq!(tally.by_backend["two"], 10);
}

#[test]
fn connect_failures_and_timeouts_are_counted_separately() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    let (refusing, slow) = (refusing_address(), Backend::start("slow"));
    gateway.balanced(&[(one.address, 1), (refusing, 1), (slow.address, 1)]);
    let timeout = [("read_timeout", "100")];
    gateway
        .admin("PATCH", "/services/u-service", &timeout)
        .expect(200);
    set_passive_checks(&gateway, &json!({"tcp_failures": 2, "timeouts": 2}));
    slow.respond_with(0, 60_000);
    let tally = Load::run(gateway.proxy, "/", 1, 12);
    assert_eq!(
        tally.failures, [""; 0],
        "each failed request is retried at another target"
    );
    assert_eq!(tally.by_backend["one"], 12);
    let (state, address) = health(&gateway, refusing);
    assert_eq!(state, "UNHEALTHY");
    assert_eq!(
        address["pointsman"]["last_failure"]["report"],
        "tcp_failure"
    );
    let (state, address) = health(&gateway, slow.address);
    assert_eq!(state, "UNHEALTHY");
    assert_eq!(address["pointsman"]["last_failure"]["report"], "timeout");
    assert_eq!(slow.served(), 2);
}

#[test]
fn the_last_try_counts_for_health() {
    let gateway = Gateway::start();
    let refusing = refusing_address();
    gateway.balanced(&[(refusing, 1)]);
    gateway
        .admin("PATCH", "/services/u-service", &[("retries", "0")])
        .expect(200);
    set_passive_checks(&gateway, &json!({"tcp_failures": 1}));
    gateway.get("/").expect(502);
    assert!(has_health(&gateway, refusing, "UNHEALTHY"));
}

#[test]
fn a_503_names_the_reason_why_there_is_no_peer() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[]);
    let why = |reason: &str| {
        let refused = gateway.get("/").expect(503);
        assert_eq!(refused.header("x-pointsman-reason"), reason);
        let body = refused.json();
        assert_eq!(body["reason"], reason);
        assert_eq!(
            body["message"],
            "failure to get a peer from the ring-balancer"
        );
    };
    why("no_targets");
    gateway.add_target("u", one.address, 100);
    gateway.get("/").expect(200);
    patch_upstream(
        &gateway,
        &json!({"healthchecks": {"threshold": 60, "passive": {"unhealthy": {"timeouts": 1}}}}),
    );
    set_health(&gateway, one.address, "unhealthy");
    why("none_available");
    // Half of the weight is available, and the threshold is 60 %.
    let two = Backend::start("two");
    gateway.add_target("u", two.address, 100);
    why("below_threshold");
    patch_upstream(&gateway, &json!({"healthchecks": {"threshold": 49}}));
    assert_eq!(gateway.backend_of("/"), "two");
}

#[test]
fn health_survives_changes_of_targets_and_settings() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    set_passive_checks(&gateway, &json!({"http_failures": 3}));
    set_health(&gateway, two.address, "unhealthy");
    let stays = |after: &str| {
        assert!(
            has_health(&gateway, two.address, "UNHEALTHY"),
            "after {after}"
        );
        assert!(
            (0..4).all(|_| gateway.backend_of("/") == "one"),
            "after {after}"
        );
    };
    let three = Backend::start("one");
    gateway.add_target("u", three.address, 100);
    stays("another target is added");
    let path = format!("/upstreams/u/targets/{}", two.address);
    gateway
        .admin("PATCH", &path, &[("weight", "7")])
        .expect(200);
    stays("the weight changes");
    patch_upstream(&gateway, &json!({"slots": 100, "tags": ["x"]}));
    stays("the upstream changes");
    patch_upstream(
        &gateway,
        &json!({"healthchecks": {"passive": {"unhealthy": {"timeouts": 9}}}}),
    );
    stays("the checks change");
    gateway.admin("DELETE", &path, &[]).expect(204);
    gateway.add_target("u", two.address, 100);
    stays("the target is deleted and added again");
}

#[test]
fn the_health_of_one_address_can_be_set() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    set_passive_checks(&gateway, &json!({"http_failures": 3}));
    let path = format!("/upstreams/u/targets/{0}/{0}/unhealthy", one.address);
    gateway.admin("PUT", &path, &[]).expect(204);
    assert!(has_health(&gateway, one.address, "UNHEALTHY"));
    // As in Kong, an address that the target does not have is ignored.
    let path = format!("/upstreams/u/targets/{}/127.0.0.9/healthy", one.address);
    gateway.admin("PUT", &path, &[]).expect(204);
    assert!(has_health(&gateway, one.address, "UNHEALTHY"));
}

#[test]
fn probes_detect_failures_and_recoveries() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    patch_upstream(&gateway, &active_checks("http", &json!({"timeout": 0.3})));
    until("more probes", || two.probes().len() > 2);
    assert!(has_health(&gateway, two.address, "HEALTHY"));
    // Each kind of failure is found without a request.
    for (status, delay, kind) in [(500, 0, "http_failure"), (0, 60_000, "timeout")] {
        two.respond_with(status, delay);
        until("the target is unhealthy", || {
            has_health(&gateway, two.address, "UNHEALTHY")
        });
        let (_, address) = health(&gateway, two.address);
        assert_eq!(address["pointsman"]["last_probe"]["report"], kind);
        assert!((0..4).all(|_| gateway.backend_of("/") == "one"));
        two.respond_normally();
        until("the target is healthy again", || {
            has_health(&gateway, two.address, "HEALTHY")
        });
    }
    // A status that is in neither list is ignored.
    two.respond_with(204, 0);
    until("an ignored probe", || {
        health(&gateway, two.address).1["pointsman"]["last_probe"]["report"] == "ignored"
    });
    assert!(has_health(&gateway, two.address, "HEALTHY"));
    let address = two.address;
    two.kill();
    until("the killed target is unhealthy", || {
        has_health(&gateway, address, "UNHEALTHY")
    });
    let again = Backend::start_on("two", address);
    until("the restarted target is healthy", || {
        has_health(&gateway, address, "HEALTHY")
    });
    // Probes end when the checks are turned off.
    patch_upstream(
        &gateway,
        &json!({"healthchecks": {"active": {"healthy": {"interval": 0}, "unhealthy": {"interval": 0}}}}),
    );
    let before = again.probes().len();
    let other = one.probes().len();
    for _ in 0..100 {
        gateway.get("/").expect(200);
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(again.probes().len() <= before + 1 && one.probes().len() <= other + 1);
}

#[test]
fn a_probe_is_sent_as_configured() {
    let gateway = Gateway::start();
    let (one, checks) = (Backend::start("one"), Backend::start("checks"));
    gateway.balanced(&[(one.address, 100)]);
    let port = checks.address.port();
    let mut settings = active_checks("http", &json!({"headers": {"x-probe": ["a", "b"]}}));
    settings["host_header"] = json!("health.example");
    settings["pointsman"] = json!({"probe": {"port": port, "method": "HEAD", "path": "/probe/x"}});
    patch_upstream(&gateway, &settings);
    until("a probe", || !checks.probes().is_empty());
    let probe = checks.probes().swap_remove(0);
    for part in [
        "HEAD ",
        "\"x-probe\": \"a\"",
        "\"x-probe\": \"b\"",
        "health.example",
        "pointsman/",
    ] {
        assert!(probe.contains(part), "{part} in {probe}");
    }
    // A target may have its own settings.
    let path = format!("/upstreams/u/targets/{}", one.address);
    let own = json!({"pointsman": {"probe": {"port": one.address.port(), "path": "/probe/own"}}});
    gateway.admin_json("PATCH", &path, &own).expect(200);
    until("a probe of its own", || !one.probes().is_empty());
}

#[test]
fn probes_reuse_a_connection_if_configured() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    let mut settings = active_checks("http", &json!({}));
    settings["pointsman"] = json!({"probe": {"reuse_connection": true}});
    patch_upstream(&gateway, &settings);
    until("more probes", || one.probes().len() > 20);
    assert_eq!(one.connections(), 1);
    one.respond_with(500, 0);
    until("the target is unhealthy", || {
        has_health(&gateway, one.address, "UNHEALTHY")
    });
    // Another server takes the address: the connection to the old one is not used for its health.
    let address = one.address;
    one.kill();
    until("a refused probe", || {
        health(&gateway, address).1["pointsman"]["last_probe"]["report"] == "tcp_failure"
    });
    let again = Backend::start_on("one", address);
    until("the target is healthy again", || {
        has_health(&gateway, address, "HEALTHY")
    });
    // A response of status 204 has no length, and the connection is reused after it.
    again.respond_with(204, 0);
    let before = again.probes().len();
    until("more probes", || again.probes().len() > before + 10);
    assert_eq!(again.connections(), 1);
    assert!(has_health(&gateway, address, "HEALTHY"));
}

#[test]
fn a_tcp_probe_succeeds_with_a_connection() {
    let gateway = Gateway::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    gateway.balanced(&[(address, 100)]);
    patch_upstream(&gateway, &active_checks("tcp", &json!({})));
    set_health(&gateway, address, "unhealthy");
    until("the open port is healthy", || {
        has_health(&gateway, address, "HEALTHY")
    });
    drop(listener);
    until("the closed port is unhealthy", || {
        has_health(&gateway, address, "UNHEALTHY")
    });
}

#[test]
fn failover_targets_serve_when_no_other_target_is_healthy() {
    let gateway = Gateway::start();
    let [one, two, spare] = ["one", "two", "spare"].map(Backend::start);
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    let target = [
        ("target", &*spare.address.to_string()),
        ("failover", "true"),
    ];
    let added = gateway.admin("POST", "/upstreams/u/targets", &target);
    assert_eq!(added.expect(201).json()["failover"], true);
    set_passive_checks(&gateway, &json!({"http_failures": 3}));
    let share = || Load::run(gateway.proxy, "/", 1, 10).by_backend;
    assert!(!share().contains_key("spare"));
    set_health(&gateway, one.address, "unhealthy");
    assert_eq!(share()["two"], 10);
    set_health(&gateway, two.address, "unhealthy");
    assert_eq!(share()["spare"], 10);
    set_health(&gateway, one.address, "healthy");
    assert_eq!(share()["one"], 10);
}

#[test]
fn a_circuit_closes_after_successful_trials() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    patch_upstream(
        &gateway,
        &json!({
            "healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}},
            "pointsman": {"recovery": {"base_time": 0.05, "max_time": 0.2}},
        }),
    );
    let address = two.address;
    two.kill();
    let load = Load::start(gateway.proxy, "/", 2);
    until("the circuit opens", || {
        has_health(&gateway, address, "UNHEALTHY")
    });
    load.wait_for(500);
    assert!(has_health(&gateway, address, "UNHEALTHY"), "trials fail");
    let two = Backend::start_on("two", address);
    until("the circuit closes", || {
        has_health(&gateway, address, "HEALTHY")
    });
    load.wait_for(100);
    assert_eq!(load.stop().failures, [""; 0]);
    assert!(two.served() > 10);
    let (_, known) = health(&gateway, address);
    assert_eq!(known["pointsman"]["changed_by"], "recovery");
}

#[test]
fn in_panic_mode_every_target_is_used() {
    let gateway = Gateway::start();
    let [one, two, three] = ["one", "two", "three"].map(Backend::start);
    gateway.balanced(&[(one.address, 1), (two.address, 1), (three.address, 1)]);
    patch_upstream(
        &gateway,
        &json!({
            "healthchecks": {"passive": {"unhealthy": {"tcp_failures": 9}}},
            "pointsman": {"panic_threshold": 50},
        }),
    );
    set_health(&gateway, one.address, "unhealthy");
    assert_eq!(Load::run(gateway.proxy, "/", 1, 12).by_backend.len(), 2);
    set_health(&gateway, two.address, "unhealthy");
    assert_eq!(Load::run(gateway.proxy, "/", 1, 12).by_backend.len(), 3);
}

#[test]
fn statuses_are_retried_if_configured() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    two.respond_with(503, 0);
    let statuses: Vec<u16> = (0..4).map(|_| gateway.get("/").status).collect();
    assert!(
        statuses.contains(&503),
        "as in Kong, no status is retried by default"
    );
    let retry = json!({"pointsman": {"retry": {"statuses": [503]}}});
    gateway
        .admin_json("PATCH", "/services/u-service", &retry)
        .expect(200);
    assert!((0..10).all(|_| gateway.backend_of("/") == "one"));
    // A method that is not idempotent is not retried, unless that is configured too.
    let post = || {
        let body = ("text/plain", Vec::new());
        gateway
            .send(gateway.proxy, "POST", "/", &[], Some(body))
            .status
    };
    let statuses: Vec<u16> = (0..4).map(|_| post()).collect();
    assert!(statuses.contains(&503));
    let routes = gateway.admin("GET", "/services/u-service/routes", &[]);
    let route = routes.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let retry = json!({"pointsman": {"retry": {"methods": ["POST"]}}});
    gateway
        .admin_json("PATCH", &format!("/routes/{route}"), &retry)
        .expect(200);
    assert!((0..10).all(|_| post() == 200));
    // When all targets fail, the client gets the last response.
    one.respond_with(503, 0);
    gateway.get("/").expect(503);
}

#[test]
fn a_try_may_have_its_own_timeout() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    let retry = json!({"pointsman": {"retry": {"per_try_timeout": 100}}});
    gateway
        .admin_json("PATCH", "/services/u-service", &retry)
        .expect(200);
    two.respond_with(0, 60_000);
    assert!((0..6).all(|_| gateway.backend_of("/") == "one"));
    one.respond_with(0, 60_000);
    gateway.get("/").expect(504);
}

#[test]
fn requests_to_a_target_are_limited() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    let limits = json!({"max_requests": 1, "max_pending_requests": 1});
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"circuit_breakers": limits}}),
    );
    one.respond_with(0, 400);
    two.respond_with(0, 400);
    let proxy = gateway.proxy;
    // Two requests are sent, one waits, and the fourth is refused.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| gateway.send(proxy, "GET", "/", &[], None).status))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let answered = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(answered, 3, "{statuses:?}");
    assert!(statuses.contains(&503));
}

#[test]
fn a_recovered_target_starts_slowly() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    patch_upstream(
        &gateway,
        &json!({
            "healthchecks": {"passive": {"unhealthy": {"tcp_failures": 9}}},
            "pointsman": {"slow_start": {"window": 3, "min_weight_percent": 10}},
        }),
    );
    let share = || Load::run(gateway.proxy, "/", 1, 100).by_backend["two"];
    // Both targets are new, and start slowly at the same time, so they have equal shares.
    assert_eq!(share(), 50);
    std::thread::sleep(Duration::from_secs(3));
    set_health(&gateway, two.address, "unhealthy");
    set_health(&gateway, two.address, "healthy");
    let first = share();
    assert!((1..45).contains(&first), "{first}");
    until("full weight", || share() == 50);
}

#[test]
fn an_outlier_is_ejected_and_returns() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d", "e", "f"].map(Backend::start);
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 1)).collect();
    gateway.balanced(&targets);
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"outlier_detection": {
            "success_rate": true, "interval": 0.3, "request_volume": 10, "base_ejection_time": 1,
        }}}),
    );
    let worst = backends[5].address;
    backends[5].respond_with(500, 0);
    let load = Load::start(gateway.proxy, "/", 4);
    until("the target is ejected", || {
        health(&gateway, worst).1["pointsman"]["ejected"] == true
    });
    backends[5].respond_normally();
    until("the ejection ends", || {
        health(&gateway, worst).1["pointsman"]["ejected"] == false
    });
    load.stop();
}

#[test]
fn health_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Setup::with_data(folder.path()).start();
    let [one, two, three] = ["one", "two", "three"].map(Backend::start);
    gateway.balanced(&[(one.address, 1), (two.address, 1), (three.address, 1)]);
    set_passive_checks(&gateway, &json!({"http_failures": 1}));
    set_health(&gateway, one.address, "unhealthy");
    two.respond_with(500, 0);
    until("a failure is counted", || gateway.get("/").status == 500);
    set_health(&gateway, three.address, "unhealthy");
    set_health(&gateway, three.address, "healthy");
    gateway.terminate();
    assert!(gateway.wait().0.success());

    let gateway = Setup::with_data(folder.path()).start();
    assert!(has_health(&gateway, one.address, "UNHEALTHY"));
    assert!(has_health(&gateway, two.address, "UNHEALTHY"));
    let (_, known) = health(&gateway, two.address);
    assert_eq!(known["pointsman"]["changed_by"], "restored");
    assert!((0..4).all(|_| gateway.backend_of("/") == "three"));
}

/// A WebSocket connection through the gateway.
fn tunnel(gateway: &Gateway) -> Raw {
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let head = raw.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    raw
}

#[test]
fn requests_at_a_removed_target_end_after_the_drain_timeout() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    let target = format!("/upstreams/u/targets/{}", backend.address);
    let mut raw = tunnel(&gateway);
    gateway.admin("DELETE", &target, &[]).expect(204);
    gateway.get("/").expect(503);
    raw.send(b"still there\n");
    assert_eq!(raw.read_until("\n"), "still there\n");
    drop(raw);

    let settings = json!({
        "pointsman": {"drain_timeout": 0.2},
        "healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}},
    });
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    gateway.add_target("u", backend.address, 100);
    let in_flight = || health(&gateway, backend.address).1["pointsman"]["in_flight"].clone();
    until("the first connection has ended", || in_flight() == 0);
    // The target is deleted in the first round, and set unhealthy in the second.
    let unhealthy = format!("{target}/unhealthy");
    for (method, path, status) in [("DELETE", &target, 204), ("PUT", &unhealthy, 204)] {
        let mut raw = tunnel(&gateway);
        let hung = std::thread::scope(|scope| {
            let hung = scope.spawn(|| gateway.get("/hang"));
            until("both requests are in flight", || in_flight() == 2);
            gateway.admin(method, path, &[]).expect(status);
            assert!(raw.is_closed());
            hung.join().unwrap()
        });
        // There is no other target to retry at.
        hung.expect(503);
        if method == "DELETE" {
            gateway.add_target("u", backend.address, 100);
            gateway.get("/").expect(200);
        }
    }
}
