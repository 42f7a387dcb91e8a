//! Clients of HTTP/2 that attack: each is bounded, and others are served meanwhile.

use crate::harness::http2::{
    ACK, END_HEADERS, END_STREAM, Frame, Frames, Http2, frame, head, kind, streamed,
};
use crate::harness::{Backend, Gateway, Raw, Setup, in_flight, metric, until, with_backend};

/// An error code (RFC 9113, 7).
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the memory of the process may grow by while one client attacks it.
const MEMORY: usize = 48 << 20;

const ABUSIVE: &str = "pointsman_http2_abusive_connections_total{listener=\"proxy\"}";

/// Attacks a gateway with one worker, and checks that it stays within its memory, and serves a
/// client that was there before.
fn survives(setup: Setup, attack: impl FnOnce(&Gateway, &Backend)) {
    let (gateway, backend) = with_backend(setup.arg("--workers", 1));
    let other = Http2::connect(gateway.proxy);
    other.get("/").expect(200);
    let before = gateway.reset_peak();
    attack(&gateway, &backend);
    other.get("/").expect(200);
    gateway.get("/").expect(200);
    until("no request is in flight", || in_flight(&gateway) == 0.0);
    let grown = gateway.peak_bytes().saturating_sub(before);
    assert!(grown < MEMORY, "the memory has grown by {grown} bytes");
}

/// Sends these bytes until the gateway closes the connection, while everything that it sends is
/// read. Returns its last `GOAWAY`, if it has sent one.
fn flood(mut frames: Frames, bytes: &[u8]) -> Option<Frame> {
    let mut reading = frames.try_clone();
    let read = std::thread::spawn(move || reading.read_to_end());
    while frames.bytes(bytes) {}
    read.join().unwrap()
}

/// Waits until the gateway has handled all frames that were sent.
fn settle(frames: &mut Frames) -> bool {
    frames.send(kind::PING, 0, 0, &[7; 8])
        && std::iter::from_fn(|| frames.next())
            .any(|frame| frame.kind == kind::PING && frame.flags == ACK)
}

#[test]
fn requests_that_are_cancelled_before_they_are_seen_end_the_connection() {
    survives(Setup::new(), |gateway, backend| {
        let frames = Frames::connect(gateway.proxy, &[]);
        let mut burst = Vec::new();
        for number in 0..100_000 {
            let stream = 2 * number + 1;
            let block = head("GET", "/hang", &[]);
            burst.extend(frame(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                stream,
                &block,
            ));
            burst.extend(frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        let last = flood(frames, &burst);
        assert!(last.is_none_or(|last| last.goaway_code() == ENHANCE_YOUR_CALM));
        assert!(backend.served() < 1000, "{}", backend.served());
        until("the connection is counted", || {
            metric(gateway, ABUSIVE) == 1.0
        });
    });
}

#[test]
fn requests_that_are_cancelled_at_once_end_the_connection() {
    let setup = Setup::new().arg("--http2-max-rapid-resets", 30);
    survives(setup, |gateway, _| {
        let mut frames = Frames::connect(gateway.proxy, &[]);
        let mut number = 0;
        // Each request has begun before it is cancelled.
        while frames.get(2 * number + 1, "/hang", END_STREAM)
            && settle(&mut frames)
            && frames.send(kind::RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes())
        {
            number += 1;
            assert!(
                number < 100,
                "the connection is open after {number} cancelled requests"
            );
        }
        assert!(number >= 30, "{number}");
        until("the connection is counted", || {
            metric(gateway, ABUSIVE) == 1.0
        });
    });
}

#[test]
fn answered_requests_pay_for_cancelled_ones() {
    let setup = Setup::new().arg("--http2-max-rapid-resets", 5);
    survives(setup, |gateway, _| {
        let mut frames = Frames::connect(gateway.proxy, &[]);
        for number in 0..20 {
            frames.get(4 * number + 1, "/hang", END_STREAM);
            assert!(settle(&mut frames));
            frames.send(kind::RST_STREAM, 0, 4 * number + 1, &8_u32.to_be_bytes());
            frames.get(4 * number + 3, "/", END_STREAM);
            let ended = |frame: &Frame| frame.kind == kind::DATA && frame.flags == END_STREAM;
            assert!(
                std::iter::from_fn(|| frames.next()).any(|frame| ended(&frame)),
                "{number}"
            );
        }
        assert_eq!(metric(gateway, ABUSIVE), 0.0);
    });
}

#[test]
fn requests_that_the_client_makes_the_gateway_reset_end_the_connection() {
    let setup = Setup::new().arg("--http2-max-error-resets", 20);
    survives(setup, |gateway, _| {
        let mut frames = Frames::connect(gateway.proxy, &[]);
        let mut number = 0;
        while frames.get(2 * number + 1, "/hang", END_STREAM)
            && settle(&mut frames)
            // The window of the response becomes too large.
            && frames.send(kind::WINDOW_UPDATE, 0, 2 * number + 1, &0x7fff_ffff_u32.to_be_bytes())
        {
            number += 1;
            assert!(number < 100, "the connection is open after {number} errors");
        }
        assert!(number >= 20, "{number}");
        until("the connection is counted", || {
            metric(gateway, ABUSIVE) == 1.0
        });
    });
}

#[test]
fn frames_without_content_end_the_connection() {
    survives(Setup::new(), |gateway, _| {
        let settings = [0, 3, 0, 0, 0, 100];
        let attacks: [(&str, Vec<u8>); 7] = [
            ("PING", frame(kind::PING, 0, 0, &[0; 8])),
            ("SETTINGS", frame(kind::SETTINGS, 0, 0, &settings)),
            ("empty SETTINGS", frame(kind::SETTINGS, 0, 0, &[])),
            ("PRIORITY", frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
            (
                "WINDOW_UPDATE",
                frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            ),
            ("unknown", frame(0xfa, 0, 0, &[])),
            ("empty DATA", frame(kind::DATA, 0, 1, &[])),
        ];
        for (number, (name, bytes)) in attacks.into_iter().enumerate() {
            let mut frames = Frames::connect(gateway.proxy, &[]);
            let block = head("POST", "/", &[]);
            frames.send(kind::HEADERS, END_HEADERS, 1, &block);
            flood(frames, &bytes.repeat(1000));
            let counted = (number + 1) as f64;
            until(name, || metric(gateway, ABUSIVE) == counted);
        }
    });
}

#[test]
fn a_head_without_end_ends_the_connection() {
    survives(Setup::new(), |gateway, backend| {
        let block = head("GET", "/", &[]);
        let parts = [
            frame(kind::CONTINUATION, 0, 1, &[]),
            frame(kind::CONTINUATION, 0, 1, b"\x00\x01x\x01y"),
            frame(
                kind::CONTINUATION,
                0,
                1,
                &head("GET", "/", &[("x", &"y".repeat(8000))])[20..],
            ),
        ];
        for part in parts {
            let mut frames = Frames::connect(gateway.proxy, &[]);
            frames.send(kind::HEADERS, END_STREAM, 1, &block);
            flood(frames, &part.repeat(100));
        }
        assert_eq!(backend.served(), 1);
    });
}

#[test]
fn a_head_that_grows_when_it_is_decoded_is_refused() {
    survives(Setup::new(), |gateway, backend| {
        let mut frames = Frames::connect(gateway.proxy, &[]);
        // A field of 4000 bytes is stored in the table, and then repeated by one byte each time.
        let mut block = head("GET", "/", &[]);
        block.extend(b"\x40\x01x\x7f\xa1\x1e");
        block.extend([b'y'; 4000]);
        block.extend([0xbe; 12_000]);
        assert!(block.len() < 16_384 + 64);
        let (first, rest) = block.split_at(16_000);
        frames.send(kind::HEADERS, END_STREAM, 1, first);
        frames.send(kind::CONTINUATION, END_HEADERS, 1, rest);
        let answer = std::iter::from_fn(|| frames.next())
            .find(|frame| matches!(frame.kind, kind::HEADERS | kind::GOAWAY | kind::RST_STREAM));
        assert!(answer.is_some());
        assert_eq!(backend.served(), 1);
    });
}

#[test]
fn only_so_many_requests_are_served_at_the_same_time() {
    let setup = Setup::new().arg("--http2-max-concurrent-streams", 10);
    survives(setup, |gateway, _| {
        let mut frames = Frames::connect(gateway.proxy, &[]);
        for number in 0..30 {
            frames.get(2 * number + 1, "/hang", END_STREAM);
        }
        for _ in 0..20 {
            let refused = frames.next_of(kind::RST_STREAM).unwrap();
            assert_eq!(refused.payload, REFUSED_STREAM.to_be_bytes());
        }
        until("ten requests are served", || in_flight(gateway) == 10.0);
    });
}

#[test]
fn a_client_that_takes_nothing_holds_a_bounded_part_of_each_response() {
    survives(Setup::new(), |gateway, _| {
        // SETTINGS_INITIAL_WINDOW_SIZE: the client allows no byte, or one, of each response.
        for window in [0, 1] {
            let mut frames = Frames::connect(gateway.proxy, &[(4, window)]);
            for number in 0..128 {
                frames.get(2 * number + 1, "/bytes/10000000", END_STREAM);
            }
            for _ in 0..128 {
                frames.next_of(kind::HEADERS).unwrap();
            }
            assert!(settle(&mut frames));
        }
    });
}

#[test]
fn a_client_has_to_send_heads_and_bodies_in_time() {
    let setup = Setup::new()
        .arg("--client-header-timeout", 1)
        .arg("--client-body-timeout", 1);
    let (gateway, _backend) = with_backend(setup);
    // The preface alone, a part of it, and a part of a head.
    let mut silent = Frames::connect(gateway.proxy, &[]);
    assert_eq!(silent.read_to_end().unwrap().goaway_code(), 0);
    assert!(Raw::connect(gateway.proxy).send(b"PRI * HT").is_closed());
    let mut unfinished = Frames::connect(gateway.proxy, &[]);
    unfinished.send(kind::HEADERS, 0, 1, &head("GET", "/", &[]));
    unfinished.read_to_end();
    let client = Http2::connect(gateway.proxy);
    let (pieces, body) = streamed();
    let request = client.request("POST", "/").body(body).unwrap();
    client.send(request).expect(408);
    drop(pieces);
    // The other requests of the connection are served.
    client.get("/").expect(200);
}
