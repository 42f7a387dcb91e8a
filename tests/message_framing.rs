//! Framing and heads of responses, and of requests to endpoints: no byte becomes part of another
//! message.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::json;

use crate::harness::{Backend, Gateway, Raw, RawServer, Setup, guest, patch_upstream};

/// A gateway with one target.
pub(crate) fn gateway_to(target: SocketAddr) -> Gateway {
    let gateway = Gateway::start();
    gateway.balanced(&[(target, 100)]);
    gateway
}

/// The response to a request, until the connection ends.
pub(crate) fn get(gateway: &Gateway, method: &str) -> String {
    let request = format!("{method} / HTTP/1.1\r\nhost: h\r\n\r\n");
    Raw::connect(gateway.proxy)
        .send(request.as_bytes())
        .read_to_end()
}

/// Whether the gateway has read all that a client sent: the receive queue of its socket is empty.
/// Only the table of IPv6 is read, which stays short: that of IPv4 has each connection that another
/// test closed within the last minute, and reading it could take longer than a pick.
fn is_read(gateway: &Gateway, client: &Raw) -> bool {
    let (local, remote) = (gateway.proxy.port(), client.port());
    let table = std::fs::read_to_string("/proc/net/tcp6").unwrap();
    let wanted = [local, remote].map(|port| format!(":{port:04X}"));
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 4
            && fields[1].ends_with(&wanted[0])
            && fields[2].ends_with(&wanted[1])
            && fields[4].ends_with(":00000000")
    })
}

/// While the balancer computes, the only worker polls no socket. The runtime has not seen bytes
/// that arrive on an idle connection meanwhile, when that connection is taken from the pool.
#[test]
fn bytes_that_arrive_before_a_request_are_not_its_response() {
    const UNASKED: [&str; 3] = [
        "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-mark: unasked\r\ncontent-length: 0\r\n\r\n",
        "",
    ];
    let gateway = Setup::new()
        .arg("--proxy-listen", "[::1]:0")
        .arg("--workers", 1)
        .start();
    let (say, said) = mpsc::channel::<&str>();
    let (ended, was_late) = mpsc::channel();
    let ends = Mutex::new((said, ended));
    // After each response the server waits until the test says what it sends unasked. It tells
    // whether the next request arrived first, for then the gateway could not know.
    let server = RawServer::start(move |_, mut raw| {
        let ends = ends.lock().unwrap();
        let (said, ended) = &*ends;
        while raw.read_until("\r\n\r\n").ends_with("\r\n\r\n") {
            raw.send(b"HTTP/1.1 200 OK\r\nx-mark: asked\r\ncontent-length: 2\r\n\r\nhi");
            match said.recv() {
                Ok(_) if raw.has_bytes() => ended.send(true).unwrap(),
                Ok(unasked) => {
                    raw.send(unasked.as_bytes()).half_close();
                    ended.send(raw.has_bytes()).unwrap();
                    return;
                }
                Err(_) => return,
            }
        }
    });
    gateway.balanced(&[(server.address, 100)]);
    gateway.upload("heavy", guest("heavy")).expect(201);
    let slow = json!({
        "algorithm": "heavy", "pointsman": {"balancer_config": {"steps": 100_000_000, "bytes": 0}},
    });
    patch_upstream(&gateway, &slow);
    let mut client = Raw::connect(gateway.proxy);
    let mut ask = |unasked: Option<&'static str>, method: &str| {
        let length = if method == "POST" {
            "content-length: 0\r\n"
        } else {
            ""
        };
        let request = format!("{method} / HTTP/1.1\r\nhost: h\r\n{length}\r\n");
        client.send(request.as_bytes());
        let mut late = false;
        if let Some(unasked) = unasked {
            // The gateway is stopped while the balancer computes, so that what comes meanwhile
            // comes in time, however busy the machine is.
            while !is_read(&gateway, &client) {
                std::thread::yield_now();
            }
            gateway.signal("-STOP");
            say.send(unasked).unwrap();
            late = was_late.recv().unwrap();
            gateway.signal("-CONT");
        }
        let head = client.read_until("\r\n\r\n");
        if late {
            assert!(!head.contains("\r\nx-mark: unasked\r\n"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.split("\r\n").next().unwrap().parse().unwrap();
            client.read_exactly(length);
            return;
        }
        assert!(
            head.contains("\r\nx-mark: asked\r\n"),
            "{method} {unasked:?}: {head}"
        );
        assert_eq!(client.read_until("hi"), "hi");
    };
    ask(None, "GET");
    // A round may show little if the test was so slow that the request arrived first; and it may
    // take long, so rounds are counted, and not their time.
    let mut rounds = 0;
    while server.accepted() < 10 {
        rounds += 1;
        assert!(rounds <= 50, "the next request nearly always came first");
        for method in ["GET", "POST"] {
            for unasked in UNASKED {
                ask(Some(unasked), method);
            }
        }
    }
    drop(say);
}

pub(crate) fn get_and_close(gateway: &Gateway) -> String {
    Raw::connect(gateway.proxy)
        .send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .read_to_end()
}

#[test]
fn a_request_with_an_unknown_transfer_coding_is_refused() {
    let (gateway, backend) = {
        let backend = Backend::start("b");
        (gateway_to(backend.address), backend)
    };
    let refused = [
        ("transfer-encoding: gzip, chunked", "501"),
        (
            "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
            "501",
        ),
        ("transfer-encoding: identity, chunked", "501"),
        ("transfer-encoding: chunked;a=b, chunked", "501"),
        ("transfer-encoding: chunked, chunked", "400"),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "400",
        ),
        (
            "transfer-encoding: chunked\r\nTransfer-Encoding: CHUNKED",
            "400",
        ),
        ("transfer-encoding: chunked, gzip", "400"),
        ("transfer-encoding: gzip", "400"),
    ];
    for (to, path) in [(gateway.proxy, "/"), (gateway.admin, "/services")] {
        for (fields, status) in refused {
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n\r\n\
                 3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
            );
            let mut raw = Raw::connect(to);
            let answer = raw.send(request.as_bytes()).read_to_end();
            let wanted = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&wanted), "{to} {fields}: {answer}");
            // The bytes after the refused request are not read as a request.
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                1,
                "{to} {fields}: {answer}"
            );
        }
    }
    assert_eq!(backend.served(), 0);
    let answer = Raw::connect(gateway.proxy)
        .send(b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n")
        .send(b"3\r\nabc\r\n0\r\n\r\n")
        .read_to_end();
    assert!(answer.contains("\"length\":3"), "{answer}");
}

#[test]
fn a_response_with_an_unknown_transfer_coding_is_502() {
    for fields in [
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip",
        "transfer-encoding : gzip, chunked",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        let server = RawServer::responding_with(format!("{head}3\r\nabc\r\n0\r\n\r\n"));
        let gateway = gateway_to(server.address);
        gateway.get("/").expect(502);
    }
}

/// hyper ends trailers at CR LF only, and so could read the next request as a part of them. Either
/// the second request is answered, or the connection ends.
#[test]
fn a_bare_line_feed_in_trailers_does_not_hide_the_next_request() {
    let backend = Backend::start("b");
    let gateway = gateway_to(backend.address);
    let second = "GET /second HTTP/1.1\r\nhost: h\r\n\r\n";
    for trailers in [
        "a: b\n\n",
        "a: b\n\r\n",
        "a: b\r\n\n",
        "\n",
        "a: b\nc: d\r\n\r\n",
        "a: b\r\n\r\n",
    ] {
        let first = format!(
            "POST /first HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{trailers}"
        );
        for split in [1, trailers.len() / 2, trailers.len()] {
            let whole = first.clone() + second;
            let mut raw = Raw::connect(gateway.proxy);
            raw.send_in_two(whole.as_bytes(), first.len() - split);
            let answers = raw.read_until("/second");
            let answered = answers.contains("/second");
            assert!(answered || raw.is_closed(), "{trailers:?}: {answers}");
        }
    }
    // The same from an endpoint: the bytes after it are not the response to another request.
    let server = RawServer::start(|_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\n\n");
        raw.send(b"HTTP/1.1 200 OK\r\nx-mark: second\r\ncontent-length: 0\r\n\r\n");
        raw.read_to_end();
    });
    let gateway = gateway_to(server.address);
    for _ in 0..5 {
        let got = get(&gateway, "GET");
        assert!(
            !got.contains("second") && !got.ends_with("0\r\n\r\n"),
            "{got}"
        );
    }
}

/// The head that a client receives of a response.
fn answer_to(head: &str, answer: &str) -> String {
    let server = RawServer::responding_with(answer);
    let gateway = gateway_to(server.address);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(head.as_bytes()).read_until("\r\n\r\n")
}

const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

#[test]
fn whitespace_before_a_colon_in_a_response_is_removed() {
    let answer = "HTTP/1.1 200 OK\r\nX-Mark : here\r\nContent-Length\t : 2\r\n\r\nhi";
    let got = answer_to(GET, answer);
    assert!(got.starts_with("HTTP/1.1 200 "), "{got}");
    assert!(got.contains("\r\nx-mark: here\r\n"), "{got}");
    assert!(got.contains("\r\ncontent-length: 2\r\n"), "{got}");
}

#[test]
fn a_response_without_a_body_keeps_its_content_length() {
    let head = "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n";
    for length in [0, 7, 123_456] {
        let field = format!("\r\ncontent-length: {length}\r\n");
        for (request, status) in [
            (GET, "304 Not Modified"),
            (head, "304 Not Modified"),
            (head, "200 OK"),
            (head, "404 Not Found"),
            ("GET / HTTP/1.0\r\nhost: h\r\n\r\n", "304 Not Modified"),
        ] {
            let got = answer_to(request, &format!("HTTP/1.1 {status}{field}\r\n"));
            assert!(got.contains(&field), "{request} {status}: {got}");
            assert_eq!(got.matches("content-length").count(), 1, "{got}");
        }
    }
    for status in ["304 Not Modified", "204 No Content"] {
        let got = answer_to(GET, &format!("HTTP/1.1 {status}\r\n\r\n"));
        assert!(!got.contains("content-length"), "{got}");
    }
    // The connections are used again: the gateway waits for no body.
    let server = RawServer::start(|_, mut raw| {
        while raw.read_until("\r\n\r\n").ends_with("\r\n\r\n") {
            raw.send(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n");
        }
    });
    let gateway = Setup::new().arg("--workers", 1).start();
    gateway.balanced(&[(server.address, 100)]);
    let mut raw = Raw::connect(gateway.proxy);
    for _ in 0..10 {
        let got = raw.send(GET.as_bytes()).read_until("\r\n\r\n");
        assert!(got.starts_with("HTTP/1.1 304 "), "{got}");
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_reason_phrase_is_forwarded_or_left_out() {
    let line = |sent: &str| {
        let got = answer_to(GET, &format!("{sent}\r\ncontent-length: 0\r\n\r\n"));
        got.lines().next().unwrap().to_owned()
    };
    assert_eq!(line("HTTP/1.1 200 Fine by me"), "HTTP/1.1 200 Fine by me");
    assert_eq!(line("HTTP/1.1 599 Odd"), "HTTP/1.1 599 Odd");
    for sent in ["HTTP/1.1 599 ", "HTTP/1.1 599", "HTTP/1.1 799 caf\u{e9}"] {
        assert!(!line(sent).contains('<'), "{sent}: {}", line(sent));
    }
}

#[test]
fn an_http_1_0_connection_is_kept_only_for_a_known_length() {
    let old = "GET / HTTP/1.0\r\nhost: h\r\nconnection: keep-alive\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    for unknown in [chunked, "HTTP/1.1 200 OK\r\n\r\nhi"] {
        let server = RawServer::responding_with(unknown);
        let gateway = gateway_to(server.address);
        let got = Raw::connect(gateway.proxy)
            .send(old.as_bytes())
            .read_to_end();
        assert!(!got.to_lowercase().contains("keep-alive"), "{got}");
        assert!(!got.contains("chunked"), "{got}");
        assert!(got.ends_with("\r\n\r\nhi"), "{got}");
    }
    let known = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let got = answer_to(old, known);
    assert!(
        got.to_lowercase().contains("connection: keep-alive"),
        "{got}"
    );
}

#[test]
fn the_headers_of_a_response_are_limited_by_their_bytes() {
    let answer = |count: usize| {
        let fields: String = (0..count).map(|n| format!("x-{n}: {n}\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nhi")
    };
    for count in [100, 127, 128, 129, 500, 2000] {
        let server = RawServer::responding_with(answer(count));
        let gateway = gateway_to(server.address);
        let got = get_and_close(&gateway);
        assert!(got.starts_with("HTTP/1.1 200 "), "{count}: {got}");
        assert!(got.matches("\r\nx-").count() >= count, "{count}: {got}");
        assert!(
            got.contains(&format!("\r\nx-{0}: {0}\r\n", count - 1)),
            "{count}"
        );
    }
    let server = RawServer::responding_with(answer(4000));
    let gateway = gateway_to(server.address);
    gateway.get("/").expect(502);
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("larger than 32768 bytes"), "{log}");
}
