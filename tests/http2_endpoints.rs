//! HTTP/2 between the gateway and endpoints.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::harness::http2::{
    END_HEADERS, END_STREAM, Frames, Http2, data, empty, frame, full, kind, streamed,
};
use crate::harness::{Backend, Gateway, Raw, Setup, in_flight, patch_upstream, sha256, until};

/// A gateway with one worker and an upstream `u` whose service is asked over HTTP/2.
pub(crate) fn gateway(targets: &[SocketAddr]) -> Gateway {
    let gateway = Setup::new().arg("--workers", 1).start();
    balance(&gateway, targets);
    gateway
}

fn balance(gateway: &Gateway, targets: &[SocketAddr]) {
    let targets: Vec<_> = targets.iter().map(|target| (*target, 100)).collect();
    gateway.balanced(&targets);
    let fields = json!({"pointsman": {"http2": true}, "retries": 0});
    set(gateway, &fields);
}

fn set(gateway: &Gateway, fields: &Value) {
    let answer = gateway.admin_json("PATCH", "/services/u-service", fields);
    answer.expect(200);
}

#[test]
fn requests_and_bodies_of_any_size_are_sent_on_one_connection() {
    let backend = Backend::start_http2("b", 100);
    let gateway = gateway(&[backend.address]);
    let answer = gateway
        .get_with("/anything?a=b", &[("te", "trailers")])
        .expect(200);
    assert!(answer.header("via").starts_with("2 pointsman/"));
    let echo = answer.json();
    let headers = &echo["headers"];
    assert_eq!(
        echo["uri"],
        format!("http://{}/anything?a=b", backend.address)
    );
    assert_eq!(headers["te"], "trailers");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-path"], "/anything");
    assert!(
        headers["via"]
            .as_str()
            .unwrap()
            .starts_with("1.1 pointsman/")
    );
    assert_eq!(headers.get("connection"), None);
    let body = gateway.get("/bytes/5000000").expect(200).body;
    assert!(body.len() == 5_000_000 && body.iter().all(|byte| *byte == b'x'));
    let sent = vec![b'y'; 5_000_000];
    let upload = ("application/octet-stream", sent.clone());
    let echo = gateway.send(gateway.proxy, "POST", "/", &[], Some(upload));
    let echo = echo.expect(200).json();
    assert_eq!(echo["sha256"], sha256(&sent));
    gateway
        .send(gateway.proxy, "HEAD", "/", &[], None)
        .expect(200);
    gateway.get("/status/304").expect(304);
    gateway.get("/status/503").expect(503);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn over_tls_the_endpoint_chooses_and_http1_is_spoken_with_one_that_has_no_http2() {
    let (new, _) = Backend::start_http2_tls("new", "b.example");
    let (old, _) = Backend::start_tls("old", "b.example");
    let gateway = gateway(&[new.address, old.address]);
    set(&gateway, &json!({"protocol": "https"}));
    for _ in 0..4 {
        let answer = gateway.get("/").expect(200);
        let version = match answer.header("x-backend") {
            "new" => "2 ",
            _ => "1.1 ",
        };
        assert!(answer.header("via").starts_with(version));
    }
    assert_eq!((new.connections(), old.connections()), (1, 1));
}

#[test]
fn an_endpoint_of_http1_in_clear_text_is_a_502() {
    let backend = Backend::start("b");
    let gateway = gateway(&[backend.address]);
    gateway.get("/").expect(502);
}

#[test]
fn requests_at_the_same_time_share_connections_up_to_the_endpoints_limit_of_streams() {
    let backend = Backend::start_http2("b", 10);
    let gateway = gateway(&[backend.address]);
    let client = Http2::connect(gateway.proxy);
    let started: Vec<_> = (0..40)
        .map(|_| client.start(client.request("GET", "/held").body(empty()).unwrap()))
        .collect();
    until("all requests are at the endpoint", || {
        backend.served() == 40
    });
    backend.release();
    for response in started {
        assert_eq!(client.wait(response).status, 200);
    }
    let connections = backend.connections();
    assert!((2..=8).contains(&connections), "{connections}");
    assert_eq!(backend.served(), 40);
}

#[test]
fn max_connections_does_not_limit_requests_over_http2() {
    let backend = Backend::start_http2("b", 10);
    let gateway = gateway(&[backend.address]);
    let limits = json!({"pointsman": {"circuit_breakers": {"max_connections": 1}}});
    patch_upstream(&gateway, &limits);
    let client = Http2::connect(gateway.proxy);
    let started: Vec<_> = (0..30)
        .map(|_| client.start(client.request("GET", "/delay/50").body(empty()).unwrap()))
        .collect();
    for response in started {
        assert_eq!(client.wait(response).status, 200);
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_request_that_is_cancelled_resets_its_stream_and_not_the_connection() {
    let backend = Backend::start_http2("b", 100);
    let gateway = gateway(&[backend.address]);
    let mut client = Raw::connect(gateway.proxy);
    client.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the request is at the endpoint", || backend.served() == 1);
    assert_eq!(in_flight(&gateway), 1.0);
    drop(client);
    until("the request has ended", || in_flight(&gateway) == 0.0);
    gateway.get("/").expect(200);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn trailers_pass_in_both_directions() {
    let backend = Backend::start_http2("b", 100);
    let gateway = gateway(&[backend.address]);
    let client = Http2::connect(gateway.proxy);
    let (sender, body) = streamed();
    let request = client.request("POST", "/trailers").header("te", "trailers");
    let response = client.start(request.body(body).unwrap());
    sender.send(data("one")).unwrap();
    let trailers = [("x-sent", "2")].map(|(name, value)| {
        (
            hyper::header::HeaderName::from_static(name),
            hyper::header::HeaderValue::from_static(value),
        )
    });
    let trailers = hyper::body::Frame::trailers(trailers.into_iter().collect());
    sender.send(trailers).unwrap();
    drop(sender);
    let answer = client.wait(response).expect(200);
    assert_eq!(answer.json()["length"], 3);
    assert_eq!(answer.trailers["x-own"], "1");
    assert_eq!(answer.trailers["x-sent"], "2");
}

#[test]
fn an_endpoint_that_has_restarted_costs_no_request() {
    let backend = Backend::start_http2("b", 100);
    let address = backend.address;
    let gateway = gateway(&[address]);
    gateway.get("/").expect(200);
    backend.kill();
    let again = Backend::serve_http2_on("b", address);
    gateway.get("/").expect(200);
    assert_eq!(again.served(), 1);
}

/// A server that answers a number of requests on each connection, and closes it then in order, with
/// a GOAWAY that does not wait for requests on their way, as nginx does.
pub(crate) struct Short {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicU32>,
}

impl Short {
    fn start(streams: u32) -> Self {
        Self::serving(move |stream| serve(stream, streams))
    }

    /// A server whose connections are served so.
    pub(crate) fn serving(
        serve: impl Fn(TcpStream) -> Option<()> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU32::new(0));
        let accepted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream.unwrap()));
            }
        });
        Self {
            address,
            connections,
        }
    }
}

const PREFACE: usize = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Begins a connection, and reads the client's preface.
pub(crate) fn open(stream: &mut TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.write_all(&frame(kind::SETTINGS, 0, 0, &[])).ok()?;
    stream.read_exact(&mut [0; PREFACE]).ok()
}

/// Reads a frame. Returns its type, its flags and its stream.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some((kind, flags, u32::from_be_bytes(id)))
}

/// Answers streams with 200 (index 8 of the static table, RFC 7541), and closes the connection
/// after this many of them. A connection that may have none answers nothing, not even a PING.
fn serve(mut stream: TcpStream, streams: u32) -> Option<()> {
    open(&mut stream)?;
    let mut answered = 0;
    loop {
        let (kind, flags, id) = read_frame(&mut stream)?;
        // The whole request is read before it is answered.
        let ends = matches!(kind, kind::HEADERS | kind::DATA) && flags & END_STREAM > 0;
        if !ends || answered == streams {
            continue;
        }
        answered += 1;
        if answered == streams {
            let mut last = id.to_be_bytes().to_vec();
            last.extend([0; 4]);
            stream.write_all(&frame(kind::GOAWAY, 0, 0, &last)).ok()?;
        }
        let answer = frame(kind::HEADERS, END_HEADERS | END_STREAM, id, &[0x88]);
        stream.write_all(&answer).ok()?;
    }
}

#[test]
fn a_goaway_after_every_few_streams_costs_no_request() {
    let server = Short::start(10);
    let gateway = gateway(&[server.address]);
    let client = Http2::connect(gateway.proxy);
    for _ in 0..5 {
        // A POST may not be sent twice unless the endpoint says that it has not processed it.
        let started: Vec<_> = (0..40)
            .map(|_| client.start(client.request("POST", "/").body(full("body")).unwrap()))
            .collect();
        for response in started {
            assert_eq!(client.wait(response).status, 200);
        }
    }
    assert!(server.connections.load(Ordering::SeqCst) >= 20);
}

#[test]
fn an_endpoint_that_processes_nothing_is_left_alone_soon() {
    // Each connection ends with the first request on it, which it has not processed.
    let server = Short::serving(|mut stream| {
        open(&mut stream)?;
        while read_frame(&mut stream)?.0 != kind::HEADERS {}
        stream.write_all(&frame(kind::GOAWAY, 0, 0, &[0; 8])).ok()
    });
    let gateway = gateway(&[server.address]);
    set(&gateway, &json!({"retries": 5}));
    gateway.get("/").expect(502);
    // Six tries, and two more connections.
    let accepted = server.connections.load(Ordering::SeqCst);
    assert!((6..=8).contains(&accepted), "{accepted}");
}

/// A server that answers each request with a head and a piece of a body, and resets its stream then
/// with this code.
fn resetting(code: u8) -> Short {
    Short::serving(move |mut stream| {
        open(&mut stream)?;
        loop {
            let (kind, _, id) = read_frame(&mut stream)?;
            if kind == kind::HEADERS {
                let head = frame(kind::HEADERS, END_HEADERS, id, &[0x88]);
                let piece = frame(kind::DATA, 0, id, b"abc");
                let reset = frame(kind::RST_STREAM, 0, id, &[0, 0, 0, code]);
                stream.write_all(&[head, piece, reset].concat()).ok()?;
            }
        }
    })
}

#[test]
fn a_stream_that_an_endpoint_resets_is_reset_with_the_same_code() {
    for code in [8, 11] {
        let server = resetting(code);
        let gateway = gateway(&[server.address]);
        let mut client = Frames::connect(gateway.proxy, &[]);
        client.get(1, "/", END_STREAM);
        let reset = client.next_of(kind::RST_STREAM).unwrap();
        assert_eq!(reset.payload, [0, 0, 0, code]);
    }
}

#[test]
fn without_a_pool_each_request_opens_its_connection_at_once() {
    const REQUESTS: usize = 8;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        // Nothing is said on any connection before all of them are open.
        let open: Vec<_> = listener.incoming().take(REQUESTS).collect();
        for stream in open {
            std::thread::spawn(move || serve(stream.unwrap(), 1));
        }
    });
    let setup = Setup::new()
        .arg("--workers", 1)
        .arg("--upstream-keepalive-pool-size", 0);
    let gateway = setup.start();
    balance(&gateway, &[address]);
    let client = Http2::connect(gateway.proxy);
    let started: Vec<_> = (0..REQUESTS)
        .map(|_| client.start(client.request("GET", "/").body(empty()).unwrap()))
        .collect();
    for response in started {
        assert_eq!(client.wait(response).status, 200);
    }
}

#[test]
fn a_connection_that_has_gone_silent_serves_no_further_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        // Only the first connection is silent.
        for (streams, stream) in [0, 100].into_iter().zip(listener.incoming()) {
            std::thread::spawn(move || serve(stream.unwrap(), streams));
        }
    });
    let gateway = gateway(&[address]);
    set(&gateway, &json!({"read_timeout": 300}));
    gateway.get("/").expect(504);
    // Another connection answers, however long a busy machine takes.
    set(&gateway, &json!({"read_timeout": 60_000}));
    gateway.get("/").expect(200);
}

#[test]
fn a_stopped_endpoint_is_found_by_pings() {
    let server = Short::start(0);
    let gateway = gateway(&[server.address]);
    let keepalive = json!({"http2": true, "http2_keepalive": {"interval": 0.05, "timeout": 0.2}});
    // Without PINGs, the request would wait for weeks.
    set(
        &gateway,
        &json!({"pointsman": keepalive, "read_timeout": 2_147_483_646}),
    );
    gateway.get("/").expect(504);
}
