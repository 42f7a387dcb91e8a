//! `prefix-affinity`: requests with a common prefix go to the target that is likely to have it
//! cached.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway};

/// A gateway with three backends whose upstream `u` uses `prefix-affinity`.
fn with_backends() -> (Gateway, [Backend; 3]) {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let settings = json!({"algorithm": "prefix-affinity"});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    (gateway, backends)
}

fn usage(gateway: &Gateway) -> Value {
    let shown = gateway.admin("GET", "/balancers/prefix-affinity", &[]);
    shown.expect(200).json()["usage"]["u"].clone()
}

/// The backend that answers a prompt.
fn answering_backend(gateway: &Gateway, prompt: &str) -> String {
    let document = json!({"model": "small", "stream": false, "prompt": prompt, "max_tokens": 16});
    let body = Some(("application/json", document.to_string().into_bytes()));
    let answer = gateway.send(gateway.proxy, "POST", "/v1/completions", &[], body);
    let answer = answer.expect(200);
    // The backend received the whole body.
    assert_eq!(answer.json()["length"], document.to_string().len());
    answer.header("x-backend").to_owned()
}

/// A system prompt that differs from those of other numbers from the first block on.
fn system_prompt(number: usize) -> String {
    format!("You are assistant {number}. ") + &"Be brief, and say what you do not know. ".repeat(20)
}

/// Holds sixteen conversations, and returns which of them each backend has. All turns of one must
/// go to the same backend.
fn conversations(mut turn: impl FnMut(usize, usize) -> String) -> BTreeMap<String, Vec<usize>> {
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for number in 0..16 {
        let first = turn(number, 0);
        for later in 1..6 {
            assert_eq!(turn(number, later), first, "{number} {later}");
        }
        places.entry(first).or_default().push(number);
    }
    // Conversations are spread over several backends.
    assert!(places.len() > 1, "{places:?}");
    places
}

#[test]
fn paths_with_a_common_prefix_have_one_target() {
    let (gateway, _backends) = with_backends();
    conversations(|number, turn| gateway.backend_of(&format!("/{number}/part/{turn}?v=1")));
    let usage = usage(&gateway);
    assert_eq!(usage["host_choices"], 0, "{usage}");
}

#[test]
fn a_conversation_keeps_the_target_that_knows_its_prefix() {
    let (gateway, _backends) = with_backends();
    let turn = |number: usize, turn: usize| {
        let said = "What is that? It is something. ".repeat(4 * turn);
        answering_backend(&gateway, &(system_prompt(number) + &said))
    };
    conversations(turn);
    let usage = usage(&gateway);
    assert_eq!(usage["host_choices"], 0, "{usage}");
}

#[test]
fn a_target_that_reports_a_queue_is_avoided() {
    let (gateway, backends) = with_backends();
    let prompt = |turn: usize| system_prompt(1) + &"And then? ".repeat(turn);
    let first = answering_backend(&gateway, &prompt(0));
    assert!((0..5).all(|turn| answering_backend(&gateway, &prompt(turn)) == first));
    let busy = backends.iter().zip(["a", "b", "c"]);
    let (busy, _) = busy.into_iter().find(|(_, name)| *name == first).unwrap();
    let report = |queue: u32| {
        busy.respond_with_header(
            "endpoint-load-metrics",
            &format!("TEXT named_metrics.num_requests_waiting={queue}"),
        );
    };
    report(50);
    // The report is known after the response that carries it.
    assert_eq!(answering_backend(&gateway, &prompt(1)), first);
    let places: Vec<String> = (0..10)
        .map(|turn| answering_backend(&gateway, &prompt(turn)))
        .collect();
    assert!(places.iter().all(|place| *place != first), "{places:?}");
    // All turns go to one other backend, which now has the prefix.
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    let usage = usage(&gateway);
    assert_eq!(usage["host_choices"], 0, "{usage}");
}
