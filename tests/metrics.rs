//! `GET /metrics`: what is counted, and the names and labels of the series.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::harness::{Backend, Gateway, Load, Setup, guest};

/// The samples by series: name and labels, as they are written.
fn scrape(gateway: &Gateway) -> BTreeMap<String, f64> {
    let reply = gateway.admin("GET", "/metrics", &[]).expect(200);
    assert_eq!(reply.header("content-type"), "text/plain; charset=UTF-8");
    let mut samples = BTreeMap::new();
    let mut family = String::new();
    let mut families = BTreeSet::new();
    for line in reply.text().lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} comes twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(&family), "{line} is not of {family}");
            let before = samples.insert(series.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{series} comes twice");
        }
    }
    samples
}

/// The sum of the samples whose series has all of these parts.
fn sum(samples: &BTreeMap<String, f64>, parts: &[&str]) -> f64 {
    let fitting = samples.iter();
    let fitting = fitting.filter(|(series, _)| parts.iter().all(|part| series.contains(part)));
    let values: Vec<f64> = fitting.map(|(_, value)| *value).collect();
    assert!(!values.is_empty(), "nothing has {parts:?}");
    values.iter().sum()
}

#[test]
fn names_and_labels_are_kongs_where_kong_has_them() {
    let gateway = Gateway::start();
    let [one, two] = ["one", "two"].map(Backend::start);
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    gateway.add_target("u", "127.0.0.1:1".parse().unwrap(), 0);
    for _ in 0..4 {
        gateway.backend_of("/");
    }
    let off = scrape(&gateway);
    let health = |target: &str, state: &str| {
        format!(
            "kong_upstream_target_health{{upstream=\"u\",target=\"{target}\",address=\"{target}\",\
             state=\"{state}\",subsystem=\"http\"}}"
        )
    };
    let (one, two) = (one.address.to_string(), two.address.to_string());
    assert_eq!(off[&health(&one, "healthchecks_off")], 1.0);
    assert_eq!(off[&health(&one, "healthy")], 0.0);
    assert_eq!(off["kong_datastore_reachable"], 1.0);
    assert_eq!(
        sum(
            &off,
            &["kong_nginx_requests_total{node_id=", "subsystem=\"http\""]
        ),
        4.0
    );
    assert_eq!(
        sum(&off, &["kong_node_info{node_id=", "version=\"3.9.1\"}"]),
        1.0
    );
    for state in [
        "accepted", "handled", "total", "active", "reading", "writing", "waiting",
    ] {
        let state = format!("subsystem=\"http\",state=\"{state}\"");
        sum(&off, &["kong_nginx_connections_total{node_id=", &state]);
    }

    let checks = json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &checks)
        .expect(200);
    gateway
        .admin("PUT", &format!("/upstreams/u/targets/{two}/unhealthy"), &[])
        .expect(204);
    let on = scrape(&gateway);
    assert_eq!(on[&health(&one, "healthy")], 1.0);
    assert_eq!(on[&health(&one, "healthchecks_off")], 0.0);
    assert_eq!(on[&health(&two, "unhealthy")], 1.0);
    // A target of weight 0 is not checked.
    assert_eq!(on[&health("127.0.0.1:1", "healthchecks_off")], 1.0);
}

#[test]
fn picks_and_their_times_are_counted() {
    let gateway = Gateway::start();
    let [one, two] = ["one", "two"].map(Backend::start);
    gateway.balanced(&[(one.address, 100), (two.address, 300)]);
    let before = scrape(&gateway);
    let rr = "{upstream=\"u\",balancer=\"round-robin\"}";
    assert_eq!(before[&format!("pointsman_picks_total{rr}")], 0.0);
    // The instance is created by the first pick.
    assert_eq!(before[&format!("pointsman_instance_memory_bytes{rr}")], 0.0);
    assert_eq!(Load::run(gateway.proxy, "/", 4, 64).failures, [""; 0]);
    let after = scrape(&gateway);
    assert_eq!(after[&format!("pointsman_picks_total{rr}")], 256.0);
    assert_eq!(after[&format!("pointsman_instances_total{rr}")], 1.0);
    assert_eq!(after[&format!("pointsman_refused_total{rr}")], 0.0);
    assert_eq!(
        sum(&after, &["pointsman_host_choices_total{", "upstream=\"u\""]),
        0.0
    );
    let memory = after[&format!("pointsman_instance_memory_bytes{rr}")];
    assert!(memory >= 65_536.0 && memory % 65_536.0 == 0.0, "{memory}");
    // One pick in 64 is timed.
    assert_eq!(after[&format!("pointsman_pick_seconds_count{rr}")], 4.0);
    assert!(after[&format!("pointsman_pick_seconds_sum{rr}")] > 0.0);
    let infinite = after.iter().find(|(series, _)| {
        series.starts_with("pointsman_pick_seconds_bucket") && series.contains("le=\"+Inf\"")
    });
    assert_eq!(infinite.map(|(_, count)| *count), Some(4.0), "{infinite:?}");
    for (backend, share) in [(&one, 64.0), (&two, 192.0)] {
        let address = backend.address;
        let labels = format!("{{upstream=\"u\",target=\"{address}\",address=\"{address}\"}}");
        assert_eq!(
            after[&format!("pointsman_endpoint_picks_total{labels}")],
            share
        );
        assert_eq!(after[&format!("pointsman_endpoint_in_flight{labels}")], 0.0);
    }

    // Counters of a balancer start again at 0 with another one, those of endpoints go on.
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "random")])
        .expect(200);
    gateway.backend_of("/");
    let switched = scrape(&gateway);
    let random = "{upstream=\"u\",balancer=\"random\"}";
    assert_eq!(switched[&format!("pointsman_picks_total{random}")], 1.0);
    assert!(!switched.contains_key(&format!("pointsman_picks_total{rr}")));
    assert_eq!(switched["pointsman_switches_total{upstream=\"u\"}"], 1.0);
    assert_eq!(sum(&switched, &["pointsman_endpoint_picks_total{"]), 257.0);
}

#[test]
fn host_choices_are_counted_by_their_reason() {
    let gateway = Setup::new().arg("--balancer-pick-timeout", 20).start();
    let one = Backend::start("one");
    gateway.balanced(&[(one.address, 100)]);
    for (name, kind) in [
        ("traps", "trap"),
        ("loops", "deadline"),
        ("eats-memory", "memory"),
        ("out-of-range", "out_of_range"),
    ] {
        gateway.upload(name, guest(name)).expect(201);
        gateway
            .admin("PATCH", "/upstreams/u", &[("algorithm", name)])
            .expect(200);
        let labels = format!("{{upstream=\"u\",balancer=\"{name}\"");
        let of = |samples: &BTreeMap<String, f64>, kind: &str| {
            samples[&format!("pointsman_host_choices_total{labels},kind=\"{kind}\"}}")]
        };
        // `eats-memory` needs some picks until it fails. The first new instance is created at once;
        // the pauses before later ones double, so after a while a request falls into one.
        let samples = (0..500)
            .map(|_| {
                gateway.backend_of("/");
                scrape(&gateway)
            })
            .find(|samples| of(samples, kind) >= 1.0 && of(samples, "quarantine") >= 1.0)
            .unwrap_or_else(|| panic!("{name}: {:?}", scrape(&gateway)));
        let shown = gateway.admin("GET", &format!("/balancers/{name}"), &[]);
        let usage = shown.expect(200).json()["usage"]["u"].clone();
        let all = sum(&samples, &["pointsman_host_choices_total", &labels]);
        assert_eq!(usage["host_choices"], all as u64, "{usage}");
        assert_eq!(
            usage["host_choices_by_kind"][kind],
            of(&samples, kind) as u64
        );
    }
}

#[test]
fn requests_without_an_endpoint_are_counted_by_their_reason() {
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    for _ in 0..3 {
        gateway.get("/").expect(503);
    }
    let samples = scrape(&gateway);
    let of = |reason: &str| {
        samples[&format!("pointsman_rejected_total{{upstream=\"u\",reason=\"{reason}\"}}")]
    };
    assert_eq!(of("no_targets"), 3.0);
    assert_eq!(of("none_available"), 0.0);
}

#[test]
fn fallback_picks_are_counted_under_the_new_and_the_old_name() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    gateway.upload("traps", guest("traps")).expect(201);
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "traps")])
        .expect(200);
    for _ in 0..3 {
        gateway.backend_of("/");
    }
    let shown = gateway.admin("GET", "/balancers/traps", &[]).json();
    let usage = &shown["usage"]["u"];
    assert_eq!(usage["fallback_picks"], 3, "{usage}");
    assert_eq!(usage["fallback_picks"], usage["host_choices"]);
    let (new, old) = ("fallback_picks_by_kind", "host_choices_by_kind");
    assert_eq!(usage[new], usage[old]);
    let metrics = gateway.admin("GET", "/metrics", &[]).text();
    for name in ["fallback_picks", "host_choices"] {
        let start = format!("pointsman_{name}_total{{upstream=\"u\",balancer=\"traps\",kind=\"");
        let lines = metrics.lines().filter(|line| line.starts_with(&start));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        assert_eq!(values.sum::<u64>(), 3, "{metrics}");
    }
}
