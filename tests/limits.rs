//! Limits of targets (`circuit_breakers`): connections, requests, and requests that wait.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Setup, health, patch_upstream, until};
use crate::retries::hang;

/// The field `pointsman` of the only address of a target.
fn shown(gateway: &Gateway, backend: &Backend) -> Value {
    health(gateway, backend.address).1["pointsman"].clone()
}

fn limit(gateway: &Gateway, backend: &Backend, limits: &Value) {
    let path = format!("/upstreams/u/targets/{}", backend.address);
    let limits = json!({"pointsman": {"circuit_breakers": limits}});
    gateway.admin_json("PATCH", &path, &limits).expect(200);
}

#[test]
fn a_connection_over_the_limit_replaces_an_idle_one_of_any_worker() {
    let gateway = Setup::new().arg("--workers", 2).start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 1)]);
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"circuit_breakers": {"max_connections": 1}, "drain_timeout": 0.01}}),
    );
    // Each request is on a new connection, so both workers get some of them.
    until("both workers need a connection", || {
        let closing = [("connection", "close")];
        gateway.get_with("/", &closing).expect(200);
        assert!(shown(&gateway, &one)["connections"].as_u64().unwrap() <= 1);
        one.connections() > 3
    });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let closing = [("connection", "close")];
                    gateway.get_with("/", &closing).expect(200);
                }
            });
        }
    });
    assert_eq!(shown(&gateway, &one)["connections"], 1);
    // Each request in flight has a connection, so this limits requests as well. A target's own
    // limit wins over that of the upstream.
    std::thread::scope(|scope| {
        hang(scope, &gateway, &[&one]);
        let queue = json!({"max_connections": 1, "max_pending_requests": 0});
        patch_upstream(&gateway, &json!({"pointsman": {"circuit_breakers": queue}}));
        let refused = gateway.get("/").expect(503);
        assert_eq!(refused.header("x-pointsman-reason"), "overflow");
        limit(&gateway, &one, &json!({"max_connections": 2}));
        gateway.get("/").expect(200);
        limit(&gateway, &one, &json!({"max_connections": 0}));
        hang(scope, &gateway, &[&one]);
        hang(scope, &gateway, &[&one]);
        gateway.get("/").expect(200);
        let path = format!("/upstreams/u/targets/{}", one.address);
        gateway.admin("DELETE", &path, &[]).expect(204);
    });
}

#[test]
fn a_waiting_request_follows_a_changed_limit() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 1)]);
    let limits = |most: u32| {
        let limits = json!({"max_requests": most});
        let settings = json!({"pointsman": {"circuit_breakers": limits, "drain_timeout": 0.01}});
        patch_upstream(&gateway, &settings);
    };
    limits(1);
    std::thread::scope(|scope| {
        hang(scope, &gateway, &[&one]);
        let waiting = scope.spawn(|| gateway.get("/"));
        until("one request waits", || {
            shown(&gateway, &one)["pending"] == 1
        });
        limits(2);
        waiting.join().unwrap().expect(200);
        let path = format!("/upstreams/u/targets/{}", one.address);
        gateway.admin("DELETE", &path, &[]).expect(204);
    });
}

#[test]
fn upstreams_that_share_an_address_have_separate_connections() {
    let gateway = Setup::new().arg("--workers", 1).start();
    let one = Backend::start("one");
    gateway.balanced_as("other", "/other", &[(one.address, 1)]);
    gateway.balanced(&[(one.address, 1)]);
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"circuit_breakers": {"max_connections": 1}}}),
    );
    for _ in 0..3 {
        gateway.get("/").expect(200);
        gateway.get("/other").expect(200);
    }
    assert_eq!(shown(&gateway, &one)["connections"], 1);
    assert_eq!(one.connections(), 2);
}

#[test]
fn requests_that_wait_for_a_target_are_limited() {
    let gateway = Gateway::start();
    let backends = [Backend::start("a"), Backend::start("b")];
    let targets = backends.each_ref().map(|backend| (backend.address, 1));
    gateway.balanced(&targets);
    let limits = json!({"max_requests": 1, "max_pending_requests": 0});
    limit(&gateway, &backends[0], &limits);
    let limits = json!({"max_requests": 1, "max_pending_requests": 1});
    limit(&gateway, &backends[1], &limits);
    patch_upstream(&gateway, &json!({"pointsman": {"drain_timeout": 0.01}}));
    let once = gateway.admin_json("PATCH", "/services/u-service", &json!({"retries": 0}));
    once.expect(200);
    let pending = |backend| shown(&gateway, backend)["pending"].as_u64().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            hang(scope, &gateway, &backends.each_ref());
        }
        let waiting = scope.spawn(|| gateway.get("/"));
        until("one request waits", || pending(&backends[1]) == 1);
        assert_eq!(pending(&backends[0]), 0);
        let refused = gateway.get("/").expect(503);
        assert_eq!(refused.header("x-pointsman-reason"), "overflow");
        // A request that waits takes the first permit of any target.
        limit(&gateway, &backends[0], &json!({"max_requests": 2}));
        let answer = waiting.join().unwrap().expect(200);
        assert_eq!(answer.header("x-backend"), "a");
        assert_eq!(pending(&backends[1]), 0);
        for backend in &backends {
            let path = format!("/upstreams/u/targets/{}", backend.address);
            gateway.admin("DELETE", &path, &[]).expect(204);
        }
    });
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
    // Two requests are sent, one waits, and the next one is refused.
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| gateway.get("/held").status))
            .collect();
        let pending = |backend| shown(&gateway, backend)["pending"].as_u64().unwrap();
        until("two are sent, and the third waits", || {
            one.served() + two.served() == 2 && pending(&one) + pending(&two) == 1
        });
        gateway.get("/").expect(503);
        one.release();
        two.release();
        for request in held {
            assert_eq!(request.join().unwrap(), 200);
        }
    });
}
