//! The connections of probes, byte by byte.

use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::{
    Gateway, Raw, RawServer, active_checks, has_health, health, patch_upstream, until,
};
use crate::message_framing::gateway_to;

#[test]
fn a_probe_needs_a_complete_response() {
    let long = format!("content-length: 9999999\r\n\r\n{}", "x".repeat(100_000));
    let cases = [
        ("HTTP/1.1 200 OK\r\n", false),
        ("HTTP/1.1 200 OK\r\na: b\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc", false),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", true),
        (
            "HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc",
            true,
        ),
        (
            &*format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(500)),
            true,
        ),
        (&*format!("HTTP/1.1 200 OK\r\n{long}"), true),
    ];
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    patch_upstream(&gateway, &active_checks("http", &json!({})));
    for (answer, well) in cases {
        let server = RawServer::responding_with(answer);
        gateway.add_target("u", server.address, 100);
        let other = if well { "healthy" } else { "unhealthy" };
        // The target starts in the opposite state, so that the change can be seen.
        let path = format!("/upstreams/u/targets/{}", server.address);
        if well {
            let path = format!("{path}/unhealthy");
            gateway.admin("PUT", &path, &[]).expect(204);
        }
        until(other, || {
            has_health(&gateway, server.address, &other.to_uppercase())
        });
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
}

/// How the connections of probes end, as the server sees it.
fn ends_of_probes(kind: &str, serve: impl Fn(&mut Raw) + Send + Sync + 'static) -> Vec<String> {
    let ends = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&ends);
    let server = RawServer::start(move |_, mut raw| {
        serve(&mut raw);
        let end = match raw.read_to_close() {
            Ok(_) => "closed".into(),
            Err(error) => error.to_string(),
        };
        noted.lock().unwrap().push(end);
    });
    let gateway = gateway_to(server.address);
    patch_upstream(&gateway, &active_checks(kind, &json!({})));
    until("probes have ended", || ends.lock().unwrap().len() >= 5);
    ends.lock().unwrap().clone()
}

#[test]
fn probes_close_their_connections_without_a_reset() {
    let closes = |kind: &str, serve: fn(&mut Raw)| {
        let ends = ends_of_probes(kind, serve);
        assert!(ends.iter().all(|end| end == "closed"), "{kind}: {ends:?}");
    };
    closes("tcp", |_| {});
    // A server that sends first.
    closes("tcp", |raw| {
        raw.send(b"220 mail.example ESMTP\r\n");
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            .send(b"hi");
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n");
        raw.send(&[b'x'; 60_000]);
    });
    // A body longer than a probe reads, and more bytes than announced.
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n");
        raw.send(&[b'x'; 300_000]);
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n")
            .send(&[b'x'; 70_000]);
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"no HTTP at all\r\n").send(&[b'x'; 70_000]);
    });
}

/// On a connection that probes reuse.
#[test]
fn bytes_that_arrive_before_a_probe_are_not_its_response() {
    let server = RawServer::start(|_, mut raw| {
        if raw.read_until("\r\n\r\n").is_empty() {
            return;
        }
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        raw.send(b"HTTP/1.1 500 Old\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let gateway = gateway_to(server.address);
    // The time between two probes is long enough for the server to send them also on a busy
    // machine.
    let mut settings = active_checks("http", &json!({"healthy": {"interval": 1}}));
    settings["pointsman"] = json!({"probe": {"reuse_connection": true}});
    patch_upstream(&gateway, &settings);
    until("probes", || server.accepted() >= 3);
    let (state, known) = health(&gateway, server.address);
    assert_eq!(state, "HEALTHY");
    assert!(known["pointsman"]["last_failure"].is_null(), "{known}");
}
