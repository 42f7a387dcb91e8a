//! Requests and streams for names that DNS has not answered for yet.

use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use serde_json::json;

use crate::harness::{Backend, Dns, DnsReply, Gateway, Raw, Setup};
use crate::hosts::serve;

/// Longer than the Admin API waits for a new name.
const LATE: Duration = Duration::from_secs(4);

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A gateway, and a server of DNS that knows one name, whose addresses it looks for this long.
fn slow(name: &str, addresses: Vec<Ipv4Addr>) -> (Gateway, Dns) {
    let dns = Dns::start();
    dns.set(name, DnsReply::Addresses(vec![], 60));
    dns.set_type(name, RecordType::A, DnsReply::Late(addresses, LATE));
    let gateway = Setup::new()
        .arg("--dns-resolver", dns.address)
        .arg("--stream-listen", "127.0.0.1:0")
        .start();
    (gateway, dns)
}

#[test]
fn a_request_waits_for_the_first_answer() {
    let (gateway, _dns) = slow("late.test", vec![ONE]);
    let backend = Backend::start("b");
    let url = format!("http://late.test:{}", backend.address.port());
    let path = serve(&gateway, "s", &url);
    gateway.get(&path).expect(200);
}

#[test]
fn a_request_waits_no_longer_than_for_the_first_answer() {
    let (gateway, _dns) = slow("gone.test", vec![]);
    // By default, it has a minute to connect.
    let path = serve(&gateway, "s", "http://gone.test");
    let refused = gateway.get(&path).expect(503);
    assert_eq!(refused.json()["message"], "name resolution failed");
}

#[test]
fn a_request_waits_no_longer_than_connect_timeout() {
    let dns = Dns::start();
    // Each type of records is asked for several times, for seconds.
    dns.set("dead.test", DnsReply::NoResponse);
    let gateway = Setup::new().arg("--dns-resolver", dns.address).start();
    let path = serve(&gateway, "s", "http://dead.test");
    gateway
        .admin("PATCH", "/services/s", &[("connect_timeout", "1")])
        .expect(200);
    gateway.get(&path).expect(503);
}

#[test]
fn a_stream_waits_for_the_first_answer() {
    let (gateway, _dns) = slow("late.test", vec![ONE]);
    let backend = Backend::start("b");
    let port = backend.address.port();
    let service = json!({ "name": "s", "protocol": "tcp", "host": "late.test", "port": port });
    gateway
        .admin_json("POST", "/services", &service)
        .expect(201);
    let route = json!({ "protocols": ["tcp"], "sources": [{ "ip": "127.0.0.1" }] });
    gateway
        .admin_json("POST", "/services/s/routes", &route)
        .expect(201);
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    raw.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let answer = raw.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
