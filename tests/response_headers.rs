//! Which headers the gateway adds to responses.

use crate::harness::{Setup, exchange, received, with_backend};

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
