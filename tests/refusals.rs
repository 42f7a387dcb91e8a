//! Requests that a balancer refuses with a status of its own.

use serde_json::json;

use crate::harness::{Backend, Gateway, guest, patch_upstream};
use crate::record::replayed_bytes;

#[test]
fn a_balancer_says_how_a_request_is_refused() {
    let gateway = Gateway::start();
    let backend = Backend::start("a");
    gateway.balanced(&[(backend.address, 100)]);
    gateway
        .upload("refuses-with", guest("refuses-with"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "refuses-with"}));
    let url = format!(
        "http://{}/upstreams/u/record?seconds=60&facts=true",
        gateway.admin
    );
    let mut recording = ureq::post(&url).send_empty().unwrap();
    for (asked, status, retry_after, message) in [
        ("429 30", 429, "30", "Too many requests"),
        ("429", 429, "", "Too many requests"),
        ("503 0", 503, "0", "failure to get a peer"),
        ("529 2", 529, "2", "overloaded"),
        ("", 503, "", "failure to get a peer"),
    ] {
        let answer = gateway.get_with("/", &[("x-refuse", asked)]).expect(status);
        assert_eq!(answer.header("retry-after"), retry_after, "{asked}");
        let said = answer.json();
        assert!(
            said["message"].as_str().unwrap().contains(message),
            "{said}"
        );
        assert_eq!(said["reason"], "refused_by_balancer", "{said}");
    }
    // What it has said for a request that it then places has no effect, on that one or the next.
    let accepted = [("x-refuse", "429 30"), ("x-accept", "1")];
    gateway.get_with("/", &accepted).expect(200);
    let next = gateway.get("/").expect(503);
    assert_eq!(next.header("retry-after"), "");
    // Another status is a fault, and the gateway picks.
    gateway.get_with("/", &[("x-refuse", "200")]).expect(200);
    let shown = gateway
        .admin("GET", "/balancers/refuses-with", &[])
        .expect(200)
        .json();
    let usage = &shown["usage"]["u"];
    assert_eq!(
        (&usage["faults"]["trap"], &usage["refused"]),
        (&json!(1), &json!(6)),
        "{usage}"
    );
    let fault = usage["last_fault"].as_str().unwrap();
    assert!(fault.contains("status 200"), "{fault}");

    patch_upstream(&gateway, &json!({"algorithm": "random"}));
    let trace = recording.body_mut().read_to_vec().unwrap();
    let document = replayed_bytes(&trace, &["-b", "random"]);
    let rerun = &document["replayed"];
    assert_eq!(
        (&rerun["asked"], &rerun["same"]),
        (&json!(7), &json!(7)),
        "{rerun}"
    );

    // Only what the balancer has said nothing about is a warning.
    gateway.terminate();
    let (_, log) = gateway.wait();
    let warnings = log.matches("no endpoint may be chosen").count();
    assert_eq!(warnings, 2, "{log}");
}
