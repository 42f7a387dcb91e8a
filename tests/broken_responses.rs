//! Responses that break off: what clients receive, and how they count for the health of the target.

use std::sync::Mutex;
use std::sync::mpsc;

use http_body_util::BodyExt;
use serde_json::json;

use crate::harness::http2::{self, END_STREAM, Frames, Http2, kind};
use crate::harness::{
    Backend, Gateway, Raw, RawServer, guest, health, in_flight, patch_upstream, set_passive_checks,
    until,
};
use crate::message_framing::{gateway_to, get, get_and_close};

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Responses that break off after the head, with the part of the body that clients have to receive.
const BROKEN: [(&str, &str); 8] = [
    ("content-length: 10\r\n\r\nabc", "abc"),
    ("content-length: 10\r\n\r\n", ""),
    ("transfer-encoding: chunked\r\n\r\n", ""),
    ("transfer-encoding: chunked\r\n\r\n5\r\nabc", "3\r\nabc\r\n"),
    (
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "3\r\nabc\r\n",
    ),
    (
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
        "3\r\nabc\r\n",
    ),
    (
        "transfer-encoding: chunked\r\n\r\n3\r\nabcdef",
        "3\r\nabc\r\n",
    ),
    (
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\n\r\n",
        "3\r\nabc\r\n",
    ),
];

#[test]
fn the_received_part_of_a_broken_response_reaches_the_client() {
    for (broken, passed) in BROKEN {
        let answer = format!("HTTP/1.1 201 Made\r\nx-mark: here\r\n{broken}");
        let sizes = answer.len();
        let start_at = std::sync::atomic::AtomicUsize::new(0);
        let text = answer.clone();
        // Each response is split into two segments at another byte.
        let server = RawServer::start(move |_, mut raw| {
            raw.read_until("\r\n\r\n");
            let first = start_at.fetch_add(7, std::sync::atomic::Ordering::SeqCst) % sizes;
            raw.send_in_two(text.as_bytes(), first);
        });
        let gateway = gateway_to(server.address);
        for _ in 0..40 {
            let got = get(&gateway, "GET");
            assert!(
                got.starts_with("HTTP/1.1 201 Made\r\n"),
                "{broken:?}: {got:?}"
            );
            assert!(got.contains("\r\nx-mark: here\r\n"), "{broken:?}: {got:?}");
            // Chunks may be forwarded in other sizes, and the last one must be missing.
            let body = body_of(&got).replace("\r\n", "");
            let letters: String = body.chars().filter(|c| "abc".contains(*c)).collect();
            let wanted: String = passed.chars().filter(|c| "abc".contains(*c)).collect();
            assert_eq!(letters, wanted, "{broken:?}: {got:?}");
            assert!(!body_of(&got).ends_with("0\r\n\r\n"), "{broken:?}: {got:?}");
        }
    }
}

/// Also where the client has not read most of it yet when it breaks off.
#[test]
fn the_received_part_of_a_long_response_reaches_a_slow_client() {
    const SENT: usize = 6 << 20;
    let server = RawServer::start(|_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", SENT + 1).as_bytes());
        raw.send(&vec![b'x'; SENT]);
    });
    let gateway = gateway_to(server.address);
    for _ in 0..5 {
        let got = get(&gateway, "GET");
        assert_eq!(body_of(&got).len(), SENT);
    }
    // The same for a response that ends with a read timeout. The head comes within it also on a
    // busy machine.
    let waiting = [("read_timeout", "1000")];
    gateway
        .admin("PATCH", "/services/u-service", &waiting)
        .expect(200);
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let hanging = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
        let _ = held.lock().unwrap().recv();
    });
    let path = format!("/upstreams/u/targets/{}", server.address);
    gateway.admin("DELETE", &path, &[]).expect(204);
    gateway.add_target("u", hanging.address, 100);
    let got = get(&gateway, "GET");
    assert!(got.ends_with("\r\n\r\nabc"), "{got}");
    drop(release);
}

/// Over HTTP/2, also where the client allows only a part of it when it breaks off.
#[test]
fn the_received_part_of_a_broken_response_reaches_a_client_as_its_window_opens() {
    const INTERNAL_ERROR: u32 = 2;
    for (sent, window) in [
        (0, 100),
        (10, 0),
        (10, 4),
        (10, 10),
        (30_000, 65_535),
        (60_000, 1),
    ] {
        let server = RawServer::start(move |_, mut raw| {
            raw.read_until("\r\n\r\n");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", sent + 1);
            raw.send(head.as_bytes());
            raw.send(&vec![b'x'; sent]);
        });
        let gateway = gateway_to(server.address);
        // SETTINGS_INITIAL_WINDOW_SIZE.
        let mut frames = Frames::connect(gateway.proxy, &[(4, window)]);
        frames.get(1, "/", END_STREAM);
        frames.next_of(kind::HEADERS).unwrap();
        let (mut got, mut allowed) = (0, window as usize);
        loop {
            let is_stalled = got == allowed && got < sent;
            if is_stalled {
                // hyper asks for the next part, and so the gateway notices that there is none, once
                // the client allows some of the part before.
                if allowed > 0 && sent < 1000 {
                    until("the response has ended", || in_flight(&gateway) == 0.0);
                }
                let more: u32 = 7_000;
                frames.send(kind::WINDOW_UPDATE, 0, 1, &more.to_be_bytes());
                allowed += more as usize;
            }
            let frame = frames.next().unwrap();
            match frame.kind {
                kind::DATA => got += frame.payload.len(),
                kind::RST_STREAM => {
                    assert_eq!(frame.payload, INTERNAL_ERROR.to_be_bytes());
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(got, sent, "{window}");
    }
}

#[test]
fn a_target_whose_responses_break_off_becomes_unhealthy() {
    let good = Backend::start("good");
    for (broken, _) in BROKEN {
        let server = RawServer::responding_with(format!("HTTP/1.1 200 OK\r\n{broken}"));
        let gateway = Gateway::start();
        gateway.balanced(&[(good.address, 100), (server.address, 100)]);
        set_passive_checks(&gateway, &json!({"tcp_failures": 2}));
        let answers: Vec<String> = (0..8).map(|_| get_and_close(&gateway)).collect();
        let whole = answers.iter().filter(|answer| answer.contains("x-backend"));
        assert_eq!(whole.count(), 6, "{broken:?}: {answers:?}");
        let (state, known) = health(&gateway, server.address);
        assert_eq!(state, "UNHEALTHY", "{broken:?}");
        let failure = &known["pointsman"]["last_failure"];
        assert_eq!(failure["report"], "tcp_failure", "{broken:?}");
        let metrics = gateway.admin("GET", "/metrics", &[]).expect(200).text();
        let counted = metrics.lines().any(|line| {
            line.starts_with("pointsman_endpoint_failures_total")
                && line.contains(&server.address.to_string())
                && line.ends_with(" 2")
        });
        assert!(counted, "{broken:?}: {metrics}");
        gateway.terminate();
        let (_, log) = gateway.wait();
        let lines: Vec<&str> = log.lines().filter(|l| l.contains("broke off")).collect();
        assert_eq!(lines.len(), 2, "{broken:?}: {log}");
        let address = server.address.to_string();
        for line in lines {
            assert!(
                line.contains(&address) && line.contains("request_id"),
                "{line}"
            );
        }
    }
}

#[test]
fn a_stalled_body_is_a_timeout_and_a_complete_one_is_no_failure() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let hanging = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
        let _ = held.lock().unwrap().recv();
    });
    let gateway = gateway_to(hanging.address);
    gateway
        .admin("PATCH", "/services/u-service", &[("read_timeout", "1000")])
        .expect(200);
    set_passive_checks(&gateway, &json!({"timeouts": 1, "tcp_failures": 1}));
    assert!(get_and_close(&gateway).ends_with("abc"));
    let (state, known) = health(&gateway, hanging.address);
    assert_eq!(state, "UNHEALTHY");
    assert_eq!(known["pointsman"]["last_failure"]["report"], "timeout");
    drop(release);
    for whole in [
        "content-length: 3\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\na: b\r\n\r\n",
        "\r\nabc",
        "content-length: 0\r\n\r\n",
    ] {
        let server = RawServer::responding_with(format!("HTTP/1.1 200 OK\r\n{whole}"));
        let gateway = gateway_to(server.address);
        set_passive_checks(&gateway, &json!({"timeouts": 1, "tcp_failures": 1}));
        for _ in 0..3 {
            get_and_close(&gateway);
        }
        let (state, known) = health(&gateway, server.address);
        assert_eq!(state, "HEALTHY", "{whole:?}");
        assert!(
            known["pointsman"]["last_failure"].is_null(),
            "{whole:?}: {known}"
        );
    }
}

/// It does not count for the endpoint's health.
#[test]
fn a_client_that_disconnects_is_no_failure_of_the_target() {
    let (gone, left) = mpsc::channel::<()>();
    let server = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
        raw.is_closed();
        let _ = gone.send(());
    });
    let gateway = gateway_to(server.address);
    set_passive_checks(&gateway, &json!({"timeouts": 1, "tcp_failures": 1}));
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(raw.read_until("abc").ends_with("abc"));
    drop(raw);
    left.recv().unwrap();
    let (state, known) = health(&gateway, server.address);
    assert_eq!(state, "HEALTHY");
    assert!(known["pointsman"]["last_failure"].is_null(), "{known}");
}

#[test]
fn broken_responses_count_for_outliers_and_canaries() {
    let good = ["a", "b", "c", "d", "e"].map(Backend::start);
    let broken = RawServer::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
    let gateway = Gateway::start();
    let addresses = good.iter().map(|backend| backend.address);
    let targets: Vec<_> = addresses.chain([broken.address]).map(|a| (a, 1)).collect();
    gateway.balanced(&targets);
    let outliers = json!({
        "success_rate": true, "interval": 2, "request_volume": 5, "base_ejection_time": 60,
    });
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"outlier_detection": outliers}}),
    );
    until("the target is ejected", || {
        for _ in 0..60 {
            get_and_close(&gateway);
        }
        health(&gateway, broken.address).1["pointsman"]["ejected"] == true
    });

    let gateway = Gateway::start();
    gateway.balanced(&[(good[0].address, 1), (broken.address, 100)]);
    gateway.upload("mine", guest("lightest")).expect(201);
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "mine")])
        .expect(200);
    let digest = crate::canary::add(&gateway, "heaviest");
    let path = format!("/balancers/mine/versions/{digest}/canary");
    let bounds = json!({"share_percent": 50, "max_error_ratio": 2, "min_requests": 5});
    gateway.admin_json("POST", &path, &bounds).expect(201);
    until("the canary has returned", || {
        get_and_close(&gateway);
        gateway.admin("GET", &path, &[]).expect(200).json()["state"] == "returned"
    });
    let figures = gateway.admin("GET", &path, &[]).expect(200).json()["figures"].clone();
    let canary = &figures["canary"];
    assert_eq!(canary["errors"], canary["requests"], "{figures}");
    assert_eq!(figures["stable"]["errors"], 0, "{figures}");
}

/// A stream that is reset drops what it has not sent, so the reset comes after it.
#[test]
fn the_received_part_of_a_broken_response_reaches_a_client_of_http2() {
    let long = format!("content-length: 60000\r\n\r\n{}", "a".repeat(30_000));
    let broken = BROKEN.iter().map(|(broken, passed)| (*broken, *passed));
    for (broken, passed) in broken.chain([(long.as_str(), "a")]) {
        let answer = format!("HTTP/1.1 201 Made\r\nx-mark: here\r\n{broken}");
        let server = RawServer::start(move |_, mut raw| {
            raw.read_until("\r\n\r\n");
            raw.send(answer.as_bytes());
        });
        let gateway = gateway_to(server.address);
        let client = Http2::connect(gateway.proxy);
        let wanted = match passed {
            "a" => 30_000,
            passed => passed.chars().filter(|c| "abc".contains(*c)).count(),
        };
        for _ in 0..20 {
            let request = client.request("GET", "/").body(http2::empty()).unwrap();
            let response = client.start(request);
            let (status, received, is_broken) = client.runtime.block_on(async {
                let response = response.await.unwrap().unwrap();
                let status = response.status().as_u16();
                let (mut body, mut received) = (response.into_body(), 0);
                while let Some(frame) = body.frame().await {
                    match frame {
                        Ok(frame) => received += frame.into_data().map_or(0, |data| data.len()),
                        Err(_) => return (status, received, true),
                    }
                }
                (status, received, false)
            });
            assert_eq!(
                (status, received, is_broken),
                (201, wanted, true),
                "{broken:.60?}"
            );
        }
    }
}
