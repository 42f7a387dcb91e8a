//! Failover targets, panic mode and slow start.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Backend, Gateway, Load, patch_upstream, refusing_address, set_health, set_passive_checks, until,
};
use crate::retries::service;

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
    // Both targets are new, and start slowly one after the other, so their shares are not yet
    // equal.
    let both = share();
    assert!((20..=80).contains(&both), "{both}");
    std::thread::sleep(Duration::from_secs(3));
    until("equal shares", || share() == 50);
    set_health(&gateway, two.address, "unhealthy");
    set_health(&gateway, two.address, "healthy");
    let first = share();
    assert!((1..45).contains(&first), "{first}");
    until("full weight", || share() == 50);
}

#[test]
fn a_request_that_failed_everywhere_goes_to_a_failover_target() {
    let gateway = Gateway::start();
    let spare = Backend::start("spare");
    gateway.balanced(&[(refusing_address(), 1), (refusing_address(), 1)]);
    let target = [
        ("target", &*spare.address.to_string()),
        ("failover", "true"),
    ];
    gateway
        .admin("POST", "/upstreams/u/targets", &target)
        .expect(201);
    // Without health checks no target becomes unhealthy.
    assert!((0..6).all(|_| gateway.backend_of("/") == "spare"));
    service(&gateway, &json!({"retries": 1}));
    gateway.get("/").expect(502);
}
