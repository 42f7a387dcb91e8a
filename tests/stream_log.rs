//! The access log of streams, and streams in the live figures.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, Raw, RawServer, Setup, TlsClient, metric, refusing_address, until};

/// A server that sends back each line.
fn echo() -> RawServer {
    RawServer::start(|_, mut raw| {
        loop {
            let line = raw.read_until("\n");
            if line.is_empty() {
                return;
            }
            raw.send(line.as_bytes());
        }
    })
}

/// A server that sends back each datagram.
fn echo_datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

/// Adds a route that takes every stream of a protocol to a server.
fn route(gateway: &Gateway, name: &str, protocol: &str, service: &str, server: SocketAddr) {
    // A session of datagrams ends when it was idle for so long.
    let read_timeout = if protocol == "udp" { 500 } else { 60_000 };
    let body = json!({
        "name": name, "protocol": service, "host": server.ip(), "port": server.port(), "retries": 0,
        "read_timeout": read_timeout,
    });
    gateway.admin_json("POST", "/services", &body).expect(201);
    let body = json!({
        "name": format!("{name}-route"), "protocols": [protocol], "sources": [{ "ip": "127.0.0.0/8" }],
    });
    let path = format!("/services/{name}/routes");
    gateway.admin_json("POST", &path, &body).expect(201);
}

fn lines(path: &Path, count: usize) -> Vec<String> {
    let read = || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    until("lines", || read().len() >= count);
    let lines = read();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

/// Sends a line through a stream, and ends it.
fn pass(to: SocketAddr, line: &str) {
    let mut raw = Raw::connect(to);
    assert_eq!(raw.send(line.as_bytes()).read_until("\n"), line);
    raw.half_close().read_to_end();
}

#[test]
fn a_connection_and_a_session_have_a_line_in_kongs_format() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("streams.log");
    let gateway = Setup::new()
        .arg("--stream-listen", "127.0.0.1:0, 127.0.0.1:0 udp")
        .arg("--proxy-stream-access-log", log.display())
        .start();
    let server = echo();
    route(&gateway, "t", "tcp", "tcp", server.address);
    route(&gateway, "d", "udp", "udp", echo_datagrams());
    pass(gateway.listener("stream", 0), "hello\n");
    let line = &lines(&log, 1)[0];
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], "127.0.0.1");
    assert!(
        words[1].starts_with('[') && words[2].ends_with(']'),
        "{line}"
    );
    assert_eq!(words[3..7], ["TCP", "200", "6", "6"], "{line}");
    assert!(words[7].parse::<f64>().unwrap() < 60.0, "{line}");

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(gateway.listener("stream", 1)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket.send(b"datagram").unwrap();
    assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 8);
    // The session ends when it was idle.
    let line = &lines(&log, 2)[1];
    assert!(line.contains(" UDP 200 8 8 "), "{line}");
    until("both are counted", || {
        metric(&gateway, "pointsman_access_log_lines_written_total ") == 2.0
    });
}

#[test]
fn a_document_tells_why_a_stream_has_failed_and_which_name_it_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("streams.log");
    let gateway = Setup::new()
        .arg("--stream-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .arg(
            "--proxy-stream-access-log",
            format!("{} json", log.display()),
        )
        .start();
    assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    let document = |at: usize| -> Value { serde_json::from_str(&lines(&log, at + 1)[at]).unwrap() };
    let unmatched = document(0);
    assert_eq!(unmatched["status"], 500);
    assert_eq!(unmatched["source"], "kong");
    assert_eq!(unmatched.get("route"), None);

    route(&gateway, "broken", "tcp", "tcp", refusing_address());
    assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    let failed = document(1);
    assert_eq!(failed["status"], 502);
    assert_eq!(failed["route"]["name"], "broken-route");
    assert_eq!(failed["service"]["name"], "broken");
    assert_eq!(failed["tries"].as_array().unwrap().len(), 1);

    let server = echo();
    route(&gateway, "secure", "tls", "tcp", server.address);
    let over_tls = gateway.listener("stream", 1);
    let mut client = TlsClient::new().connect(over_tls, "a.example").unwrap();
    assert_eq!(client.send(b"x\n").read_until("\n"), "x\n");
    drop(client);
    let secure = document(2);
    assert_eq!(secure["status"], 200, "{secure}");
    assert_eq!(secure["server_name"], "a.example");
    assert_eq!(secure["tls_version"], "TLSv1.3");
    assert_eq!(secure["source"], "upstream");
    assert_eq!(secure["server_port"], over_tls.port());
}

#[test]
fn an_invalid_format_is_refused() {
    let (_, said) = Setup::new()
        .arg("--proxy-stream-access-log", "/tmp/streams.log")
        .arg("--proxy-stream-access-log-format", "$request")
        .fail();
    assert!(said.contains("there is no variable $request"), "{said}");
}

#[test]
fn streams_are_in_the_live_figures() {
    let gateway = Setup::new().arg("--stream-listen", "127.0.0.1:0").start();
    let server = echo();
    route(&gateway, "t", "tcp", "tcp", server.address);
    let mut live = Raw::connect(gateway.admin);
    live.send(b"GET /pointsman/live HTTP/1.1\r\nhost: localhost\r\n\r\n");
    live.read_until("\r\n\r\n");
    let mut held = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(held.send(b"held\n").read_until("\n"), "held\n");
    let streams = loop {
        pass(gateway.listener("stream", 0), "hello\n");
        let event = live.read_until("\n\n");
        let Some(data) = event.split("data: ").nth(1) else {
            continue;
        };
        // The event is one line; what is behind it belongs to the framing.
        let event: Value = serde_json::from_str(data.lines().next().unwrap()).unwrap();
        let streams = event["streams"].clone();
        if !streams["samples"].as_array().unwrap().is_empty() && streams["active"] == 1 {
            break streams;
        }
    };
    assert!(streams["rate"].as_f64().unwrap() > 0.0, "{streams}");
    assert_eq!(streams["errors"], 0.0);
    assert_eq!(streams["routes"].as_array().unwrap().len(), 1);
    let sample = &streams["samples"][0];
    assert_eq!(sample["transport"], "tcp");
    assert_eq!(
        (&sample["received"], &sample["sent"]),
        (&json!(6), &json!(6))
    );
    assert_eq!(sample["client"], "127.0.0.1");
}
