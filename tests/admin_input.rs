//! What the Admin API takes, from whom, and what it says of the rest. Facts: Kong 3.9.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Raw, Reply, Setup, exchange, guest};

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=b";
const JSON: &str = "application/json";

/// A request in bytes, for heads that no client library would send.
fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
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
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

fn message(answer: &str) -> String {
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["message"].as_str().unwrap_or_default().to_owned()
}

fn post(gateway: &Gateway, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    let body = Some((content_type, body.into()));
    gateway.send(gateway.admin, "POST", path, &[], body)
}

/// A multipart form with these parts.
fn multipart(parts: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in parts {
        form += "--b\r\ncontent-disposition: form-data; name=\"";
        form += &format!("{name}\"\r\n\r\n{value}\r\n");
    }
    form + "--b--\r\n"
}

fn said(reply: &Reply) -> String {
    let message = reply.json()["message"].clone();
    message.as_str().unwrap_or_default().to_owned()
}

#[test]
fn structure_of_input_is_bounded_and_the_answer_names_the_bound() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let dots = "a.".repeat(60_000) + "a";
    let brackets = "a".to_owned() + &"[b]".repeat(60_000);
    let appended = "a".to_owned() + &"[]".repeat(60_000);
    let indexes: String = (0..400)
        .map(|n| format!("a{n}{}=1&", "[1000]".repeat(60)))
        .collect();
    let nested = |open: &str, close: &str, depth: usize| {
        format!(
            "{{\"config\":{}1{}}}",
            open.repeat(depth),
            close.repeat(depth)
        )
    };
    let wide = format!("{{\"config\":[0{}]}}", ",0".repeat(4_000_000));
    let objects = format!("{{\"config\":[{{}}{}]}}", ",{\"a\":{}}".repeat(1_000_000));
    let json_part = format!(
        "--b\r\ncontent-disposition: form-data; name=\"config\"\r\n\
         content-type: application/json\r\n\r\n{}\r\n--b--\r\n",
        nested("[", "]", 2000)
    );
    let cases: Vec<(&str, String, &str)> = vec![
        (FORM, format!("{dots}=1"), "64 levels"),
        (FORM, format!("{brackets}=1"), "64 levels"),
        (FORM, format!("{appended}=1"), "64 levels"),
        (FORM, indexes.clone(), "100000 values"),
        (FORM, "a[1001]=1".into(), "1000"),
        (FORM, "a&".repeat(3_000_000), "Too many arguments"),
        (MULTIPART, multipart(&[(&dots, "1")]), "64 levels"),
        (MULTIPART, multipart(&[("a[5000]", "1")]), "1000"),
        (
            MULTIPART,
            multipart(&vec![("a", "1"); 100_000]),
            "Too many arguments",
        ),
        (MULTIPART, json_part, "64 levels"),
        (JSON, nested("{\"a\":", "}", 64), "64 levels"),
        (JSON, nested("[", "]", 64), "64 levels"),
        (JSON, nested("[", "]", 4_000_000), "64 levels"),
        (JSON, wide, "100000 values"),
        (JSON, objects, "100000 values"),
    ];
    let before = gateway.reset_peak();
    for path in [
        "/services",
        "/upstreams/u/explain",
        "/balancers/round-robin/versions/x/canary",
    ] {
        for (content_type, body, bound) in &cases {
            let shown: String = body.chars().take(40).collect();
            let reply = post(&gateway, path, content_type, body.clone());
            let reply = reply.expect(400);
            let message = said(&reply);
            assert!(message.contains(bound), "{path} {shown}: {message}");
        }
    }
    let parts: Vec<(&str, &str)> = vec![("tags[]", "a"); 50_000];
    let reply = post(&gateway, "/balancers", MULTIPART, multipart(&parts)).expect(400);
    assert_eq!(said(&reply), "Too many arguments");
    let grown = gateway.peak_bytes() - before;
    assert!(grown < 150 << 20, "{} MiB", grown >> 20);
    gateway.admin("GET", "/status", &[]).expect(200);
}

#[test]
fn what_is_within_the_bounds_is_taken() {
    let gateway = Gateway::start();
    let nested = |depth: usize| {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        format!("{{\"name\":\"x\",\"host\":\"h\",\"unknown\":{deep}}}")
    };
    // Understood, and refused for what it says.
    let reply = post(&gateway, "/services", JSON, nested(63)).expect(400);
    assert_eq!(said(&reply), "schema violation (unknown: unknown field)");
    let paths: String = (1..=999).map(|n| format!("paths[{n}]=/p{n}&")).collect();
    let route = post(&gateway, "/routes", FORM, paths).expect(201).json();
    assert_eq!(route["paths"].as_array().unwrap().len(), 999);
    assert_eq!(route["paths"][998], "/p999");
    let tags: Vec<String> = (0..50_000).map(|n| format!("t{}", n % 40_000)).collect();
    let service = json!({"name": "s", "host": "h", "tags": tags});
    let service = gateway.admin_json("POST", "/services", &service);
    let service = service.expect(201).json();
    assert_eq!(service["tags"].as_array().unwrap().len(), 40_000);
    // A brace or a bracket in a text is not structure.
    let text = format!("{{\"name\":\"{}\\\"[{{\"}}", "[".repeat(200));
    let reply = post(&gateway, "/services", JSON, text).expect(400);
    assert!(
        said(&reply).contains("schema violation"),
        "{}",
        reply.text()
    );
}

#[test]
fn a_described_request_has_no_more_headers_than_a_bound() {
    let gateway = Gateway::start();
    let backend = Backend::start("a");
    gateway.balanced(&[(backend.address, 100)]);
    let headers: serde_json::Map<String, Value> = (0..40_000)
        .map(|n| (format!("x-{n}"), json!("v")))
        .collect();
    let described = json!({"headers": headers});
    let reply = gateway.admin_json("POST", "/upstreams/u/explain", &described);
    let reply = reply.expect(400);
    assert!(said(&reply).contains("1000"), "{}", said(&reply));
}

#[test]
fn a_row_does_not_grow_past_the_bounds_by_changes_of_it() {
    let gateway = Gateway::start();
    gateway.upload("heavy", guest("heavy")).expect(201);
    let upstream = [("name", "u"), ("algorithm", "heavy")];
    gateway.admin("POST", "/upstreams", &upstream).expect(201);
    let part = |from: usize| {
        let settings = (from..from + 60_000).map(|n| (format!("k{n}"), json!(n)));
        let settings: serde_json::Map<String, Value> = settings.collect();
        let change = json!({"pointsman": {"balancer_config": settings}});
        gateway.admin_json("PATCH", "/upstreams/u", &change)
    };
    part(0).expect(200);
    let reply = part(60_000).expect(400);
    assert!(said(&reply).contains("100000 values"), "{}", said(&reply));
    let row = gateway.admin("GET", "/upstreams/u", &[]).expect(200).json();
    let settings = &row["pointsman"]["balancer_config"];
    assert_eq!(settings.as_object().unwrap().len(), 60_000);
}

#[test]
fn web_pages_of_other_origins_cannot_administer() {
    let gateway = Setup::new()
        .arg(
            "--admin-gui-url",
            "https://manager.example/gui, http://other.example:8002",
        )
        .start();
    let port = gateway.admin.port();
    let own = format!("http://127.0.0.1:{port}");
    let allowed = [
        own.as_str(),
        "http://localhost:3000",
        "https://localhost",
        "http://kong.localhost:8002",
        "http://127.0.0.1",
        "http://127.8.9.10:1",
        "http://[::1]:8002",
        "https://manager.example",
        "http://other.example:8002",
    ];
    let foreign = [
        "null",
        "http://evil.example",
        "http://manager.example",
        "https://manager.example:8443",
        "http://other.example",
        "https://manager.example.evil.example",
        "http://localhost.evil.example",
        "http://notlocalhost",
        "http://192.0.2.1:8001",
        "http://127.0.0.1.evil.example",
        "http://127.1",
        "file://",
        "chrome-extension://abc",
        "http://localhost/path",
        "http://user@localhost",
        "http://evil.example http://localhost",
        "",
    ];
    let ask = |method: &str, origin: &str, fetch: &str| {
        let host = format!("127.0.0.1:{port}");
        let mut headers = vec![("host", &*host), ("origin", origin)];
        if !fetch.is_empty() {
            headers.push(("sec-fetch-site", fetch));
        }
        exchange(gateway.admin, &request(method, "/services/x", &headers, ""))
    };
    let cors = [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-allow-methods",
        "access-control-allow-headers",
    ];
    for origin in allowed {
        for (method, expected) in [("GET", "404"), ("DELETE", "204"), ("OPTIONS", "204")] {
            let answer = ask(method, origin, "cross-site");
            assert_eq!(status(&answer), expected, "{method} {origin}: {answer}");
            assert_eq!(header(&answer, cors[0]), Some(origin), "{answer}");
            assert_eq!(header(&answer, cors[1]), Some("true"), "{answer}");
            assert_eq!(header(&answer, "vary"), Some("Origin"), "{answer}");
        }
    }
    for origin in foreign {
        for (method, expected) in [
            ("GET", "404"),
            ("HEAD", "404"),
            ("OPTIONS", "204"),
            ("DELETE", "403"),
            ("POST", "403"),
            ("PUT", "403"),
            ("PATCH", "403"),
            ("TRACE", "403"),
        ] {
            let answer = ask(method, origin, "");
            assert_eq!(status(&answer), expected, "{method} {origin:?}: {answer}");
            for name in cors {
                assert_eq!(header(&answer, name), None, "{method} {origin:?}: {answer}");
            }
            if expected == "403" {
                let said = message(&answer);
                assert!(said.contains("admin_gui_url"), "{answer}");
            }
        }
    }
    // A browser that hides the origin still says that it is another site's.
    let host = format!("127.0.0.1:{port}");
    for (site, expected) in [
        ("cross-site", "403"),
        ("same-origin", "204"),
        ("none", "204"),
    ] {
        let headers = [("host", &*host), ("sec-fetch-site", site)];
        let answer = exchange(
            gateway.admin,
            &request("DELETE", "/services/x", &headers, ""),
        );
        assert_eq!(status(&answer), expected, "{site}: {answer}");
    }
    // Clients of Kong send neither.
    let plain = gateway.admin("DELETE", "/services/x", &[]).expect(204);
    assert_eq!(plain.header("access-control-allow-origin"), "*");
    // Two of them are none that a browser sends.
    let twice = [
        ("host", &*host),
        ("origin", &*own),
        ("origin", "http://evil.example"),
    ];
    let answer = exchange(gateway.admin, &request("DELETE", "/services/x", &twice, ""));
    assert_eq!(status(&answer), "403", "{answer}");
}

#[test]
fn a_write_that_is_refused_changes_nothing() {
    let gateway = Gateway::start();
    let host = gateway.admin.to_string();
    let body = "name=x&host=h";
    for origin in ["http://evil.example", "null"] {
        let headers = [("host", &*host), ("origin", origin), ("content-type", FORM)];
        let answer = exchange(gateway.admin, &request("POST", "/services", &headers, body));
        assert_eq!(status(&answer), "403", "{answer}");
    }
    gateway.admin("GET", "/services/x", &[]).expect(404);
}

#[test]
fn the_admin_api_answers_for_addresses_and_listed_names_only() {
    let gateway = Setup::new()
        .arg("--admin-hosts", "Admin.Example, kong-admin")
        .start();
    let port = gateway.admin.port();
    let at = |host: &str| host.replace("PORT", &port.to_string());
    for host in [
        "127.0.0.1:PORT",
        "127.0.0.1",
        "192.0.2.7:8001",
        "[::1]:PORT",
        "[::1]",
        "[2001:db8::1]",
        "localhost",
        "localhost:PORT",
        "LOCALHOST:1",
        "localhost.",
        "kong.localhost:PORT",
        "admin.example",
        "ADMIN.EXAMPLE.:PORT",
        "kong-admin:8001",
    ] {
        let headers = [("host", &*at(host))];
        let answer = exchange(gateway.admin, &request("GET", "/status", &headers, ""));
        assert_eq!(status(&answer), "200", "{host}: {answer}");
    }
    for host in [
        "evil.example",
        "evil.example:PORT",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "sub.admin.example",
        "2130706433",
        "0x7f.1",
    ] {
        for method in ["GET", "POST", "OPTIONS", "HEAD"] {
            let host = at(host);
            // As a page has it whose name has been bound to another address meanwhile.
            let origin = format!("http://{host}");
            let headers = [("host", &*host), ("origin", &*origin)];
            let answer = exchange(gateway.admin, &request(method, "/status", &headers, ""));
            assert_eq!(status(&answer), "421", "{host}: {answer}");
            assert_eq!(header(&answer, "access-control-allow-origin"), None);
            if method == "GET" {
                assert!(message(&answer).contains("admin_hosts"), "{answer}");
            }
        }
    }
    for hosts in [
        vec![],
        vec![("host", "")],
        vec![("host", "localhost"), ("host", "localhost")],
        vec![("host", "a b")],
        vec![("host", "user@localhost")],
        vec![("host", "localhost:99999")],
        vec![("host", "[::1")],
        vec![("host", "::1")],
    ] {
        let answer = exchange(gateway.admin, &request("GET", "/status", &hosts, ""));
        assert_eq!(status(&answer), "400", "{hosts:?}: {answer}");
        assert!(!message(&answer).is_empty(), "{answer}");
    }
    // What a target names wins over the header (RFC 9112, 3.2.2), with a slash at its end too.
    for target in ["http://evil.example/status", "http://evil.example/status/"] {
        let headers = [("host", "localhost")];
        let answer = exchange(gateway.admin, &request("GET", target, &headers, ""));
        assert_eq!(status(&answer), "421", "{target}: {answer}");
    }
    // HTTP/1.0 has no host to name, and browsers do not speak it.
    let answer = exchange(gateway.admin, "GET /status HTTP/1.0\r\n\r\n");
    assert_eq!(status(&answer), "200", "{answer}");
}

#[test]
fn settings_of_the_admin_api_are_checked() {
    for (flag, value, expected) in [
        (
            "--admin-gui-url",
            "manager.example",
            "admin_gui_url = \"manager.example\"",
        ),
        ("--admin-gui-url", "ftp://manager.example", "admin_gui_url"),
        ("--admin-gui-url", "http://", "admin_gui_url"),
        ("--admin-hosts", "http://a", "admin_hosts = \"http://a\""),
        ("--admin-hosts", "a:8001", "admin_hosts"),
        ("--admin-hosts", "a b", "admin_hosts"),
    ] {
        let (status, said) = Setup::new().arg(flag, value).fail();
        assert!(!status.success());
        assert!(said.contains(expected), "{value}: {said}");
    }
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
fn a_query_has_no_more_arguments_than_a_body() {
    let gateway = Gateway::start();
    let query = |count: usize| "a=1&".repeat(count);
    for path in [
        "/services",
        "/status",
        "/",
        "/metrics",
        "/upstreams/u/health",
    ] {
        let full = format!("{path}?{}", query(1000));
        assert_ne!(gateway.admin("GET", &full, &[]).status, 400, "{path}");
        let reply = gateway.admin("GET", &format!("{path}?{}", query(1001)), &[]);
        let reply = reply.expect(400);
        assert_eq!(reply.json(), json!({"message": "Too many arguments"}));
        assert_eq!(reply.header("access-control-allow-origin"), "*");
    }
    let path = format!("/services?{}", query(1001));
    let reply = gateway.admin("POST", &path, &[("host", "h")]).expect(400);
    assert_eq!(said(&reply), "Too many arguments");
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
fn the_next_page_is_escaped_no_more_than_it_has_to_be() {
    let gateway = Gateway::start();
    for name in ["a", "b"] {
        let service = json!({"name": name, "host": "h", "tags": ["a_b", "c-d.e~f", "é ü&x"]});
        gateway
            .admin_json("POST", "/services", &service)
            .expect(201);
    }
    for (filter, shown) in [
        ("a_b", "a_b"),
        ("c-d.e~f", "c-d.e~f"),
        ("a_b%2Cc-d.e~f", "a_b%2Cc-d.e~f"),
        ("%C3%A9+%C3%BC%26x", "%C3%A9%20%C3%BC%26x"),
    ] {
        let path = format!("/services?size=1&tags={filter}");
        let page = gateway.admin("GET", &path, &[]).expect(200).json();
        let next = page["next"].as_str().unwrap();
        assert!(next.ends_with(&format!("&tags={shown}&size=1")), "{next}");
        let page = gateway.admin("GET", next, &[]).expect(200).json();
        assert_eq!(page["data"].as_array().unwrap().len(), 1, "{next}");
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

#[test]
fn what_a_client_of_kong_reads_at_the_root_is_there() {
    let gateway = Setup::new()
        .arg("--admin-gui-url", "http://manager.example:8002/gui")
        .start();
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    assert_eq!(root["plugins"]["disabled_on_server"], json!({}));
    assert_eq!(root["plugins"]["enabled_in_cluster"], json!([]));
    let configuration = &root["configuration"];
    for (name, address) in [
        ("proxy_listeners", gateway.proxy),
        ("admin_listeners", gateway.admin),
    ] {
        let listeners = configuration[name].as_array().unwrap();
        assert_eq!(listeners.len(), 1);
        let listener = &listeners[0];
        assert_eq!(listener["ip"], address.ip().to_string());
        assert_eq!(listener["port"], address.port());
        assert_eq!(listener["listener"], address.to_string());
        for flag in [
            "ssl",
            "http2",
            "proxy_protocol",
            "deferred",
            "bind",
            "backlog=%d+",
            "ipv6only=on",
            "ipv6only=off",
            "so_keepalive=on",
            "so_keepalive=off",
            "so_keepalive=%w*:%w*:%d*",
        ] {
            assert_eq!(listener[flag], false, "{name} {flag}");
        }
        assert_eq!(listener["reuseport"], name == "proxy_listeners");
    }
    assert_eq!(configuration["stream_listeners"], json!({}));
    assert_eq!(configuration["role"], "traditional");
    assert_eq!(
        configuration["admin_listen"],
        json!([gateway.admin.to_string()])
    );
    let urls = json!(["http://manager.example:8002/gui"]);
    assert_eq!(configuration["admin_gui_url"], urls);
    let origins = json!(["http://manager.example:8002"]);
    assert_eq!(configuration["admin_gui_origin"], origins);
}

/// Section 2.1 of Kong's facts: what each rule says, word for word.
#[test]
fn violations_are_said_in_kongs_words() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let of_protocols = "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp";
    let condition = "failed conditional validation given value of field";
    let hash_on = json!([format!("{condition} 'hash_on'")]);
    let protocol = json!([format!("{condition} 'protocol'")]);
    let cases: Vec<(&str, Value, Value)> = vec![
        (
            "services",
            json!({}),
            json!({"host": "required field missing"}),
        ),
        (
            "services",
            json!({"host": null}),
            json!({"host": "required field missing"}),
        ),
        (
            "services",
            json!({"host": 5}),
            json!({"host": "expected a string"}),
        ),
        (
            "services",
            json!({"host": "h", "port": "80"}),
            json!({"port": "expected an integer"}),
        ),
        (
            "services",
            json!({"host": "h", "port": 80.5}),
            json!({"port": "expected an integer"}),
        ),
        (
            "services",
            json!({"host": "h", "enabled": "true"}),
            json!({"enabled": "expected a boolean"}),
        ),
        (
            "routes",
            json!({"paths": "/"}),
            json!({"paths": "expected an array"}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "methods": "GET"}),
            json!({"methods": "expected a set"}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "headers": "x"}),
            json!({"headers": "expected a map"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "healthchecks": 1}),
            json!({"healthchecks": "expected a record"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "healthchecks": {"threshold": "x"}}),
            json!({"healthchecks": {"threshold": "expected a number"}}),
        ),
        (
            "services",
            json!({"host": "h", "port": 65536}),
            json!({"port": "value should be between 0 and 65535"}),
        ),
        (
            "services",
            json!({"host": "h", "protocol": "ftp"}),
            json!({"protocol": of_protocols}),
        ),
        (
            "services",
            json!({"host": "h", "protocol": "tcp", "path": "/"}),
            json!({"@entity": protocol, "path": "value must be null"}),
        ),
        (
            "services",
            json!({"host": ""}),
            json!({"host": "length must be at least 1"}),
        ),
        (
            "services",
            json!({"host": "h", "name": ""}),
            json!({"name": "length must be at least 1"}),
        ),
        (
            "services",
            json!({"host": "h", "tags": [""]}),
            json!({"tags": ["length must be at least 1"]}),
        ),
        (
            "routes",
            json!({"protocols": []}),
            json!({"protocols": "length must be at least 1"}),
        ),
        (
            "services",
            json!({"host": "h", "path": "x"}),
            json!({"path": "should start with: /"}),
        ),
        (
            "routes",
            json!({"methods": ["get"]}),
            json!({"methods": ["invalid value: get"]}),
        ),
        (
            "services",
            json!({"host": "h", "foo": 1}),
            json!({"foo": "unknown field"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "healthchecks": {"active": {"foo": 1}}}),
            json!({"healthchecks": {"active": {"foo": "unknown field"}}}),
        ),
        (
            "services",
            json!({"host": "h", "id": "x"}),
            json!({"id": "expected a valid UUID"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": -1}),
            json!({"created_at": "expected a valid timestamp"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": 0}),
            json!({"created_at": "expected a valid timestamp"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": "x"}),
            json!({"created_at": "expected an integer"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": 1.5}),
            json!({"created_at": "expected an integer"}),
        ),
        (
            "upstreams/u/targets",
            json!({"target": "a", "created_at": "x"}),
            json!({"created_at": "expected a number"}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {}}),
            json!({"service": {"id": "missing primary key"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"protocol": "http"}}),
            json!({"service": {"id": "missing primary key"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"name": null}}),
            json!({"service": {"id": "missing primary key"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"protocol": "foo"}}),
            json!({"service": {"protocol": of_protocols}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"id": "x"}}),
            json!({"service": {"id": "expected a valid UUID"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"foo": 1}}),
            json!({"service": {"foo": "unknown field"}}),
        ),
        (
            "routes",
            json!({"protocols": ["http", "tcp"], "paths": ["/"]}),
            json!({"protocols": "these sets are mutually exclusive: ('http', 'https'), ('tcp', 'tls', 'udp')"}),
        ),
        (
            "routes",
            json!({"protocols": ["tls_passthrough", "grpc"], "snis": ["a"]}),
            json!({"protocols": "these sets are mutually exclusive: ('tls_passthrough'), ('grpc', 'grpcs')"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on_header": "x", "hash_fallback_header": "x"}),
            json!({"@entity": ["values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'"]}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "header"}),
            json!({"@entity": hash_on, "hash_on_header": "required field missing"}),
        ),
        // A conditional rule speaks even where another field is wrong.
        (
            "services",
            json!({"host": "", "protocol": "tcp", "path": "x"}),
            json!({"@entity": protocol, "host": "length must be at least 1", "path": "value must be null"}),
        ),
        (
            "services",
            json!({"host": "h", "protocol": "foo", "path": "/"}),
            json!({"protocol": of_protocols}),
        ),
        // Section 8.
        (
            "upstreams",
            json!({"name": "v", "hash_on": "consumer", "hash_fallback": "bogus"}),
            json!({"@entity": hash_on, "hash_fallback":
                "expected one of: none, ip, header, cookie, path, query_arg, uri_capture"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "ip", "hash_fallback": "ip"}),
            json!({"@entity": hash_on, "hash_fallback":
                "expected one of: none, consumer, header, cookie, path, query_arg, uri_capture"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "path", "hash_fallback": "path"}),
            json!({"@entity": hash_on, "hash_fallback":
                "expected one of: none, consumer, header, cookie, query_arg, ip, uri_capture"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "cookie", "hash_on_cookie": "c", "hash_fallback": "ip"}),
            json!({"@entity": hash_on, "hash_fallback": "expected one of: none"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "bogus"}),
            json!({"hash_on": "expected one of: none, consumer, ip, header, cookie, path, query_arg, uri_capture"}),
        ),
        (
            "upstreams/u/targets",
            json!({"target": "a b", "weight": -1}),
            json!({"target": "Invalid target; not a valid hostname or ip address"}),
        ),
    ];
    for (path, row, expected) in cases {
        let reply = gateway.admin_json("POST", &format!("/{path}"), &row);
        let wrong = reply.expect(400).json();
        assert_eq!(wrong["code"], 2, "{row}: {wrong}");
        assert_eq!(wrong["name"], "schema violation", "{row}: {wrong}");
        assert_eq!(wrong["fields"], expected, "{row}");
    }
    let spec =
        json!({"methods": ["GET"], "protocols": ["foo", "http"], "service": {"protocol": "foo"}});
    let reply = gateway.admin_json("POST", "/routes", &spec).expect(400);
    let expected = format!(
        "2 schema violations (protocols.1: {of_protocols}; service.protocol: {of_protocols})"
    );
    assert_eq!(said(&reply), expected);
    let target = json!({"target": "b:1"});
    gateway
        .admin_json("POST", "/upstreams/u/targets", &target)
        .expect(201);
    let change = json!({"target": "a b"});
    let reply = gateway.admin_json("PATCH", "/upstreams/u/targets/b:1", &change);
    let expected = "Invalid target ('a b'); not a valid hostname or ip address";
    assert_eq!(reply.expect(400).json()["fields"]["target"], expected);
    let unresolved = json!({"paths": ["/"], "service": {"name": "zz"}});
    let wrong = gateway
        .admin_json("POST", "/routes", &unresolved)
        .expect(400)
        .json();
    let inner =
        "the foreign key cannot be resolved with '{name=\"zz\"}' for an existing 'services' entity";
    assert_eq!(wrong["fields"], json!({"service": {"name": inner}}));
}

#[test]
fn a_name_that_no_entity_can_have_is_code_10() {
    let gateway = Gateway::start();
    let of_names = "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~";
    for (path, expected) in [
        ("/services/a%20b", of_names),
        ("/routes/a%20b", of_names),
        ("/services/a%20b/routes", of_names),
        (
            "/upstreams/1.2.3.4",
            "Invalid name ('1.2.3.4'); no ip addresses allowed",
        ),
        (
            "/upstreams/a%20b/targets",
            "Invalid name ('a b'); must be a valid hostname",
        ),
    ] {
        let item = path.matches('/').count() == 2;
        let methods: &[&str] = if item {
            &["GET", "PUT", "PATCH", "DELETE"]
        } else {
            &["GET", "POST"]
        };
        for method in methods {
            let fields: &[(&str, &str)] = match *method {
                "GET" | "DELETE" => &[],
                _ => &[("host", "h")],
            };
            let wrong = gateway.admin(method, path, fields).expect(400).json();
            let expected = json!({"code": 10, "name": "invalid unique name", "message": expected});
            assert_eq!(wrong, expected, "{method} {path}");
        }
    }
}

#[test]
fn status_says_which_units_there_are() {
    let gateway = Gateway::start();
    let wrong = gateway.admin("GET", "/status?unit=V", &[]).expect(400);
    let expected = json!({"message": "invalid unit 'V' (expected 'k/K', 'm/M', or 'g/G')"});
    assert_eq!(wrong.json(), expected);
    let wrong = gateway.admin("GET", "/status?scale=-1", &[]).expect(400);
    let expected = json!({"message": "scale must be equal or greater than 0"});
    assert_eq!(wrong.json(), expected);
    for query in [
        "unit=k",
        "unit=K&scale=0",
        "unit=g&scale=3",
        "unit=b",
        "unit=",
        "scale=x",
    ] {
        let path = format!("/status?{query}");
        gateway.admin("GET", &path, &[]).expect(200);
    }
}
