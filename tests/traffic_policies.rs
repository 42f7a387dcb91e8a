//! Plugins that refuse or answer requests: `ip-restriction`, `request-size-limiting`,
//! `bot-detection`, `redirect` and `request-termination`.

use serde_json::{Value, json};

use crate::harness::{Gateway, Raw, Setup, assert_kong_error, exchange, with_backend};

/// Adds a plugin for all requests, and returns its path.
fn add(gateway: &Gateway, name: &str, config: &Value) -> String {
    let plugin = json!({ "name": name, "config": config });
    let made = gateway.admin_json("POST", "/plugins", &plugin);
    let id = made.expect(201).json()["id"].clone();
    format!("/plugins/{}", id.as_str().unwrap())
}

fn change(gateway: &Gateway, plugin: &str, config: &Value) {
    let change = json!({ "config": config });
    gateway.admin_json("PATCH", plugin, &change).expect(200);
}

#[test]
fn an_address_that_is_not_allowed_is_refused() {
    let (gateway, backend) = with_backend(Setup::new());
    let plugin = add(
        &gateway,
        "ip-restriction",
        &json!({ "allow": ["10.0.0.0/8"] }),
    );
    let refused = gateway.get("/").expect(403).json();
    assert_eq!(refused["message"], "IP address not allowed: 127.0.0.1");
    assert!(refused["request_id"].is_string());
    change(
        &gateway,
        &plugin,
        &json!({ "allow": ["10.0.0.0/8", "127.0.0.1"] }),
    );
    gateway.get("/").expect(200);
    // What is denied is not allowed, even if both lists name it.
    let config = json!({ "deny": ["127.0.0.0/8"], "status": 404, "message": "away" });
    change(&gateway, &plugin, &config);
    assert_eq!(gateway.get("/").expect(404).json()["message"], "away");
    change(
        &gateway,
        &plugin,
        &json!({ "deny": ["10.0.0.0/8"], "allow": null }),
    );
    gateway.get("/").expect(200);
    assert_eq!(backend.served(), 2);
}

fn post(gateway: &Gateway, length: usize) -> u16 {
    let body = ("text/plain", vec![b'x'; length]);
    gateway
        .send(gateway.proxy, "POST", "/", &[], Some(body))
        .status
}

#[test]
fn a_body_with_too_large_a_length_is_refused_at_once() {
    let (gateway, backend) = with_backend(Setup::new());
    let config = json!({ "allowed_payload_size": 2, "size_unit": "kilobytes" });
    let plugin = add(&gateway, "request-size-limiting", &config);
    assert_eq!(post(&gateway, 2048), 200);
    assert_eq!(post(&gateway, 2049), 413);
    change(&gateway, &plugin, &json!({ "size_unit": "bytes" }));
    assert_eq!(post(&gateway, 2), 200);
    assert_eq!(post(&gateway, 3), 413);
    gateway.get("/").expect(200);
    // Nothing of the body is waited for.
    let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 200000\r\n\r\n";
    let answer = exchange(gateway.proxy, head);
    assert_kong_error(&answer, "413", "Request size limit exceeded");
    change(&gateway, &plugin, &json!({ "size_unit": "megabytes" }));
    assert_eq!(post(&gateway, 2 << 20), 200);
    let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2097153\r\n\r\n";
    assert_kong_error(
        &exchange(gateway.proxy, head),
        "413",
        "Request size limit exceeded",
    );
    assert_eq!(backend.served(), 4);
}

#[test]
fn a_status_without_a_name_has_no_reason_phrase() {
    let (gateway, _backend) = with_backend(Setup::new());
    add(
        &gateway,
        "request-termination",
        &json!({ "status_code": 599 }),
    );
    let head = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = exchange(gateway.proxy, head);
    assert!(answer.starts_with("HTTP/1.1 599 \r\n"), "{answer}");
}

#[test]
fn a_client_that_waits_for_100_continue_to_send_too_much_does_not_get_it() {
    let (gateway, backend) = with_backend(Setup::new());
    let config = json!({ "allowed_payload_size": 2, "size_unit": "bytes" });
    add(&gateway, "request-size-limiting", &config);
    let head = "POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    let answer = exchange(gateway.proxy, head);
    assert_kong_error(&answer, "417", "Request size limit exceeded");
    assert_eq!(backend.served(), 0);
}

#[test]
fn a_chunked_body_is_cut_where_it_grows_too_long() {
    let (gateway, _backend) = with_backend(Setup::new());
    let config = json!({ "allowed_payload_size": 128, "size_unit": "kilobytes" });
    add(&gateway, "request-size-limiting", &config);
    let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, "x".repeat(64 << 10));
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(head.as_bytes());
    for _ in 0..2 {
        raw.send(chunk.as_bytes());
    }
    let answer = raw.send(b"0\r\n\r\n").read_until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The client does not end its body: what is too long is known before.
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(head.as_bytes());
    for _ in 0..2 {
        raw.send(chunk.as_bytes());
    }
    let answer = raw.send(b"1\r\nx\r\n").read_to_end();
    assert_kong_error(&answer, "413", "Request size limit exceeded");
    assert!(
        answer.to_ascii_lowercase().contains("connection: close"),
        "{answer}"
    );
}

#[test]
fn a_chunked_body_that_is_too_long_reaches_no_endpoint_while_bodies_are_read_first() {
    let (gateway, backend) = with_backend(Setup::new());
    let config = json!({ "allowed_payload_size": 3, "size_unit": "bytes" });
    add(&gateway, "request-size-limiting", &config);
    let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    for (body, status) in [
        ("3\r\nabc\r\n0\r\n\r\n", "200"),
        ("3\r\nabc\r\n1\r\nd\r\n", "413"),
    ] {
        let mut raw = Raw::connect(gateway.proxy);
        let answer = raw
            .send(head.as_bytes())
            .send(body.as_bytes())
            .read_until("\r\n\r\n");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    assert_eq!(backend.served(), 1);
}

#[test]
fn a_body_that_another_policy_reads_is_refused_with_the_same_message() {
    let readers = [
        ("request-transformer", json!({ "add": { "body": ["a:b"] } })),
        ("request-termination", json!({ "echo": true })),
    ];
    let limit = json!({ "allowed_payload_size": 3, "size_unit": "bytes" });
    let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n";
    for (name, config) in readers {
        let (gateway, backend) = with_backend(Setup::new());
        add(&gateway, "request-size-limiting", &limit);
        add(&gateway, name, &config);
        for (expect, status) in [("", "413"), ("expect: 100-continue\r\n", "417")] {
            let mut raw = Raw::connect(gateway.proxy);
            raw.send(format!("{head}{expect}\r\n").as_bytes());
            if !expect.is_empty() {
                raw.read_until("100 Continue\r\n\r\n");
            }
            let answer = raw.send(b"4\r\n{  }\r\n").read_to_end();
            assert_kong_error(&answer, status, "Request size limit exceeded");
        }
        assert_eq!(backend.served(), 0, "{name}");
    }
}

#[test]
fn a_length_is_required_where_the_settings_say_so() {
    let (gateway, backend) = with_backend(Setup::new());
    add(
        &gateway,
        "request-size-limiting",
        &json!({ "require_content_length": true }),
    );
    let refused = gateway.get("/").expect(411).json();
    assert_eq!(
        refused["message"],
        "A valid Content-Length header is required"
    );
    assert_eq!(post(&gateway, 1), 200);
    let chunked = "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    assert!(exchange(gateway.proxy, chunked).starts_with("HTTP/1.1 200"));
    assert_eq!(backend.served(), 2);
}

#[test]
fn a_client_is_sent_elsewhere() {
    let (gateway, backend) = with_backend(Setup::new());
    let plugin = add(
        &gateway,
        "redirect",
        &json!({ "location": "https://Example.com/a?b#c" }),
    );
    let reply = gateway.get("/x?y=1").expect(301);
    assert_eq!(reply.text(), "redirecting");
    assert_eq!(reply.header("location"), "https://Example.com/a?b#c");
    assert_eq!(reply.header("content-length"), "11");
    assert!(!reply.headers.contains_key("content-type"));
    let config = json!({ "status_code": 308, "keep_incoming_path": true });
    change(&gateway, &plugin, &config);
    let reply = gateway.get("/x%20y?z=%41&u").expect(308);
    assert_eq!(
        reply.header("location"),
        "https://example.com/x%20y?z=%41&u#c"
    );
    assert_eq!(
        gateway.get("/x").expect(308).header("location"),
        "https://example.com/x#c"
    );
    assert_eq!(backend.served(), 0);
}

#[test]
fn a_client_that_calls_itself_a_program_is_refused() {
    let (gateway, backend) = with_backend(Setup::new());
    let plugin = add(&gateway, "bot-detection", &json!({}));
    let get = |agent: &str| gateway.get_with("/", &[("user-agent", agent)]);
    let refused = get("Go-http-client/1.1").expect(403).json();
    assert_eq!(refused["message"], "Forbidden");
    assert!(refused["request_id"].is_string());
    get("curl/8.5.0").expect(200);
    get("mine/1").expect(200);
    change(
        &gateway,
        &plugin,
        &json!({ "allow": ["^Go-"], "deny": ["^mine"] }),
    );
    get("Go-http-client/1.1").expect(200);
    get("mine/1").expect(403);
    get("not mine/1").expect(200);
    let none = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    assert!(exchange(gateway.proxy, none).starts_with("HTTP/1.1 200"));
    let two = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
               user-agent: a\r\nuser-agent: b\r\n\r\n";
    let answer = exchange(gateway.proxy, two);
    assert_kong_error(&answer, "400", "Only one User-Agent header allowed");
    assert_eq!(backend.served(), 5);
}

#[test]
fn a_request_is_answered_with_what_the_settings_say() {
    let (gateway, backend) = with_backend(Setup::new());
    let plugin = add(&gateway, "request-termination", &json!({}));
    let reply = gateway.get("/").expect(503);
    assert_eq!(reply.text(), r#"{"message":"Service unavailable"}"#);
    assert_eq!(
        reply.header("content-type"),
        "application/json; charset=utf-8"
    );
    for (status, message) in [
        (401, "Unauthorized"),
        (404, "Not found"),
        (405, "Method not allowed"),
        (500, "An unexpected error occurred"),
        (502, "Bad Gateway"),
    ] {
        change(&gateway, &plugin, &json!({ "status_code": status }));
        let document = gateway.get("/").expect(status).json();
        assert_eq!(document, json!({ "message": message }));
    }
    // There is no message for another status.
    change(&gateway, &plugin, &json!({ "status_code": 418 }));
    let reply = gateway.get("/").expect(418);
    assert_eq!(
        (reply.text().as_str(), reply.header("content-length")),
        ("", "0")
    );
    assert!(!reply.headers.contains_key("content-type"));
    change(&gateway, &plugin, &json!({ "message": "no \"tea\"" }));
    let document = gateway.get("/").expect(418).json();
    assert_eq!(document, json!({ "message": "no \"tea\"" }));
    let config = json!({ "message": null, "status_code": 200, "body": "<p>" });
    change(&gateway, &plugin, &config);
    let reply = gateway.get("/").expect(200);
    assert_eq!(reply.text(), "<p>");
    assert!(!reply.headers.contains_key("content-type"));
    change(&gateway, &plugin, &json!({ "content_type": "text/html" }));
    assert_eq!(gateway.get("/").header("content-type"), "text/html");
    assert_eq!(backend.served(), 0);
    // Only requests with the trigger are answered.
    change(
        &gateway,
        &plugin,
        &json!({ "trigger": "x-stop", "status_code": 403 }),
    );
    gateway.get("/").expect(200);
    gateway.get("/?x=x-stop").expect(200);
    gateway.get("/?x-stop").expect(403);
    gateway.get_with("/", &[("X-Stop", "")]).expect(403);
    assert_eq!(backend.served(), 2);
}

#[test]
fn an_answer_can_describe_the_request() {
    let (gateway, backend) = with_backend(Setup::new());
    let route = json!({ "name": "r", "paths": [r"~/users/(?<id>\d+)/(\w+)$"] });
    gateway
        .admin_json("POST", "/services/u-service/routes", &route)
        .expect(201);
    add(
        &gateway,
        "request-termination",
        &json!({ "echo": true, "status_code": 404 }),
    );
    let headers = [("x-a", "1"), ("x-a", "2")];
    let body = ("application/x-www-form-urlencoded", b"a=1&b=%26".to_vec());
    let path = "/users/7/posts?c=2&d=3&d=4";
    let reply = gateway.send(gateway.proxy, "POST", path, &headers, Some(body));
    let echo = reply.expect(404).json();
    assert_eq!(echo["message"], "Not found");
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    assert_eq!(echo["kong"]["node_id"], root["node_id"]);
    assert_eq!(echo["kong"]["hostname"], root["hostname"]);
    assert_eq!(echo["kong"]["worker_pid"], gateway.pid());
    let request = &echo["request"];
    assert_eq!(request["headers"]["x-a"], json!(["1", "2"]));
    assert_eq!(request["query"], json!({ "c": "2", "d": ["3", "4"] }));
    assert_eq!(request["body"], json!({ "a": "1", "b": "&" }));
    assert_eq!(request["raw_body"], "a=1&b=%26");
    assert_eq!(request["method"], "POST");
    assert_eq!(request["path"], "/users/7/posts");
    assert_eq!(request["scheme"], "http");
    assert_eq!(request["host"], "127.0.0.1");
    assert_eq!(request["port"], gateway.proxy.port());
    let captures = json!({ "named": { "id": "7" }, "unnamed": ["7", "posts"] });
    assert_eq!(request["uri_captures"], captures);
    assert_eq!(echo["matched_route"]["name"], "r");
    assert!(echo["matched_service"]["id"].is_string());
    assert_eq!(backend.served(), 0);
}
