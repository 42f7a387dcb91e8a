//! Bodies of requests: unusual chunks, buffering, and slow clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Raw, Setup, metric, read_answer, sha256, until, with_backend};

#[test]
fn a_chunked_body_that_ends_with_a_bare_line_feed_is_accepted() {
    let (gateway, backend) = with_backend(Setup::new());
    let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    for (chunks, body) in [
        ("0\r\n\n", ""),
        ("3\r\nabc\r\n0\r\n\n", "abc"),
        ("3\r\nab\n\r\n0\r\n\n", "ab\n"),
        ("1\r\n\n\r\n0\r\n\n", "\n"),
        ("8\r\n\r\n0\r\n\n-\n\r\n0\r\n\n", "\r\n0\r\n\n-\n"),
        ("3\r\nabc\r\n3\r\nd\n\n\r\n0\r\nx: y\r\n\n", "abcd\n\n"),
    ] {
        for pieces in [
            vec![format!("{head}{chunks}")],
            vec![head.to_owned(), chunks.to_owned()],
        ] {
            let mut raw = Raw::connect(gateway.proxy);
            for piece in &pieces {
                let served = metric(&gateway, "kong_nginx_requests_total");
                raw.send(piece.as_bytes());
                if pieces.len() > 1 && piece == head {
                    until("the head is read", || {
                        metric(&gateway, "kong_nginx_requests_total") > served
                    });
                }
            }
            let answer = raw.read_to_end();
            assert!(answer.starts_with("HTTP/1.1 200"), "{chunks:?}: {answer}");
            assert!(
                answer.contains(&sha256(body.as_bytes())),
                "{chunks:?}: {answer}"
            );
        }
    }
    // hyper waits for the end of trailers then. It must not read the next request as trailers, nor
    // the body of that one as a request.
    let mut raw = Raw::connect(gateway.proxy);
    let served = backend.served();
    raw.send(head.replace("POST /", "POST /held").as_bytes());
    raw.send(b"3\r\nabc\r\n0\r\n\n");
    until("the endpoint has the request", || backend.served() > served);
    raw.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 35\r\n\r\n");
    raw.send(b"GET /admin HTTP/1.1\r\nhost: h\r\n\r\n\r\n");
    backend.release();
    let answers = raw.read_to_end();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert_eq!(backend.served(), served + 1);
    // A head that ends with a bare line feed is accepted, and its body is read.
    let mut raw = Raw::connect(gateway.proxy);
    let requests = metric(&gateway, "kong_nginx_requests_total");
    raw.send(b"POST / HTTP/1.1\nhost: h\ntransfer-encoding: chunked\n\n");
    until("the head is read", || {
        metric(&gateway, "kong_nginx_requests_total") > requests
    });
    let answer = read_answer(raw.send(b"3\r\nabc\r\n0\r\n\r\n"));
    assert!(answer.contains(&sha256(b"abc")), "{answer}");
    // A line feed in the data does not end the body, however late the rest arrives.
    let mut raw = Raw::connect(gateway.proxy);
    let served = backend.served();
    raw.send(format!("{head}5\r\nab\n").as_bytes());
    gateway.get("/").expect(200);
    raw.send(b"\n");
    gateway.get("/").expect(200);
    assert_eq!(backend.served(), served + 2);
    raw.send(b"c\r\n0\r\n\r\n");
    let answer = read_answer(&mut raw);
    assert!(answer.contains(&sha256(b"ab\n\nc")), "{answer}");
}

/// The gateway neither waits for more bytes after the end of a body nor takes bytes of the next
/// request for it, wherever the reads are cut.
#[test]
fn the_end_of_a_chunked_body_is_never_waited_for() {
    let (gateway, backend) = with_backend(Setup::new());
    let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let next = "GET /next HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    for (end, status, goes_on) in [
        ("0\r\n\r\n", 200, true),
        ("0\r\na: b\r\n\r\n", 200, true),
        ("0\r\n\n", 200, false),
        ("0\r\na: b\n\n", 200, false),
        ("0\r\na: b\n\r\n", 200, false),
        ("0\r\na: b\nc: d\r\n\r\n", 200, false),
        ("0\n\r\n", 400, false),
        ("0\n\n", 400, false),
        ("0\r\n\rx", 400, false),
    ] {
        let first = format!("{head}3\r\nabc\r\n{end}");
        let whole = format!("{first}{next}");
        // From within the empty line of the head to the start of the next request.
        let cuts = (head.len() - 3..=head.len()).chain(first.len() - end.len()..=first.len() + 4);
        for cut in cuts {
            let served = backend.served();
            let mut raw = Raw::connect(gateway.proxy);
            let answers = raw.send_in_two(whole.as_bytes(), cut).read_to_end();
            let starts = format!("HTTP/1.1 {status} ");
            assert!(answers.starts_with(&starts), "{end:?} {cut}: {answers}");
            let count = answers.matches("HTTP/1.1 ").count();
            assert_eq!(count, 1 + usize::from(goes_on), "{end:?} {cut}: {answers}");
            if status == 200 {
                assert!(
                    answers.contains(&sha256(b"abc")),
                    "{end:?} {cut}: {answers}"
                );
                assert_eq!(backend.served(), served + 1 + u64::from(goes_on));
            }
            // The same with nothing behind it: the answer needs no end of the connection.
            let mut raw = Raw::connect(gateway.proxy);
            let cut = cut.min(first.len());
            let answer = raw.send_in_two(first.as_bytes(), cut).read_until("\r\n");
            assert!(answer.starts_with(&starts), "{end:?} {cut}: {answer}");
        }
    }
}

#[test]
fn a_slow_upload_occupies_no_endpoint() {
    let (gateway, backend) = with_backend(Setup::new());
    let requests = metric(&gateway, "kong_nginx_requests_total");
    let mut slow: Vec<_> = [
        "content-length: 60000\r\n",
        "transfer-encoding: chunked\r\n",
    ]
    .into_iter()
    .cycle()
    .take(10)
    .map(|length| {
        let mut raw = Raw::connect(gateway.proxy);
        raw.send(
            format!("POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{length}\r\n").as_bytes(),
        );
        raw.send(if length.starts_with('c') {
            b"abc"
        } else {
            b"3\r\nabc\r\n"
        });
        raw
    })
    .collect();
    until("all heads are read", || {
        metric(&gateway, "kong_nginx_requests_total") >= requests + 10.0
    });
    gateway.get("/").expect(200);
    assert_eq!(backend.connections(), 1);
    let rest = vec![b'x'; 59_997];
    let whole = [b"abc".as_slice(), &rest].concat();
    for (number, raw) in slow.iter_mut().enumerate() {
        if number % 2 == 0 {
            raw.send(&rest);
        } else {
            raw.send(b"ea5d\r\n").send(&rest).send(b"\r\n0\r\n\r\n");
        }
        let answer = raw.read_to_end();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&sha256(&whole)), "{answer}");
        // A buffered body is forwarded with its length.
        assert!(answer.contains("\"content-length\":\"60000\""), "{answer}");
    }
}

#[test]
fn long_bodies_and_unbuffered_ones_are_streamed() {
    let (gateway, backend) = with_backend(Setup::new().arg("--client-body-buffer-size", 1000));
    let starts = |path: &str, length: usize, sent: usize| {
        let served = backend.served();
        let mut raw = Raw::connect(gateway.proxy);
        let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
        raw.send(head.as_bytes()).send(&vec![b'x'; sent]);
        until("the endpoint has the request", || backend.served() > served);
        let answer = read_answer(raw.send(&vec![b'x'; length - sent]));
        assert!(answer.contains(&sha256(&vec![b'x'; length])), "{answer}");
    };
    starts("/", 1001, 10);
    let mut raw = Raw::connect(gateway.proxy);
    let served = backend.served();
    raw.send(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
    raw.send(format!("3e9\r\n{}\r\n", "x".repeat(1001)).as_bytes());
    until("the endpoint has the request", || backend.served() > served);
    let answer = read_answer(raw.send(b"2\r\nxx\r\n0\r\n\r\n"));
    assert!(answer.contains(&sha256(&vec![b'x'; 1003])), "{answer}");
    let route = json!({"name": "raw", "paths": ["/raw"], "request_buffering": false});
    gateway
        .admin_json("POST", "/services/u-service/routes", &route)
        .expect(201);
    starts("/raw", 100, 0);
}

#[test]
fn a_body_below_the_minimum_rate_is_408() {
    let setup = Setup::new()
        .arg("--client-body-timeout", 1)
        .arg("--client-body-min-rate", 1000);
    let (gateway, backend) = with_backend(setup);
    for length in [
        "content-length: 50000\r\n",
        "content-length: 500000\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let mut stream = TcpStream::connect(gateway.proxy).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\n{length}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Single bytes keep to the timeout between reads, and not to the minimum rate.
        let mut answer = [0; 12];
        let mut read = 0;
        until("the request is answered", || {
            let byte: &[u8] = if length.starts_with('t') {
                b"1\r\nx\r\n"
            } else {
                b"x"
            };
            let _ = stream.write_all(byte);
            read = stream.read(&mut answer).unwrap_or(0);
            read > 0
        });
        assert_eq!(&answer[..read], b"HTTP/1.1 408");
    }
    assert!(
        backend.served() <= 1,
        "only the body that is too long to be buffered may reach the backend"
    );
}
