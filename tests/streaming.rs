//! Bodies of requests and responses are streamed.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::endpoint_connections::{raw_server, read_head};
use crate::harness::{Backend, Gateway, Raw, Setup, exchange};
use crate::proxy::with_route;

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
