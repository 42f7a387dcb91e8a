//! The side of the proxy that faces clients: how many there may be, what each may hold, and what
//! those get that do something unusual.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;

use crate::harness::{Backend, Gateway, Raw, Setup, exchange, sum};
use crate::health::until;

fn with_backend(setup: Setup) -> (Gateway, Backend) {
    let gateway = setup.start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    (gateway, backend)
}

/// The value of a metric without labels, or of its first row with these.
fn metric(gateway: &Gateway, start: &str) -> f64 {
    let page = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    let row = page.lines().find(|line| line.starts_with(start));
    let row = row.unwrap_or_else(|| panic!("no {start} in {page}"));
    row.rsplit(' ').next().unwrap().parse().unwrap()
}

fn in_flight(gateway: &Gateway) -> f64 {
    metric(gateway, "pointsman_endpoint_in_flight{")
}

/// Reads an answer of the backend to its end.
fn read_answer(raw: &mut Raw) -> String {
    let head = raw.read_until("\"sum\":\"");
    head + &raw.read_until("\"}")
}

/// A response that the gateway has made by itself has Kong's headers, and a body that names the
/// request.
#[track_caller]
fn is_kongs(answer: &str, status: &str, words: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    let id = head.split_once("x-kong-request-id: ").unwrap().1;
    let id = id.split("\r\n").next().unwrap();
    assert!(head.contains("server: pointsman/"), "{answer}");
    assert!(body.contains(words) && body.contains(id), "{answer}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{answer}"
    );
}

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
            let answer = raw.send(request.as_bytes()).finish().read_to_end();
            let head = answer.get(..12).unwrap_or_default();
            assert!(head.ends_with(" 200"), "{request}: {answer}");
            assert!(answer.ends_with('}'), "{request}: {answer}");
            assert_eq!(backend.served(), before + 1);
        }
    }
    // Also the answers to several requests that came together, whenever the end comes, and a long
    // one.
    for _ in 0..20 {
        let mut raw = Raw::connect(gateway.proxy);
        let two = "GET / HTTP/1.1\r\nhost: h\r\n\r\n".repeat(2);
        let answers = raw.send(two.as_bytes()).finish().read_to_end();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    }
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"GET /bytes/3000000 HTTP/1.0\r\n\r\n").finish();
    let answer = raw.read_to_end();
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 3_000_000);
}

#[test]
fn a_client_that_is_gone_frees_its_endpoint() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--client-half-close-timeout", 1));
    let hang = || {
        let mut stream = TcpStream::connect(gateway.proxy).unwrap();
        stream
            .write_all(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n")
            .unwrap();
        until("the request is with the endpoint", || {
            in_flight(&gateway) == 1.0
        });
        stream
    };
    let closed = hang();
    drop(closed);
    until("a closed client is gone", || in_flight(&gateway) == 0.0);
    let reset = hang();
    SockRef::from(&reset)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(reset);
    until("a client that resets is gone", || {
        in_flight(&gateway) == 0.0
    });
}

/// An endpoint that sends a head and a part of a body as soon as it is asked, and then nothing.
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
fn a_client_that_resets_after_its_end_frees_its_endpoint() {
    let gateway = Setup::new()
        .arg("--client-half-close-timeout", 3600)
        .start();
    gateway.balanced(&[(slow_body(), 100)]);
    let mut stream = TcpStream::connect(gateway.proxy).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .unwrap();
    until("the request is with the endpoint", || {
        in_flight(&gateway) == 1.0
    });
    // Closed before the answer begins, which the client's system answers with a reset.
    drop(stream);
    until("the client is gone", || in_flight(&gateway) == 0.0);
}

#[test]
fn a_host_without_a_name_is_refused() {
    let (gateway, backend) = with_backend(Setup::new());
    for line in [
        "host:\r\n",
        "host: \r\n",
        "host: :80\r\n",
        "",
        "host: a\r\nhost: b\r\n",
    ] {
        let answer = exchange(
            gateway.proxy,
            &format!("GET / HTTP/1.1\r\n{line}connection: close\r\n\r\n"),
        );
        is_kongs(&answer, "400", "Bad request");
    }
    let answer = exchange(gateway.proxy, "GET / HTTP/1.0\r\nhost:\r\n\r\n");
    assert!(answer.contains(" 400 "), "{answer}");
    assert_eq!(backend.served(), 0);
    let answer = exchange(gateway.proxy, "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 200 "), "{answer}");
}

#[test]
fn a_missing_host_is_refused_before_a_body_is_waited_for() {
    let (gateway, _backend) = with_backend(Setup::new());
    for lines in ["", "host:\r\n", "host: a\r\nhost: b\r\n", "host: a b\r\n"] {
        let mut raw = Raw::connect(gateway.proxy);
        // Who waits for the body says so.
        let head =
            format!("POST / HTTP/1.1\r\n{lines}expect: 100-continue\r\ncontent-length: 4\r\n\r\n");
        let answer = raw.send(head.as_bytes()).read_to_end();
        is_kongs(&answer, "400", "Bad request");
        assert!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
}

#[test]
fn a_chunked_body_that_ends_with_a_bare_line_feed_is_taken() {
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
                    until("the head has come", || {
                        metric(&gateway, "kong_nginx_requests_total") > served
                    });
                }
            }
            let answer = raw.read_to_end();
            assert!(answer.starts_with("HTTP/1.1 200"), "{chunks:?}: {answer}");
            assert!(
                answer.contains(&sum(body.as_bytes())),
                "{chunks:?}: {answer}"
            );
        }
    }
    // hyper waits for the end of trailers then: what follows is not taken for some, nor its body
    // for a request.
    let mut raw = Raw::connect(gateway.proxy);
    let served = backend.served();
    raw.send(head.replace("POST /", "POST /delay/300").as_bytes());
    raw.send(b"3\r\nabc\r\n0\r\n\n");
    until("it is with the endpoint", || backend.served() > served);
    raw.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 35\r\n\r\n");
    raw.send(b"GET /admin HTTP/1.1\r\nhost: h\r\n\r\n\r\n");
    let answers = raw.read_to_end();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert_eq!(backend.served(), served + 1);
    // Nor does one that ends a head.
    let mut raw = Raw::connect(gateway.proxy);
    let requests = metric(&gateway, "kong_nginx_requests_total");
    raw.send(b"POST / HTTP/1.1\nhost: h\ntransfer-encoding: chunked\n\n");
    until("the head has come", || {
        metric(&gateway, "kong_nginx_requests_total") > requests
    });
    let answer = read_answer(raw.send(b"3\r\nabc\r\n0\r\n\r\n"));
    assert!(answer.contains(&sum(b"abc")), "{answer}");
    // A line feed that is data ends nothing, however long the rest takes.
    let mut raw = Raw::connect(gateway.proxy);
    let served = backend.served();
    raw.send(format!("{head}5\r\nab\n").as_bytes());
    gateway.get("/").expect(200);
    raw.send(b"\n");
    gateway.get("/").expect(200);
    assert_eq!(backend.served(), served + 2);
    raw.send(b"c\r\n0\r\n\r\n");
    let answer = read_answer(&mut raw);
    assert!(answer.contains(&sum(b"ab\n\nc")), "{answer}");
}

/// Wherever the bytes are cut, and whatever follows in the same read: the end of a body is neither
/// waited for nor taken from the next request.
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
                assert!(answers.contains(&sum(b"abc")), "{end:?} {cut}: {answers}");
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
fn a_malformed_head_is_answered_as_by_kong() {
    let (gateway, backend) = with_backend(Setup::new());
    let long = "x".repeat(40_000);
    for (head, status, words) in [
        ("nonsense\r\n\r\n".to_owned(), "400", "Bad request"),
        (
            "GET / HTTP/1.1\r\nhost h\r\n\r\n".to_owned(),
            "400",
            "Bad request",
        ),
        (
            "G@T / HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(),
            "400",
            "Bad request",
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"),
            "431",
            "Request header or cookie too large",
        ),
    ] {
        let answer = exchange(gateway.proxy, &head);
        is_kongs(&answer, status, words);
    }
    // Also after a request that was right.
    let mut raw = Raw::connect(gateway.proxy);
    read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
    let answer = raw.send(b"nonsense\r\n\r\n").read_to_end();
    is_kongs(&answer, "400", "Bad request");
    assert_eq!(backend.served(), 1);
}

#[test]
fn as_many_headers_are_passed_on_as_the_setting_says() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--max-headers", 400));
    let headers: String = (0..300)
        .map(|number| format!("x-h{number}: {number}\r\n"))
        .collect();
    let answer = exchange(
        gateway.proxy,
        &format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n"),
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"x-h299\":\"299\""), "{answer}");
}

#[test]
fn a_reader_that_stalls_holds_little() {
    const READERS: usize = 60;
    let (gateway, _backend) = with_backend(Setup::new().arg("--workers", 1));
    gateway.get_large("/bytes/8000000");
    let before = gateway.reset_peak();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut raw = Raw::connect(gateway.proxy);
        raw.send(b"GET /bytes/100000000 HTTP/1.1\r\nhost: h\r\n\r\n");
        raw.read_until("\r\n\r\n");
        readers.push(raw);
    }
    // Others are served meanwhile; each of these gets as much as the systems between take.
    for _ in 0..20 {
        gateway.get_large("/bytes/1000000");
    }
    let held = gateway.peak_bytes().saturating_sub(before) / READERS;
    println!("a stalled reader holds {held} bytes");
    assert!(held <= 128 << 10, "{held} bytes");
}

#[test]
fn an_idle_connection_holds_little() {
    const CLIENTS: usize = 2000;
    let (gateway, _backend) = with_backend(Setup::new().arg("--workers", 1));
    let clients = |requests: bool| {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut raw = Raw::connect(gateway.proxy);
            if requests {
                read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
            }
            clients.push(raw);
        }
        clients
    };
    // What a few thousand need once is not what each needs.
    drop(clients(true));
    until("they are gone", || {
        metric(&gateway, "kong_nginx_connections_total{") >= 0.0 && active(&gateway) < 100.0
    });
    let before = gateway.resident_bytes();
    let silent = clients(false);
    until("they are there", || active(&gateway) >= CLIENTS as f64);
    let each = gateway.resident_bytes().saturating_sub(before) / CLIENTS;
    println!("a new connection holds {each} bytes");
    assert!(each < 8 << 10, "{each} bytes");
    let served = clients(true);
    let each = || gateway.resident_bytes().saturating_sub(before) / (2 * CLIENTS);
    until("they have given back what requests need", || {
        each() < 8 << 10
    });
    println!("a connection holds {} bytes", each());
    drop((silent, served));
}

fn active(gateway: &Gateway) -> f64 {
    let page = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    let row = page.lines().find(|line| {
        line.starts_with("kong_nginx_connections_total{") && line.contains("state=\"active\"")
    });
    row.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_idle_gateway_is_small() {
    let gateway = Gateway::start();
    let resident = gateway.resident_bytes();
    println!("an idle gateway holds {} KiB", resident >> 10);
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", gateway.id())).unwrap();
    let anonymous = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let anonymous = anonymous.unwrap().trim().trim_end_matches(" kB");
    // The program itself is mapped from its file, and twice as large without optimisation.
    let anonymous: usize = anonymous.parse().unwrap();
    println!("of which {anonymous} KiB are anonymous");
    assert!(anonymous <= 24 << 10, "{anonymous} KiB");
}

#[test]
fn a_slow_upload_holds_no_endpoint() {
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
    until("all have come", || {
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
        assert!(answer.contains(&sum(&whole)), "{answer}");
        // Its length is known by now, and told.
        assert!(answer.contains("\"content-length\":\"60000\""), "{answer}");
    }
}

#[test]
fn a_long_body_and_one_that_must_not_be_buffered_are_passed_on_as_they_come() {
    let (gateway, backend) = with_backend(Setup::new().arg("--client-body-buffer-size", 1000));
    let starts = |path: &str, length: usize, sent: usize| {
        let served = backend.served();
        let mut raw = Raw::connect(gateway.proxy);
        let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
        raw.send(head.as_bytes()).send(&vec![b'x'; sent]);
        until("the endpoint is asked", || backend.served() > served);
        let answer = read_answer(raw.send(&vec![b'x'; length - sent]));
        assert!(answer.contains(&sum(&vec![b'x'; length])), "{answer}");
    };
    starts("/", 1001, 10);
    let mut raw = Raw::connect(gateway.proxy);
    let served = backend.served();
    raw.send(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
    raw.send(format!("3e9\r\n{}\r\n", "x".repeat(1001)).as_bytes());
    until("the endpoint is asked", || backend.served() > served);
    let answer = read_answer(raw.send(b"2\r\nxx\r\n0\r\n\r\n"));
    assert!(answer.contains(&sum(&vec![b'x'; 1003])), "{answer}");
    let route = json!({"name": "raw", "paths": ["/raw"], "request_buffering": false});
    gateway
        .admin_json("POST", "/services/u-service/routes", &route)
        .expect(201);
    starts("/raw", 100, 0);
}

#[test]
fn a_body_that_comes_too_slowly_is_a_408() {
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
        // A byte now and then is never too late, and always too little.
        let mut answer = [0; 12];
        let mut read = 0;
        until("it is answered", || {
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
    assert!(backend.served() <= 1, "but for the long one");
}

#[test]
fn clients_past_the_limit_are_refused_in_order() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--max-connections", 4));
    let before = active(&gateway);
    let mut clients: Vec<_> = (0..4).map(|_| Raw::connect(gateway.proxy)).collect();
    until("all are in", || active(&gateway) == before + 4.0);
    for number in 1..=10 {
        let answer = exchange(gateway.proxy, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        is_kongs(&answer, "503", "Too many connections");
        let refused = "pointsman_connections_refused_total{listener=\"proxy\"}";
        assert_eq!(metric(&gateway, refused), f64::from(number));
    }
    for raw in &mut clients {
        let answer = read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    clients.pop();
    until("there is room again", || active(&gateway) == before + 3.0);
    gateway.get("/").expect(200);
    drop(clients);
    gateway.terminate();
    let (_, log) = gateway.wait();
    let lines = log.lines().filter(|line| line.contains("refused")).count();
    assert!((1..=2).contains(&lines), "{log}");
}

#[test]
fn both_ports_answer_when_files_run_out() {
    let (gateway, _backend) = with_backend(Setup::new().ulimit("-n 160").arg("--workers", 1));
    let mut clients = Vec::new();
    let refused = "pointsman_connections_refused_total{listener=\"proxy\"}";
    until("no more are let in", || {
        clients.push(Raw::connect(gateway.proxy));
        metric(&gateway, refused) > 20.0
    });
    // Only a few are answered at a time; others just lose their connections.
    let mut answer = String::new();
    until("one is answered in order", || {
        answer = exchange(gateway.proxy, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        !answer.is_empty()
    });
    is_kongs(&answer, "503", "Too many connections");
    // Those that are in are served, all at once.
    let inside = active(&gateway) as usize;
    assert!(inside > 10, "{inside}");
    for raw in &mut clients[..inside] {
        raw.send(b"GET /delay/200 HTTP/1.1\r\nhost: h\r\n\r\n");
    }
    for raw in &mut clients[..inside] {
        let answer = read_answer(raw);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // What is kept back is there for writes, and for components to be compiled.
    gateway
        .admin("POST", "/services", &[("url", "http://other.test")])
        .expect(201);
    gateway
        .upload("own", crate::harness::guest("reads-body"))
        .expect(201);
    drop(clients);
    until("there is room again", || gateway.get("/").status == 200);
    // Nor can clients of the Admin API starve the proxy, or each other for ever.
    let held: Vec<_> = (0..200).map(|_| Raw::connect(gateway.admin)).collect();
    gateway.get("/").expect(200);
    drop(held);
    until("the Admin API answers", || {
        gateway.try_admin("GET", "/", &[]) == Some(200)
    });
    assert!(
        metric(
            &gateway,
            "pointsman_connections_refused_total{listener=\"admin\"}"
        ) > 0.0
    );
}

#[test]
fn idle_connections_to_endpoints_make_room_for_others() {
    let (gateway, _backend) = with_backend(Setup::new().ulimit("-n 120").arg("--workers", 2));
    let backends: Vec<_> = (0..60).map(|_| Backend::start("b")).collect();
    for backend in &backends {
        gateway.add_target("u", backend.address, 100);
    }
    for _ in 0..240 {
        gateway
            .get_with("/", &[("connection", "close")])
            .expect(200);
    }
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let (gateway, _backend) = with_backend(Setup::new().ulimit("-S -n 64"));
    let mut clients: Vec<_> = (0..200).map(|_| Raw::connect(gateway.proxy)).collect();
    for raw in &mut clients {
        let answer = read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn too_few_files_are_said_at_the_start() {
    let (status, said) = Setup::new().ulimit("-n 40").arg("--workers", 8).fail();
    assert!(!status.success());
    assert!(said.contains("limit of open files is 40"), "{said}");
}

#[test]
fn every_line_about_a_request_has_its_id() {
    let gateway = Setup::new().arg("--log", "debug").start();
    let refusing = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    gateway.balanced(&[(refusing, 100)]);
    // Another try would find no target that is healthy.
    gateway
        .admin("PATCH", "/services/u-service", &[("retries", "0")])
        .expect(200);
    crate::health::passive(&gateway, &json!({"tcp_failures": 1}));
    let id = |reply: &crate::harness::Reply| reply.header("x-kong-request-id").to_owned();
    let failed = id(&gateway.get("/").expect(502));
    let without = id(&gateway.get("/").expect(503));
    gateway
        .upload("reads-body", crate::harness::guest("reads-body"))
        .expect(201);
    crate::health::set(&gateway, &json!({"algorithm": "reads-body"}));
    let path = format!("/upstreams/u/targets/{refusing}/healthy");
    gateway.admin("PUT", &path, &[]).expect(204);
    let spoken = id(&gateway.get("/").expect(502));
    let malformed = exchange(gateway.proxy, "nonsense\r\n\r\n");
    let malformed = malformed.to_ascii_lowercase();
    let malformed = malformed.split_once("x-kong-request-id: ").unwrap().1[..32].to_owned();
    gateway.terminate();
    let (_, log) = gateway.wait();
    let with = |words: &str, id: &str| {
        let mut lines = log.lines().filter(|line| line.contains(words));
        assert!(lines.any(|line| line.contains(id)), "{words} {id}: {log}");
    };
    with("no answer", &failed);
    with("a try failed", &failed);
    with("unhealthy", &failed);
    with("no endpoint may be chosen", &without);
    with("the balancer says", &spoken);
    with("nothing more", &malformed);
}
