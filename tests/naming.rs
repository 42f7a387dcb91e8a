//! Names of hosts, routes and entities: in which spellings they are taken, found and written.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};

use crate::harness::{Backend, Dns, DnsReply, Gateway, Reply, Setup, exchange};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn with_dns(dns: &Dns) -> Setup {
    Setup::new()
        .arg("--dns-resolver", dns.address)
        .arg("--dns-min-ttl", 50)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A route to a service with this URL, under a path of its own.
fn serve(gateway: &Gateway, name: &str, url: &str) -> String {
    let service = [("name", name), ("url", url)];
    gateway.admin("POST", "/services", &service).expect(201);
    route(gateway, name, &[("paths[]", &format!("/{name}"))]);
    format!("/{name}")
}

fn route(gateway: &Gateway, service: &str, fields: &[(&str, &str)]) -> Value {
    let routes = format!("/services/{service}/routes");
    gateway.admin("POST", &routes, fields).expect(201).json()
}

/// The status of a request with this request line and this `Host`.
fn status(gateway: &Gateway, target: &str, host: &str) -> String {
    answer(gateway, target, host)[9..12].to_owned()
}

fn answer(gateway: &Gateway, target: &str, host: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(gateway.proxy, &request)
}

/// What the backend was asked.
fn asked(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_name_with_an_underscore_resolves() {
    let dns = Dns::start();
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let lines =
        b"# \xff no UTF-8\n127.0.0.1 web_1.file db_ -x.file # more\n::1 web_1.file\nnonsense\n";
    std::fs::write(&hosts, lines).unwrap();
    let names = ["my_api.test", "api_.test", "a_b.c_d.test"];
    for name in names {
        dns.set(name, DnsReply::Addresses(vec![LOCAL], 60));
    }
    let gateway = with_dns(&dns)
        .arg("--dns-hostsfile", hosts.display())
        .start();
    let backend = Backend::start("b");
    let port = backend.address.port();
    for (number, name) in names
        .iter()
        .chain(&["web_1.file", "WEB_1.file.", "db_"])
        .enumerate()
    {
        let path = serve(
            &gateway,
            &format!("s{number}"),
            &format!("http://{name}:{port}"),
        );
        assert_eq!(gateway.backend_of(&path), "b", "service {name}");
        let upstream = format!("u{number}");
        gateway.balanced_as(&upstream, &format!("/{upstream}"), &[]);
        let targets = format!("/upstreams/{upstream}/targets");
        let target = format!("{name}:{port}");
        gateway
            .admin("POST", &targets, &[("target", &target)])
            .expect(201);
        assert_eq!(gateway.backend_of(&format!("/{upstream}")), "b", "{name}");
    }
}
