//! Connections to endpoints: timeouts, and the pool of idle ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::harness::{Backend, Gateway, RawServer, Setup};
use crate::proxy::add_route;

/// A server that calls `serve` with each connection, one after the other.
pub(crate) fn raw_server(serve: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    address
}

/// Reads a request without a body.
pub(crate) fn read_head(stream: &mut TcpStream) {
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
fn an_endpoint_that_closes_after_its_answers_gets_a_connection_for_each_request() {
    const CLOSING: u64 = 10;
    let gateway = Setup::new().arg("--workers", 1).start();
    let (closes, closed) = channel();
    // It does not say that it closes. The later connections it would keep.
    let server = RawServer::start(move |number, mut raw| {
        while raw.read_until("\r\n\r\n").ends_with("\r\n\r\n") {
            raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            if number < CLOSING {
                drop(raw);
                let _ = closes.send(());
                return;
            }
        }
    });
    gateway.balanced(&[(server.address, 100)]);
    while server.accepted() < CLOSING {
        gateway.get("/").expect(200);
        closed.recv().unwrap();
        // Time for the gateway to look at its sockets.
        gateway.admin("GET", "/status", &[]).expect(200);
    }
    for _ in 0..5 {
        gateway.get("/").expect(200);
    }
    assert_eq!(server.accepted(), CLOSING + 5);
}
