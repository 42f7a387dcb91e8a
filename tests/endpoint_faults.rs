//! Endpoints that violate HTTP: what the client receives, how it counts for the endpoint's health,
//! and that no byte becomes part of another response.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::{
    Backend, Gateway, Raw, RawServer, Setup, active_checks, guest, has_health, health,
    patch_upstream, set_passive_checks, until,
};

/// A gateway with one target.
fn gateway_to(target: SocketAddr) -> Gateway {
    let gateway = Gateway::start();
    gateway.balanced(&[(target, 100)]);
    gateway
}

/// The response to a request, until the connection ends.
fn get(gateway: &Gateway, method: &str) -> String {
    let request = format!("{method} / HTTP/1.1\r\nhost: h\r\n\r\n");
    Raw::connect(gateway.proxy)
        .send(request.as_bytes())
        .read_to_end()
}

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
    // The same for a response that ends with a read timeout.
    let waiting = [("read_timeout", "100")];
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

/// Whether the gateway has read all that a client sent: the receive queue of its socket is empty.
fn is_read(gateway: &Gateway, client: &Raw) -> bool {
    let (local, remote) = (gateway.proxy.port(), client.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
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
    let gateway = Setup::new().arg("--workers", 1).start();
    let (say, said) = mpsc::channel::<&str>();
    let said = Mutex::new(said);
    // After each response the server waits until the test says what it sends unasked.
    let server = RawServer::start(move |_, mut raw| {
        let said = said.lock().unwrap();
        while raw.read_until("\r\n\r\n").ends_with("\r\n\r\n") {
            raw.send(b"HTTP/1.1 200 OK\r\nx-mark: asked\r\ncontent-length: 2\r\n\r\nhi");
            match said.recv() {
                // On a busy machine the next request may have arrived already.
                Ok(_) if raw.has_bytes() => {}
                Ok(unasked) => {
                    raw.send(unasked.as_bytes());
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
        if let Some(unasked) = unasked {
            until(
                "the worker has read the request and the balancer computes",
                || is_read(&gateway, &client),
            );
            say.send(unasked).unwrap();
        }
        let head = client.read_until("\r\n\r\n");
        assert!(
            head.contains("\r\nx-mark: asked\r\n"),
            "{method} {unasked:?}: {head}"
        );
        assert_eq!(client.read_until("hi"), "hi");
    };
    ask(None, "GET");
    for method in ["GET", "POST"] {
        for unasked in UNASKED.into_iter().cycle().take(9) {
            ask(Some(unasked), method);
        }
    }
    drop(say);
    assert!(server.accepted() > 9, "{}", server.accepted());
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

fn get_and_close(gateway: &Gateway) -> String {
    Raw::connect(gateway.proxy)
        .send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .read_to_end()
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
        .admin("PATCH", "/services/u-service", &[("read_timeout", "100")])
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

#[test]
fn a_probe_needs_a_complete_response() {
    let long = format!("content-length: 9999999\r\n\r\n{}", "x".repeat(100_000));
    let cases = [
        ("HTTP/1.1 200 OK\r\n", false),
        ("HTTP/1.1 200 OK\r\na: b\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc", false),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", true),
        (
            "HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc",
            true,
        ),
        (
            &*format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(500)),
            true,
        ),
        (&*format!("HTTP/1.1 200 OK\r\n{long}"), true),
    ];
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    patch_upstream(&gateway, &active_checks("http", &json!({})));
    for (answer, well) in cases {
        let server = RawServer::responding_with(answer);
        gateway.add_target("u", server.address, 100);
        let other = if well { "healthy" } else { "unhealthy" };
        // The target starts in the opposite state, so that the change can be seen.
        let path = format!("/upstreams/u/targets/{}", server.address);
        if well {
            let path = format!("{path}/unhealthy");
            gateway.admin("PUT", &path, &[]).expect(204);
        }
        until(other, || {
            has_health(&gateway, server.address, &other.to_uppercase())
        });
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
}

/// How the connections of probes end, as the server sees it.
fn ends_of_probes(kind: &str, serve: impl Fn(&mut Raw) + Send + Sync + 'static) -> Vec<String> {
    let ends = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&ends);
    let server = RawServer::start(move |_, mut raw| {
        serve(&mut raw);
        let end = match raw.read_to_close() {
            Ok(_) => "closed".into(),
            Err(error) => error.to_string(),
        };
        noted.lock().unwrap().push(end);
    });
    let gateway = gateway_to(server.address);
    patch_upstream(&gateway, &active_checks(kind, &json!({})));
    until("probes have ended", || ends.lock().unwrap().len() >= 5);
    ends.lock().unwrap().clone()
}

#[test]
fn probes_close_their_connections_without_a_reset() {
    let closes = |kind: &str, serve: fn(&mut Raw)| {
        let ends = ends_of_probes(kind, serve);
        assert!(ends.iter().all(|end| end == "closed"), "{kind}: {ends:?}");
    };
    closes("tcp", |_| {});
    // A server that sends first.
    closes("tcp", |raw| {
        raw.send(b"220 mail.example ESMTP\r\n");
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            .send(b"hi");
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n");
        raw.send(&[b'x'; 60_000]);
    });
    // A body longer than a probe reads, and more bytes than announced.
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n");
        raw.send(&[b'x'; 300_000]);
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n")
            .send(&[b'x'; 70_000]);
    });
    closes("http", |raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"no HTTP at all\r\n").send(&[b'x'; 70_000]);
    });
}

/// On a connection that probes reuse.
#[test]
fn bytes_that_arrive_before_a_probe_are_not_its_response() {
    let server = RawServer::start(|_, mut raw| {
        if raw.read_until("\r\n\r\n").is_empty() {
            return;
        }
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        raw.send(b"HTTP/1.1 500 Old\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let gateway = gateway_to(server.address);
    let mut settings = active_checks("http", &json!({}));
    settings["pointsman"] = json!({"probe": {"reuse_connection": true}});
    patch_upstream(&gateway, &settings);
    until("probes", || server.accepted() >= 10);
    let (state, known) = health(&gateway, server.address);
    assert_eq!(state, "HEALTHY");
    assert!(known["pointsman"]["last_failure"].is_null(), "{known}");
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
