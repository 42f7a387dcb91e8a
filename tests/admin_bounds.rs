//! How much a request to the Admin API may hold, and what a refusal names.

use serde_json::{Value, json};

use crate::admin_input::{FORM, JSON, MULTIPART, multipart, post, said};
use crate::harness::{Backend, Gateway, Setup, guest};

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
fn structure_within_the_bounds_is_accepted() {
    let gateway = Gateway::start();
    let nested = |depth: usize| {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        format!("{{\"name\":\"x\",\"host\":\"h\",\"unknown\":{deep}}}")
    };
    // It is parsed, and refused for its content.
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
fn changes_cannot_grow_a_row_past_the_bounds() {
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
fn the_number_of_headers_follows_the_setting() {
    let gateway = Setup::new().arg("--max-headers", 300).start();
    let with_headers = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("x-{number}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1")).collect();
        gateway.send(gateway.admin, "GET", "/status", &headers, None)
    };
    with_headers(250).expect(200);
    let refused = with_headers(301).expect(431).json();
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("more fields than max_headers"),
        "{refused}"
    );
}
