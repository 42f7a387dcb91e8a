//! Retries: which requests are sent again, how often, to which targets, and within which limits.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Load, Raw, Reply, guest, health, patch_upstream, refusing_address,
    set_health, set_passive_checks, until,
};

pub(crate) fn service(gateway: &Gateway, settings: &Value) {
    let answer = gateway.admin_json("PATCH", "/services/u-service", settings);
    answer.expect(200);
}

pub(crate) fn route(gateway: &Gateway, settings: &Value) {
    let routes = gateway.admin("GET", "/services/u-service/routes", &[]);
    let route = routes.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let answer = gateway.admin_json("PATCH", &format!("/routes/{route}"), settings);
    answer.expect(200);
}

fn upload(gateway: &Gateway, method: &str, length: usize) -> Reply {
    let body = ("text/plain", vec![b'x'; length]);
    gateway.send(gateway.proxy, method, "/", &[], Some(body))
}

#[test]
fn a_request_is_tried_once_and_retried_as_often_as_configured() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d", "e"].map(Backend::start);
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 1)).collect();
    gateway.balanced(&targets);
    for backend in &backends {
        backend.respond_with(503, 0);
    }
    let retry = json!({"statuses": [503]});
    for retries in [0, 1, 3] {
        service(
            &gateway,
            &json!({"retries": retries, "pointsman": {"retry": retry}}),
        );
        let served = || backends.iter().map(Backend::served).collect::<Vec<_>>();
        let before = served();
        gateway.get("/").expect(503);
        let after = served();
        let tries: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        assert_eq!(tries.iter().sum::<u64>(), retries + 1, "{tries:?}");
        assert!(tries.iter().all(|tries| *tries <= 1), "{tries:?}");
    }
    // With fewer targets than tries, a target is tried again.
    for backend in &backends[1..] {
        let path = format!("/upstreams/u/targets/{}", backend.address);
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
    let before = backends[0].served();
    gateway.get("/").expect(503);
    assert_eq!(backends[0].served(), before + 4);
}

#[test]
fn only_a_buffered_body_is_sent_again() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 1), (two.address, 1)]);
    service(
        &gateway,
        &json!({"pointsman": {"retry": {"statuses": [503]}}}),
    );
    two.respond_with(503, 0);
    let statuses = |method: &str, length: usize| -> BTreeSet<u16> {
        let answers = (0..6).map(|_| upload(&gateway, method, length));
        answers
            .inspect(|answer| {
                if answer.status == 200 {
                    assert_eq!(answer.json()["length"], length);
                }
            })
            .map(|answer| answer.status)
            .collect()
    };
    let (kept, gone) = (BTreeSet::from([200]), BTreeSet::from([200, 503]));
    assert_eq!(statuses("PUT", 64 * 1024), kept);
    assert_eq!(statuses("PUT", 64 * 1024 + 1), gone);
    // A method that is not idempotent is not sent twice, unless it is configured.
    assert_eq!(statuses("POST", 10), gone);
    service(
        &gateway,
        &json!({"pointsman": {"retry": {"methods": ["POST"]}}}),
    );
    assert_eq!(statuses("POST", 10), kept);
    assert_eq!(statuses("PUT", 10), gone);
    // A body without a length is buffered before the first try.
    let chunked = "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let answers: BTreeSet<bool> = (0..4)
        .map(|_| {
            let answer = Raw::connect(gateway.proxy)
                .send(chunked.as_bytes())
                .read_to_end();
            answer.starts_with("HTTP/1.1 200")
        })
        .collect();
    assert_eq!(answers, BTreeSet::from([true]));
    route(&gateway, &json!({"request_buffering": false}));
    assert_eq!(statuses("POST", 10), gone);
}

#[test]
fn an_unbuffered_body_is_sent_whole_after_a_refused_connection() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[
        (one.address, 1),
        (refusing_address(), 1),
        (refusing_address(), 1),
    ]);
    route(&gateway, &json!({"request_buffering": false}));
    for _ in 0..6 {
        let answer = upload(&gateway, "POST", 1 << 20).expect(200);
        assert_eq!(answer.json()["length"], 1 << 20);
    }
}

#[test]
fn a_route_and_a_service_have_their_own_retry_budgets() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 1), (refusing_address(), 1)]);
    let failures = || Load::run(gateway.proxy, "/", 2, 10).failures.len();
    assert_eq!(failures(), 0);
    // One percent of the requests in flight is less than one retry.
    let none = json!({"budget_percent": 1, "min_retry_concurrency": 0});
    patch_upstream(&gateway, &json!({"pointsman": {"retry_budget": none}}));
    assert!(failures() > 0);
    let enough = json!({"min_retry_concurrency": 100});
    service(&gateway, &json!({"pointsman": {"retry": enough}}));
    assert_eq!(failures(), 0);
    route(&gateway, &json!({"pointsman": {"retry": none}}));
    assert!(failures() > 0);
    route(
        &gateway,
        &json!({"pointsman": {"retry": {"budget_percent": 0}}}),
    );
    assert_eq!(failures(), 0);
}

/// Sends a request that hangs at one of the backends, and waits until it has arrived.
pub(crate) fn hang<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    gateway: &'s Gateway,
    at: &[&Backend],
) {
    let served = || at.iter().map(|backend| backend.served()).sum::<u64>();
    let before = served();
    scope.spawn(|| {
        Raw::connect(gateway.proxy)
            .send(b"GET /hang HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .read_to_end()
    });
    until("the request hangs", || served() == before + 1);
}

#[test]
fn a_request_over_the_limit_is_503_overflow_in_every_content_type() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 1)]);
    let limits = json!({"max_requests": 1, "max_pending_requests": 0});
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"circuit_breakers": limits, "drain_timeout": 0.01}}),
    );
    std::thread::scope(|scope| {
        hang(scope, &gateway, &[&one]);
        for form in [
            "application/json",
            "text/html",
            "application/xml",
            "text/plain",
        ] {
            let refused = gateway.get_with("/", &[("accept", form)]).expect(503);
            assert_eq!(refused.header("x-pointsman-reason"), "overflow");
            assert!(refused.text().contains("overflow"), "{}", refused.text());
        }
        let path = format!("/upstreams/u/targets/{}", one.address);
        // A target's own limit wins over that of the upstream, and 0 means no limit.
        let own = |most: u32| json!({"pointsman": {"circuit_breakers": {"max_requests": most}}});
        gateway.admin_json("PATCH", &path, &own(2)).expect(200);
        gateway.get("/").expect(200);
        hang(scope, &gateway, &[&one]);
        gateway.get("/").expect(503);
        gateway.admin_json("PATCH", &path, &own(0)).expect(200);
        gateway.get("/").expect(200);
        // The same where only the target has a limit.
        let limits = json!({"max_requests": 0});
        patch_upstream(
            &gateway,
            &json!({"pointsman": {"circuit_breakers": limits}}),
        );
        gateway.admin_json("PATCH", &path, &own(2)).expect(200);
        gateway.get("/").expect(503);
        for path in [
            "/upstreams/u/health",
            "/upstreams/u/health?balancer_health=1",
        ] {
            let all = gateway.admin("GET", path, &[]).expect(200).json();
            let counts = match path.contains('?') {
                true => &all["data"]["pointsman"]["without_peer"],
                false => &all["pointsman"]["without_peer"],
            };
            assert_eq!(counts["overflow"], 6, "{all}");
            assert_eq!(counts["no_targets"], 0, "{all}");
        }
        // Deleting the target ends the requests that hang.
        gateway.admin("DELETE", &path, &[]).expect(204);
    });
}

#[test]
fn a_retry_waits_for_a_permit_of_another_target() {
    let gateway = Gateway::start();
    let (good, bad) = (Backend::start("good"), Backend::start("bad"));
    gateway.balanced(&[(good.address, 1)]);
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"circuit_breakers": {"max_requests": 1}}}),
    );
    service(
        &gateway,
        &json!({"pointsman": {"retry": {"statuses": [503]}}}),
    );
    bad.respond_with(503, 0);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| gateway.get("/held"));
        until("the only permit is taken", || good.served() == 1);
        gateway.add_target("u", bad.address, 1);
        let retried = scope.spawn(|| gateway.backend_of("/"));
        until("the retry waits", || {
            health(&gateway, good.address).1["pointsman"]["pending"] == 1
        });
        assert_eq!(bad.served(), 1);
        good.release();
        assert_eq!(retried.join().unwrap(), "good");
        slow.join().unwrap().expect(200);
    });
}

#[test]
fn a_request_refused_by_its_balancer_is_503_with_that_reason() {
    let gateway = Gateway::start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 1)]);
    gateway.upload("refuses", guest("refuses")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "refuses"}));
    let refused = gateway.get("/").expect(503);
    assert_eq!(refused.header("x-pointsman-reason"), "refused_by_balancer");
    assert_eq!(refused.json()["reason"], "refused_by_balancer");
}

#[test]
fn a_target_of_weight_0_keeps_its_sessions() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 1), (two.address, 1)]);
    let settings = json!({
        "algorithm": "sticky-sessions", "sticky_sessions_cookie": "session",
    });
    patch_upstream(&gateway, &settings);
    set_passive_checks(&gateway, &json!({"http_failures": 1}));
    let mut cookie = String::new();
    until("a session at two", || {
        let answer = gateway.get("/").expect(200);
        let set = answer.header("set-cookie").split(';').next().unwrap();
        cookie = set.to_owned();
        answer.header("x-backend") == "two"
    });
    let of_session = || gateway.get_with("/", &[("cookie", &cookie)]).expect(200);
    let path = format!("/upstreams/u/targets/{}", two.address);
    let weight = |weight| {
        gateway
            .admin("PATCH", &path, &[("weight", weight)])
            .expect(200)
    };
    weight("0");
    for _ in 0..10 {
        let answer = of_session();
        assert_eq!(answer.header("x-backend"), "two");
        assert_eq!(answer.header("set-cookie"), "");
        assert_eq!(gateway.backend_of("/"), "one");
    }
    // An unhealthy target loses its sessions.
    set_health(&gateway, two.address, "unhealthy");
    let answer = of_session();
    assert_eq!(answer.header("x-backend"), "one");
    assert!(answer.header("set-cookie").starts_with("session="));
    set_health(&gateway, two.address, "healthy");
    assert_eq!(of_session().header("x-backend"), "two");
    gateway.admin("DELETE", &path, &[]).expect(204);
    assert_eq!(of_session().header("x-backend"), "one");
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
    let per_try = |milliseconds: u32| {
        let retry = json!({"pointsman": {"retry": {"per_try_timeout": milliseconds}}});
        gateway
            .admin_json("PATCH", "/services/u-service", &retry)
            .expect(200);
    };
    // Within this time the other target answers also on a busy machine. Of two requests one is sent
    // to each target first.
    per_try(2000);
    two.respond_with(0, 60_000);
    assert!((0..2).all(|_| gateway.backend_of("/") == "one"));
    assert_eq!(two.served(), 1);
    one.respond_with(0, 60_000);
    per_try(100);
    gateway.get("/").expect(504);
}
