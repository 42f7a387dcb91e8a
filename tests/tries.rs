//! What a balancer learns of the tries of a request before the one that it chooses for.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, RawServer, guest, patch_upstream};
use crate::record::replayed_bytes;
use crate::retries::service;

/// What the guest has logged about the retries of all requests so far.
fn retries(gateway: &Gateway) -> Vec<String> {
    let logs = gateway.admin("GET", "/balancers/avoids-tried/logs", &[]);
    let logs = logs.expect(200).json();
    let lines = logs["data"].as_array().unwrap().iter();
    let message = |line: &Value| line["message"].as_str().unwrap().to_owned();
    lines.map(message).collect()
}

fn explained(gateway: &Gateway, request: &Value) -> Value {
    let answer = gateway.admin_json("POST", "/upstreams/u/explain", request);
    answer.expect(200).json()["answers"][0]["address"].clone()
}

#[test]
fn a_balancer_learns_what_came_of_the_tries_before() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let component = guest("avoids-tried");
    gateway.upload("avoids-tried", component).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "avoids-tried"}));
    let retry = json!({"retries": 3, "pointsman": {"retry": {"statuses": [503]}}});
    service(&gateway, &retry);
    let url = format!("http://{}/upstreams/u/record?seconds=60", gateway.admin);
    let mut recording = ureq::post(&url).send_empty().unwrap();

    gateway.get("/").expect(200);
    assert!(retries(&gateway).is_empty());
    for backend in &backends {
        backend.respond_with(503, 0);
    }
    gateway.get("/").expect(503);
    let all = [
        "retry 1: Some(503) [0]",
        "retry 2: Some(503) [0, 1]",
        "retry 3: Some(503) [0, 1, 2]",
    ];
    assert_eq!(retries(&gateway), all);

    // Explain asks the same question.
    let first = explained(&gateway, &json!({}));
    let second = explained(&gateway, &json!({"attempt": 1, "tried": [first]}));
    assert!(first.is_string() && second.is_string() && first != second);
    let unknown = json!({"tried": ["192.0.2.1:80"]});
    let refused = gateway.admin_json("POST", "/upstreams/u/explain", &unknown);
    let said = refused.expect(400).json()["fields"]["tried"].to_string();
    assert!(said.contains("192.0.2.1:80"), "{said}");

    patch_upstream(&gateway, &json!({"algorithm": "random"}));
    let trace = recording.body_mut().read_to_vec().unwrap();
    let document = replayed_bytes(&trace, &["-b", "random"]);
    let rerun = &document["replayed"];
    let counts = (&rerun["asked"], &rerun["same"]);
    assert_eq!(counts, (&json!(5), &json!(5)), "{rerun}");
}

#[test]
fn a_try_without_a_response_has_no_status() {
    let gateway = Gateway::start();
    let hangs_up = || RawServer::responding_with("");
    let servers = [hangs_up(), hangs_up()];
    gateway.balanced(&servers.each_ref().map(|server| (server.address, 100)));
    let component = guest("avoids-tried");
    gateway.upload("avoids-tried", component).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "avoids-tried"}));
    service(&gateway, &json!({"retries": 1}));
    gateway.get("/").expect(502);
    assert_eq!(retries(&gateway), ["retry 1: None [0]"]);
    let shown = gateway.admin("GET", "/balancers/avoids-tried", &[]);
    let usage = &shown.expect(200).json()["usage"]["u"];
    assert_eq!(usage["last_fault"], Value::Null, "{usage}");
}
