//! Kong's load-balancing guide: its commands, and what it promises.

use std::collections::BTreeMap;

use crate::harness::{Backend, Gateway, Load};

#[test]
fn kongs_load_balancing_guide_works_as_written() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let url = format!("http://{}", one.address);
    let service = [("name", "example_service"), ("url", &*url)];
    gateway.admin("POST", "/services", &service).expect(201);
    let route = [("paths[]", "/mock"), ("name", "example_route")];
    gateway
        .admin("POST", "/services/example_service/routes", &route)
        .expect(201);

    // A change is in effect when it is answered, so this test never waits.
    let echo = gateway.get("/mock/anything").expect(200);
    assert_eq!(echo.header("x-backend"), "one");
    assert_eq!(echo.json()["uri"], "/anything");

    let upstream = [("name", "example_upstream")];
    gateway.admin("POST", "/upstreams", &upstream).expect(201);
    gateway.add_target("example_upstream", one.address, 100);
    gateway.add_target("example_upstream", two.address, 100);
    let host = [("host", "example_upstream")];
    let service = gateway.admin("PATCH", "/services/example_service", &host);
    assert_eq!(service.expect(200).json()["host"], "example_upstream");

    let picks: Vec<String> = (0..20)
        .map(|_| gateway.backend_of("/mock/headers"))
        .collect();
    for pair in picks.windows(2) {
        assert_ne!(pair[0], pair[1], "{picks:?}");
    }
}

#[test]
fn equal_targets_share_exactly_over_all_connections() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    let tally = Load::run(gateway.proxy, "/", 8, 100);
    assert_eq!(tally.failures, [""; 0]);
    let expected = BTreeMap::from([("one".to_owned(), 400), ("two".to_owned(), 400)]);
    assert_eq!(tally.by_backend, expected);
}

#[test]
fn weights_are_exact_and_smooth() {
    let gateway = Gateway::start();
    let [one, two, none] = ["one", "two", "none"].map(Backend::start);
    gateway.balanced(&[(one.address, 100), (two.address, 200), (none.address, 0)]);
    let picks: Vec<String> = (0..30).map(|_| gateway.backend_of("/")).collect();
    for window in picks.windows(3) {
        let twos = window.iter().filter(|pick| *pick == "two").count();
        assert_eq!(twos, 2, "{picks:?}");
    }
    let tally = Load::run(gateway.proxy, "/", 6, 100);
    let expected = BTreeMap::from([("one".to_owned(), 200), ("two".to_owned(), 400)]);
    assert_eq!(tally.by_backend, expected);
    assert_eq!(none.served(), 0);
}

#[test]
fn a_killed_backend_costs_no_request() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    let load = Load::start(gateway.proxy, "/", 8);
    load.wait_for(500);
    two.kill();
    load.wait_for(1000);
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.by_backend["one"] > tally.by_backend["two"]);
}

#[test]
fn adding_and_deleting_targets_costs_no_request() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&[(backends[0].address, 100)]);
    let load = Load::start(gateway.proxy, "/", 4);
    for round in 0..30 {
        let backend = &backends[1 + round % 2];
        gateway.add_target("u", backend.address, 1 + round as u32);
        load.wait_for(5);
        let path = format!("/upstreams/u/targets/{}", backend.address);
        gateway
            .admin("PATCH", &path, &[("weight", "7")])
            .expect(200);
        load.wait_for(5);
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    // A deleted target gets no more requests.
    let served = backends[1].served();
    gateway.backend_of("/");
    assert_eq!(backends[1].served(), served);
}
