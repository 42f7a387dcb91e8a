//! Requests in flight and probes end with their target or upstream.

use serde_json::json;

use crate::harness::{Backend, Gateway, Raw, Setup, active_checks, health, patch_upstream, until};

/// A WebSocket connection through the gateway.
fn tunnel(gateway: &Gateway) -> Raw {
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let head = raw.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    raw
}

#[test]
fn requests_at_a_removed_target_end_after_the_drain_timeout() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    let target = format!("/upstreams/u/targets/{}", backend.address);
    let mut raw = tunnel(&gateway);
    gateway.admin("DELETE", &target, &[]).expect(204);
    gateway.get("/").expect(503);
    raw.send(b"still there\n");
    assert_eq!(raw.read_until("\n"), "still there\n");
    drop(raw);

    let settings = json!({
        "pointsman": {"drain_timeout": 0.2},
        "healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}},
    });
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    gateway.add_target("u", backend.address, 100);
    let in_flight = || health(&gateway, backend.address).1["pointsman"]["in_flight"].clone();
    until("the first connection has ended", || in_flight() == 0);
    // The target is deleted in the first round, and set unhealthy in the second.
    let unhealthy = format!("{target}/unhealthy");
    for (method, path, status) in [("DELETE", &target, 204), ("PUT", &unhealthy, 204)] {
        let mut raw = tunnel(&gateway);
        let hung = std::thread::scope(|scope| {
            let hung = scope.spawn(|| gateway.get("/hang"));
            until("both requests are in flight", || in_flight() == 2);
            gateway.admin(method, path, &[]).expect(status);
            assert!(raw.is_closed());
            hung.join().unwrap()
        });
        // There is no other target to retry at.
        hung.expect(503);
        if method == "DELETE" {
            gateway.add_target("u", backend.address, 100);
            gateway.get("/").expect(200);
        }
    }
}

#[test]
fn requests_at_a_deleted_upstream_end_after_the_drain_timeout() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100), (two.address, 100)]);
    patch_upstream(&gateway, &json!({"pointsman": {"drain_timeout": 0.2}}));
    let served = || one.served() + two.served();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| gateway.get("/hang"));
        until("the request is in flight", || served() == 1);
        gateway.admin("DELETE", "/upstreams/u", &[]).expect(204);
        hung.join().unwrap().expect(503);
    });
    // The other target is drained as well.
    assert_eq!(served(), 1);
}

/// A request is sent as it was routed, although that is deleted before its body has come.
#[test]
fn a_request_that_has_begun_reaches_the_deleted_upstream() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    gateway.balanced(&[(one.address, 100)]);
    let url = format!("http://{}", two.address);
    let plain = [("name", "plain"), ("url", &*url)];
    gateway.admin("POST", "/services", &plain).expect(201);
    let route = [("name", "plain"), ("paths[]", "/plain")];
    gateway
        .admin("POST", "/services/plain/routes", &route)
        .expect(201);
    let mut clients = ["/", "/plain"].map(|path| {
        let mut raw = Raw::connect(gateway.proxy);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        );
        raw.send(head.as_bytes());
        // The request is routed, since its body is asked for.
        let head = raw.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 100"), "{head}");
        raw
    });
    for path in ["/upstreams/u", "/routes/plain", "/services/plain"] {
        gateway.admin("DELETE", path, &[]).expect(204);
    }
    until("the deletions are in effect", || {
        // Without its own, the other route has that path.
        let statuses = ["/", "/plain"].map(|path| gateway.get(path).status);
        statuses == [503, 503]
    });
    for (raw, backend) in clients.iter_mut().zip(["one", "two"]) {
        raw.send(b"body");
        let head = raw.read_until("\r\n\r\n").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let served_by = format!("x-backend: {backend}\r\n");
        assert!(head.contains(&served_by), "{head}");
    }
}

#[test]
fn probes_end_with_their_upstream() {
    // The only worker has used the upstream.
    let gateway = Setup::new().arg("--workers", 1).start();
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    gateway.balanced(&[(one.address, 100)]);
    gateway.balanced_as("v", "/v", &[(other.address, 100)]);
    let settings = active_checks("http", &json!({}));
    patch_upstream(&gateway, &settings);
    gateway
        .admin_json("PATCH", "/upstreams/v", &settings)
        .expect(200);
    until("probes", || one.probes().len() > 2);
    gateway.get("/").expect(200);
    // No request follows, so the worker does not read the new snapshot.
    gateway.admin("DELETE", "/upstreams/u", &[]).expect(204);
    let (ended, goes_on) = (one.probes().len(), other.probes().len());
    until("probes of the other upstream", || {
        other.probes().len() > goes_on + 10
    });
    // One probe may have been in flight.
    assert!(one.probes().len() <= ended + 1);
}
