//! The headers that the proxy adds and removes, its errors, and old clients.

use serde_json::json;

use crate::harness::{Backend, Gateway, exchange};

/// A gateway with one backend behind `/`, and further fields for service and route.
pub(crate) fn with_route(service: &[(&str, &str)], route: &[(&str, &str)]) -> (Gateway, Backend) {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    add_route(
        &gateway,
        "s",
        backend.address.to_string().as_str(),
        service,
        route,
    );
    (gateway, backend)
}

pub(crate) fn add_route(
    gateway: &Gateway,
    name: &str,
    target: &str,
    service: &[(&str, &str)],
    route: &[(&str, &str)],
) {
    let url = format!("http://{target}");
    let fields = [&[("name", name), ("url", &*url)], service].concat();
    gateway.admin("POST", "/services", &fields).expect(201);
    let routes = format!("/services/{name}/routes");
    gateway.admin("POST", &routes, route).expect(201);
}

#[test]
fn the_upstream_gets_kongs_forwarding_headers() {
    let (gateway, backend) = with_route(&[], &[("paths[]", "/mock")]);
    let headers = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("te", "trailers"),
        ("x-custom", "kept"),
    ];
    let echo = gateway
        .get_with("/mock/a%20b?c=%20d", &headers)
        .expect(200)
        .json();
    assert_eq!(echo["uri"], "/a%20b?c=%20d");
    let sent = &echo["headers"];
    assert_eq!(sent["host"], backend.address.to_string());
    assert_eq!(sent["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
    assert_eq!(sent["x-real-ip"], "127.0.0.1");
    assert_eq!(sent["x-forwarded-proto"], "http");
    assert_eq!(sent["x-forwarded-host"], "127.0.0.1");
    assert_eq!(sent["x-forwarded-port"], gateway.proxy.port().to_string());
    assert_eq!(sent["x-forwarded-path"], "/mock/a%20b");
    assert_eq!(sent["x-forwarded-prefix"], "/mock");
    assert_eq!(sent["x-custom"], "kept");
    assert_eq!(sent["connection"], "keep-alive, TE");
    assert_eq!(
        sent["via"],
        concat!("1.1 pointsman/", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_client_gets_kongs_headers_without_hop_by_hop_ones() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let reply = gateway.get("/headers-out").expect(200);
    for name in ["x-private", "keep-alive"] {
        assert_eq!(reply.header(name), "", "{name}");
    }
    assert_eq!(reply.header("x-public"), "1");
    let product = concat!("pointsman/", env!("CARGO_PKG_VERSION"));
    assert_eq!(reply.header("via"), format!("1.1 inner, 1.1 {product}"));
    assert_eq!(reply.header("server"), product);
    assert_eq!(reply.header("x-kong-request-id").len(), 32);
    for name in ["x-kong-upstream-latency", "x-kong-proxy-latency"] {
        assert!(reply.header(name).parse::<u64>().is_ok(), "{name}");
    }
    assert_eq!(reply.header("x-kong-response-latency"), "");
}

#[test]
fn errors_have_kongs_bodies() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/s"), ("name", "r")]);
    let nothing = gateway.get("/nowhere").expect(404);
    assert_eq!(
        nothing.json()["message"],
        "no Route matched with those values"
    );
    let id = nothing.header("x-kong-request-id").to_owned();
    assert_eq!(nothing.json()["request_id"], id);
    assert!(!nothing.header("x-kong-response-latency").is_empty());
    let product = concat!("pointsman/", env!("CARGO_PKG_VERSION"));
    assert_eq!(nothing.header("server"), product);
    let html = gateway
        .get_with("/nowhere", &[("accept", "text/html")])
        .expect(404);
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");

    gateway
        .admin("POST", "/upstreams", &[("name", "empty")])
        .expect(201);
    gateway
        .admin("PATCH", "/services/s", &[("host", "empty")])
        .expect(200);
    let empty = gateway.get("/s").expect(503);
    assert_eq!(
        empty.json()["message"],
        "failure to get a peer from the ring-balancer"
    );

    gateway
        .admin(
            "PATCH",
            "/services/s",
            &[("host", "does-not-resolve.invalid")],
        )
        .expect(200);
    let unknown = gateway.get("/s").expect(503);
    assert_eq!(unknown.json()["message"], "name resolution failed");

    gateway
        .admin("PATCH", "/services/s", &[("protocol", "tcp"), ("path", "")])
        .expect(200);
    let stream = gateway.get("/s").expect(503).text();
    assert!(stream.contains("the service asks for tcp"), "{stream}");

    gateway
        .admin_json("PATCH", "/routes/r", &json!({"service": null}))
        .expect(200);
    let none = gateway.get("/s").expect(503);
    assert_eq!(none.json()["message"], "no Service found with those values");
}

#[test]
fn a_refused_connection_is_502_and_a_slow_response_504() {
    let (gateway, backend) = with_route(
        &[("read_timeout", "100"), ("retries", "0")],
        &[("paths[]", "/")],
    );
    let slow = gateway.get("/hang").expect(504);
    assert_eq!(slow.json()["message"], "The upstream server is timing out");
    assert!(!slow.header("x-kong-upstream-latency").is_empty());
    // Without an `accept` header, Kong's errors from nginx are plain text.
    let plain = exchange(
        gateway.proxy,
        "GET /hang HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    );
    assert!(
        plain.contains("\r\n\r\nThe upstream server is timing out\nrequest_id: "),
        "{plain}"
    );
    let address = backend.address;
    backend.kill();
    let refused = gateway.get_with("/", &[("accept", "*/*")]).expect(502);
    assert_eq!(
        refused.json()["message"],
        "An invalid response was received from the upstream server"
    );
    // Once the address serves again, requests succeed, however long a busy machine takes.
    gateway
        .admin("PATCH", "/services/s", &[("read_timeout", "60000")])
        .expect(200);
    let _backend = Backend::start_on("again", address);
    assert_eq!(gateway.backend_of("/"), "again");
}

#[test]
fn a_post_is_sent_to_one_endpoint_only() {
    let gateway = Gateway::start();
    let (dead, alive) = (Backend::start("dead"), Backend::start("alive"));
    gateway.balanced(&[(dead.address, 1), (alive.address, 1)]);
    dead.kill();
    for _ in 0..4 {
        let body = Some(("text/plain", b"12345".to_vec()));
        let reply = gateway
            .send(gateway.proxy, "POST", "/", &[], body)
            .expect(200);
        assert_eq!(reply.json()["length"], 5);
    }
    assert_eq!(alive.served(), 4);
    gateway
        .admin("PATCH", "/services/u-service", &[("read_timeout", "100")])
        .expect(200);
    let other = Backend::start("other");
    gateway.add_target("u", other.address, 1);
    let before = alive.served() + other.served();
    let body = Some(("text/plain", b"x".to_vec()));
    gateway
        .send(gateway.proxy, "POST", "/hang", &[], body)
        .expect(504);
    assert_eq!(alive.served() + other.served(), before + 1);
}

#[test]
fn older_clients_and_absolute_targets_are_served() {
    let (gateway, _backend) = with_route(&[], &[("hosts[]", "absolute.example")]);
    let old = exchange(
        gateway.proxy,
        "GET / HTTP/1.0\r\nhost: absolute.example\r\n\r\n",
    );
    assert!(
        old.starts_with("HTTP/1.0 200") || old.starts_with("HTTP/1.1 200"),
        "{old}"
    );
    assert!(old.contains("1.0 pointsman/"), "{old}");
    let absolute = exchange(
        gateway.proxy,
        "GET http://absolute.example/x HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n",
    );
    assert!(absolute.starts_with("HTTP/1.1 200"), "{absolute}");
}
