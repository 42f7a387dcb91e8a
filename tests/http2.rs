//! HTTP/2 with clients, by prior knowledge.

use bytes::Bytes;
use hyper::body::Frame;
use hyper::{HeaderMap, Method};
use serde_json::json;

use crate::harness::http2::{self, Frames, Http2, data, empty, full, kind, streamed};
use crate::harness::{
    Gateway, Raw, RawServer, Setup, active_connections, add_plugin, exchange, in_flight,
    read_answer, sha256, until, with_backend,
};
use crate::proxy::with_route;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[test]
fn a_request_is_answered_as_over_http1() {
    let (gateway, backend) = with_route(&[], &[("paths[]", "/mock")]);
    let client = Http2::connect(gateway.proxy);
    let request = client
        .request("GET", "/mock/a%20b?c=%20d")
        .header("te", "trailers")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(empty());
    let answer = client.send(request.unwrap()).expect(200);
    let echo = answer.json();
    assert_eq!(echo["uri"], "/a%20b?c=%20d");
    let sent = &echo["headers"];
    assert_eq!(sent["host"], backend.address.to_string());
    assert_eq!(sent["x-forwarded-host"], "127.0.0.1");
    assert_eq!(sent["x-forwarded-path"], "/mock/a%20b");
    assert_eq!(sent["connection"], "keep-alive, TE");
    assert_eq!(sent["te"], "trailers");
    assert_eq!(sent["cookie"], "a=1; b=2");
    assert_eq!(
        sent["via"],
        concat!("2 pointsman/", env!("CARGO_PKG_VERSION"))
    );
    let via = concat!("1.1 pointsman/", env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.header("via"), via);
    assert_eq!(answer.header("x-kong-request-id").len(), 32);
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
}

#[test]
fn hop_by_hop_headers_never_reach_a_client() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let answer = Http2::connect(gateway.proxy)
        .get("/headers-out")
        .expect(200);
    for name in ["connection", "x-private", "keep-alive", "transfer-encoding"] {
        assert_eq!(answer.header(name), "", "{name}");
    }
    assert_eq!(answer.header("x-public"), "1");
}

#[test]
fn a_response_without_a_body_has_no_length_of_one() {
    let server = RawServer::responding_with("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n");
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    let length = |status: u16| {
        let of_http1 = gateway.get("/").expect(status);
        let of_http2 = Http2::connect(gateway.proxy).get("/").expect(status);
        let lengths = [
            of_http1.header("content-length"),
            of_http2.header("content-length"),
        ];
        lengths.concat()
    };
    assert_eq!(length(204), "");
    for status in [204, 304] {
        let config = json!({ "status_code": status, "message": "none" });
        let path = add_plugin(&gateway, "request-termination", config, json!({}));
        assert_eq!(length(status), "", "{status}");
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
}

#[test]
fn requests_share_a_connection_and_overtake_each_other() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let before = active_connections(&gateway);
    let client = Http2::connect(gateway.proxy);
    let slow = client.start(client.request("GET", "/hang").body(empty()).unwrap());
    let many: Vec<_> = (0..100)
        .map(|n| {
            client.start(
                client
                    .request("GET", &format!("/{n}"))
                    .body(empty())
                    .unwrap(),
            )
        })
        .collect();
    for (n, response) in many.into_iter().enumerate() {
        let answer = client.wait(response).expect(200);
        assert_eq!(answer.json()["uri"], format!("/{n}"));
    }
    assert_eq!(active_connections(&gateway), before + 1.0);
    assert!(!slow.is_finished());
    slow.abort();
}

#[test]
fn a_cancelled_request_is_cancelled_at_its_endpoint() {
    let (gateway, _backend) = with_backend(Setup::new());
    let client = Http2::connect(gateway.proxy);
    let hanging = client.start(client.request("GET", "/hang").body(empty()).unwrap());
    until("the endpoint serves the request", || {
        in_flight(&gateway) == 1.0
    });
    hanging.abort();
    until("the request is cancelled", || in_flight(&gateway) == 0.0);
    client.get("/").expect(200);
}

#[test]
fn bodies_of_any_size_pass_both_ways() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let client = Http2::connect(gateway.proxy);
    for length in [0, 1, 1000, 100_000, 3_000_000] {
        let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let request = client
            .request("POST", "/")
            .body(full(body.clone()))
            .unwrap();
        let echo = client.send(request).expect(200).json();
        assert_eq!(echo["length"], length);
        assert_eq!(echo["sha256"], sha256(&body));
    }
    let answer = client.get("/bytes/5000000").expect(200);
    assert_eq!(answer.body, vec![b'x'; 5_000_000]);
}

/// A server that sends back each chunk of a request as soon as it has received it.
fn chunk_echo() -> RawServer {
    RawServer::start(|_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ntrailer: x-last\r\ntransfer-encoding: chunked\r\n\r\n");
        loop {
            let size = raw.read_until("\r\n");
            match usize::from_str_radix(size.trim(), 16) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let chunk = raw.read_until("\r\n");
            raw.send((size + &chunk).as_bytes());
        }
        let trailers = raw.read_until("\r\n\r\n");
        raw.send(format!("0\r\n{trailers}").as_bytes());
    })
}

fn unbuffered(server: &RawServer) -> Gateway {
    let gateway = Gateway::start();
    let target = server.address.to_string();
    let route = [("paths[]", "/"), ("request_buffering", "false")];
    crate::proxy::add_route(&gateway, "s", &target, &[], &route);
    gateway
}

#[test]
fn both_directions_stream_at_the_same_time_and_have_trailers() {
    let server = chunk_echo();
    let gateway = unbuffered(&server);
    let client = Http2::connect(gateway.proxy);
    let (pieces, body) = streamed();
    let request = client
        .request("POST", "/")
        .header("te", "trailers")
        .body(body);
    let response = client.start(request.unwrap());
    pieces.send(data("one")).unwrap();
    let mut response = client.runtime.block_on(response).unwrap().unwrap();
    let mut next = || {
        let frame = http_body_util::BodyExt::frame(&mut response);
        client.runtime.block_on(frame).unwrap().unwrap()
    };
    assert_eq!(next().into_data().unwrap(), "one");
    for piece in ["two", "three"] {
        pieces.send(data(piece)).unwrap();
        assert_eq!(next().into_data().unwrap(), piece);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-last", "1".parse().unwrap());
    pieces.send(Frame::trailers(trailers.clone())).unwrap();
    drop(pieces);
    assert_eq!(next().into_trailers().unwrap(), trailers);
}

#[test]
fn a_body_is_sent_on_while_the_client_takes_nothing_of_the_response() {
    let body = vec![b'x'; 4 << 20];
    // Answers at once, with more than the client takes, and then reads the whole request.
    let server = RawServer::start(|_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        raw.send(b"20000\r\n").send(&[b'y'; 0x20000]).send(b"\r\n");
        let received = raw.read_until("\r\n0\r\n\r\n").len();
        raw.send(format!("{:x}\r\n{received}\r\n", received.to_string().len()).as_bytes());
        raw.send(b"0\r\n\r\n");
    });
    let gateway = unbuffered(&server);
    let client = Http2::connect_with(gateway.proxy, 1000);
    let (pieces, stream) = streamed();
    let response = client.start(client.request("POST", "/").body(stream).unwrap());
    pieces.send(data("start")).unwrap();
    let response = client.runtime.block_on(response).unwrap().unwrap();
    // Nothing of the response is read until the body was passed on.
    let (dropped, is_dropped) = std::sync::mpsc::channel();
    struct Watched(Bytes, std::sync::mpsc::Sender<()>);
    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = self.1.send(());
        }
    }
    let watched = Bytes::from_owner(Watched(body.clone().into(), dropped));
    pieces.send(data(watched)).unwrap();
    is_dropped
        .recv_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    drop(pieces);
    let collected = http_body_util::BodyExt::collect(response.into_body());
    let collected = client.runtime.block_on(collected).unwrap().to_bytes();
    assert!(collected.len() > 0x20000);
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/x")]);
    let client = Http2::connect(gateway.proxy);
    for path in ["/x", "/missing"] {
        let whole = client.get(path);
        let request = client.request("HEAD", path).body(empty()).unwrap();
        let answer = client.send(request);
        assert_eq!(answer.status, whole.status);
        assert_eq!(answer.body, b"");
        if path == "/missing" {
            assert_eq!(
                answer.header("content-length"),
                whole.body.len().to_string()
            );
        }
    }
    for status in ["204", "304"] {
        let answer = client.get(&format!("/x/status/{status}"));
        assert_eq!(
            (answer.status.to_string().as_str(), answer.body.len()),
            (status, 0)
        );
    }
}

#[test]
fn errors_are_kongs_pages() {
    let gateway = Gateway::start();
    let client = Http2::connect(gateway.proxy);
    let answer = client.get("/").expect(404);
    let id = answer.header("x-kong-request-id");
    assert_eq!(
        answer.json(),
        json!({ "message": "no Route matched with those values", "request_id": id })
    );
    let value = "v".repeat(40_000);
    let large = client.request("GET", "/").header("x", value).body(empty());
    let answer = client.send(large.unwrap()).expect(431);
    assert!(
        answer
            .text()
            .starts_with("Request header or cookie too large\n")
    );
    let mut many = client.request("GET", "/");
    for _ in 0..101 {
        many = many.header("x", "");
    }
    let answer = client.send(many.body(empty()).unwrap()).expect(431);
    let words = "Too many request headers (setting max_headers)\n";
    assert!(answer.text().starts_with(words), "{}", answer.text());
    // The connection serves other requests.
    client.get("/").expect(404);
}

#[test]
fn a_request_needs_one_host() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let client = Http2::connect(gateway.proxy);
    let other = client
        .request("GET", "/")
        .header("host", "other.test")
        .body(empty());
    client.send(other.unwrap()).expect(400);
    let host = gateway.proxy.to_string();
    let same = client
        .request("GET", "/")
        .header("host", host)
        .body(empty());
    client.send(same.unwrap()).expect(200);
}

#[test]
fn a_body_that_contradicts_its_length_is_refused_without_reaching_an_endpoint() {
    let (gateway, backend) = with_route(&[], &[("paths[]", "/")]);
    for (length, body) in [("3", "four"), ("5", "four")] {
        let mut frames = Frames::connect(gateway.proxy, &[]);
        let block = http2::head("POST", "/", &[("content-length", length)]);
        frames.send(kind::HEADERS, http2::END_HEADERS, 1, &block);
        frames.send(kind::DATA, http2::END_STREAM, 1, body.as_bytes());
        let reset = frames.next_of(kind::RST_STREAM).unwrap();
        // PROTOCOL_ERROR
        assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 1][..]));
    }
    assert_eq!(backend.served(), 0);
}

#[test]
fn the_preface_may_arrive_in_pieces() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    for cut in [1, 3, 4, 16, 23] {
        let mut raw = Raw::connect(gateway.proxy);
        raw.send(&PREFACE[..cut]);
        // The gateway has read the first piece once it has answered this.
        gateway.get("/").expect(200);
        raw.send(&PREFACE[cut..])
            .send(&http2::frame(kind::SETTINGS, 0, 0, &[]));
        let head = http2::head("GET", "/", &[]);
        let flags = http2::END_HEADERS | http2::END_STREAM;
        raw.send(&http2::frame(kind::HEADERS, flags, 1, &head));
        assert!(raw.read_until("sha256").ends_with("sha256"), "{cut}");
    }
}

#[test]
fn what_only_begins_like_the_preface_is_http1() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"P");
    gateway.get("/").expect(200);
    let answer = read_answer(raw.send(b"ROPFIND /x HTTP/1.1\r\nhost: h\r\n\r\n"));
    assert!(answer.contains("\"method\":\"PROPFIND\""), "{answer}");
    let answer = exchange(gateway.proxy, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn a_shutdown_finishes_streams_and_takes_no_new_connection() {
    let (gateway, backend) = with_backend(Setup::new());
    let client = Http2::connect(gateway.proxy);
    let idle = Http2::connect(gateway.proxy);
    idle.get("/").expect(200);
    let slow = client.start(client.request("GET", "/held").body(empty()).unwrap());
    until("the endpoint serves the request", || {
        in_flight(&gateway) == 1.0
    });
    gateway.terminate();
    idle.wait_for_close().unwrap();
    backend.release();
    client.wait(slow).expect(200);
    client.wait_for_close().unwrap();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("all requests drained"), "{log}");
}

#[test]
fn a_shutdown_does_not_wait_for_a_client_that_answers_no_ping() {
    let (gateway, _backend) = with_backend(Setup::new());
    let mut frames = Frames::connect(gateway.proxy, &[]);
    frames.get(1, "/", http2::END_STREAM);
    frames.next_of(kind::DATA).unwrap();
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("all requests drained"), "{log}");
}

#[test]
fn an_idle_connection_gets_a_goaway() {
    let setup = Setup::new().arg("--client-header-timeout", 1);
    let (gateway, _backend) = with_backend(setup);
    let mut frames = Frames::connect(gateway.proxy, &[]);
    frames.get(1, "/", http2::END_STREAM);
    assert_eq!(frames.read_to_end().unwrap().goaway_code(), 0);
    // A request in flight is not idle.
    let client = Http2::connect(gateway.proxy);
    client.get("/delay/3000").expect(200);
    client.wait_for_close().unwrap();
}

#[test]
fn a_connection_is_closed_after_its_last_request() {
    let setup = Setup::new().arg("--http-keepalive-requests", 3);
    let (gateway, _backend) = with_backend(setup);
    let client = Http2::connect(gateway.proxy);
    let requests: Vec<_> = (0..3)
        .map(|_| client.start(client.request("GET", "/delay/50").body(empty()).unwrap()))
        .collect();
    for request in requests {
        client.wait(request).expect(200);
    }
    client.wait_for_close().unwrap();

    let mut raw = Raw::connect(gateway.proxy);
    let body = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc";
    // The fourth is not answered.
    raw.send(&body.repeat(4));
    let answers = raw.read_to_end();
    let parts: Vec<_> = answers.split("HTTP/1.1 200 ").skip(1).collect();
    assert_eq!(parts.len(), 3, "{answers}");
    let closes = parts
        .iter()
        .map(|answer| answer.contains("connection: close"));
    assert_eq!(
        closes.collect::<Vec<_>>(),
        [false, false, true],
        "{answers}"
    );
}

#[test]
fn connect_is_refused() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let client = Http2::connect(gateway.proxy);
    let request = hyper::Request::builder()
        .method(Method::CONNECT)
        .uri("h:80")
        .body(empty());
    client.send(request.unwrap()).expect(405);
    client.get("/").expect(200);
}

#[test]
fn policies_work_and_see_each_request() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let config = json!({ "hour": 2, "policy": "local" });
    add_plugin(&gateway, "rate-limiting", config, json!({}));
    let client = Http2::connect(gateway.proxy);
    client.get("/").expect(200);
    assert_eq!(
        client
            .get("/")
            .expect(200)
            .header("x-ratelimit-remaining-hour"),
        "0"
    );
    let answer = client.get("/").expect(429);
    assert_eq!(answer.json()["message"], "API rate limit exceeded");
}
