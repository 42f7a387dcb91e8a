//! Trailers over HTTP/2 that are too large, or that do not tell what they have to: a message whose
//! end is missing never passes as whole.

use std::io::Write;

use serde_json::json;

use crate::harness::http2::{
    END_HEADERS, END_STREAM, Frame, Frames, field_frames, fields, frame, head, kind,
};
use crate::harness::{Gateway, RawServer, health, set_passive_checks};
use crate::http2_endpoints::{Short, gateway, open, read_frame};

/// A server that answers each request with a head of this media type, a message, and these
/// trailers.
fn trailing(media_type: &'static str, trailers: Option<Vec<(&'static str, String)>>) -> Short {
    Short::serving(move |mut stream| {
        open(&mut stream)?;
        loop {
            let (kind, flags, id) = read_frame(&mut stream)?;
            if kind != kind::HEADERS || flags & END_STREAM == 0 {
                continue;
            }
            let fields_of_head = fields(&[(":status", "200"), ("content-type", media_type)]);
            let head = frame(kind::HEADERS, END_HEADERS, id, &fields_of_head);
            let ends = if trailers.is_none() { END_STREAM } else { 0 };
            let message = frame(kind::DATA, ends, id, b"\0\0\0\0\x01x");
            let end = trailers.as_ref().map_or_else(Vec::new, |trailers| {
                let named = trailers.iter().map(|(name, value)| (*name, value.as_str()));
                let block = fields(&named.collect::<Vec<_>>());
                field_frames(END_STREAM, id, &block)
            });
            stream.write_all(&[head, message, end].concat()).ok()?;
        }
    })
}

/// Sends a call, and waits for the frame that ends its stream.
fn last_frame(client: &mut Frames, stream: u32) -> Frame {
    let block = head("POST", "/", &[("content-type", "application/grpc")]);
    client.send(kind::HEADERS, END_STREAM | END_HEADERS, stream, &block);
    std::iter::from_fn(|| client.next())
        .find(|frame| {
            let ends = frame.flags & END_STREAM > 0;
            frame.kind == kind::RST_STREAM || (ends && frame.stream == stream)
        })
        .unwrap()
}

const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];

#[test]
fn trailers_of_an_endpoint_pass_as_a_whole_or_reset_the_stream() {
    let status = || ("grpc-status", "7".to_owned());
    let big = |length: usize| ("x-big", "b".repeat(length));
    for media_type in ["application/grpc", "text/plain"] {
        for (trailers, passes) in [
            (vec![status(), big(20_000)], true),
            (vec![big(20_000), status()], true),
            (vec![status(), big(40_000)], false),
            (vec![big(40_000), status()], false),
            (vec![status(), big(90_000)], false),
            (vec![big(90_000), status()], false),
            (vec![big(120_000), status()], false),
        ] {
            let length = trailers.iter().map(|(_, value)| value.len()).max();
            let server = trailing(media_type, Some(trailers));
            let gateway = gateway(&[server.address]);
            set_passive_checks(&gateway, &json!({"tcp_failures": 1}));
            let mut client = Frames::connect(gateway.proxy, &[]);
            let last = last_frame(&mut client, 1);
            let (state, _) = health(&gateway, server.address);
            if passes {
                assert_eq!(last.kind, kind::HEADERS, "{media_type}, {length:?}");
                assert_eq!(state, "HEALTHY");
            } else {
                assert_eq!(last.kind, kind::RST_STREAM, "{media_type}, {length:?}");
                assert_eq!(last.payload, INTERNAL_ERROR);
                assert_eq!(state, "UNHEALTHY");
            }
        }
    }
}

#[test]
fn trailers_that_are_too_large_end_no_other_stream_of_their_connection() {
    let trailers = vec![("x-big", "b".repeat(50_000))];
    let server = trailing("text/plain", Some(trailers));
    let gateway = gateway(&[server.address]);
    let mut client = Frames::connect(gateway.proxy, &[]);
    for stream in [1, 3, 5] {
        assert_eq!(last_frame(&mut client, stream).kind, kind::RST_STREAM);
    }
    assert_eq!(
        server.connections.load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[test]
fn a_call_that_ends_without_a_status_has_broken_off() {
    for (media_type, trailers, breaks) in [
        ("application/grpc", None, true),
        (
            "application/grpc+proto",
            Some(vec![("x-a", "1".to_owned())]),
            true,
        ),
        (
            "application/grpc",
            Some(vec![("grpc-status", "0".to_owned())]),
            false,
        ),
        ("application/grpc-web", None, false),
        ("text/plain", None, false),
    ] {
        let server = trailing(media_type, trailers);
        let gateway = gateway(&[server.address]);
        set_passive_checks(&gateway, &json!({"tcp_failures": 1}));
        let mut client = Frames::connect(gateway.proxy, &[]);
        let last = last_frame(&mut client, 1);
        let (state, known) = health(&gateway, server.address);
        assert_eq!(last.kind == kind::RST_STREAM, breaks, "{media_type}");
        assert_eq!(state == "UNHEALTHY", breaks, "{media_type}");
        if breaks {
            let said = known["pointsman"]["last_failure"]["detail"].to_string();
            assert!(said.contains("grpc-status"), "{said}");
        }
    }
}

#[test]
fn trailers_of_a_request_pass_as_a_whole_or_not_at_all() {
    let server = RawServer::start(|_, mut raw| {
        let text = raw.read_until("\r\n\r\n") + &raw.read_until("0\r\n");
        let trailers = raw.read_until("\r\n\r\n");
        let length = text.len() + trailers.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        raw.send((head + &text + &trailers).as_bytes());
    });
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    for length in [20_000, 50_000, 90_000, 150_000] {
        let mut client = Frames::connect(gateway.proxy, &[]);
        let big = "b".repeat(length);
        client.send(kind::HEADERS, END_HEADERS, 1, &head("POST", "/", &[]));
        client.send(kind::DATA, 0, 1, b"abc");
        let block = fields(&[("x-sig", "1"), ("x-big", &big)]);
        client.bytes(&field_frames(END_STREAM, 1, &block));
        let answer = client.next_of(kind::HEADERS);
        // Index 8 of the static table is the status 200 (RFC 7541).
        let is_ok = answer.is_some_and(|answer| answer.payload[0] == 0x88);
        assert_eq!(is_ok, length == 20_000, "{length}");
    }
}
