//! Recovery: which unhealthy targets get trial requests, which requests those are, and when a
//! circuit closes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Load, Setup, has_health, health, patch_upstream, refusing_address,
    set_health, until,
};

/// Configures passive checks that one failure status trips, and trials after `base_time` seconds.
fn configure_trials(gateway: &Gateway, base_time: f64, healthy: &Value) {
    let checks = json!({"passive": {"healthy": healthy, "unhealthy": {"http_failures": 1}}});
    let recovery = json!({"base_time": base_time, "max_time": base_time});
    let settings = json!({"healthchecks": checks, "pointsman": {"recovery": recovery}});
    patch_upstream(gateway, &settings);
}

/// Makes a target unhealthy by failing requests.
fn make_unhealthy(gateway: &Gateway, backend: &Backend) {
    backend.respond_with(500, 0);
    until("the target is unhealthy", || {
        gateway.get("/");
        has_health(gateway, backend.address, "UNHEALTHY")
    });
}

#[test]
fn a_target_set_unhealthy_by_an_operator_gets_no_trials() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Setup::with_data(folder.path()).start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    configure_trials(&gateway, 0.02, &json!({}));
    make_unhealthy(&gateway, &two);
    // The state stays the same, but an operator has set it now.
    set_health(&gateway, two.address, "unhealthy");
    two.respond_normally();
    let stays = |gateway: &Gateway, by: &str| {
        let load = Load::start(gateway.proxy, "/", 2);
        load.wait_for(500);
        let tally = load.stop();
        assert!(!tally.by_backend.contains_key("two"), "{by}: {tally:?}");
        let (state, known) = health(gateway, two.address);
        assert_eq!(
            (&*state, &known["pointsman"]["changed_by"]),
            ("UNHEALTHY", &json!(by))
        );
    };
    stays(&gateway, "manual");
    gateway.terminate();
    assert!(gateway.wait().0.success());
    let gateway = Setup::with_data(folder.path()).start();
    stays(&gateway, "restored");
}

#[test]
fn a_target_made_unhealthy_by_probes_gets_no_trials() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    configure_trials(&gateway, 0.02, &json!({}));
    // Probes go to a port that refuses connections, so they fail and requests do not.
    let port = refusing_address().port();
    let path = format!("/upstreams/u/targets/{}", two.address);
    let probe = json!({"pointsman": {"probe": {"port": port}}});
    gateway.admin_json("PATCH", &path, &probe).expect(200);
    let unhealthy = json!({"interval": 0.05, "tcp_failures": 1});
    let active = json!({"healthy": {"interval": 0.05, "successes": 1}, "unhealthy": unhealthy});
    patch_upstream(&gateway, &json!({"healthchecks": {"active": active}}));
    until("the target is unhealthy", || {
        has_health(&gateway, two.address, "UNHEALTHY")
    });
    let load = Load::start(gateway.proxy, "/", 2);
    load.wait_for(500);
    assert!(has_health(&gateway, two.address, "UNHEALTHY"));
    load.stop();
}

#[test]
fn a_request_sent_before_the_failure_closes_no_circuit() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    configure_trials(&gateway, 600.0, &json!({}));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| gateway.get("/held"));
        until("the request is in flight", || one.served() == 1);
        one.respond_with(500, 0);
        gateway.get("/").expect(500);
        one.respond_normally();
        assert!(has_health(&gateway, one.address, "UNHEALTHY"));
        one.release();
        slow.join().unwrap().expect(200);
    });
    assert!(has_health(&gateway, one.address, "UNHEALTHY"));
}

#[test]
fn a_circuit_closes_after_the_configured_successes() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    configure_trials(&gateway, 0.02, &json!({"successes": 3}));
    make_unhealthy(&gateway, &one);
    // A status that is in neither list is ignored.
    one.respond_with(404, 0);
    let mut answers = 0;
    until("trials", || {
        answers += u32::from(gateway.get("/").status == 404);
        answers == 5
    });
    assert!(has_health(&gateway, one.address, "UNHEALTHY"));
    one.respond_normally();
    let mut answers = 0;
    until("the circuit closes", || {
        answers += u32::from(gateway.get("/").status == 200);
        has_health(&gateway, one.address, "HEALTHY")
    });
    assert_eq!(answers, 3);
    let (_, known) = health(&gateway, one.address);
    assert_eq!(known["pointsman"]["changed_by"], "recovery");
}

#[test]
fn a_failed_trial_costs_no_request() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    configure_trials(&gateway, 0.02, &json!({}));
    make_unhealthy(&gateway, &two);
    // A request whose body is not buffered cannot be retried, so it is never a trial.
    let before = two.served();
    let start = Instant::now();
    let mut sent = 0;
    while sent < 50 || start.elapsed() < Duration::from_millis(100) {
        let body = ("text/plain", vec![b'x'; 100 * 1024]);
        let answer = gateway.send(gateway.proxy, "PUT", "/", &[], Some(body));
        answer.expect(200);
        sent += 1;
    }
    assert_eq!(two.served(), before);
    until("trials", || {
        gateway.get("/").expect(200);
        two.served() >= before + 3
    });
    assert!(has_health(&gateway, two.address, "UNHEALTHY"));
    assert!(one.served() > 50);
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
