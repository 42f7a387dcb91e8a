//! `token-load`: requests are weighed by tokens, not counted.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::harness::{Backend, Gateway, patch_upstream, until};
use crate::record::replayed_bytes;

/// The backend that answers a short prompt.
fn answering_backend(gateway: &Gateway, prompt: &str) -> String {
    let document = json!({"model": "small", "prompt": prompt}).to_string();
    let body = Some(("application/json", document.into_bytes()));
    let answer = gateway.send(gateway.proxy, "POST", "/v1/completions", &[], body);
    answer.expect(200).header("x-backend").to_owned()
}

#[test]
fn short_prompts_avoid_the_target_that_computes_a_long_one() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let settings = json!({"algorithm": "token-load", "pointsman": {"balancer_config": {"tokens_header": "X-Tokens"}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);

    // A prompt of 20,000 tokens is 80 KB, which the balancer sees as a whole; another one
    // is said to have as many.
    let long = "x".repeat(80_000);
    let mut held = Vec::new();
    for (prompt, header) in [(long.as_str(), ""), ("short", "X-Tokens: 20000\r\n")] {
        let before = backends.each_ref().map(Backend::served);
        let body = json!({"model": "small", "prompt": prompt}).to_string();
        let mut client = TcpStream::connect(gateway.proxy).unwrap();
        let head = format!(
            "POST /hang HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{header}\r\n",
            body.len()
        );
        client.write_all((head + &body).as_bytes()).unwrap();
        let mut place = None;
        until("a backend has the request", || {
            let now = backends.each_ref().map(Backend::served);
            place = now
                .iter()
                .zip(&before)
                .position(|(now, before)| now > before);
            place.is_some()
        });
        held.push((client, place.unwrap()));
    }
    // The second one avoids the first one's target, and short ones avoid both.
    assert_ne!(held[0].1, held[1].1);
    let free = 3 - held[0].1 - held[1].1;
    for number in 0..20 {
        let name = answering_backend(&gateway, &format!("Question {number}"));
        assert_eq!(name, ["a", "b", "c"][free]);
    }
    let usage = gateway.admin("GET", "/balancers/token-load", &[]);
    let usage = usage.expect(200).json()["usage"]["u"].clone();
    assert_eq!(
        (&usage["picks"], &usage["fallback_picks"]),
        (&json!(22), &json!(0)),
        "{usage}"
    );
}

/// It looks at up to eight endpoints with one call, whose answers are in the trace.
#[test]
fn a_recording_is_replayed_pick_by_pick() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d", "e"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    patch_upstream(&gateway, &json!({"algorithm": "token-load"}));
    let url = format!(
        "http://{}/upstreams/u/record?seconds=60&facts=true",
        gateway.admin
    );
    let mut recording = ureq::post(&url).send_empty().unwrap();
    for number in 0..40 {
        let assistant = format!("You are assistant {}. ", number % 4).repeat(20);
        answering_backend(&gateway, &format!("{assistant}Question {number}"));
    }
    // Another balancer ends the recording.
    patch_upstream(&gateway, &json!({"algorithm": "random"}));
    let trace = recording.body_mut().read_to_vec().unwrap();
    let document = replayed_bytes(&trace, &["-b", "random"]);
    let rerun = &document["replayed"];
    assert_eq!(
        (&rerun["asked"], &rerun["same"]),
        (&json!(40), &json!(40)),
        "{rerun}"
    );
}
