//! Labels of targets, as balancers see them.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::harness::{Backend, Dns, DnsReply, Gateway, Setup, guest, patch_upstream};
use crate::record::replayed_bytes;

/// A gateway with a backend in each of these zones, behind `/`.
fn with_zones(zones: &[&'static str]) -> (Gateway, Vec<Backend>) {
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    let backends = zones.iter().map(|zone| {
        let backend = Backend::start(zone);
        let target = json!({
            "target": backend.address.to_string(),
            "tags": ["other", format!("zone:{zone}")],
        });
        let made = gateway.admin_json("POST", "/upstreams/u/targets", &target);
        made.expect(201);
        backend
    });
    let backends = backends.collect();
    (gateway, backends)
}

fn patch_target(gateway: &Gateway, backend: &Backend, fields: &Value) {
    let path = format!("/upstreams/u/targets/{}", backend.address);
    gateway.admin_json("PATCH", &path, fields).expect(200);
}

#[test]
fn a_request_stays_in_the_preferred_zone_and_follows_its_labels() {
    let (gateway, backends) = with_zones(&["a", "b", "b"]);
    let settings = json!({"prefer": "zone:a"});
    for algorithm in ["p2c", "least-connections", "latency", "prequal"] {
        let fields = json!({"algorithm": algorithm, "pointsman": {"balancer_config": settings}});
        patch_upstream(&gateway, &fields);
        let stays = |zone: &str| (0..20).all(|_| gateway.backend_of("/") == zone);
        assert!(stays("a"), "{algorithm}");
        // A label takes precedence over a tag, and takes effect without a change of weights.
        let moved = json!({"pointsman": {"labels": {"zone": "c"}}});
        patch_target(&gateway, &backends[0], &moved);
        let elsewhere = json!({"tags": ["zone:a"]});
        patch_target(&gateway, &backends[1], &elsewhere);
        assert!(stays("b"), "{algorithm}");
        let back = json!({"pointsman": {"labels": null}});
        patch_target(&gateway, &backends[0], &back);
        patch_target(&gateway, &backends[1], &json!({"tags": ["zone:b"]}));
        assert!(stays("a"), "{algorithm}");
        let shown = gateway.admin("GET", &format!("/balancers/{algorithm}"), &[]);
        let usage = &shown.expect(200).json()["usage"]["u"];
        assert_eq!(usage["host_choices"], 0, "{usage}");
    }
    // A preferred zone without endpoints takes no request from the others.
    let fields = json!({"pointsman": {"balancer_config": {"prefer": "zone:none"}}});
    patch_upstream(&gateway, &fields);
    let picked: std::collections::BTreeSet<_> = (0..50).map(|_| gateway.backend_of("/")).collect();
    assert_eq!(picked.len(), 2, "{picked:?}");
    // The balancer says so once, also when the table changes.
    patch_target(&gateway, &backends[0], &json!({"weight": 7}));
    gateway.get("/").expect(200);
    let logs = gateway.admin("GET", "/balancers/prequal/logs", &[]);
    let logs = logs.expect(200).text();
    assert_eq!(logs.matches("has the label zone:none").count(), 1, "{logs}");
}

#[test]
fn addresses_and_services_of_a_name_have_the_labels_of_its_target() {
    let dns = Dns::start();
    let (one, two) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let first = Backend::start("first address");
    let port = first.address.port();
    let _second = Backend::start_on("second address", SocketAddr::from((two, port)));
    let services = ["first service", "second service"].map(Backend::start);
    let records = services
        .iter()
        .map(|backend| (1, 10, backend.address.port(), "host.test."));
    dns.set("a.test", DnsReply::Addresses(vec![one, two], 60));
    dns.set("_http._tcp.test", DnsReply::Services(records.collect(), 60));
    dns.set("host.test", DnsReply::Addresses(vec![one], 60));
    let gateway = Setup::new().arg("--dns-resolver", dns.address).start();
    gateway.balanced(&[]);
    for target in [
        json!({"target": format!("a.test:{port}"), "tags": ["zone:a"]}),
        json!({"target": "_http._tcp.test:1", "pointsman": {"labels": {"zone": "b"}}}),
    ] {
        let made = gateway.admin_json("POST", "/upstreams/u/targets", &target);
        made.expect(201);
    }
    for (zone, backends) in [
        ("a", ["first address", "second address"]),
        ("b", ["first service", "second service"]),
    ] {
        let settings = json!({"prefer": format!("zone:{zone}")});
        let fields = json!({"algorithm": "p2c", "pointsman": {"balancer_config": settings}});
        patch_upstream(&gateway, &fields);
        // That 60 requests miss one of two is as good as impossible.
        let picked = (0..60).map(|_| gateway.backend_of("/"));
        let picked: std::collections::BTreeSet<_> = picked.collect();
        assert_eq!(picked, backends.map(str::to_owned).into(), "{zone}");
    }
    let explained = gateway.admin_json("POST", "/upstreams/u/explain", &json!({}));
    let explained = explained.expect(200).json();
    let endpoints = explained["endpoints"].as_array().unwrap().iter();
    let mut labels: Vec<String> = endpoints.map(|one| one["labels"].to_string()).collect();
    labels.sort_unstable();
    let expected = [r#"{"zone":"a"}"#, r#"{"zone":"b"}"#];
    assert_eq!(labels, [expected[0], expected[0], expected[1], expected[1]]);
}

/// The README of the example and the documentation say how short it is.
#[test]
fn the_example_that_prefers_a_zone_has_at_most_40_lines() {
    let source = include_str!("../examples/zone-first/src/lib.rs");
    assert!(source.lines().count() <= 40);
}

#[test]
fn settings_and_labels_that_cannot_be_are_refused() {
    let (gateway, backends) = with_zones(&["a"]);
    for (config, part) in [
        (json!({"spill_at": 3}), "needs prefer"),
        (
            json!({"prefer": ":a"}),
            "prefer must be a label, such as zone:a",
        ),
        (json!({"prefer": "zone:a", "spill_at": 0}), "spill_at"),
    ] {
        let fields = json!({"algorithm": "p2c", "pointsman": {"balancer_config": config}});
        let refused = gateway.admin_json("PATCH", "/upstreams/u", &fields);
        let said = refused.expect(400).text();
        assert!(said.contains(part), "{said}");
    }
    let path = format!("/upstreams/u/targets/{}", backends[0].address);
    for labels in [
        json!({"a:b": "c"}),
        json!({"zone": "a\nb"}),
        json!({"zone": 1}),
    ] {
        let fields = json!({"pointsman": {"labels": labels}});
        let said = gateway
            .admin_json("PATCH", &path, &fields)
            .expect(400)
            .text();
        assert!(said.contains("labels"), "{said}");
    }
    let labels = json!({"pointsman": {"labels": {"rack": "", "zone": "a"}}});
    patch_target(&gateway, &backends[0], &labels);
    let all = gateway
        .admin("GET", "/upstreams/u/targets", &[])
        .expect(200)
        .json();
    assert_eq!(
        all["data"][0]["pointsman"]["labels"], labels["pointsman"]["labels"],
        "{all}"
    );
}

#[test]
fn a_recording_has_the_labels_that_were_asked_for() {
    let (gateway, backends) = with_zones(&["b", "a"]);
    gateway.upload("labels", guest("labels")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "labels"}));
    let url = format!("http://{}/upstreams/u/record?seconds=60", gateway.admin);
    let mut answer = ureq::post(&url).send_empty().unwrap();
    assert!((0..20).all(|_| gateway.backend_of("/") == "a"));
    patch_target(&gateway, &backends[0], &json!({"tags": ["zone:a"]}));
    patch_target(&gateway, &backends[1], &json!({"tags": ["zone:b"]}));
    assert!((0..20).all(|_| gateway.backend_of("/") == "b"));
    // Another balancer ends the recording.
    patch_upstream(&gateway, &json!({"algorithm": "random"}));
    let trace = answer.body_mut().read_to_vec().unwrap();
    assert!(trace.starts_with(b"PMTRACE3"));
    let document = replayed_bytes(&trace, &["-b", r#"p2c={"prefer":"zone:a"}"#, "-b", "p2c"]);
    assert_eq!(document["replayed"]["asked"], 40, "{document}");
    assert_eq!(document["replayed"]["same"], 40, "{document}");
    // Another balancer knows the labels that the recorded one has asked for. Without them it draws:
    // that 40 draws of two agree by chance is as good as impossible.
    assert_eq!(document["agreement"][0], 1.0, "{document}");
    assert!(document["agreement"][1].as_f64() < Some(1.0), "{document}");
}
