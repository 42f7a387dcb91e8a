//! Trailers pass through the gateway, both ways, but for those that no message may be read by.

use hyper::HeaderMap;
use hyper::body::Frame;

use crate::harness::http2::{Http2, data, streamed};
use crate::harness::{Gateway, Raw, RawServer, exchange};

/// What no message may be read by if it comes after the body.
const FORBIDDEN: &str = "content-length: 3\r\ntransfer-encoding: chunked\r\nhost: evil\r\n\
                         authorization: evil\r\nx-forwarded-for: evil\r\ncontent-type: evil\r\n";

/// A server that answers with what it was sent. Its first `silent` connections end without an
/// answer.
fn echo(silent: u64) -> RawServer {
    RawServer::start(move |number, mut raw| {
        let mut text = raw.read_until("\r\n\r\n");
        text += &raw.read_until("0\r\n");
        while !text.ends_with("\r\n\r\n") {
            text += &raw.read_until("\r\n");
        }
        if number >= silent {
            let length = text.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            raw.send((head + &text).as_bytes());
        }
    })
}

fn before(server: &RawServer) -> Gateway {
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    gateway
}

#[test]
fn trailers_of_a_request_reach_its_endpoint() {
    // The second server is tried anew once.
    for silent in [0, 1] {
        let server = echo(silent);
        let gateway = before(&server);
        let head = "PUT / HTTP/1.1\r\nhost: h\r\nconnection: close, x-hop\r\ntrailer: digest\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        let body = format!("3\r\nabc\r\n0\r\n{FORBIDDEN}x-hop: 1\r\ndigest: d\r\n\r\n");
        let mut raw = Raw::connect(gateway.proxy);
        let answer = raw
            .send_in_two((head.to_owned() + &body).as_bytes(), head.len() + 4)
            .read_to_end();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\r\ntrailer: digest\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n0\r\ndigest: d\r\n\r\n"), "{answer}");
        // A body that comes in two parts may be sent on in two chunks.
        let echoed = answer.rsplit("\r\n\r\n").nth(1).unwrap();
        let letters: String = echoed.lines().filter(|line| "abc".contains(line)).collect();
        assert_eq!(letters, "abc", "{answer}");
        assert!(!answer.contains("evil"), "{answer}");
    }
}

#[test]
fn trailers_of_a_response_reach_a_client_that_takes_them() {
    let server = RawServer::responding_with(format!(
        "HTTP/1.1 200 OK\r\ntrailer: digest, host, x-forwarded-for, x-hop\r\nconnection: x-hop\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{FORBIDDEN}x-hop: 1\r\ndigest: d\r\n\r\n"
    ));
    let gateway = before(&server);
    let head = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n";
    let takes = exchange(gateway.proxy, &format!("{head}te: trailers\r\n\r\n"));
    assert!(
        takes.ends_with("3\r\nabc\r\n0\r\ndigest: d\r\n\r\n"),
        "{takes}"
    );
    assert!(!takes.contains("evil"), "{takes}");
    let does_not = exchange(gateway.proxy, &format!("{head}\r\n"));
    assert!(does_not.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{does_not}");
    assert!(!does_not.contains("trailer"), "{does_not}");
}

#[test]
fn trailers_may_be_as_large_as_a_head_and_no_larger() {
    let server = echo(0);
    let gateway = before(&server);
    let head = "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n0\r\n";
    let fits = format!("{head}x-a: {}\r\n\r\n", "a".repeat(4000));
    let answer = exchange(gateway.proxy, &fits);
    assert!(answer.contains(&"a".repeat(4000)), "{answer}");
    let too_large = format!("{head}x-a: {}\r\n\r\n", "a".repeat(100_000));
    let answer = exchange(gateway.proxy, &too_large);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn trailers_over_http2_may_be_as_large_as_a_head_and_no_larger() {
    let server = echo(0);
    let gateway = before(&server);
    let client = Http2::connect(gateway.proxy);
    let send = |trailers: HeaderMap| {
        let (pieces, body) = streamed();
        pieces.send(data("abc")).unwrap();
        pieces.send(Frame::trailers(trailers)).unwrap();
        drop(pieces);
        client.send(client.request("POST", "/").body(body).unwrap())
    };
    let of = |count: usize, length: usize| {
        let mut trailers = HeaderMap::new();
        for _ in 0..count {
            trailers.append("x-a", "a".repeat(length).parse().unwrap());
        }
        trailers
    };
    // The limits are 100 fields and 32 KiB.
    for (count, length) in [(100, 1), (1, 32_700)] {
        let answer = send(of(count, length)).expect(200);
        assert_eq!(answer.text().matches("x-a: ").count(), count);
    }
    for (count, length) in [(101, 1), (1, 32_800)] {
        send(of(count, length)).expect(400);
    }
}
