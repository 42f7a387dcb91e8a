//! Balancers that read the start of a body: what they see, what they wait for, and that no byte is
//! lost.

use std::collections::BTreeSet;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Raw, Setup, guest, sha256, until};

/// The most bytes of a body that a balancer can read.
const START: usize = 16 << 10;

/// Makes `u` use a balancer that picks the position named by the last byte that it reads of a body.
fn use_reads_body(gateway: &Gateway) {
    gateway
        .upload("reads-body", guest("reads-body"))
        .expect(201);
    use_balancer(gateway, "reads-body");
}

fn use_balancer(gateway: &Gateway, algorithm: &str) {
    gateway
        .admin_json("PATCH", "/upstreams/u", &json!({"algorithm": algorithm}))
        .expect(200);
}

fn with_backends() -> (Gateway, [Backend; 3]) {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    use_reads_body(&gateway);
    (gateway, backends)
}

/// Sends a body with a `content-length`, and returns the backend that received it whole.
fn post(gateway: &Gateway, body: &[u8]) -> String {
    let sent = Some(("text/plain", body.to_vec()));
    let answer = gateway.send(gateway.proxy, "POST", "/", &[], sent);
    let answer = answer.expect(200).json();
    receiver(&answer, body)
}

/// The backend that received a body, which has to be whole.
fn receiver(answer: &Value, body: &[u8]) -> String {
    assert_eq!(answer["length"], body.len(), "{answer}");
    assert_eq!(answer["sha256"], sha256(body), "{answer}");
    answer["backend"].as_str().unwrap().to_owned()
}

fn head(method: &str, fields: &str) -> Vec<u8> {
    format!("{method} / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{fields}\r\n").into_bytes()
}

/// A request with these pieces as chunks.
fn chunked(method: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut request = head(method, "transfer-encoding: chunked\r\n");
    for piece in pieces {
        request.extend(format!("{:x}\r\n", piece.len()).bytes());
        request.extend_from_slice(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

/// The same for a response that was read as text.
fn receiver_of(answer: &str, body: &[u8]) -> String {
    let (head, content) = answer.split_once("\r\n\r\n").unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    receiver(&serde_json::from_str(content).unwrap(), body)
}

fn post_chunks(gateway: &Gateway, pieces: &[&[u8]]) -> String {
    let request = chunked("POST", pieces);
    let answer = Raw::connect(gateway.proxy).send(&request).read_to_end();
    receiver_of(&answer, &pieces.concat())
}

/// The last log line of the balancer: the number of the try, how much it reads of a body, and how
/// much of two bytes.
fn last_seen(gateway: &Gateway) -> String {
    let logs = gateway.admin("GET", "/balancers/reads-body/logs", &[]);
    let logs = logs.expect(200).json();
    let lines = logs["data"].as_array().unwrap();
    lines.last().unwrap()["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A body longer than a balancer can read, where the last byte that it reads is `last`.
fn long(last: u8) -> Vec<u8> {
    let mut body: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    body[START - 1] = last;
    body
}

#[test]
fn a_balancer_picks_by_the_start_of_a_body() {
    let (gateway, _backends) = with_backends();
    let places = [b"0", b"1", b"2"].map(|body| post(&gateway, body));
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(last_seen(&gateway), "0 1 1");
    assert_eq!(post(&gateway, b"xyz2"), places[2]);
    assert_eq!(last_seen(&gateway), "0 4 2");
    assert_eq!(post_chunks(&gateway, &[b"x", b"yz1"]), places[1]);
    assert_eq!(last_seen(&gateway), "0 4 2");
    for last in [b'1', b'2'] {
        let place = &places[usize::from(last - b'0')];
        let body = long(last);
        assert_eq!(post(&gateway, &body), *place);
        assert_eq!(last_seen(&gateway), "0 16384 2");
        let pieces: Vec<&[u8]> = body.chunks(5000).collect();
        assert_eq!(post_chunks(&gateway, &pieces), *place);
        assert_eq!(last_seen(&gateway), "0 16384 2");
    }
    // A body exactly as long as a balancer can read.
    assert_eq!(post(&gateway, &long(b'1')[..START]), places[1]);
    // A request without a body differs from one with an empty chunked body.
    assert_eq!(gateway.backend_of("/"), places[0]);
    assert_eq!(last_seen(&gateway), "0 none none");
    assert_eq!(post(&gateway, b""), places[0]);
    assert_eq!(last_seen(&gateway), "0 none none");
    assert_eq!(post_chunks(&gateway, &[]), places[0]);
    assert_eq!(last_seen(&gateway), "0 0 0");
}

/// Also for a client that sends nothing before a 100 (Continue).
#[test]
fn a_pick_waits_for_the_start_of_a_slow_body() {
    let (gateway, _backends) = with_backends();
    let places = [b"0", b"1", b"2"].map(|body| post(&gateway, body));
    let fields = "expect: 100-continue\r\ncontent-length: 4\r\n";
    let mut slow = Raw::connect(gateway.proxy);
    slow.send(&head("POST", fields));
    let interim = slow.read_until("\r\n\r\n");
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    slow.send(b"x0");
    // Meanwhile endpoints are picked for other requests: the lock of the balancer is free.
    assert_eq!(post(&gateway, b"1"), places[1]);
    let answer = slow.send(b"x2").read_to_end();
    assert_eq!(receiver_of(&answer, b"x0x2"), places[2]);
    assert_eq!(last_seen(&gateway), "0 4 2");
    // The pick does not wait for bytes past those that a balancer can read.
    let body = long(b'1');
    let fields = format!("content-length: {}\r\n", body.len());
    let mut slow = Raw::connect(gateway.proxy);
    slow.send(&head("POST", &fields));
    slow.send(&body[..START]);
    let seen = || {
        let shown = gateway.admin("GET", "/balancers/reads-body", &[]);
        shown.expect(200).json()["usage"]["u"]["picks"]
            .as_u64()
            .unwrap()
    };
    until("the balancer has picked", || seen() >= 6);
    let answer = slow.send(&body[START..]).read_to_end();
    assert_eq!(receiver_of(&answer, &body), places[1]);
}

#[test]
fn a_late_body_is_408_and_an_invalid_one_400() {
    let gateway = Setup::new().arg("--client-body-timeout", 1).start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    // With request buffering the whole body is read before an endpoint is chosen.
    let routes = gateway.admin("GET", "/routes", &[]).expect(200).json();
    let route = routes["data"][0]["id"].as_str().unwrap();
    let streamed = json!({"request_buffering": false});
    gateway
        .admin_json("PATCH", &format!("/routes/{route}"), &streamed)
        .expect(200);
    let late = || {
        let mut raw = Raw::connect(gateway.proxy);
        // The backend answers this path without reading the body.
        let head = "POST /bytes/5 HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc";
        raw.send(head.as_bytes()).read_until("\r\n\r\n")
    };
    let answered = late();
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    use_reads_body(&gateway);
    let answered = late();
    assert!(answered.starts_with("HTTP/1.1 408"), "{answered}");
    let broken = [
        head("POST", "transfer-encoding: chunked\r\n"),
        b"no chunk".into(),
    ]
    .concat();
    let answered = Raw::connect(gateway.proxy).send(&broken).read_to_end();
    assert!(answered.starts_with("HTTP/1.1 400"), "{answered}");
    // Neither request reached the backend, and neither counts as its failure.
    assert_eq!(backend.served(), 1);
    assert_eq!(post(&gateway, b"x"), "b");
    // After a switch to a balancer that reads no body, picks wait for none.
    use_balancer(&gateway, "round-robin");
    let answered = late();
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
}

#[test]
fn a_connection_stays_open_after_a_body_without_an_endpoint() {
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    use_reads_body(&gateway);
    let mut raw = Raw::connect(gateway.proxy);
    for _ in 0..2 {
        raw.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 20000\r\n\r\n");
        raw.send(&[b'x'; 20_000]);
        let answer = raw.read_until("}");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
}

#[test]
fn a_retry_sends_what_was_read_ahead_and_the_rest() {
    let gateway = Gateway::start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 1)));
    use_reads_body(&gateway);
    let retry = json!({"pointsman": {"retry": {"statuses": [503]}}});
    gateway
        .admin_json("PATCH", "/services/u-service", &retry)
        .expect(200);
    let put = |body: &[u8]| {
        let sent = Some(("text/plain", body.to_vec()));
        gateway.send(gateway.proxy, "PUT", "/", &[], sent)
    };
    let first = put(b"0").expect(200).json();
    let (failing, other) = match first["backend"].as_str() {
        Some("a") => (&backends[0], "b"),
        _ => (&backends[1], "a"),
    };
    failing.respond_with(503, 0);
    // A buffered body is sent to the other backend unchanged.
    for length in [1, START, 40_000] {
        let mut body = long(b'0');
        body.truncate(length);
        *body.last_mut().unwrap() = b'0';
        assert_eq!(
            receiver(&put(&body).expect(200).json(), &body),
            other,
            "{length}"
        );
        assert!(last_seen(&gateway).starts_with("1 "), "{length}");
    }
    // A body that was not buffered is not sent again. A body without a length is buffered first.
    put(&long(b'0')).expect(503);
    let request = chunked("PUT", &[b"0"]);
    let answer = Raw::connect(gateway.proxy).send(&request).read_to_end();
    assert_eq!(receiver_of(&answer, b"0"), other);
}

#[test]
fn a_body_read_ahead_is_sent_whole_after_a_refused_connection() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    gateway.balanced(&[(backend.address, 1), (refusing.unwrap(), 1)]);
    use_reads_body(&gateway);
    let body = long(b'0');
    let mut tries = BTreeSet::new();
    for last in [b'0', b'1'] {
        let mut body = body.clone();
        body[START - 1] = last;
        let pieces: Vec<&[u8]> = body.chunks(3000).collect();
        assert_eq!(post_chunks(&gateway, &pieces), "b");
        tries.insert(last_seen(&gateway));
    }
    // One of the two was first tried at the refusing address; the balancer read it again.
    let seen = ["0 16384 2", "1 16384 2"].map(str::to_owned);
    assert_eq!(tries, BTreeSet::from(seen));
}

#[test]
fn explain_takes_a_body() {
    let (gateway, backends) = with_backends();
    for last in ["0", "1", "2"] {
        let body = format!("a body {last}");
        let place = post(&gateway, body.as_bytes());
        let asked = json!({"method": "POST", "body": body});
        let said = gateway.admin_json("POST", "/upstreams/u/explain", &asked);
        let said = said.expect(200).json();
        let address = &said["answers"][0]["address"];
        let named = backends.iter().zip(["a", "b", "c"]);
        let mut found = named.filter(|(backend, _)| *address == backend.address.to_string());
        assert_eq!(found.next().unwrap().1, place, "{said}");
    }
}
