//! Requests and streams for names that DNS has not answered for yet.

use std::net::Ipv4Addr;

use hickory_resolver::proto::rr::RecordType;
use serde_json::json;

use crate::harness::{Backend, Dns, DnsReply, Gateway, Raw, Setup, put_document};
use crate::hosts::serve;

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server of DNS that knows one name, and answers for its addresses once that is released.
fn held(name: &str, addresses: Vec<Ipv4Addr>) -> Dns {
    let dns = Dns::start();
    hold(&dns, name, addresses);
    dns
}

fn hold(dns: &Dns, name: &str, addresses: Vec<Ipv4Addr>) {
    dns.set(name, DnsReply::Addresses(vec![], 60));
    dns.set_type(name, RecordType::A, DnsReply::Held(addresses));
}

/// A gateway with one worker, and a backend at `/` whose address needs no DNS.
fn start(dns: &Dns) -> (Gateway, Backend) {
    let gateway = Setup::new()
        .arg("--dns-resolver", dns.address)
        .arg("--stream-listen", "127.0.0.1:0")
        .arg("--workers", 1)
        // A look-up without an answer takes longer than any of these tests.
        .env("RES_OPTIONS", "timeout:30 attempts:5")
        .start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    (gateway, backend)
}

/// Sends a request that has to wait. The only worker then answers requests that came after it.
fn waiting(gateway: &Gateway, path: &str) -> Raw {
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").as_bytes());
    still_waits(gateway, &raw);
    raw
}

fn still_waits(gateway: &Gateway, raw: &Raw) {
    for _ in 0..10 {
        gateway.get("/").expect(200);
    }
    assert!(!raw.has_bytes(), "the request is answered before DNS is");
}

fn assert_status(raw: &mut Raw, status: &str) {
    let answer = raw.read_to_end();
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
}

#[test]
fn a_request_waits_for_the_first_answer() {
    let dns = held("late.test", vec![ONE]);
    let (gateway, backend) = start(&dns);
    let url = format!("http://late.test:{}", backend.address.port());
    let mut raw = waiting(&gateway, &serve(&gateway, "s", &url));
    dns.release("late.test");
    assert_status(&mut raw, "200");
}

#[test]
fn a_request_waits_no_longer_than_for_the_first_answer() {
    let dns = held("gone.test", vec![]);
    let (gateway, _backend) = start(&dns);
    // It may take longer to connect than this test waits.
    let path = serve(&gateway, "s", "http://gone.test");
    gateway
        .admin("PATCH", "/services/s", &[("connect_timeout", "600000")])
        .expect(200);
    let mut raw = waiting(&gateway, &path);
    dns.release("gone.test");
    let refused = raw.read_to_end();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("name resolution failed"), "{refused}");
}

#[test]
fn a_request_waits_no_longer_than_connect_timeout() {
    let dns = held("dead.test", vec![ONE]);
    let (gateway, backend) = start(&dns);
    let url = format!("http://dead.test:{}", backend.address.port());
    let path = serve(&gateway, "s", &url);
    let timeout = |milliseconds| {
        let timeout = [("connect_timeout", milliseconds)];
        gateway.admin("PATCH", "/services/s", &timeout).expect(200);
    };
    timeout("600000");
    let mut patient = waiting(&gateway, &path);
    timeout("1");
    gateway.get(&path).expect(503);
    // The look-up had not ended: a request that may wait for it gets what it finds.
    still_waits(&gateway, &patient);
    dns.release("dead.test");
    assert_status(&mut patient, "200");
}

#[test]
fn a_waiting_request_is_told_that_its_service_is_deleted() {
    let dns = held("late.test", vec![ONE]);
    let (gateway, _backend) = start(&dns);
    let path = serve(&gateway, "s", "http://late.test");
    gateway
        .admin("PATCH", "/services/s", &[("connect_timeout", "600000")])
        .expect(200);
    let mut raw = waiting(&gateway, &path);
    let routes = gateway.admin("GET", "/services/s/routes", &[]).expect(200);
    let route = routes.json()["data"][0]["id"].as_str().unwrap().to_owned();
    for path in [&*format!("/routes/{route}"), "/services/s"] {
        gateway.admin("DELETE", path, &[]).expect(204);
    }
    assert_status(&mut raw, "503");
}

#[test]
fn names_of_one_change_do_not_wait_for_each_other() {
    let dns = held("slow.test", vec![ONE]);
    hold(&dns, "fast.test", vec![ONE]);
    let (gateway, backend) = start(&dns);
    let port = backend.address.port();
    let service = |name: &str| {
        let route = format!("{{name: {name}, paths: [/{name}]}}");
        let url = format!("http://{name}.test:{port}");
        format!("- {{name: {name}, url: '{url}', connect_timeout: 600000, routes: [{route}]}}\n")
    };
    let services = [service("slow"), service("fast")].concat();
    let other =
        format!("- {{name: o, url: 'http://127.0.0.1:{port}', routes: [{{paths: [/]}}]}}\n");
    let document = format!("_format_version: '3.0'\nservices:\n{services}{other}");
    put_document(&gateway, &document, "").expect(200);
    let [mut slow, mut fast] = ["/slow", "/fast"].map(|path| waiting(&gateway, path));
    dns.release("fast.test");
    assert_status(&mut fast, "200");
    still_waits(&gateway, &slow);
    dns.release("slow.test");
    assert_status(&mut slow, "200");
}

#[test]
fn a_stream_waits_for_the_first_answer() {
    let dns = held("late.test", vec![ONE]);
    let (gateway, backend) = start(&dns);
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
    still_waits(&gateway, &raw);
    dns.release("late.test");
    let answer = raw.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Kong asks for SRV records first. Some servers do not answer for types that they do not know.
#[test]
fn a_look_up_goes_on_to_addresses_while_srv_records_are_not_answered() {
    let dns = Dns::start();
    dns.set_type("slow.test", RecordType::SRV, DnsReply::NoResponse);
    let addresses = DnsReply::Addresses(vec![ONE], 3600);
    dns.set_type("slow.test", RecordType::A, addresses);
    let gateway = Setup::new().arg("--dns-resolver", dns.address).start();
    let backend = Backend::start("b");
    gateway.balanced(&[]);
    let target = format!("slow.test:{}", backend.address.port());
    gateway
        .admin("POST", "/upstreams/u/targets", &[("target", &target)])
        .expect(201);
    // The first request is answered.
    assert_eq!(gateway.backend_of("/"), "b");
    let asked = dns.questions("slow.test");
    let address = asked.iter().position(|kind| *kind == RecordType::A);
    let before = &asked[..address.unwrap()];
    // A look-up asks twice, by three datagrams each. One that begins again before it comes to the
    // addresses asks more often.
    assert!((1..=6).contains(&before.len()), "{asked:?}");
    let is_service = |kind: &RecordType| *kind == RecordType::SRV;
    assert!(before.iter().all(is_service), "{asked:?}");
}
