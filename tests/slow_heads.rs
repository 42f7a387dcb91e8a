//! How long an endpoint may take for the head of its response.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::harness::http2::{END_HEADERS, END_STREAM, fields, frame, kind};
use crate::harness::{Gateway, RawServer};
use crate::http2_endpoints::{Short, gateway, open, read_frame};

/// Shorter than the timeout, and longer than a third of it.
const PAUSE: Duration = Duration::from_millis(800);

fn limit(gateway: &Gateway, read_timeout: u64) {
    let fields = json!({"read_timeout": read_timeout, "retries": 0});
    let answer = gateway.admin_json("PATCH", "/services/u-service", &fields);
    answer.expect(200);
}

#[test]
fn each_part_of_a_head_begins_the_read_timeout_anew() {
    let parts: [&[&str]; 2] = [
        &[
            "HTTP/1.1 200 OK\r\n",
            "x-a: 1\r\nx-b",
            ": 2\r\n",
            "content-length: 2\r\n\r\nok",
        ],
        &[
            "HTTP/1.1 102 Processing\r\n\r\n",
            "HTTP/1.1 102 Processing\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx-b: 2\r\ncontent-length: 2\r\n\r\nok",
        ],
    ];
    for parts in parts {
        let server = RawServer::start(move |_, mut raw| {
            raw.read_until("\r\n\r\n");
            for part in parts {
                sleep(PAUSE);
                raw.send(part.as_bytes());
            }
        });
        let gateway = Gateway::start();
        gateway.balanced(&[(server.address, 100)]);
        limit(&gateway, 2000);
        let answer = gateway.get("/").expect(200);
        assert_eq!((answer.header("x-b"), &*answer.text()), ("2", "ok"));
    }
}

/// A server over HTTP/2 that sends so many interim responses before each response.
fn processing(interim: usize, pause: Duration) -> Short {
    Short::serving(move |mut stream| {
        open(&mut stream)?;
        loop {
            let (kind, flags, id) = read_frame(&mut stream)?;
            if kind > kind::HEADERS || flags & END_STREAM == 0 {
                continue;
            }
            let block = fields(&[(":status", "102")]);
            for _ in 0..interim {
                sleep(pause);
                stream
                    .write_all(&frame(kind::HEADERS, END_HEADERS, id, &block))
                    .ok()?;
            }
            let end = frame(kind::HEADERS, END_HEADERS | END_STREAM, id, &[0x88]);
            stream.write_all(&end).ok()?;
        }
    })
}

#[test]
fn each_interim_response_over_http2_begins_the_read_timeout_anew() {
    let server = processing(4, PAUSE);
    let gateway = gateway(&[server.address]);
    limit(&gateway, 2000);
    gateway.get("/").expect(200);
}

#[test]
fn a_head_without_end_is_given_up() {
    let pause = Duration::from_millis(20);
    let over_http2 = processing(usize::MAX, pause);
    gateway_with(&over_http2).get("/").expect(504);
    for part in ["HTTP/1.1 102 Processing\r\n\r\n", "x"] {
        let server = RawServer::start(move |_, mut raw| {
            raw.read_until("\r\n\r\n");
            raw.send(b"HTTP/1.1 102 Processing\r\n\r\n");
            if part == "x" {
                raw.send(b"HTTP/1.1 200 OK\r\nx: ");
            }
            // Far longer than the gateway waits.
            for _ in 0..1500 {
                raw.send(part.as_bytes());
                sleep(pause);
            }
        });
        let gateway = Gateway::start();
        gateway.balanced(&[(server.address, 100)]);
        limit(&gateway, 200);
        gateway.get("/").expect(504);
    }
}

fn gateway_with(server: &Short) -> Gateway {
    let gateway = gateway(&[server.address]);
    limit(&gateway, 200);
    gateway
}
