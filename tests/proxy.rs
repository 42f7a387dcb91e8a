//! Requests and responses of the proxy: routing, headers, paths, bodies, errors and connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, Gateway, Raw, Setup, exchange};

/// A gateway with one backend behind `/`, and further fields for service and route.
fn with_route(service: &[(&str, &str)], route: &[(&str, &str)]) -> (Gateway, Backend) {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    add_route(
        &gateway,
        "s",
        backend.address.to_string().as_str(),
        service,
        route,
    );
    (gateway, backend)
}

fn add_route(
    gateway: &Gateway,
    name: &str,
    target: &str,
    service: &[(&str, &str)],
    route: &[(&str, &str)],
) {
    let url = format!("http://{target}");
    let fields = [&[("name", name), ("url", &*url)], service].concat();
    gateway.admin("POST", "/services", &fields).expect(201);
    let routes = format!("/services/{name}/routes");
    gateway.admin("POST", &routes, route).expect(201);
}

#[test]
fn the_upstream_gets_kongs_forwarding_headers() {
    let (gateway, backend) = with_route(&[], &[("paths[]", "/mock")]);
    let headers = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("te", "trailers"),
        ("x-custom", "kept"),
    ];
    let echo = gateway
        .get_with("/mock/a%20b?c=%20d", &headers)
        .expect(200)
        .json();
    assert_eq!(echo["uri"], "/a%20b?c=%20d");
    let sent = &echo["headers"];
    assert_eq!(sent["host"], backend.address.to_string());
    assert_eq!(sent["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
    assert_eq!(sent["x-real-ip"], "127.0.0.1");
    assert_eq!(sent["x-forwarded-proto"], "http");
    assert_eq!(sent["x-forwarded-host"], "127.0.0.1");
    assert_eq!(sent["x-forwarded-port"], gateway.proxy.port().to_string());
    assert_eq!(sent["x-forwarded-path"], "/mock/a%20b");
    assert_eq!(sent["x-forwarded-prefix"], "/mock");
    assert_eq!(sent["x-custom"], "kept");
    assert_eq!(sent["connection"], "keep-alive");
    assert_eq!(
        sent["via"],
        concat!("1.1 pointsman/", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_client_gets_kongs_headers_without_hop_by_hop_ones() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let reply = gateway.get("/headers-out").expect(200);
    for name in ["x-private", "keep-alive"] {
        assert_eq!(reply.header(name), "", "{name}");
    }
    assert_eq!(reply.header("x-public"), "1");
    let product = concat!("pointsman/", env!("CARGO_PKG_VERSION"));
    assert_eq!(reply.header("via"), format!("1.1 inner, 1.1 {product}"));
    assert_eq!(reply.header("server"), product);
    assert_eq!(reply.header("x-kong-request-id").len(), 32);
    for name in ["x-kong-upstream-latency", "x-kong-proxy-latency"] {
        assert!(reply.header(name).parse::<u64>().is_ok(), "{name}");
    }
    assert_eq!(reply.header("x-kong-response-latency"), "");
}

#[test]
fn strip_path_preserve_host_and_the_service_path_are_applied() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    let target = backend.address.to_string();
    add_route(
        &gateway,
        "kept",
        &target,
        &[],
        &[("paths[]", "/kept"), ("strip_path", "false")],
    );
    add_route(
        &gateway,
        "base",
        &format!("{target}/api"),
        &[],
        &[("paths[]", "/base")],
    );
    add_route(
        &gateway,
        "host",
        &target,
        &[],
        &[("paths[]", "/host"), ("preserve_host", "true")],
    );
    add_route(&gateway, "regex", &target, &[], &[("paths[]", r"~/v\d+/")]);
    let uri = |path: &str| gateway.get(path).expect(200).json()["uri"].clone();
    assert_eq!(uri("/kept/x?y"), "/kept/x?y");
    assert_eq!(uri("/base/x?"), "/api/x?");
    assert_eq!(uri("/v12/x"), "/x");
    let echo = gateway
        .get_with("/host", &[("host", "name.example:99")])
        .expect(200)
        .json();
    assert_eq!(echo["headers"]["host"], "name.example:99");
}

#[test]
fn routes_are_chosen_by_host_method_header_and_path() {
    let gateway = Gateway::start();
    let backends = ["plain", "host", "wild", "method", "header"].map(|name| {
        let backend = Backend::start(name);
        let route: &[(&str, &str)] = match name {
            "host" => &[("hosts[]", "a.example.com"), ("paths[]", "/")],
            "wild" => &[("hosts[]", "*.example.com"), ("paths[]", "/")],
            "method" => &[("methods[]", "DELETE"), ("paths[]", "/")],
            "header" => &[("headers.x-version", "v2"), ("paths[]", "/")],
            _ => &[("paths[]", "/")],
        };
        add_route(&gateway, name, &backend.address.to_string(), &[], route);
        backend
    });
    let asked = |headers: &[(&str, &str)]| {
        gateway
            .get_with("/", headers)
            .expect(200)
            .header("x-backend")
            .to_owned()
    };
    assert_eq!(asked(&[]), "plain");
    assert_eq!(asked(&[("host", "a.example.com")]), "host");
    assert_eq!(asked(&[("host", "A.EXAMPLE.com:80")]), "host");
    assert_eq!(asked(&[("host", "b.example.com")]), "wild");
    assert_eq!(asked(&[("x-version", "V2")]), "header");
    let reply = gateway
        .send(gateway.proxy, "DELETE", "/", &[], None)
        .expect(200);
    assert_eq!(reply.header("x-backend"), "method");
    // The routes of a disabled service match no request.
    gateway
        .admin("PATCH", "/services/host", &[("enabled", "false")])
        .expect(200);
    assert_eq!(asked(&[("host", "a.example.com")]), "wild");
    drop(backends);
}

#[test]
fn errors_have_kongs_bodies() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/s"), ("name", "r")]);
    let nothing = gateway.get("/nowhere").expect(404);
    assert_eq!(
        nothing.json()["message"],
        "no Route matched with those values"
    );
    let id = nothing.header("x-kong-request-id").to_owned();
    assert_eq!(nothing.json()["request_id"], id);
    assert!(!nothing.header("x-kong-response-latency").is_empty());
    let product = concat!("pointsman/", env!("CARGO_PKG_VERSION"));
    assert_eq!(nothing.header("server"), product);
    let html = gateway
        .get_with("/nowhere", &[("accept", "text/html")])
        .expect(404);
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");

    gateway
        .admin("POST", "/upstreams", &[("name", "empty")])
        .expect(201);
    gateway
        .admin("PATCH", "/services/s", &[("host", "empty")])
        .expect(200);
    let empty = gateway.get("/s").expect(503);
    assert_eq!(
        empty.json()["message"],
        "failure to get a peer from the ring-balancer"
    );

    gateway
        .admin(
            "PATCH",
            "/services/s",
            &[("host", "does-not-resolve.invalid")],
        )
        .expect(200);
    let unknown = gateway.get("/s").expect(503);
    assert_eq!(unknown.json()["message"], "name resolution failed");

    gateway
        .admin(
            "PATCH",
            "/services/s",
            &[("protocol", "grpc"), ("path", "")],
        )
        .expect(200);
    let grpc = gateway.get("/s").expect(503);
    assert!(
        grpc.text().contains("http and https only"),
        "{}",
        grpc.text()
    );

    gateway
        .admin_json("PATCH", "/routes/r", &json!({"service": null}))
        .expect(200);
    let none = gateway.get("/s").expect(503);
    assert_eq!(none.json()["message"], "no Service found with those values");
}

#[test]
fn a_refused_connection_is_502_and_a_slow_response_504() {
    let (gateway, backend) = with_route(
        &[("read_timeout", "100"), ("retries", "0")],
        &[("paths[]", "/")],
    );
    let slow = gateway.get("/hang").expect(504);
    assert_eq!(slow.json()["message"], "The upstream server is timing out");
    assert!(!slow.header("x-kong-upstream-latency").is_empty());
    // Without an `accept` header, Kong's errors from nginx are plain text.
    let plain = exchange(
        gateway.proxy,
        "GET /hang HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    );
    assert!(
        plain.contains("\r\n\r\nThe upstream server is timing out\nrequest_id: "),
        "{plain}"
    );
    let address = backend.address;
    backend.kill();
    let refused = gateway.get_with("/", &[("accept", "*/*")]).expect(502);
    assert_eq!(
        refused.json()["message"],
        "An invalid response was received from the upstream server"
    );
    // Once the address serves again, requests succeed.
    let _backend = Backend::start_on("again", address);
    assert_eq!(gateway.backend_of("/"), "again");
}

#[test]
fn a_post_is_sent_to_one_endpoint_only() {
    let gateway = Gateway::start();
    let (dead, alive) = (Backend::start("dead"), Backend::start("alive"));
    gateway.balanced(&[(dead.address, 1), (alive.address, 1)]);
    dead.kill();
    for _ in 0..4 {
        let body = Some(("text/plain", b"12345".to_vec()));
        let reply = gateway
            .send(gateway.proxy, "POST", "/", &[], body)
            .expect(200);
        assert_eq!(reply.json()["length"], 5);
    }
    assert_eq!(alive.served(), 4);
    gateway
        .admin("PATCH", "/services/u-service", &[("read_timeout", "100")])
        .expect(200);
    let other = Backend::start("other");
    gateway.add_target("u", other.address, 1);
    let before = alive.served() + other.served();
    let body = Some(("text/plain", b"x".to_vec()));
    gateway
        .send(gateway.proxy, "POST", "/hang", &[], body)
        .expect(504);
    assert_eq!(alive.served() + other.served(), before + 1);
}

#[test]
fn bodies_are_streamed_both_ways() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    const SIZE: usize = 64 << 20;
    let before = gateway.reset_peak();
    let reply = gateway.get_large(&format!("/bytes/{SIZE}"));
    assert_eq!(reply, SIZE);
    let body = Some(("application/octet-stream", vec![b'y'; SIZE]));
    let reply = gateway
        .send(gateway.proxy, "PUT", "/length", &[], body)
        .expect(200);
    assert_eq!(reply.json()["length"], SIZE);
    // The peak of memory shows that neither body was buffered.
    let grown = gateway.peak_bytes() - before;
    assert!(grown < SIZE / 2, "{grown} bytes more than before");
}

#[test]
fn a_connection_serves_several_chunked_requests() {
    let (gateway, backend) = with_route(&[], &[("paths[]", "/")]);
    let mut raw = Raw::connect(gateway.proxy);
    for _ in 0..3 {
        raw.send(
            b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n\
              3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        );
        let head = raw.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let body = raw.read_until("}");
        let rest = raw.read_until("}");
        assert!((body + &rest).contains("\"length\":5"));
    }
    assert_eq!(backend.served(), 3);
}

#[test]
fn older_clients_and_absolute_targets_are_served() {
    let (gateway, _backend) = with_route(&[], &[("hosts[]", "absolute.example")]);
    let old = exchange(
        gateway.proxy,
        "GET / HTTP/1.0\r\nhost: absolute.example\r\n\r\n",
    );
    assert!(
        old.starts_with("HTTP/1.0 200") || old.starts_with("HTTP/1.1 200"),
        "{old}"
    );
    assert!(old.contains("1.0 pointsman/"), "{old}");
    let absolute = exchange(
        gateway.proxy,
        "GET http://absolute.example/x HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n",
    );
    assert!(absolute.starts_with("HTTP/1.1 200"), "{absolute}");
}

#[test]
fn a_connection_is_upgraded_to_websocket() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let head = raw.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    raw.send(b"to and fro\n");
    assert_eq!(raw.read_until("\n"), "to and fro\n");
}

#[test]
fn a_stale_pooled_connection_costs_no_request() {
    let gateway = Setup::new().arg("--workers", 1).start();
    let backend = Backend::start("b");
    let address = backend.address;
    add_route(
        &gateway,
        "s",
        &address.to_string(),
        &[],
        &[("paths[]", "/")],
    );
    assert_eq!(gateway.backend_of("/"), "b");
    // The gateway has a pooled connection, which ends with the backend.
    backend.kill();
    let _next = Backend::start_on("next", address);
    assert_eq!(gateway.backend_of("/"), "next");
}

#[test]
fn a_get_with_a_body_of_unknown_length_keeps_it() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let answer = exchange(
        gateway.proxy,
        "GET /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
    );
    assert!(answer.contains("\"length\":3"), "{answer}");
}

#[test]
fn a_broken_request_body_is_400() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    );
    let answer = raw.read_until("\r\n");
    // hyper may close the connection before a response is sent.
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    assert_eq!(gateway.backend_of("/"), "b");
}

#[test]
fn no_protocol_but_websocket_is_upgraded_to() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let headers = [
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
    ];
    let echo = gateway.get_with("/x", &headers).expect(200).json();
    assert!(echo["headers"].get("upgrade").is_none(), "{echo}");
    assert_eq!(echo["headers"]["connection"], "keep-alive");
}

#[test]
fn a_slow_client_gets_its_whole_response() {
    let gateway = Setup::new().arg("--client-header-timeout", 1).start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    // For some of these sizes only the end of the response is left to be sent, because socket
    // buffers hold the rest.
    let downloads: Vec<(usize, Raw)> = (1..=32)
        .map(|number| {
            let size = number * 192 * 1024;
            let mut client = Raw::connect(gateway.proxy);
            let head =
                format!("GET /bytes/{size} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
            client.send(head.as_bytes());
            (size, client)
        })
        .collect();
    // Two idle connections time out one after the other: longer than twice the timeout passes.
    for _ in 0..2 {
        let mut idle = Raw::connect(gateway.proxy);
        idle.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        let answer = idle.read_to_end();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for (size, mut client) in downloads {
        let read = client.read_to_end();
        assert!(read.ends_with("\r\n0\r\n\r\n"), "{size}: {}", read.len());
    }
}

#[test]
fn an_idle_tunnel_is_closed() {
    let (gateway, _backend) = with_route(&[("read_timeout", "500")], &[("paths[]", "/")]);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let head = raw.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    raw.send(b"ping");
    assert_eq!(raw.read_until("ping"), "ping");
    assert!(raw.is_closed());
}

/// A server that calls `serve` with each connection, one after the other.
fn raw_server(serve: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    address
}

/// Reads a request without a body.
fn read_head(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
}

#[test]
fn an_endpoint_that_does_not_connect_or_does_not_read_is_504() {
    let gateway = Gateway::start();
    let timeouts = [
        ("connect_timeout", "200"),
        ("write_timeout", "200"),
        ("retries", "0"),
    ];
    // The listener has a queue of one and accepts nothing: the kernel leaves further connections
    // pending.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let full = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&full, Duration::from_millis(200)) {
        held.push(stream);
    }
    add_route(
        &gateway,
        "full",
        &full.to_string(),
        &timeouts,
        &[("paths[]", "/full")],
    );
    let late = gateway.get("/full").expect(504);
    assert_eq!(late.json()["message"], "The upstream server is timing out");

    let mut kept = Vec::new();
    let unread = raw_server(move |stream| kept.push(stream));
    add_route(
        &gateway,
        "unread",
        &unread.to_string(),
        &timeouts,
        &[("paths[]", "/unread")],
    );
    let mut client = TcpStream::connect(gateway.proxy).unwrap();
    let mut upload = client.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let head = "POST /unread HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000000\r\n\r\n";
        let _ = upload.write_all(head.as_bytes());
        // Until the gateway closes the connection.
        while upload.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    drop(client);
    sender.join().unwrap();
}

#[test]
fn the_pool_of_endpoint_connections_follows_its_settings() {
    for (size, most, requests, connections) in [(0, 0, 4, 4), (8, 2, 6, 3), (8, 0, 6, 1)] {
        let gateway = Setup::new()
            .arg("--workers", 1)
            .arg("--upstream-keepalive-pool-size", size)
            .arg("--upstream-keepalive-max-requests", most)
            .start();
        let backend = Backend::start("b");
        gateway.balanced(&[(backend.address, 1)]);
        for _ in 0..requests {
            assert_eq!(gateway.backend_of("/"), "b");
        }
        assert_eq!(backend.connections(), connections, "{size} {most}");
    }
}

#[test]
fn an_idle_connection_to_an_endpoint_is_closed() {
    let gateway = Setup::new()
        .arg("--upstream-keepalive-idle-timeout", 1)
        .start();
    let (ended, end) = std::sync::mpsc::channel();
    let address = raw_server(move |mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        // The gateway sends no second request, and closes.
        let _ = ended.send(stream.read(&mut [0]).unwrap());
    });
    gateway.balanced(&[(address, 1)]);
    gateway.get("/").expect(200);
    assert_eq!(end.recv().unwrap(), 0);
}

#[test]
fn a_client_that_does_not_read_slows_its_endpoint_down() {
    const SIZE: usize = 256 << 20;
    let gateway = Gateway::start();
    let (stuck, at) = std::sync::mpsc::channel();
    let address = raw_server(move |mut stream| {
        read_head(&mut stream);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // If the gateway reads nothing for a second, it has buffered all that it is going to.
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let chunk = vec![b'x'; 65_536];
        let mut sent = 0;
        while sent < SIZE {
            match stream.write(&chunk[..chunk.len().min(SIZE - sent)]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let _ = stuck.send(sent);
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    gateway.balanced(&[(address, 1)]);
    let mut client = TcpStream::connect(gateway.proxy).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .unwrap();
    // The buffers of two pairs of sockets, and a little memory of the gateway.
    let held = at.recv().unwrap();
    assert!(held < SIZE / 8, "{held}");
    // Once the client reads, the response continues.
    let read = std::io::copy(&mut client, &mut std::io::sink()).unwrap();
    assert!(read > SIZE as u64, "{read}");
}
