//! Probes that one gateway makes for all that share its configuration.

use serde_json::{Value, json};

use crate::harness::{Backend, Etcd, Gateway, until};

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
