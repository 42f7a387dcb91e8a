//! The log: requests, changes, health, canaries, and colours.

use std::net::TcpListener;

use serde_json::json;

use crate::harness::{Setup, exchange, guest, patch_upstream, set_passive_checks};

#[test]
fn every_log_line_about_a_request_has_its_id() {
    let gateway = Setup::new().arg("--log", "debug").start();
    let refusing = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    gateway.balanced(&[(refusing, 100)]);
    // With a retry the request would end with another error, because no target is healthy then.
    gateway
        .admin("PATCH", "/services/u-service", &[("retries", "0")])
        .expect(200);
    set_passive_checks(&gateway, &json!({"tcp_failures": 1}));
    let id = |reply: &crate::harness::Reply| reply.header("x-kong-request-id").to_owned();
    let failed = id(&gateway.get("/").expect(502));
    let without = id(&gateway.get("/").expect(503));
    gateway
        .upload("reads-body", guest("reads-body"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "reads-body"}));
    let path = format!("/upstreams/u/targets/{refusing}/healthy");
    gateway.admin("PUT", &path, &[]).expect(204);
    let spoken = id(&gateway.get("/").expect(502));
    let malformed = exchange(gateway.proxy, "nonsense\r\n\r\n");
    let malformed = malformed.to_ascii_lowercase();
    let malformed = malformed.split_once("x-kong-request-id: ").unwrap().1[..32].to_owned();
    gateway.terminate();
    let (_, log) = gateway.wait();
    let with = |words: &str, id: &str| {
        let mut lines = log.lines().filter(|line| line.contains(words));
        assert!(lines.any(|line| line.contains(id)), "{words} {id}: {log}");
    };
    with("no answer", &failed);
    with("a try failed", &failed);
    with("unhealthy", &failed);
    with("no endpoint may be chosen", &without);
    with("the balancer says", &spoken);
    with("nothing more", &malformed);
}
