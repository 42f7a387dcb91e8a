//! `cors` and `correlation-id`: what browsers are told, and the ids of requests.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Reply, Setup, exchange, with_backend};

const PAGE: &str = "https://page.example";

fn with_plugin(name: &str, config: Value) -> (Gateway, Backend) {
    let (gateway, backend) = with_backend(Setup::new());
    let plugin = json!({ "name": name, "config": config });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    (gateway, backend)
}

fn preflight(gateway: &Gateway, more: &[(&str, &str)]) -> Reply {
    let mut headers = vec![
        ("origin", PAGE),
        ("access-control-request-method", "DELETE"),
    ];
    headers.extend(more);
    gateway.send(gateway.proxy, "OPTIONS", "/", &headers, None)
}

/// Checks the headers of a reply; an empty value stands for none.
#[track_caller]
fn assert_headers(reply: &Reply, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(reply.header(name), *value, "{name}: {:?}", reply.headers);
    }
}

#[test]
fn a_preflight_request_is_answered_without_the_endpoint() {
    let (gateway, backend) = with_plugin("cors", json!({}));
    let names = ("access-control-request-headers", "x-a, x-b");
    let reply = preflight(&gateway, &[names]).expect(200);
    assert_eq!(reply.text(), "");
    assert_headers(
        &reply,
        &[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-headers", "x-a, x-b"),
            (
                "access-control-allow-methods",
                "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT",
            ),
            ("access-control-max-age", ""),
            ("access-control-allow-credentials", ""),
            ("vary", ""),
            ("content-length", "0"),
        ],
    );
    assert_eq!(backend.served(), 0);
    // Each of these is no preflight request.
    let origin = [("origin", PAGE)];
    let method = [("access-control-request-method", "GET")];
    for headers in [&origin, &method] {
        gateway
            .send(gateway.proxy, "OPTIONS", "/", headers, None)
            .expect(200);
    }
    assert_eq!(backend.served(), 2);
}

#[test]
fn a_preflight_request_is_answered_as_the_settings_say() {
    let (gateway, _backend) = with_plugin(
        "cors",
        json!({
            "origins": [PAGE, "http://other.example"], "methods": ["GET", "PUT"],
            "headers": ["X-C", "X-D"], "exposed_headers": ["X-E"], "max_age": 3600,
            "credentials": true, "private_network": true,
        }),
    );
    let wish = ("access-control-request-private-network", "true");
    let reply = preflight(&gateway, &[wish]).expect(200);
    assert_headers(
        &reply,
        &[
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-headers", "X-C,X-D"),
            ("access-control-allow-methods", "GET,PUT"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-private-network", "true"),
            ("access-control-expose-headers", ""),
            ("vary", "Origin"),
        ],
    );
    let reply = preflight(&gateway, &[]).expect(200);
    assert_headers(&reply, &[("access-control-allow-private-network", "")]);
    let reply = gateway.get_with("/", &[("origin", PAGE)]).expect(200);
    assert_headers(
        &reply,
        &[
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "X-E"),
            ("access-control-allow-methods", ""),
            ("vary", "Origin"),
        ],
    );
    let reply = gateway.get_with("/", &[("origin", "http://evil.example")]);
    assert_headers(
        &reply,
        &[("access-control-allow-origin", ""), ("vary", "Origin")],
    );
}

#[test]
fn the_endpoint_answers_a_preflight_request_where_it_may() {
    let (gateway, backend) = with_plugin("cors", json!({ "preflight_continue": true }));
    let reply = preflight(&gateway, &[]).expect(200);
    assert_headers(&reply, &[("access-control-allow-origin", "")]);
    assert_eq!(backend.served(), 1);
}

#[test]
fn pages_of_every_origin_may_use_a_service_by_default() {
    for (config, expected, vary) in [
        (json!({}), "*", ""),
        (json!({ "origins": ["*"] }), "*", ""),
        (json!({ "credentials": true }), PAGE, "Origin"),
        (
            json!({ "origins": ["http://a.example"] }),
            "http://a.example",
            "Origin",
        ),
        (json!({ "origins": [r".*\.example"] }), PAGE, "Origin"),
    ] {
        let (gateway, _backend) = with_plugin("cors", config);
        let reply = gateway.get_with("/", &[("origin", PAGE)]).expect(200);
        assert_headers(
            &reply,
            &[("access-control-allow-origin", expected), ("vary", vary)],
        );
    }
}

#[test]
fn what_the_endpoint_says_of_origins_is_replaced() {
    let (gateway, backend) = with_plugin("cors", json!({ "origins": [PAGE, "x.example"] }));
    backend.respond_with_header("access-control-allow-origin", "http://evil.example");
    let reply = gateway.get_with("/", &[("origin", "http://evil.example")]);
    assert_headers(&reply, &[("access-control-allow-origin", "")]);
    // An answer of the gateway has the headers as well: a page may read the error.
    gateway.admin("PATCH", "/upstreams/u", &[("name", "v")]);
    let reply = gateway.get_with("/", &[("origin", PAGE)]).expect(503);
    assert_headers(&reply, &[("access-control-allow-origin", PAGE)]);
}

/// The id that the endpoint sees, and the one that the client gets.
fn ids(gateway: &Gateway, name: &str, headers: &[(&str, &str)]) -> (String, String) {
    let reply = gateway.get_with("/", headers).expect(200);
    let seen = reply.json()["headers"][name.to_lowercase()].clone();
    let seen = seen.as_str().unwrap_or_default().to_owned();
    (seen, reply.header(name).to_owned())
}

#[test]
fn every_request_gets_an_id_of_its_own() {
    let (gateway, _backend) = with_plugin("correlation-id", json!({}));
    let name = "Kong-Request-ID";
    let (one, told) = ids(&gateway, name, &[]);
    let (other, _) = ids(&gateway, name, &[]);
    assert_eq!(told, "");
    let (uuid, number) = one.split_once('#').unwrap();
    assert_eq!((uuid.len(), number), (36, "1"));
    assert_eq!(other, format!("{uuid}#2"));
}

#[test]
fn a_request_keeps_its_id_and_the_client_is_told_if_it_is_to_be() {
    let config = json!({ "header_name": "X-Id", "generator": "uuid", "echo_downstream": true });
    let (gateway, _backend) = with_plugin("correlation-id", config);
    let (seen, told) = ids(&gateway, "X-Id", &[("x-id", "mine")]);
    assert_eq!((seen.as_str(), told.as_str()), ("mine", "mine"));
    let (seen, told) = ids(&gateway, "X-Id", &[("x-id", "")]);
    assert_eq!((seen.len(), &seen), (36, &told));
    // A request without a route gets one as well.
    let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-id: mine\r\n\r\n";
    gateway.admin("PATCH", "/services/u-service", &[("enabled", "false")]);
    let answer = exchange(gateway.proxy, request);
    assert!(
        answer.to_ascii_lowercase().contains("x-id: mine\r\n"),
        "{answer}"
    );
}

#[test]
fn a_tracker_names_the_connection_and_the_request() {
    let config = json!({ "generator": "tracker" });
    let (gateway, _backend) = with_plugin("correlation-id", config);
    let (seen, _) = ids(&gateway, "Kong-Request-ID", &[]);
    let parts: Vec<&str> = seen.split('-').collect();
    let [address, port, pid, connection, requests, time] = parts.as_slice() else {
        panic!("{seen}");
    };
    assert_eq!(*address, "127.0.0.1");
    assert_eq!(*port, gateway.proxy.port().to_string());
    assert_eq!(*pid, gateway.pid().to_string());
    assert_ne!(*connection, "0");
    assert_ne!(*requests, "0");
    assert_eq!(time.split_once('.').unwrap().1.len(), 3);
}
