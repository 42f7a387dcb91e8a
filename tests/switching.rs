//! Responses about other protocols: a 101 that was not asked for, and headers that a status is
//! about.

use crate::harness::{Gateway, Raw, RawServer, exchange};

fn before(server: &RawServer) -> Gateway {
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    gateway
}

const ASKED: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn an_endpoint_that_changes_to_another_protocol_opens_no_tunnel() {
    for (upgrade, status) in [
        ("upgrade: websocket\r\n", "101"),
        ("upgrade: foo\r\n", "502"),
        ("upgrade: websocket, foo\r\n", "502"),
        ("", "502"),
    ] {
        let server = RawServer::responding_with(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{upgrade}\r\n"
        ));
        let gateway = before(&server);
        let head = Raw::connect(gateway.proxy)
            .send(ASKED.as_bytes())
            .read_until("\r\n\r\n");
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{upgrade:?}: {head}"
        );
    }
}

#[test]
fn a_426_names_the_protocols_and_a_407_what_is_asked_for() {
    let fields = "connection: upgrade\r\nupgrade: foo/2\r\nproxy-authenticate: Basic\r\n\
                  content-length: 0\r\n\r\n";
    for (status, kept) in [
        ("426 Upgrade Required", "upgrade: foo/2"),
        (
            "407 Proxy Authentication Required",
            "proxy-authenticate: Basic",
        ),
        ("200 OK", ""),
    ] {
        let server = RawServer::responding_with(format!("HTTP/1.1 {status}\r\n{fields}"));
        let gateway = before(&server);
        let head = Raw::connect(gateway.proxy)
            .send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .read_until("\r\n\r\n");
        for field in ["upgrade: foo/2", "proxy-authenticate: Basic"] {
            let is_kept = head.contains(&format!("\r\n{field}\r\n"));
            assert_eq!(is_kept, field == kept, "{status}: {head}");
        }
        let is_for_this_hop = head.contains("\r\nconnection: Upgrade\r\n");
        assert_eq!(is_for_this_hop, kept.starts_with("upgrade"), "{head}");
    }
}

#[test]
fn a_response_with_two_lengths_is_502() {
    let server = RawServer::responding_with(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    let gateway = before(&server);
    let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = exchange(gateway.proxy, request);
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[test]
fn an_error_before_the_end_of_an_upload_ends_the_connection() {
    let server =
        RawServer::responding_with("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno");
    let gateway = Gateway::start();
    let target = server.address.to_string();
    let route = [("paths[]", "/"), ("request_buffering", "false")];
    crate::proxy::add_route(&gateway, "s", &target, &[], &route);
    let mut client = Raw::connect(gateway.proxy);
    client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\nstart");
    let head = client.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
}
