//! Clients that half-close, close or reset their connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::harness::{Raw, Setup, active_connections, in_flight, until, with_backend};

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    let (gateway, backend) = with_backend(Setup::new());
    for path in ["/", "/delay/300"] {
        for request in [
            format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"),
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"),
            format!(
                "POST {path} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        ] {
            let before = backend.served();
            let mut raw = Raw::connect(gateway.proxy);
            let answer = raw.send(request.as_bytes()).half_close().read_to_end();
            let head = answer.get(..12).unwrap_or_default();
            assert!(head.ends_with(" 200"), "{request}: {answer}");
            assert!(answer.ends_with('}'), "{request}: {answer}");
            assert_eq!(backend.served(), before + 1);
        }
    }
    // The same for several requests in one segment, and for a long response.
    for _ in 0..20 {
        let mut raw = Raw::connect(gateway.proxy);
        let two = "GET / HTTP/1.1\r\nhost: h\r\n\r\n".repeat(2);
        let answers = raw.send(two.as_bytes()).half_close().read_to_end();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    }
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"GET /bytes/3000000 HTTP/1.0\r\n\r\n")
        .half_close();
    let answer = raw.read_to_end();
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 3_000_000);
}

#[test]
fn a_client_that_half_closes_before_its_body_is_answered_at_once() {
    let (gateway, backend) = with_backend(Setup::new());
    for length in ["content-length: 5", "transfer-encoding: chunked"] {
        let request = format!("POST / HTTP/1.1\r\nhost: h\r\n{length}\r\n\r\n");
        let mut raw = Raw::connect(gateway.proxy);
        let answer = raw.send(request.as_bytes()).half_close().read_to_end();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{length}: {answer}");
    }
    assert_eq!(backend.served(), 0);
}

/// The rest of a refused request is read for a second before the connection is closed, and never as
/// the next request.
#[test]
fn a_refused_request_is_the_last_one_of_its_connection() {
    let gateway = Setup::new().start();
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\nab");
    let answer = raw.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    // The client keeps its side open.
    until("the connection is closed", || {
        active_connections(&gateway) == 0.0
    });
}

#[test]
fn a_closed_or_reset_client_frees_its_endpoint() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--client-half-close-timeout", 1));
    let hang = || {
        let mut stream = TcpStream::connect(gateway.proxy).unwrap();
        stream
            .write_all(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n")
            .unwrap();
        until("the endpoint has the request", || {
            in_flight(&gateway) == 1.0
        });
        stream
    };
    let closed = hang();
    drop(closed);
    until("the closed client's request has ended", || {
        in_flight(&gateway) == 0.0
    });
    let reset = hang();
    SockRef::from(&reset)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(reset);
    until("the reset client's request has ended", || {
        in_flight(&gateway) == 0.0
    });
}

/// An endpoint that sends a head and a part of a body after 300 ms, and then nothing.
fn slow_body() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            std::thread::sleep(Duration::from_millis(300));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
            held.push(stream);
        }
    });
    address
}

#[test]
fn a_client_that_closes_before_its_answer_frees_its_endpoint() {
    let gateway = Setup::new()
        .arg("--client-half-close-timeout", 3600)
        .start();
    gateway.balanced(&[(slow_body(), 100)]);
    let mut stream = TcpStream::connect(gateway.proxy).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .unwrap();
    until("the endpoint has the request", || {
        in_flight(&gateway) == 1.0
    });
    // The client's system answers the response, which comes after this, with a reset.
    drop(stream);
    until("the client's request has ended", || {
        in_flight(&gateway) == 0.0
    });
}
