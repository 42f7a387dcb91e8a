//! Probes that one gateway makes for all that share its configuration.

use serde_json::{Value, json};

use crate::harness::{Backend, Etcd, Gateway, Relay, until};

/// The state of the only target of an upstream, as a gateway shows it.
fn health(gateway: &Gateway) -> String {
    let shown = gateway.admin("GET", "/upstreams/u/health", &[]);
    let shown: Value = shown.expect(200).json();
    shown["data"][0]["health"].as_str().unwrap().to_owned()
}

/// Whether a gateway has made a probe itself.
fn has_probed(gateway: &Gateway) -> bool {
    let shown = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    shown.text().contains("\"source\":\"active\"")
}

fn share(gateway: &Gateway, backend: &Backend) {
    let upstream = json!({
        "name": "u",
        "pointsman": { "share_probes": true },
        "healthchecks": {
            "active": {
                "type": "http", "http_path": "/probe",
                "healthy": { "interval": 0.2, "successes": 1 },
                "unhealthy": { "interval": 0.2, "http_failures": 2 },
            },
            "passive": { "unhealthy": { "http_failures": 1 } },
        },
    });
    gateway
        .admin_json("POST", "/upstreams", &upstream)
        .expect(201);
    gateway.add_target("u", backend.address, 100);
    let service = json!({ "name": "s", "host": "u" });
    gateway
        .admin_json("POST", "/services", &service)
        .expect(201);
    let route = json!({ "paths": ["/"] });
    gateway
        .admin_json("POST", "/services/s/routes", &route)
        .expect(201);
}

#[test]
fn one_gateway_probes_and_all_have_its_findings_and_another_takes_over() {
    let etcd = Etcd::start();
    let mut all: Vec<Gateway> = (0..3).map(|_| etcd.gateway().start()).collect();
    let backend = Backend::start("b");
    share(&all[0], &backend);
    until("all have the target", || {
        all.iter().all(|gateway| {
            let shown = gateway.admin("GET", "/upstreams/u/health", &[]);
            shown.status == 200 && shown.text().contains("HEALTHY")
        })
    });
    let published = || {
        let keys = ["get", "--prefix", "/pointsman/health/main/"];
        etcd.ctl(&[&keys[..], &["--print-value-only"]].concat())
    };
    backend.respond_with(500, 0);
    until("it is published, and unhealthy at all", || {
        let is_known = published().len() > "[]\n".len();
        is_known && all.iter().all(|gateway| health(gateway) == "UNHEALTHY")
    });
    backend.respond_with(0, 0);
    until("it is healthy at all", || {
        all.iter().all(|gateway| health(gateway) == "HEALTHY")
    });
    until("that is published", || published() == "[]\n");
    // By now only one probes: the one that finds a failure while etcd does not let the others know.
    etcd.signal(0, "STOP");
    backend.respond_with(500, 0);
    until("one has found it", || {
        all.iter().any(|gateway| health(gateway) == "UNHEALTHY")
    });
    let knowing: Vec<bool> = all
        .iter()
        .map(|gateway| health(gateway) == "UNHEALTHY")
        .collect();
    assert_eq!(
        knowing.iter().filter(|knows| **knows).count(),
        1,
        "{knowing:?}"
    );
    etcd.signal(0, "CONT");
    until("it is unhealthy at all", || {
        all.iter().all(|gateway| health(gateway) == "UNHEALTHY")
    });
    // The one that probes dies, and the next one finds that the target is healthy again.
    let prober = all.remove(knowing.iter().position(|knows| *knows).unwrap());
    prober.kill_9();
    backend.respond_with(0, 0);
    until("it is healthy at those that are left", || {
        all.iter().all(|gateway| health(gateway) == "HEALTHY")
    });
    assert!(all.iter().any(has_probed));
}

#[test]
fn what_the_requests_of_a_gateway_find_stays_its_own_and_is_probed_there() {
    let etcd = Etcd::start();
    let all: Vec<Gateway> = (0..2).map(|_| etcd.gateway().start()).collect();
    let backend = Backend::start("b");
    share(&all[0], &backend);
    for gateway in &all {
        until("it is served", || gateway.get("/").status == 200);
    }
    // Probes do not see what this path answers.
    for gateway in &all {
        gateway.get("/status/500");
        until("probes have brought it back", || {
            health(gateway) == "HEALTHY" && gateway.get("/").status == 200
        });
    }
}

#[test]
fn what_a_gateway_has_found_alone_gives_way_to_what_the_others_know() {
    let etcd = Etcd::start();
    let relay = Relay::start(etcd.address(0));
    let a = etcd.gateway().start();
    let b = etcd.gateway_through(&relay).start();
    let backend = Backend::start("b");
    let names: Vec<String> = (0..12).map(|number| format!("u{number:02}")).collect();
    for name in &names {
        let upstream = json!({
            "name": name,
            "pointsman": { "share_probes": true },
            "healthchecks": { "active": {
                "type": "http", "http_path": "/probe", "headers": { "x-of": [name] },
                "healthy": { "interval": 0.2, "successes": 1 },
                // What is unhealthy is not probed again while the test runs.
                "unhealthy": { "interval": 3600, "http_failures": 2 },
            } },
        });
        a.admin_json("POST", "/upstreams", &upstream).expect(201);
        a.add_target(name, backend.address, 100);
    }
    let shown = |gateway: &Gateway, name: &str| {
        let path = format!("/upstreams/{name}/health");
        gateway.admin("GET", &path, &[]).text()
    };
    let is_unhealthy = |name: &str| shown(&b, name).contains("\"UNHEALTHY\"");
    until("both have the last one", || {
        [&a, &b]
            .iter()
            .all(|gateway| shown(gateway, "u11").contains("\"HEALTHY\""))
    });
    let probes_of = |name: &str| {
        let probes = backend.probes();
        probes.iter().filter(|probe| probe.contains(name)).count()
    };
    let grows = |name: &str| {
        let before = probes_of(name);
        until("a probe has come", || probes_of(name) > before);
    };
    // Those that the first gateway probes: its probes go on while the other one is cut off from
    // etcd, and the other one does not probe them yet.
    let mut of_a = Vec::new();
    until("they have divided the upstreams", || {
        let before: Vec<String> = names.iter().map(|name| shown(&b, name)).collect();
        names.iter().for_each(|name| grows(name));
        names.iter().for_each(|name| grows(name));
        let is_idle = |(name, before): &(&String, &String)| shown(&b, name) == **before;
        let idle = names.iter().zip(&before).filter(is_idle);
        of_a = idle.map(|(name, _)| name.clone()).collect();
        !of_a.is_empty() && of_a.len() < names.len()
    });
    relay.cut(true);
    let before: Vec<String> = of_a.iter().map(|name| shown(&b, name)).collect();
    until("the other one probes all for itself", || {
        of_a.iter()
            .zip(&before)
            .all(|(name, before)| shown(&b, name) != *before)
    });
    a.signal("-STOP");
    backend.respond_with(500, 0);
    until("it has found them unhealthy", || {
        of_a.iter().all(|name| is_unhealthy(name))
    });
    b.signal("-STOP");
    backend.respond_with(0, 0);
    relay.cut(false);
    a.signal("-CONT");
    b.signal("-CONT");
    until("it has what the first one knows", || {
        !of_a.iter().any(|name| is_unhealthy(name))
    });
}
