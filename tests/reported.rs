//! Values of targets that balancers read by name: reported with responses, and set by operators.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, guest, patch_upstream, until};

/// A gateway with two backends whose balancer picks the one with the least of both values.
fn with_backends() -> (Gateway, [Backend; 2]) {
    let gateway = Gateway::start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    gateway.upload("reported", guest("reported")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "reported"}));
    (gateway, backends)
}

/// The last log line of the balancer: for each endpoint in the order of ids what it was told.
pub(crate) fn last_seen(gateway: &Gateway) -> String {
    let logs = gateway.admin("GET", "/balancers/reported/logs", &[]);
    let logs = logs.expect(200).json();
    let lines = logs["data"].as_array().unwrap();
    lines.last().unwrap()["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn facts_path(backend: &Backend) -> String {
    format!("/upstreams/u/targets/{}/facts", backend.address)
}

pub(crate) fn facts(gateway: &Gateway, backend: &Backend) -> Value {
    let shown = gateway.admin("GET", &facts_path(backend), &[]);
    let shown = shown.expect(200).json();
    assert_eq!(shown["data"][0]["address"], backend.address.to_string());
    shown["data"][0]["facts"].clone()
}

#[test]
fn a_balancer_reads_what_targets_report_by_name() {
    let (gateway, backends) = with_backends();
    let shown = gateway.admin("GET", "/balancers/reported", &[]).expect(200);
    assert_eq!(
        shown.json()["description"]["columns"],
        json!(["reported:cache_use"]),
        "{}",
        shown.json()
    );
    let header = "endpoint-load-metrics";
    backends[0].respond_with_header(
        header,
        "TEXT named_metrics.cache_use=0.75,named_metrics.other=1",
    );
    backends[1].respond_with_header(header, r#"JSON {"named_metrics": {"cache_use": 0.25}}"#);
    // Each reports when it has been asked once; until then it has the least.
    let both = || {
        gateway.get("/").expect(200);
        let seen = last_seen(&gateway);
        seen == "[(750, 0), (250, 0)]" || seen == "[(250, 0), (750, 0)]"
    };
    until("both have reported", both);
    assert!((0..10).all(|_| gateway.backend_of("/") == "b"));
    assert_eq!(facts(&gateway, &backends[0])["cache_use"]["value"], 0.75);
    // No balancer has asked for it.
    assert_eq!(facts(&gateway, &backends[0])["other"], Value::Null);
    backends[1].respond_with_header(header, "TEXT named_metrics.cache_use=0.8");
    gateway.get("/").expect(200);
    assert_eq!(gateway.backend_of("/"), "a");
    let explained = gateway.admin_json("POST", "/upstreams/u/explain", &json!({}));
    let explained = explained.expect(200).json();
    assert!(
        explained
            .to_string()
            .contains(r#""reported":{"cache_use":0.75}"#),
        "{explained}"
    );
}

#[test]
fn an_operator_sets_values_of_a_target_for_a_while() {
    let (gateway, backends) = with_backends();
    assert_eq!(facts(&gateway, &backends[0]), json!({}));
    let set = |backend: &Backend, fields: &Value| {
        gateway.admin_json("PATCH", &facts_path(backend), fields)
    };
    let answer = set(&backends[0], &json!({"team:price": 3, "cache_use": 0.5}))
        .expect(200)
        .json();
    let shown = &answer["data"][0]["facts"];
    assert_eq!(
        (&shown["team:price"]["value"], &shown["cache_use"]["value"]),
        (&json!(3.0), &json!(0.5))
    );
    let left = shown["cache_use"]["expires_in"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 60.0, "{answer}");
    assert!((0..4).all(|_| gateway.backend_of("/") == "b"));
    let seen = last_seen(&gateway);
    assert!(
        seen == "[(500, 3000), (0, 0)]" || seen == "[(0, 0), (500, 3000)]",
        "{seen}"
    );
    // A form does as well, a later number replaces an earlier one, and null removes one.
    let path = facts_path(&backends[1]);
    gateway
        .admin("PATCH", &path, &[("cache_use", "4.5")])
        .expect(200);
    set(&backends[0], &json!({"team:price": null})).expect(200);
    assert_eq!(facts(&gateway, &backends[0])["team:price"], Value::Null);
    assert_eq!(gateway.backend_of("/"), "a");

    for (wrong, field) in [
        (json!({"a": -1}), "a"),
        (json!({"a": "x"}), "a"),
        (json!({"a": {"b": 1}}), "a"),
        (json!({"a": true}), "a"),
        (json!({"a b": 1}), "a b"),
    ] {
        let refused = set(&backends[0], &wrong).expect(400).json();
        assert!(refused["fields"][field].as_str().is_some(), "{refused}");
    }
    let many: serde_json::Map<_, _> = (0..200).map(|n| (format!("many_{n}"), json!(n))).collect();
    let refused = set(&backends[1], &Value::Object(many)).expect(400).json();
    assert!(
        refused["message"].as_str().unwrap().contains("128"),
        "{refused}"
    );
    for path in [
        "/upstreams/u/targets/192.0.2.9:80/facts",
        "/upstreams/x/targets/a/facts",
    ] {
        gateway.admin("GET", path, &[]).expect(404);
        gateway
            .admin_json("PATCH", path, &json!({"a": 1}))
            .expect(404);
    }

    // A short age: after it the numbers are gone.
    patch_upstream(&gateway, &json!({"pointsman": {"facts_max_age": 1}}));
    set(&backends[0], &json!({"cache_use": 9})).expect(200);
    until("the number is old", || {
        facts(&gateway, &backends[0]) == json!({})
    });
    assert_eq!(gateway.backend_of("/"), "a");
}
