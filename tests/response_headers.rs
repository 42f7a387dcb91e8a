//! Which headers the gateway adds to responses, and those that tell what has happened to a request.

use serde_json::json;

use crate::harness::http2::Http2;
use crate::harness::{
    Backend, Setup, add_global_plugin, exchange, received, refusing_address, with_backend,
};

const TOKEN: &str = "a-token-of-this-test";

#[test]
fn the_headers_of_a_response_are_kongs_by_default() {
    let (gateway, _backend) = with_backend(Setup::new());
    let answer = gateway.get("/").expect(200);
    for name in [
        "via",
        "x-kong-upstream-latency",
        "x-kong-proxy-latency",
        "x-kong-request-id",
    ] {
        assert!(!answer.header(name).is_empty(), "{name}");
    }
    assert_eq!(answer.header("x-kong-upstream-status"), "");
    assert_eq!(answer.header("pointsman-debug-times"), "");
}

#[test]
fn only_the_headers_of_the_setting_are_sent() {
    let setup = Setup::new().arg("--headers", "X-Kong-Upstream-Status, via");
    let (gateway, backend) = with_backend(setup);
    backend.respond_with(503, 0);
    let answer = gateway.get("/").expect(503);
    assert_eq!(answer.header("x-kong-upstream-status"), "503");
    assert!(answer.header("via").starts_with("1.1 pointsman/"));
    let absent = [
        "x-kong-upstream-latency",
        "x-kong-proxy-latency",
        "x-kong-request-id",
    ];
    for name in absent {
        assert_eq!(answer.header(name), "", "{name}");
    }
    // The endpoint gets the id nevertheless.
    backend.respond_normally();
    assert!(received(gateway.get("/"))["x-kong-request-id"].is_string());
    backend.kill();
    let answer = gateway.get("/").expect(502);
    assert_eq!(answer.header("x-kong-upstream-status"), "502");
    assert_eq!(answer.header("server"), "");
}

#[test]
fn endpoints_are_sent_the_id_unless_that_is_switched_off() {
    let sent = [("x-kong-request-id", "from-the-client")];
    let (gateway, _backend) = with_backend(Setup::new());
    let told = received(gateway.get_with("/", &sent));
    assert_eq!(told["x-kong-request-id"].as_str().unwrap().len(), 32);
    let (gateway, _backend) = with_backend(Setup::new().arg("--headers-upstream", "off"));
    assert!(
        received(gateway.get("/"))
            .get("x-kong-request-id")
            .is_none()
    );
    let passed = gateway.get_with("/", &sent);
    assert_eq!(passed.header("x-kong-request-id").len(), 32);
    assert_eq!(received(passed)["x-kong-request-id"], "from-the-client");
    let (_, said) = Setup::new().arg("--headers-upstream", "via").fail();
    assert!(said.contains("X-Kong-Request-Id, or off"), "{said}");
}

#[test]
fn off_is_off_for_every_kind_of_response() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--headers", "off"));
    let none = |head: &str| {
        let head = head.to_ascii_lowercase();
        for name in ["\r\nvia:", "\r\nserver: pointsman", "\r\nx-kong-"] {
            assert!(!head.contains(name), "{head}");
        }
    };
    for request in [
        "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        none(
            exchange(gateway.proxy, request)
                .split("\r\n\r\n")
                .next()
                .unwrap(),
        );
    }
    let (status, log) = Setup::new().arg("--headers", "via,X-Other").fail();
    assert!(!status.success());
    assert!(
        log.contains("headers = \"X-Other\": expected server_tokens"),
        "{log}"
    );
}

#[test]
fn a_client_is_told_the_route_and_the_service_where_that_is_allowed() {
    for is_allowed in [false, true] {
        let setup = Setup::new().arg(
            "--allow-debug-header",
            if is_allowed { "on" } else { "off" },
        );
        let gateway = setup.start();
        let backend = Backend::start("b");
        gateway.balanced(&[(backend.address, 100)]);
        let shown = gateway.admin("GET", "/", &[]).expect(200).json();
        assert_eq!(shown["configuration"]["allow_debug_header"], is_allowed);
        let service = gateway
            .admin("GET", "/services/u-service", &[])
            .expect(200)
            .json();
        for (asked, is_told) in [(&[("kong-debug", "1")][..], is_allowed), (&[], false)] {
            let answer = gateway.get_with("/", asked).expect(200);
            for name in ["kong-route-id", "kong-service-id", "kong-service-name"] {
                assert_eq!(!answer.header(name).is_empty(), is_told, "{name}");
            }
            if is_told {
                assert_eq!(answer.header("kong-service-id"), service["id"]);
                assert_eq!(answer.header("kong-service-name"), "u-service");
            }
        }
        // Also of a request that the route refuses.
        let route =
            json!({"paths": ["/secure"], "protocols": ["https"], "service": {"name": "u-service"}});
        gateway.admin_json("POST", "/routes", &route).expect(201);
        let refused = gateway
            .get_with("/secure", &[("kong-debug", "1")])
            .expect(426);
        assert_eq!(!refused.header("kong-route-id").is_empty(), is_allowed);
    }
}

#[test]
fn a_request_with_the_token_tells_what_has_happened() {
    let gateway = Setup::new().arg("--debug-token", TOKEN).start();
    let backend = Backend::start("b");
    let refusing = refusing_address();
    gateway.balanced(&[(refusing, 100), (backend.address, 100)]);
    let mut retried = None;
    // Round-robin begins with each of them once.
    for _ in 0..2 {
        let answer = gateway
            .get_with("/", &[("pointsman-debug", TOKEN)])
            .expect(200);
        assert!(answer.json()["headers"]["pointsman-debug"].is_null());
        let tries: Vec<String> = answer
            .headers
            .get_all("pointsman-debug-try")
            .iter()
            .map(|one| one.to_str().unwrap().to_owned())
            .collect();
        assert!(
            answer
                .header("pointsman-debug-service")
                .contains("u-service")
        );
        assert_eq!(answer.header("pointsman-debug-upstream"), "u");
        assert!(!answer.header("pointsman-debug-route").is_empty());
        let times = answer.header("pointsman-debug-times");
        for stage in ["match", "pick", "first_byte", "total"] {
            assert!(times.contains(&format!("{stage};dur=")), "{times}");
        }
        if tries.len() == 2 {
            retried = Some(tries);
        }
    }
    let tries = retried.unwrap();
    assert!(tries[0].starts_with(&format!("{refusing}; by=plugin; balancer=\"round-robin\"")));
    assert!(tries[0].ends_with("failure=connect_failed"), "{tries:?}");
    assert!(tries[1].ends_with("status=200"), "{tries:?}");
    // Over HTTP/2, and of a request that the gateway answers.
    let client = Http2::connect(gateway.proxy);
    let request = client.request("GET", "/").header("pointsman-debug", TOKEN);
    let answer = client.send(request.body(crate::harness::http2::empty()).unwrap());
    assert_eq!(answer.header("pointsman-debug-upstream"), "u");
    add_global_plugin(&gateway, "request-termination", json!({"status_code": 418}));
    let answer = gateway
        .get_with("/", &[("pointsman-debug", TOKEN)])
        .expect(418);
    assert_eq!(
        answer.header("pointsman-debug-policy"),
        "request-termination"
    );
    assert_eq!(answer.header("pointsman-debug-reason"), "policy");
}

#[test]
fn without_the_token_no_debug_header_is_sent() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--debug-token", TOKEN));
    let (other, _other_backend) = with_backend(Setup::new());
    for (gateway, token) in [
        (&gateway, "another-token-here-x"),
        (&gateway, ""),
        (&other, TOKEN),
    ] {
        let answer = gateway
            .get_with("/", &[("pointsman-debug", token)])
            .expect(200);
        let told = answer
            .headers
            .keys()
            .any(|name| name.as_str().starts_with("pointsman-debug"));
        assert!(!told, "{:?}", answer.headers);
        assert!(answer.json()["headers"]["pointsman-debug"].is_null());
    }
    let (status, log) = Setup::new().arg("--debug-token", "short").fail();
    assert!(!status.success());
    assert!(log.contains("at least 16 printable characters"), "{log}");
}

#[test]
fn a_stored_response_does_not_tell_of_another_request() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--debug-token", TOKEN));
    let config = json!({"strategy": "memory", "content_type": ["*/*", "application/json"]});
    add_global_plugin(&gateway, "proxy-cache", config);
    let answer = gateway
        .get_with("/", &[("pointsman-debug", TOKEN)])
        .expect(200);
    assert_eq!(answer.header("pointsman-debug-upstream"), "u");
    let answer = gateway.get("/").expect(200);
    assert_eq!(answer.header("pointsman-debug-upstream"), "");
}
