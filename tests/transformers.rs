//! `request-transformer` and `response-transformer`: what endpoints and clients see.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, RawServer, Setup, exchange, sha256, with_backend};

fn with_plugin(name: &str, config: Value) -> (Gateway, Backend) {
    let (gateway, backend) = with_backend(Setup::new());
    add(&gateway, name, config);
    (gateway, backend)
}

fn add(gateway: &Gateway, name: &str, config: Value) {
    let plugin = json!({ "name": name, "config": config });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
}

#[test]
fn headers_and_arguments_are_changed_in_the_order_of_the_steps() {
    let (gateway, _backend) = with_plugin(
        "request-transformer",
        json!({
            "remove": { "headers": ["x-gone"], "querystring": ["gone"] },
            "rename": { "headers": ["x-old:x-new"], "querystring": ["old:new"] },
            "replace": { "headers": ["x-a:1", "x-absent:1"], "querystring": ["a:1", "absent:1"] },
            "add": { "headers": ["x-a:2", "x-b:$(headers.x_none)$(query_params.a)"],
                     "querystring": ["a:2", "b:$(headers[\"x-a\"])"] },
            "append": { "headers": ["x-c:4"], "querystring": ["c:4"] },
        }),
    );
    let headers = [("x-gone", "g"), ("x-old", "o"), ("x-a", "0"), ("x-c", "3")];
    let path = "/p?gone=g&old=o&a=9&c=3";
    let seen = gateway.get_with(path, &headers).expect(200).json();
    for (name, value) in [
        ("x-gone", None),
        ("x-old", None),
        ("x-new", Some("o")),
        ("x-a", Some("1")),
        ("x-absent", None),
        ("x-b", Some("9")),
        ("x-c", Some("3 | 4")),
    ] {
        assert_eq!(seen["headers"][name].as_str(), value, "{name}");
    }
    assert_eq!(seen["uri"], "/p?new=o&a=1&c=3&b=0&c=4");
}

/// Otherwise a client would read the end of a body in the wrong place, and what follows as the next
/// response.
#[test]
fn no_policy_changes_how_a_response_is_framed() {
    let (gateway, _backend) = with_backend(Setup::new());
    let transformed = |step: &str, header: &str| {
        let name = header.split(':').next().unwrap_or_default();
        let header = if step == "remove" { name } else { header };
        let config = json!({ step: { "headers": [header] } });
        ("response-transformer", config)
    };
    let named = |name: &str| {
        let tracing = json!({
            "traces_endpoint": "http://127.0.0.1:9/v1/traces",
            "http_response_header_for_traceid": name,
        });
        let correlation = json!({ "header_name": name, "echo_downstream": true });
        [("correlation-id", correlation), ("opentelemetry", tracing)]
    };
    let mut plugins = vec![
        transformed("rename", "x-backend:Content-Length"),
        transformed("remove", "Content-Length"),
    ];
    for step in ["add", "append", "replace"] {
        for header in [
            "Content-Length:3",
            "Transfer-Encoding:chunked",
            "Connection:x-a",
        ] {
            plugins.push(transformed(step, header));
        }
    }
    for name in ["Content-Length", "Transfer-Encoding", "Connection"] {
        plugins.extend(named(name));
    }
    for (name, config) in plugins {
        let plugin = json!({ "name": name, "config": config });
        let made = gateway.admin_json("POST", "/plugins", &plugin).expect(201);
        let two = "GET /p HTTP/1.1\r\nhost: h\r\n\r\nGET /p HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        let answers = exchange(gateway.proxy, two);
        let mut rest = &*answers;
        for _ in 0..2 {
            let (head, body) = rest.split_once("\r\n\r\n").unwrap();
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{plugin}: {answers}");
            assert!(!head.contains("transfer-encoding"), "{plugin}: {answers}");
            assert!(!head.contains("connection: x-a"), "{plugin}: {answers}");
            let lengths: Vec<&str> = head
                .lines()
                .filter_map(|line| line.strip_prefix("content-length: "))
                .collect();
            let [length] = lengths[..] else {
                panic!("{plugin}: {answers}");
            };
            let (body, next) = body.split_at(length.parse().unwrap());
            assert!(body.ends_with("\"}"), "{plugin}: {answers}");
            rest = next;
        }
        assert_eq!(rest, "", "{plugin}");
        let id = made.json()["id"].as_str().unwrap().to_owned();
        gateway
            .admin("DELETE", &format!("/plugins/{id}"), &[])
            .expect(204);
    }
}

#[test]
fn an_argument_without_a_value_stays_without_one() {
    let config = json!({
        "rename": { "querystring": ["old:new"] },
        "add": { "querystring": ["a:1"] },
    });
    let (gateway, _backend) = with_plugin("request-transformer", config);
    let seen = gateway.get("/p?flag&b=&old").expect(200).json();
    assert_eq!(seen["uri"], "/p?flag&b=&new&a=1");
}

#[test]
fn a_request_without_a_body_gets_one() {
    let (gateway, _backend) = with_plugin(
        "request-transformer",
        json!({ "add": { "body": ["a:1"] }, "replace": { "body": ["b:2"] } }),
    );
    for (content_type, body) in [
        ("application/json", r#"{"a":"1"}"#),
        ("application/x-www-form-urlencoded", "a=1"),
    ] {
        let empty = Some((content_type, Vec::new()));
        let sent = gateway.send(gateway.proxy, "POST", "/p", &[], empty);
        let seen = sent.expect(200).json();
        assert_eq!(seen["sha256"], sha256(body.as_bytes()), "{content_type}");
        assert_eq!(seen["headers"]["content-length"], body.len().to_string());
    }
    // A request that names no media type is not changed.
    let seen = gateway.get("/p").expect(200).json();
    assert_eq!(seen["sha256"], sha256(b""));
}

#[test]
fn the_path_the_method_and_the_host_are_replaced() {
    let (gateway, _backend) = with_plugin(
        "request-transformer",
        json!({
            "http_method": "GET",
            "replace": { "uri": "/v2/$(headers.host) x", "headers": ["host:new.example"] },
        }),
    );
    let form = ("application/x-www-form-urlencoded", b"b=2&c=x+y".to_vec());
    let headers = [("host", "old.example")];
    let sent = gateway.send(gateway.proxy, "POST", "/p?a=1", &headers, Some(form));
    let seen = sent.expect(200).json();
    assert_eq!(seen["method"], "GET");
    assert_eq!(seen["uri"], "/v2/old.example%20x?a=1&b=2&c=x%20y");
    assert_eq!(seen["headers"]["host"], "new.example");
}

#[test]
fn a_group_of_the_path_is_a_value() {
    let (gateway, _backend) = with_plugin(
        "request-transformer",
        json!({ "replace": { "uri": "/u/$(uri_captures['name'])/$(uri_captures[2])" } }),
    );
    let routes = "/services/u-service/routes";
    let fields = [("paths[]", "~/users/(?<name>[^/]+)/(.*)$")];
    gateway.admin("POST", routes, &fields).expect(201);
    let seen = gateway.get("/users/ann/x/y?q=1").expect(200).json();
    assert_eq!(seen["uri"], "/u/ann/x/y?q=1");
}

#[test]
fn bodies_are_changed_by_their_media_type() {
    let (gateway, _backend) = with_plugin(
        "request-transformer",
        json!({
            "remove": { "body": ["gone"] },
            "rename": { "body": ["old:new"] },
            "replace": { "body": ["a:1"] },
            "add": { "body": ["b:2"] },
            "append": { "body": ["c:3"] },
        }),
    );
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let multipart = |fields: &[(&str, &str)]| {
        let parts: String = fields
            .iter()
            .map(|(name, value)| part(name, value))
            .collect();
        parts + "--x--\r\n"
    };
    let untouched = "gone=1";
    for (content_type, body, expected) in [
        (
            "application/json",
            r#"{"gone":1,"old":[1],"a":0}"#.to_owned(),
            r#"{"a":"1","new":[1],"b":"2","c":["3"]}"#.to_owned(),
        ),
        (
            "application/x-www-form-urlencoded",
            "gone=1&old=o&a=0".into(),
            "new=o&a=1&b=2&c=3".into(),
        ),
        (
            "multipart/form-data; boundary=x",
            multipart(&[("gone", "1"), ("old", "o"), ("a", "0")]),
            multipart(&[("new", "o"), ("a", "1"), ("b", "2"), ("c", "3")]),
        ),
        ("text/plain", untouched.into(), untouched.into()),
        ("application/json", "{".into(), "{".into()),
    ] {
        let body = Some((content_type, body.into_bytes()));
        let seen = gateway.send(gateway.proxy, "POST", "/", &[], body);
        let seen = seen.expect(200).json();
        assert_eq!(seen["length"], expected.len(), "{content_type}");
        assert_eq!(
            seen["sha256"],
            sha256(expected.as_bytes()),
            "{content_type}"
        );
    }
}

/// A gateway before a server that sends this response, which changes JSON and headers.
fn transforming(response: String) -> (Gateway, RawServer) {
    let server = RawServer::responding_with(response);
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    add(
        &gateway,
        "response-transformer",
        json!({
            "remove": { "headers": ["x-gone"], "json": ["gone"] },
            "rename": { "headers": ["x-old:x-new"], "json": ["old:new"] },
            "replace": { "headers": ["x-a:1"], "json": ["a:1"], },
            "add": { "headers": ["x-b:2"], "json": ["b:2"], "json_types": ["number"] },
            "append": { "headers": ["x-c:3"], "json": ["c:true"], "json_types": ["boolean"] },
        }),
    );
    (gateway, server)
}

fn get(gateway: &Gateway, method: &str) -> (String, String) {
    let request = format!("{method} / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let answer = exchange(gateway.proxy, &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

const HEADERS: &str = "x-gone: 0\r\nx-old: o\r\nx-a: 0\r\nx-c: 0\r\n";

#[test]
fn headers_of_every_response_are_changed() {
    let response = format!("HTTP/1.1 204 No Content\r\n{HEADERS}\r\n");
    let (gateway, _server) = transforming(response);
    let (head, _) = get(&gateway, "GET");
    for line in ["x-new: o", "x-a: 1", "x-b: 2", "x-c: 0", "x-c: 3"] {
        assert!(head.contains(&format!("\r\n{line}")), "{line}: {head}");
    }
    assert!(
        !head.contains("x-gone") && !head.contains("x-old"),
        "{head}"
    );
    gateway.admin("PATCH", "/upstreams/u", &[("name", "v")]);
    let (head, _) = get(&gateway, "GET");
    assert!(
        head.starts_with("http/1.1 503") && head.contains("x-b: 2"),
        "{head}"
    );
}

#[test]
fn a_complete_json_object_is_changed_however_it_is_sent() {
    let sent = r#"{"gone":1,"old":2,"a":0}"#;
    let expected = r#"{"a":"1","new":2,"b":2,"c":[true]}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n";
    let length = sent.len();
    let (start, end) = sent.split_at(7);
    let chunks = format!("7\r\n{start}\r\n{:x}\r\n{end}\r\n0\r\n", end.len());
    for response in [
        format!("{head}content-length: {length}\r\n\r\n{sent}"),
        format!("{head}connection: close\r\n\r\n{sent}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}\r\n"),
        format!("{head}transfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n{chunks}x-t: 1\r\n\r\n"),
    ] {
        let (gateway, _server) = transforming(response.clone());
        let (head, body) = get(&gateway, "GET");
        assert!(!head.contains("content-length"), "{head}");
        let size = format!("{:x}", expected.len());
        assert_eq!(
            body,
            format!("{size}\r\n{expected}\r\n0\r\n\r\n"),
            "{response}"
        );
        let (_, body) = get(&gateway, "HEAD");
        assert_eq!(body, "");
        let old = "GET / HTTP/1.0\r\nhost: h\r\n\r\n";
        let answer = exchange(gateway.proxy, old);
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{answer}");
    }
}

#[test]
fn any_other_body_passes_as_it_is() {
    for (head, body) in [
        ("200 OK\r\ncontent-type: text/plain", r#"{"gone":1}"#),
        ("200 OK\r\ncontent-type: application/json", "[1]"),
        ("200 OK\r\ncontent-type: application/json", "{"),
        ("200 OK\r\ncontent-type: application/json", ""),
        (
            "200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip",
            r#"{"gone":1}"#,
        ),
        (
            "206 Partial\r\ncontent-type: application/json\r\ncontent-range: bytes 0-9/10",
            r#"{"gone":1}"#,
        ),
    ] {
        let length = body.len();
        let response = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
        let (gateway, _server) = transforming(response);
        assert_eq!(gateway.get("/").text(), body, "{head}");
    }
    let (gateway, _server) =
        transforming("HTTP/1.1 304 Not Modified\r\ncontent-type: application/json\r\n\r\n".into());
    let reply = gateway.get("/").expect(304);
    assert_eq!(reply.header("x-b"), "2");
}

#[test]
fn a_body_that_breaks_off_is_not_completed() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    for response in [
        format!("{head}content-length: 50\r\n\r\n{{\"a\":1}}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n7\r\n{{\"a\":1}}\r\n"),
    ] {
        let (gateway, _server) = transforming(response);
        let (_, body) = get(&gateway, "GET");
        assert!(!body.contains('{') && !body.contains("0\r\n\r\n"), "{body}");
    }
}
