//! Streams: TCP, and in modules of their own TLS, UDP, and what is told of streams.

mod records;
mod tls;
mod udp;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, Raw, RawServer, Setup, TlsClient, metric, refusing_address, until};

/// A server that sends back each line with its name in front, and `bye` when the client has ended.
fn echo(name: &'static str) -> RawServer {
    RawServer::start(move |_, mut raw| {
        loop {
            let line = raw.read_until("\n");
            if line.is_empty() {
                raw.send(format!("{name}: bye").as_bytes());
                return;
            }
            raw.send(format!("{name}: {line}").as_bytes());
        }
    })
}

fn listening(listens: &str) -> Setup {
    Setup::new().arg("--stream-listen", listens)
}

/// Adds a service with a route.
fn route(gateway: &Gateway, name: &str, service: Value, route: Value) {
    let mut body = json!({ "name": name, "retries": 0 });
    let merge = |body: &mut Value, more: &Value| {
        for (field, value) in more.as_object().unwrap() {
            body[field] = value.clone();
        }
    };
    merge(&mut body, &service);
    gateway.admin_json("POST", "/services", &body).expect(201);
    let mut body = json!({ "name": name });
    merge(&mut body, &route);
    let path = format!("/services/{name}/routes");
    gateway.admin_json("POST", &path, &body).expect(201);
}

/// Adds a route that takes every stream of these protocols to a server.
fn route_all(gateway: &Gateway, protocols: &[&str], protocol: &str, server: SocketAddr) {
    route(
        gateway,
        "s",
        json!({ "protocol": protocol, "host": server.ip(), "port": server.port() }),
        json!({ "protocols": protocols, "sources": [{ "ip": "127.0.0.0/8" }] }),
    );
}

fn sessions(gateway: &Gateway, code: u16) -> f64 {
    metric(
        gateway,
        &format!("pointsman_stream_sessions_total{{code=\"{code}\"}}"),
    )
}

fn say(raw: &mut Raw, line: &str) -> String {
    raw.send(format!("{line}\n").as_bytes()).read_until("\n")
}

/// A server that sends back each datagram with its name in front.
fn echo_datagrams(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 65_535];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let _ = socket.send_to(format!("{name}: {text}").as_bytes(), client);
        }
    });
    address
}

/// A client that sends datagrams to an address.
fn datagrams(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    socket
}

fn ask(socket: &UdpSocket, text: &str) -> String {
    socket.send(text.as_bytes()).unwrap();
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn a_connection_is_passed_both_ways_and_its_ends_are_passed_on() {
    let gateway = listening("127.0.0.1:0").start();
    let server = echo("a");
    route_all(&gateway, &["tcp"], "tcp", server.address);
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(say(&mut raw, "one"), "a: one\n");
    assert_eq!(say(&mut raw, "two"), "a: two\n");
    assert_eq!(metric(&gateway, "pointsman_stream_sessions_active"), 1.0);
    assert_eq!(raw.half_close().read_to_end(), "a: bye");
    until("the session is counted", || sessions(&gateway, 200) == 1.0);
    let bytes = |direction| {
        let name = "pointsman_stream_bytes_total";
        metric(&gateway, &format!("{name}{{direction=\"{direction}\"}}"))
    };
    assert_eq!((bytes("ingress"), bytes("egress")), (8.0, 20.0));
}

#[test]
fn a_route_is_chosen_by_source_and_destination() {
    let gateway = listening("127.0.0.1:0, 127.0.0.1:0").start();
    let (one, two) = (echo("one"), echo("two"));
    for (number, server) in [&one, &two].into_iter().enumerate() {
        let port = gateway.listener("stream", number).port();
        route(
            &gateway,
            ["one", "two"][number],
            json!({ "protocol": "tcp", "host": "127.0.0.1", "port": server.address.port() }),
            json!({ "protocols": ["tcp"], "destinations": [{ "port": port }] }),
        );
    }
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let mut raw = Raw::connect(gateway.listener("stream", number));
        assert_eq!(say(&mut raw, "x"), format!("{name}: x\n"));
    }
    gateway.admin("DELETE", "/routes/one", &[]).expect(204);
    assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    until("it is counted", || sessions(&gateway, 500) == 1.0);
}

#[test]
fn a_route_may_have_an_expression() {
    let listens = "127.0.0.1:0, 127.0.0.1:0, 127.0.0.1:0 ssl";
    let gateway = listening(listens)
        .arg("--router-flavor", "expressions")
        .start();
    let (one, two, named) = (echo("one"), echo("two"), echo("named"));
    for (number, server) in [&one, &two].into_iter().enumerate() {
        let port = gateway.listener("stream", number).port();
        let expression = format!(
            "net.protocol == \"tcp\" && net.dst.port == {port} && net.src.ip in 127.0.0.0/8"
        );
        route(
            &gateway,
            ["one", "two"][number],
            json!({ "protocol": "tcp", "host": "127.0.0.1", "port": server.address.port() }),
            json!({ "protocols": ["tcp"], "expression": expression }),
        );
    }
    route(
        &gateway,
        "named",
        json!({ "protocol": "tcp", "host": "127.0.0.1", "port": named.address.port() }),
        json!({ "protocols": ["tls"], "expression": "tls.sni =^ \".example\"" }),
    );
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let mut raw = Raw::connect(gateway.listener("stream", number));
        assert_eq!(say(&mut raw, "x"), format!("{name}: x\n"));
    }
    let over_tls = gateway.listener("stream", 2);
    let mut client = TlsClient::new().connect(over_tls, "a.example").unwrap();
    assert_eq!(client.send(b"x\n").read_until("\n"), "named: x\n");
    assert!(TlsClient::new().connect(over_tls, "a.test").is_err());
    // Fields of requests are none of streams.
    let wrong = json!({ "protocols": ["tcp"], "expression": "http.path == \"/\"" });
    let refused = gateway.admin_json("POST", "/services/one/routes", &wrong);
    let message = refused.expect(400).text();
    assert!(message.contains("Unknown LHS field"), "{message}");
}

#[test]
fn connections_are_balanced_and_failed_ones_count_for_health() {
    let gateway = listening("127.0.0.1:0").start();
    let (server, gone) = (echo("a"), refusing_address());
    let checks = json!({ "passive": { "unhealthy": { "tcp_failures": 1 } } });
    let upstream = json!({ "name": "u", "healthchecks": checks });
    gateway
        .admin_json("POST", "/upstreams", &upstream)
        .expect(201);
    gateway.add_target("u", server.address, 100);
    gateway.add_target("u", gone, 100);
    route(
        &gateway,
        "s",
        json!({ "protocol": "tcp", "host": "u", "retries": 1 }),
        json!({ "protocols": ["tcp"], "sources": [{ "ip": "127.0.0.1" }] }),
    );
    for number in 0..8 {
        let mut raw = Raw::connect(gateway.listener("stream", 0));
        assert_eq!(say(&mut raw, &number.to_string()), format!("a: {number}\n"));
    }
    let health = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    let states: Vec<(String, String)> = (health.json()["data"].as_array().unwrap().iter())
        .map(|target| {
            let text = |field: &str| target[field].as_str().unwrap().to_owned();
            (text("target"), text("health"))
        })
        .collect();
    assert!(
        states.contains(&(gone.to_string(), "UNHEALTHY".into())),
        "{states:?}"
    );
    assert!(states.contains(&(server.address.to_string(), "HEALTHY".into())));
}

#[test]
fn a_stream_is_closed_without_an_endpoint() {
    let gateway = listening("127.0.0.1:0").start();
    route_all(&gateway, &["tcp"], "tcp", refusing_address());
    assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    until("it is counted", || sessions(&gateway, 502) == 1.0);
}

#[test]
fn an_idle_stream_ends() {
    let gateway = listening("127.0.0.1:0").start();
    let server = echo("a");
    let service = json!({
        "protocol": "tcp", "host": "127.0.0.1", "port": server.address.port(), "read_timeout": 50,
    });
    let all = json!({ "protocols": ["tcp"], "sources": [{ "ip": "127.0.0.1" }] });
    route(&gateway, "s", service, all);
    // On a busy machine a stream may be idle for too long before it has carried anything.
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    until("a stream carries a line", || {
        raw = Raw::connect(gateway.listener("stream", 0));
        say(&mut raw, "x") == "a: x\n"
    });
    assert!(raw.is_closed());
}

#[test]
fn a_trusted_peer_names_the_client() {
    let server = echo("a");
    for (trusted, answer) in [("127.0.0.1", "a: x\n"), ("10.0.0.1", "")] {
        let gateway = listening("127.0.0.1:0 proxy_protocol")
            .arg("--trusted-ips", trusted)
            .start();
        route(
            &gateway,
            "s",
            json!({ "protocol": "tcp", "host": "127.0.0.1", "port": server.address.port() }),
            json!({ "protocols": ["tcp"], "sources": [{ "ip": "192.0.2.7", "port": 5 }] }),
        );
        let mut raw = Raw::connect(gateway.listener("stream", 0));
        raw.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 5 6\r\nx\n");
        assert_eq!(raw.read_until("\n"), answer, "{trusted}");
    }
}

#[test]
fn policies_for_streams_let_streams_pass_or_not() {
    let gateway = listening("127.0.0.1:0").start();
    let server = echo("a");
    route_all(&gateway, &["tcp"], "tcp", server.address);
    let mut plugin = json!({ "name": "ip-restriction", "config": { "deny": ["127.0.0.0/8"] } });
    let stored = gateway.admin_json("POST", "/routes/s/plugins", &plugin);
    let id = stored.expect(201).json()["id"].as_str().unwrap().to_owned();
    assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    until("it is counted", || sessions(&gateway, 403) == 1.0);
    // One of the service of the route holds as well.
    let path = format!("/plugins/{id}");
    gateway.admin("DELETE", &path, &[]).expect(204);
    let stored = gateway.admin_json("POST", "/services/s/plugins", &plugin);
    let id = stored.expect(201).json()["id"].as_str().unwrap().to_owned();
    assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    until("it is counted", || sessions(&gateway, 403) == 2.0);
    // A plugin for requests alone is none for streams.
    gateway
        .admin("DELETE", &format!("/plugins/{id}"), &[])
        .expect(204);
    plugin["protocols"] = json!(["http"]);
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(say(&mut raw, "x"), "a: x\n");
}

#[test]
fn connections_of_streams_count_for_the_limit_of_their_address() {
    let gateway = listening("127.0.0.1:0")
        .arg("--max-connections-per-address", "2")
        .start();
    let server = echo("a");
    route_all(&gateway, &["tcp"], "tcp", server.address);
    let to = gateway.listener("stream", 0);
    let mut first = Raw::connect(to);
    assert_eq!(say(&mut first, "x"), "a: x\n");
    let mut idle = Raw::connect(gateway.proxy);
    idle.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .read_until("\r\n\r\n");
    assert!(Raw::connect(to).is_closed());
    let refused = "pointsman_address_connections_refused_total{listener=\"stream\"}";
    assert_eq!(metric(&gateway, refused), 1.0);
    drop(idle);
    until("the address has room again", || {
        say(&mut Raw::connect(to), "y") == "a: y\n"
    });
}

#[test]
fn streams_without_a_route_are_in_the_log_once() {
    let gateway = listening("127.0.0.1:0").start();
    for _ in 0..5 {
        assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    }
    until("they are counted", || sessions(&gateway, 500) == 5.0);
    gateway.terminate();
    let (_, log) = gateway.wait();
    let lines = log.lines().filter(|line| line.contains("matches a stream"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[test]
fn a_shutdown_waits_for_streams() {
    let gateway = listening("127.0.0.1:0").start();
    let server = echo("a");
    route_all(&gateway, &["tcp"], "tcp", server.address);
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(say(&mut raw, "x"), "a: x\n");
    gateway.terminate();
    assert_eq!(say(&mut raw, "y"), "a: y\n");
    assert_eq!(raw.half_close().read_to_end(), "a: bye");
    let (status, _) = gateway.wait();
    assert!(status.success());
}

#[test]
fn the_admin_api_shows_the_listeners_of_streams() {
    let gateway = listening("127.0.0.1:0 ssl, 127.0.0.1:0 udp reuseport").start();
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    let shown = &root["configuration"];
    assert_eq!(shown["stream_proxy_ssl_enabled"], true);
    assert_eq!(shown["stream_listeners"][0]["ssl"], true);
    assert_eq!(shown["stream_listeners"][1]["udp"], true);
    assert_eq!(shown["stream_listeners"][1]["reuseport"], true);
    assert!(shown["stream_listeners"][0].get("http2").is_none());
}

/// Routes for requests and for TCP to an endpoint that is sent headers of the PROXY protocol. It
/// answers with the header and the line that follows.
fn serve_proxied(gateway: &Gateway) -> RawServer {
    let server = RawServer::start(|_, mut raw| {
        let header = raw.read_until("\r\n");
        let body = format!("{header}{}", raw.read_until("\n"));
        let length = body.len();
        raw.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes());
        raw.read_to_end();
    });
    let upstream = json!({ "name": "u", "pointsman": { "proxy_protocol": "v1" } });
    gateway
        .admin_json("POST", "/upstreams", &upstream)
        .expect(201);
    gateway.add_target("u", server.address, 100);
    route(
        gateway,
        "stream",
        json!({ "protocol": "tcp", "host": "u" }),
        json!({ "protocols": ["tcp"], "sources": [{ "ip": "127.0.0.1" }] }),
    );
    route(
        gateway,
        "http",
        json!({ "protocol": "http", "host": "u" }),
        json!({ "paths": ["/"] }),
    );
    server
}

#[test]
fn an_endpoint_is_sent_no_address_of_the_client_of_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let [proxy, stream] = ["proxy", "stream"].map(|name| folder.path().join(name));
    let gateway = listening(&format!("127.0.0.1:0, unix:{}", stream.display()))
        .arg(
            "--proxy-listen",
            format!("127.0.0.1:0, unix:{}", proxy.display()),
        )
        .start();
    let _server = serve_proxied(&gateway);
    for to in [stream, proxy] {
        let mut client = UnixStream::connect(to).unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        client.write_all(request).unwrap();
        let mut lines = BufReader::new(client).lines();
        let header = lines.find(|line| line.as_ref().unwrap().starts_with("PROXY"));
        assert_eq!(header.unwrap().unwrap(), "PROXY UNKNOWN");
    }
}

#[test]
fn an_endpoint_is_sent_the_client_by_the_proxy_protocol() {
    let gateway = listening("127.0.0.1:0").start();
    let _server = serve_proxied(&gateway);
    // Requests of one connection share a connection to the endpoint, and no others do.
    for to in [gateway.listener("stream", 0), gateway.proxy] {
        for _ in 0..2 {
            let mut raw = Raw::connect(to);
            raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            let (from, port) = (raw.port(), to.port());
            let answer = raw.read_until("GET / HTTP/1.1\r\n");
            let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {port}\r\n");
            assert!(answer.contains(&header), "{answer}");
        }
    }
}
