//! What the Admin API takes: forms, JSON and text in its encodings. Facts: Kong 3.9.

use serde_json::{Value, json};

use crate::harness::{Gateway, Raw, Reply, exchange};

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
pub(crate) const MULTIPART: &str = "multipart/form-data; boundary=b";
pub(crate) const JSON: &str = "application/json";

/// A request in bytes, for heads that no client library would send.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        request += &format!("content-length: {}\r\n", body.len());
    }
    request + "\r\n" + body
}

/// The value of a header in an answer as text; none if there is no such header.
pub(crate) fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

pub(crate) fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

pub(crate) fn message(answer: &str) -> String {
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["message"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn post(
    gateway: &Gateway,
    path: &str,
    content_type: &str,
    body: impl Into<Vec<u8>>,
) -> Reply {
    let body = Some((content_type, body.into()));
    gateway.send(gateway.admin, "POST", path, &[], body)
}

/// A multipart form with these parts.
pub(crate) fn multipart(parts: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in parts {
        form += "--b\r\ncontent-disposition: form-data; name=\"";
        form += &format!("{name}\"\r\n\r\n{value}\r\n");
    }
    form + "--b--\r\n"
}

pub(crate) fn said(reply: &Reply) -> String {
    let message = reply.json()["message"].clone();
    message.as_str().unwrap_or_default().to_owned()
}

#[test]
fn empty_containers_are_empty_however_they_are_written() {
    let gateway = Gateway::start();
    let made = gateway.admin_json(
        "POST",
        "/routes",
        &json!({"paths": ["/"], "methods": {}, "tags": {}, "hosts": {}, "headers": [], "snis": null}),
    );
    let made = made.expect(201).json();
    for (field, expected) in [
        ("methods", json!([])),
        ("tags", json!([])),
        ("hosts", json!([])),
        ("headers", json!({})),
    ] {
        assert_eq!(made[field], expected, "{field}");
    }
    let upstream = json!({"name": "u", "healthchecks": [],
        "pointsman": {"tls": {"ca_certificates": null}}});
    let upstream = gateway.admin_json("POST", "/upstreams", &upstream);
    let upstream = upstream.expect(201).json();
    assert_eq!(upstream["healthchecks"]["threshold"], 0);
    let deep = json!({"healthchecks": {"active": {"headers": {"x-a": {}},
        "healthy": {"http_statuses": {}}}}});
    let upstream = gateway.admin_json("PATCH", "/upstreams/u", &deep);
    let upstream = upstream.expect(200).json();
    let active = &upstream["healthchecks"]["active"];
    assert_eq!(active["healthy"]["http_statuses"], json!([]));
    assert_eq!(active["headers"], json!({"x-a": []}));
    // A set that must not be empty is refused as an empty list is.
    for empty in [json!({}), json!([])] {
        let reply = gateway.admin_json("POST", "/routes", &json!({"protocols": empty}));
        let fields = reply.expect(400).json()["fields"].clone();
        assert_eq!(fields["protocols"], "length must be at least 1");
    }
    for (field, wrong, expected) in [
        ("tags", json!({"a": 1}), "expected a set"),
        ("hosts", json!({"a": 1}), "expected an array"),
        ("headers", json!(["a"]), "expected a map"),
    ] {
        let reply = gateway.admin_json("POST", "/routes", &json!({field: wrong, "paths": ["/"]}));
        assert_eq!(reply.expect(400).json()["fields"][field], expected);
    }
}

#[test]
fn a_multipart_body_without_content_has_no_fields() {
    let gateway = Gateway::start();
    for content_type in [MULTIPART, "multipart/form-data"] {
        let reply = post(&gateway, "/services", content_type, "").expect(400);
        let expected = "schema violation (host: required field missing)";
        assert_eq!(said(&reply), expected, "{content_type}");
    }
    // The same without a byte of a part.
    let reply = post(&gateway, "/services", MULTIPART, multipart(&[])).expect(400);
    assert!(said(&reply).contains("host: required field missing"));
}

#[test]
fn a_url_has_a_scheme_or_begins_with_two_slashes() {
    let gateway = Gateway::start();
    let made = |url: &str| {
        let fields = [("name", "s"), ("url", url)];
        gateway.admin("PUT", "/services/s", &fields)
    };
    for (url, protocol, host, port, path) in [
        ("http://h", "http", "h", 80, Value::Null),
        ("https://h/p", "https", "h", 443, json!("/p")),
        ("//h/p", "http", "h", 80, json!("/p")),
        ("//h:443", "https", "h", 443, Value::Null),
        ("//h:8080/", "http", "h", 8080, json!("/")),
        ("http://[::1]:81/x", "http", "::1", 81, json!("/x")),
        ("http://user:pass@h:81/x?q#f", "http", "h", 81, json!("/x")),
    ] {
        let row = made(url).expect(200).json();
        let shown = (&row["protocol"], &row["host"], &row["port"], &row["path"]);
        let expected = (&json!(protocol), &json!(host), &json!(port), &path);
        assert_eq!(shown, expected, "{url}");
    }
    let host = ("host", "required field missing");
    let path = ("path", "should start with: /");
    let protocol = (
        "protocol",
        "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp",
    );
    for (url, expected) in [
        ("example.com", vec![host, path]),
        ("example.com/p", vec![host, path]),
        ("/p", vec![host]),
        ("http:/p", vec![host]),
        ("http://", vec![host]),
        ("localhost:9000", vec![host, path, protocol]),
        ("127.0.0.1:9000/p", vec![host, path, protocol]),
    ] {
        let fields = made(url).expect(400).json()["fields"].clone();
        for (field, message) in &expected {
            assert_eq!(fields[field], *message, "{url}: {fields}");
        }
        assert_eq!(
            fields.as_object().unwrap().len(),
            expected.len(),
            "{url}: {fields}"
        );
    }
}

#[test]
fn text_that_is_not_utf8_is_answered_in_json() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let cases = [
        ("GET", "/services/%ff", "400"),
        ("PUT", "/services/a%c3", "400"),
        ("PATCH", "/services/%ff", "400"),
        ("DELETE", "/services/%ff", "400"),
        ("GET", "/services/%ff/routes", "400"),
        ("GET", "/upstreams/u/targets/%ff", "400"),
        ("GET", "/upstreams/%ff/explain", "405"),
        ("GET", "/balancers/%ff/versions", "400"),
        ("GET", "/%ff", "404"),
        ("GET", "/services?tags=%ff", "400"),
        ("GET", "/services?size=%ff", "400"),
        ("GET", "/services?offset=%c3%28", "400"),
        ("GET", "/services?%ff=1", "400"),
        ("GET", "/upstreams/u/health?balancer_health=%ff", "400"),
        ("GET", "/status?unit=%ff", "400"),
        ("GET", "/services/\u{e9}?tags=\u{e9}", "404"),
        ("GET", "/services?tags=%C3%A9", "200"),
    ];
    for (method, target, expected) in cases {
        let headers = [("host", "localhost"), ("origin", "http://localhost:8002")];
        let answer = exchange(gateway.admin, &request(method, target, &headers, ""));
        assert_eq!(status(&answer), expected, "{method} {target}: {answer}");
        let of = |name| header(&answer, name);
        assert_eq!(
            of("access-control-allow-origin"),
            Some("http://localhost:8002")
        );
        assert_eq!(of("content-type"), Some("application/json; charset=utf-8"));
        if expected != "200" {
            assert!(!message(&answer).is_empty(), "{method} {target}: {answer}");
        }
    }
    let wrong = gateway
        .admin("GET", "/services/a%ff", &[])
        .expect(400)
        .json();
    assert_eq!(
        wrong,
        json!({"code": 10, "name": "invalid unique name",
            "message": "invalid utf-8 character sequence detected at position 2"})
    );
    // In a body as well: nothing is stored in another form than it came.
    for (content_type, body) in [
        (FORM, b"name=a%ff&host=h".to_vec()),
        (FORM, b"name=a\xff&host=h".to_vec()),
        (
            MULTIPART,
            b"--b\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\na\xff\r\n--b--\r\n"
                .to_vec(),
        ),
    ] {
        let wrong = post(&gateway, "/services", content_type, body)
            .expect(400)
            .json();
        let expected = "invalid utf-8 character sequence detected at position 2";
        assert_eq!(wrong["fields"], json!({"name": expected}), "{wrong}");
    }
    post(&gateway, "/services", JSON, b"{\"name\":\"\xff\"}".to_vec()).expect(400);
}

#[test]
fn bytes_in_a_target_that_are_not_utf8_are_answered_in_json() {
    let gateway = Gateway::start();
    for target in [&b"/services/\xff"[..], b"/services?tags=\xff", b"/\xc3\x28"] {
        let mut raw = Raw::connect(gateway.admin);
        raw.send(b"GET /services HTTP/1.1\r\nhost: localhost\r\n\r\n");
        assert!(raw.read_until("null}").starts_with("HTTP/1.1 200"));
        raw.send(b"GET ").send(target);
        raw.send(b" HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let answer = raw.read_to_end();
        assert_eq!(status(&answer), "400", "{answer}");
        assert!(!message(&answer).is_empty(), "{answer}");
        assert!(header(&answer, "server").is_some(), "{answer}");
    }
}

#[test]
fn a_patch_merges_the_settings_of_a_balancer() {
    let gateway = Gateway::start();
    let upstream = json!({"name": "u", "algorithm": "prequal",
        "pointsman": {"balancer_config": {"probes": 3, "pool_size": 8}}});
    gateway
        .admin_json("POST", "/upstreams", &upstream)
        .expect(201);
    let settings = |reply: Reply| {
        let row = reply.expect(200).json();
        row["pointsman"]["balancer_config"].clone()
    };
    let form = |fields: &[(&str, &str)]| gateway.admin("PATCH", "/upstreams/u", fields);
    let json = |config: Value| {
        let change = json!({"pointsman": {"balancer_config": config}});
        gateway.admin_json("PATCH", "/upstreams/u", &change)
    };
    let merged = settings(form(&[("pointsman.balancer_config.probes", "5")]));
    assert_eq!(merged, json!({"probes": 5, "pool_size": 8}));
    let merged = settings(json(json!({"hot_quantile": 0.5})));
    assert_eq!(
        merged,
        json!({"probes": 5, "pool_size": 8, "hot_quantile": 0.5})
    );
    // What is set to null returns to its default.
    let merged = settings(form(&[("pointsman.balancer_config.probes", "")]));
    assert_eq!(merged, json!({"pool_size": 8, "hot_quantile": 0.5}));
    let merged = settings(json(json!({"hot_quantile": null, "pool_size": 9})));
    assert_eq!(merged, json!({"pool_size": 9}));
    // What is refused changes nothing.
    form(&[("pointsman.balancer_config.probes", "many")]).expect(400);
    let row = gateway.admin("GET", "/upstreams/u", &[]);
    assert_eq!(settings(row), json!({"pool_size": 9}));
    // The settings of another balancer begin anew.
    let other = json!({"algorithm": "maglev",
        "pointsman": {"balancer_config": {"table_size": 101}}});
    let other = gateway.admin_json("PATCH", "/upstreams/u", &other);
    assert_eq!(settings(other), json!({"table_size": 101}));
    // A shadow has settings of its own.
    let shadow = |config: Value| {
        let change = json!({"pointsman": {"shadow": config}});
        let reply = gateway.admin_json("PATCH", "/upstreams/u", &change);
        let row = reply.expect(200).json();
        row["pointsman"]["shadow"]["config"].clone()
    };
    let made = shadow(json!({"balancer": "prequal", "config": {"probes": 3, "pool_size": 8}}));
    assert_eq!(made, json!({"probes": 3, "pool_size": 8}));
    let merged = shadow(json!({"config": {"probes": 4}}));
    assert_eq!(merged, json!({"probes": 4, "pool_size": 8}));
    let other = shadow(json!({"balancer": "maglev", "config": {"table_size": 101}}));
    assert_eq!(other, json!({"table_size": 101}));
    // PUT replaces, and null clears.
    assert_eq!(settings(json(Value::Null)), Value::Null);
}
