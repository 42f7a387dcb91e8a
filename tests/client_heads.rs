//! Unusual heads of requests: hosts, malformed heads, and many headers.

use crate::harness::{
    Gateway, Raw, RawServer, Setup, assert_kong_error, exchange, read_answer, with_backend,
};

#[test]
fn an_empty_host_is_refused() {
    let (gateway, backend) = with_backend(Setup::new());
    for line in [
        "host:\r\n",
        "host: \r\n",
        "host: :80\r\n",
        "",
        "host: a\r\nhost: b\r\n",
    ] {
        let answer = exchange(
            gateway.proxy,
            &format!("GET / HTTP/1.1\r\n{line}connection: close\r\n\r\n"),
        );
        assert_kong_error(&answer, "400", "Bad request");
    }
    let answer = exchange(gateway.proxy, "GET / HTTP/1.0\r\nhost:\r\n\r\n");
    assert!(answer.contains(" 400 "), "{answer}");
    assert_eq!(backend.served(), 0);
    let answer = exchange(gateway.proxy, "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 200 "), "{answer}");
}

#[test]
fn a_missing_host_is_refused_before_the_body_is_read() {
    let (gateway, _backend) = with_backend(Setup::new());
    for lines in ["", "host:\r\n", "host: a\r\nhost: b\r\n", "host: a b\r\n"] {
        let mut raw = Raw::connect(gateway.proxy);
        // A server that is going to read the body sends 100 (Continue) first.
        let head =
            format!("POST / HTTP/1.1\r\n{lines}expect: 100-continue\r\ncontent-length: 4\r\n\r\n");
        let answer = raw.send(head.as_bytes()).read_to_end();
        assert_kong_error(&answer, "400", "Bad request");
        assert!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
}

#[test]
fn a_malformed_head_is_answered_as_by_kong() {
    let (gateway, backend) = with_backend(Setup::new());
    let long = "x".repeat(40_000);
    for (head, status, words) in [
        ("nonsense\r\n\r\n".to_owned(), "400", "Bad request"),
        (
            "GET / HTTP/1.1\r\nhost h\r\n\r\n".to_owned(),
            "400",
            "Bad request",
        ),
        (
            "G@T / HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(),
            "400",
            "Bad request",
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"),
            "431",
            "Request header or cookie too large",
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", "x: \r\n".repeat(100)),
            "431",
            "Too many request headers (setting max_headers)",
        ),
        (
            format!("GET /{long} HTTP/1.1\r\nhost: h\r\n\r\n"),
            "414",
            "URI too long",
        ),
        // Longer than what hyper reads of a head, with no end.
        (format!("GET /?{long}{long}"), "414", "URI too long"),
    ] {
        let answer = exchange(gateway.proxy, &head);
        assert_kong_error(&answer, status, words);
    }
    // The same after a valid request on the connection.
    let mut raw = Raw::connect(gateway.proxy);
    read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
    let answer = raw.send(b"nonsense\r\n\r\n").read_to_end();
    assert_kong_error(&answer, "400", "Bad request");
    assert_eq!(backend.served(), 1);
}

#[test]
fn as_many_headers_are_forwarded_as_the_setting_allows() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--max-headers", 400));
    let headers: String = (0..300)
        .map(|number| format!("x-h{number}: {number}\r\n"))
        .collect();
    let answer = exchange(
        gateway.proxy,
        &format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n"),
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"x-h299\":\"299\""), "{answer}");
}

#[test]
fn a_path_that_servers_read_differently_is_refused_and_ends_the_connection() {
    let (gateway, backend) = with_backend(Setup::new());
    for path in [
        "/%zz",
        "/a%",
        "/a%4",
        "/%00",
        "/../a",
        "/a/../..",
        "/a/..%2F..",
        "/%2e%2e/",
    ] {
        let mut raw = Raw::connect(gateway.proxy);
        let head = format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n");
        let answer = raw.send(head.as_bytes()).read_to_end();
        assert_kong_error(&answer, "400", "Bad request");
        assert!(answer.contains("connection: close"), "{path}: {answer}");
    }
    assert_eq!(backend.served(), 0);
    for path in ["/?%zz", "/?a=../..", "/a/../b", "/a%2Fb/.."] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let answer = exchange(gateway.proxy, &head);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

#[test]
fn a_missing_host_ends_the_connection() {
    let (gateway, backend) = with_backend(Setup::new());
    let mut raw = Raw::connect(gateway.proxy);
    let two = "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n";
    let answer = raw.send(two.as_bytes()).read_to_end();
    assert_kong_error(&answer, "400", "Bad request");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert_eq!(backend.served(), 0);
}

#[test]
fn trace_is_not_allowed_and_keeps_the_connection() {
    let (gateway, backend) = with_backend(Setup::new());
    let mut raw = Raw::connect(gateway.proxy);
    let head = "TRACE / HTTP/1.1\r\nhost: h\r\ncookie: secret\r\n\r\n";
    // Without `Accept`, the error is in plain text, whose last line has the id of the request.
    let answer = raw.send(head.as_bytes()).read_until("request_id: ") + &raw.read_until("\n");
    assert_kong_error(&answer, "405", "Method not allowed");
    assert!(!answer.contains("secret"), "{answer}");
    let answer = read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(backend.served(), 1);
}

#[test]
fn a_target_with_bytes_that_uris_do_not_have_is_sent_on_encoded() {
    let server = RawServer::start(|_, mut raw| {
        let head = raw.read_until("\r\n\r\n");
        let line = head.lines().next().unwrap_or_default();
        let length = line.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{line}");
        raw.send(answer.as_bytes());
    });
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    for (target, expected) in [
        (&b"/a\"b<c>`d"[..], "/a%22b%3Cc%3E%60d"),
        (b"/?q=\"<>\xe9", "/?q=%22%3C%3E%E9"),
        (b"/caf\xe9?q=caf\xe9", "/caf%E9?q=caf%E9"),
    ] {
        let rest = b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let request = [b"GET ", target, rest].concat();
        let expected = format!("\r\n\r\nGET {expected} HTTP/1.1");
        // The target may arrive in two parts, and behind another request.
        for first in [request.len(), 7] {
            let mut raw = Raw::connect(gateway.proxy);
            let answer = raw.send_in_two(&request, first).read_to_end();
            assert!(answer.ends_with(&expected), "{answer}");
        }
        let before = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut raw = Raw::connect(gateway.proxy);
        let answer = raw.send(&[&before[..], &request].concat()).read_to_end();
        assert!(answer.ends_with(&expected), "{answer}");
    }
}
