//! The life of health data and probes: what is known of an address survives changes of its targets
//! and upstreams, and an upstream's probes and requests in flight end with it.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Backend, Gateway, Load, Setup, active_checks, has_health, health, patch_upstream, set_health,
    set_passive_checks, until,
};

#[test]
fn probes_end_with_their_upstream() {
    // The only worker has used the upstream.
    let gateway = Setup::new().arg("--workers", 1).start();
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    gateway.balanced(&[(one.address, 100)]);
    gateway.balanced_as("v", "/v", &[(other.address, 100)]);
    let settings = active_checks("http", &json!({}));
    patch_upstream(&gateway, &settings);
    gateway
        .admin_json("PATCH", "/upstreams/v", &settings)
        .expect(200);
    until("probes", || one.probes().len() > 2);
    gateway.get("/").expect(200);
    // No request follows, so the worker does not read the new snapshot.
    gateway.admin("DELETE", "/upstreams/u", &[]).expect(204);
    let (ended, goes_on) = (one.probes().len(), other.probes().len());
    until("probes of the other upstream", || {
        other.probes().len() > goes_on + 10
    });
    // One probe may have been in flight.
    assert!(one.probes().len() <= ended + 1);
}

#[test]
fn requests_at_a_deleted_upstream_end_after_the_drain_timeout() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    patch_upstream(&gateway, &json!({"pointsman": {"drain_timeout": 0.2}}));
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| gateway.get("/hang"));
        until("the request is in flight", || one.served() == 1);
        gateway.admin("DELETE", "/upstreams/u", &[]).expect(204);
        hung.join().unwrap().expect(503);
    });
}

#[test]
fn health_survives_a_new_name_of_the_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Setup::with_data(folder.path()).start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    set_passive_checks(&gateway, &json!({"http_failures": 3}));
    set_health(&gateway, two.address, "unhealthy");
    patch_upstream(&gateway, &json!({"name": "v"}));
    gateway
        .admin("PATCH", "/services/u-service", &[("host", "v")])
        .expect(200);
    let stays = |gateway: &Gateway| {
        let all = gateway.admin("GET", "/upstreams/v/health", &[]).json();
        let rows = all["data"].as_array().unwrap().iter();
        let out = rows.filter(|row| row["health"] == "UNHEALTHY");
        let out: Vec<_> = out.map(|row| row["target"].clone()).collect();
        assert_eq!(out, [two.address.to_string()]);
        assert!((0..4).all(|_| gateway.backend_of("/") == "one"));
    };
    stays(&gateway);
    gateway.terminate();
    assert!(gateway.wait().0.success());
    stays(&Setup::with_data(folder.path()).start());
}

#[test]
fn health_survives_a_deleted_and_recreated_upstream() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    set_passive_checks(&gateway, &json!({"http_failures": 3}));
    set_health(&gateway, one.address, "unhealthy");
    gateway.admin("DELETE", "/upstreams/u", &[]).expect(204);
    let checks = json!({"passive": {"unhealthy": {"http_failures": 3}}});
    let upstream = json!({"name": "u", "healthchecks": checks});
    gateway
        .admin_json("POST", "/upstreams", &upstream)
        .expect(201);
    gateway.add_target("u", one.address, 100);
    assert!(has_health(&gateway, one.address, "UNHEALTHY"));
    gateway.get("/").expect(503);
    set_health(&gateway, one.address, "healthy");
    gateway.get("/").expect(200);
}

#[test]
fn an_ejection_stays_with_its_address_and_ends_in_time() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d", "e", "f"].map(Backend::start);
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 1)).collect();
    gateway.balanced(&targets);
    let outliers = json!({
        "success_rate": true, "interval": 0.3, "request_volume": 10, "base_ejection_time": 5,
    });
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"outlier_detection": outliers}}),
    );
    let worst = backends[5].address;
    backends[5].respond_with(500, 0);
    let load = Load::start(gateway.proxy, "/", 4);
    let ejected = || health(&gateway, worst).1["pointsman"]["ejected"] == true;
    until("the target is ejected", ejected);
    load.stop();
    backends[5].respond_normally();
    let path = format!("/upstreams/u/targets/{worst}");
    gateway.admin("DELETE", &path, &[]).expect(204);
    // Longer than the interval of outlier detection, which runs once without the target.
    std::thread::sleep(Duration::from_secs(1));
    gateway.add_target("u", worst, 1);
    assert!(ejected(), "the ejection is kept with the address");
    until("the ejection ends", || !ejected());
}
