//! Active health checks: what probes send, and what they change.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Backend, Gateway, active_checks, has_health, health, patch_upstream, refusing_address,
    set_health, until,
};

#[test]
fn probes_detect_failures_and_recoveries() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    patch_upstream(&gateway, &active_checks("http", &json!({"timeout": 3})));
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
    let address = refusing_address();
    let listener = TcpListener::bind(address).unwrap();
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
