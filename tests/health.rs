//! Health of targets: passive checks, how it is shown and set, and what changes it survives.

use serde_json::Value;
use serde_json::json;

use crate::harness::{
    Backend, Gateway, Load, Setup, has_health, health, patch_upstream, refusing_address,
    set_health, set_passive_checks, until,
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
    // The target that answers does so within this time also on a busy machine.
    let timeout = [("read_timeout", "1000")];
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
fn targets_and_health_show_the_ids_that_balancers_see() {
    let gateway = Gateway::start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let explained = gateway
        .admin_json("POST", "/upstreams/u/explain", &json!({}))
        .json();
    let id_of = |address: &Value| -> Value {
        let seen = explained["endpoints"].as_array().unwrap().iter();
        let mut own = seen.filter(|endpoint| endpoint["address"] == *address);
        own.next().unwrap()["id"].clone()
    };
    let list = gateway.admin("GET", "/upstreams/u/targets", &[]).json();
    let endpoints = list["pointsman"]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        assert_eq!(endpoint["id"], id_of(&endpoint["address"]));
        assert_eq!(endpoint["target"], endpoint["address"]);
        assert_eq!(endpoint["id"].as_str().unwrap().len(), 16);
    }
    // Rows have no additional fields: a client can send them back.
    for row in list["data"].as_array().unwrap() {
        let path = format!("/upstreams/u/targets/{}", row["id"].as_str().unwrap());
        assert_eq!(gateway.admin("GET", &path, &[]).json(), *row);
        gateway.admin_json("PATCH", &path, row).expect(200);
    }
    let health = gateway.admin("GET", "/upstreams/u/health", &[]).json();
    for target in health["data"].as_array().unwrap() {
        let address = &target["data"]["addresses"][0];
        assert_eq!(address["pointsman"]["id"], id_of(&target["target"]));
    }
    let whole = "/upstreams/u/health?balancer_health=1";
    let whole = gateway.admin("GET", whole, &[]).json();
    let hosts = whole["data"]["details"]["hosts"].as_array().unwrap();
    for host in hosts {
        let address = &host["addresses"][0];
        assert_eq!(address["pointsman"]["id"].as_str().unwrap().len(), 16);
    }
    // Each page has the endpoints of its own targets.
    let page = "/upstreams/u/targets?size=1";
    let page = gateway.admin("GET", page, &[]).json();
    assert_eq!(page["pointsman"]["endpoints"].as_array().unwrap().len(), 1);
}
