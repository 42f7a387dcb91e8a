//! Host names of targets and services are resolved, with a real DNS server.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};

use crate::harness::{Backend, Dns, DnsReply, Gateway, Load, Setup, active_checks, until};
use crate::hosts::serve;

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn setup(dns: &Dns) -> Setup {
    Setup::new()
        .arg("--dns-resolver", dns.address)
        .arg("--dns-min-ttl", 50)
}

/// Two servers on two addresses with the same port.
fn pair() -> (Backend, Backend) {
    let one = Backend::start("one");
    let two = SocketAddr::from((TWO, one.address.port()));
    (one, Backend::start_on("two", two))
}

fn target(gateway: &Gateway, target: &str) {
    let fields = [("target", target)];
    gateway
        .admin("POST", "/upstreams/u/targets", &fields)
        .expect(201);
}

fn health(gateway: &Gateway) -> Value {
    let all = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    all.json()["data"][0].clone()
}

#[test]
fn every_address_of_a_name_gets_its_share_and_dns_changes_are_followed() {
    let dns = Dns::start();
    dns.set("api.test", DnsReply::Addresses(vec![ONE, TWO], 0));
    let gateway = setup(&dns).start();
    let (one, two) = pair();
    gateway.balanced(&[]);
    target(&gateway, &format!("api.test:{}", one.address.port()));
    let tally = Load::run(gateway.proxy, "/", 2, 10);
    assert_eq!(tally.by_backend["one"], 10);
    assert_eq!(tally.by_backend["two"], 10);
    let data = &health(&gateway)["data"];
    assert_eq!(data["dns"], "A");
    // As in Kong, each address has the target's whole weight.
    assert_eq!(data["weight"]["total"], 200);

    let load = Load::start(gateway.proxy, "/", 2);
    dns.set("api.test", DnsReply::Addresses(vec![TWO], 0));
    until("one address is left", || {
        health(&gateway)["data"]["weight"]["total"] == 100
    });
    let before = one.served();
    load.wait_for(100);
    // Only requests that were in flight may still arrive.
    assert!(one.served() <= before + 2);
    dns.set("api.test", DnsReply::Addresses(vec![ONE], 0));
    let before = two.served();
    until("requests at the new address", || one.served() > 100);
    assert_eq!(load.stop().failures, [""; 0]);
    assert!(two.served() >= before);
}

#[test]
fn a_name_that_stops_resolving_keeps_its_addresses() {
    let dns = Dns::start();
    dns.set("api.test", DnsReply::Addresses(vec![ONE], 0));
    let gateway = setup(&dns).start();
    let one = Backend::start("one");
    gateway.balanced(&[]);
    target(&gateway, &format!("api.test:{}", one.address.port()));
    gateway.get("/").expect(200);
    let kinds = [
        Some(DnsReply::ServerFailure),
        Some(DnsReply::Addresses(vec![], 0)),
        Some(DnsReply::NoResponse),
        // NXDOMAIN.
        None,
    ];
    for reply in kinds {
        match reply {
            Some(reply) => dns.set("api.test", reply),
            None => dns.remove("api.test"),
        }
        until("the failed lookup is shown", || {
            let dns = &health(&gateway)["data"]["dns"];
            dns.as_str().unwrap().starts_with("dns server error")
        });
        let freshness = &health(&gateway)["data"]["pointsman"]["dns"];
        assert!(
            freshness["expires_in"].as_f64().unwrap() < 0.0,
            "{freshness}"
        );
        gateway.get("/").expect(200);
        dns.set("api.test", DnsReply::Addresses(vec![ONE], 0));
        until("the name resolves again", || {
            health(&gateway)["data"]["dns"] == "A"
        });
    }
}

#[test]
fn a_name_that_does_not_resolve_is_served_once_it_does() {
    let dns = Dns::start();
    let gateway = setup(&dns).start();
    let one = Backend::start("one");
    gateway.balanced(&[]);
    target(&gateway, &format!("late.test:{}", one.address.port()));
    let refused = gateway.get("/").expect(503);
    assert_eq!(refused.json()["reason"], "no_address");
    assert_eq!(health(&gateway)["health"], "DNS_ERROR");
    dns.set("late.test", DnsReply::Addresses(vec![ONE], 60));
    until("the name resolves", || gateway.get("/").status == 200);
}

#[test]
fn a_late_answer_is_used() {
    let dns = Dns::start();
    let gateway = setup(&dns).start();
    let one = Backend::start("one");
    // A server that looks for the addresses alone, and one that takes its time for each type.
    let kinds = [&[RecordType::A][..], &[RecordType::SRV, RecordType::A]];
    for (number, kinds) in kinds.into_iter().enumerate() {
        let name = format!("late{number}.test");
        dns.set(&name, DnsReply::Addresses(vec![], 60));
        for kind in kinds {
            let late = DnsReply::Late(vec![ONE], Duration::from_millis(2500));
            dns.set_type(&name, *kind, late);
        }
        let url = format!("http://{name}:{}", one.address.port());
        let path = serve(&gateway, &format!("s{number}"), &url);
        until("the name resolves", || gateway.get(&path).status == 200);
    }
}

#[test]
fn records_are_queried_again_only_when_they_expire() {
    let dns = Dns::start();
    dns.set("long.test", DnsReply::Addresses(vec![ONE], 3600));
    dns.set("short.test", DnsReply::Addresses(vec![ONE], 0));
    let gateway = setup(&dns).arg("--dns-order", "A").start();
    let one = Backend::start("one");
    gateway.balanced(&[]);
    for name in ["long", "short"] {
        target(&gateway, &format!("{name}.test:{}", one.address.port()));
    }
    until("the short record is queried again", || {
        dns.queries("short.test") > 5
    });
    assert_eq!(dns.queries("long.test"), 1);
}

#[test]
fn srv_records_set_ports_and_weights() {
    let dns = Dns::start();
    let [one, two, spare] = ["one", "two", "spare"].map(Backend::start);
    let port = |backend: &Backend| backend.address.port();
    let services = vec![
        (1, 10, port(&one), "host.test."),
        (1, 30, port(&two), "host.test."),
        (2, 10, port(&spare), "host.test."),
    ];
    dns.set("_http._tcp.test", DnsReply::Services(services, 60));
    dns.set("host.test", DnsReply::Addresses(vec![ONE], 60));
    let gateway = setup(&dns).start();
    gateway.balanced(&[]);
    target(&gateway, "_http._tcp.test:1");
    assert_eq!(health(&gateway)["data"]["dns"], "SRV");
    let tally = Load::run(gateway.proxy, "/", 1, 40);
    assert_eq!(tally.by_backend["one"], 10);
    assert_eq!(tally.by_backend["two"], 30);
    let host = |gateway: &Gateway| gateway.get("/").json()["headers"]["host"].clone();
    let asked = host(&gateway);
    assert!(
        asked.as_str().unwrap().starts_with("_http._tcp.test:"),
        "{asked}"
    );
    let settings = json!({"use_srv_name": true});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    let asked = host(&gateway);
    assert!(asked.as_str().unwrap().starts_with("host.test:"), "{asked}");
}

#[test]
fn addresses_that_come_with_srv_records_are_not_asked_for() {
    let dns = Dns::start();
    let (one, two) = pair();
    let port = one.address.port();
    let services = ["one.test.", "Two.test.", "three.test."].map(|host| (1, 10, port, host));
    let added = vec![("one.test.", ONE), ("two.test.", TWO), ("other.test.", TWO)];
    dns.set(
        "_http._tcp.test",
        DnsReply::ServicesWith(services.to_vec(), added),
    );
    dns.set("three.test", DnsReply::Addresses(vec![ONE], 60));
    let gateway = setup(&dns).start();
    gateway.balanced(&[]);
    target(&gateway, "_http._tcp.test:1");
    let tally = Load::run(gateway.proxy, "/", 1, 4);
    assert_eq!(tally.by_backend["one"], 2);
    assert_eq!(tally.by_backend["two"], 2);
    let asked = ["one.test", "two.test", "three.test"].map(|host| dns.queries(host));
    assert_eq!(asked, [0, 0, 1]);
    drop(two);
}

#[test]
fn a_service_that_is_not_offered_has_no_address() {
    let dns = Dns::start();
    dns.set(
        "_http._tcp.test",
        DnsReply::Services(vec![(0, 0, 0, ".")], 60),
    );
    let gateway = setup(&dns).start();
    gateway.balanced(&[]);
    target(&gateway, "_http._tcp.test:1");
    let refused = gateway.get("/").expect(503);
    assert_eq!(refused.json()["reason"], "no_address");
    assert_eq!(dns.queries(""), 0);
}

#[test]
fn the_host_of_a_service_and_the_hosts_file_are_resolved() {
    let dns = Dns::start();
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.2 file.test alias.test\n").unwrap();
    let gateway = setup(&dns).arg("--dns-hostsfile", hosts.display()).start();
    let (one, two) = pair();
    dns.set("api.test", DnsReply::Addresses(vec![ONE], 60));
    for (name, expected) in [("api", &one), ("alias", &two)] {
        let url = format!("http://{name}.test:{}", expected.address.port());
        gateway
            .admin("POST", "/services", &[("name", name), ("url", &url)])
            .expect(201);
        let path = format!("/{name}");
        let routes = format!("/services/{name}/routes");
        gateway
            .admin("POST", &routes, &[("paths[]", &path)])
            .expect(201);
        let before = expected.served();
        gateway.get(&path).expect(200);
        assert_eq!(expected.served(), before + 1);
    }
    assert_eq!(dns.queries("alias.test"), 0);
}

#[test]
fn the_weight_of_a_name_may_be_shared() {
    let dns = Dns::start();
    dns.set("api.test", DnsReply::Addresses(vec![ONE, TWO], 60));
    let gateway = setup(&dns).start();
    let (one, _two) = pair();
    let three = Backend::start("three");
    gateway.balanced(&[(three.address, 100)]);
    target(&gateway, &format!("api.test:{}", one.address.port()));
    let share = || Load::run(gateway.proxy, "/", 1, 60).by_backend["three"];
    assert_eq!(share(), 20, "as in Kong");
    let settings = json!({"pointsman": {"share_weight": true}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    assert_eq!(share(), 30);
}

#[test]
fn a_name_without_dns_responses_delays_only_its_own_change() {
    const NAMES: [&str; 4] = ["a.test", "b.test", "c.test", "d.test"];
    let dns = Dns::start();
    for name in NAMES {
        dns.set(name, DnsReply::NoResponse);
    }
    let gateway = &setup(&dns).start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    std::thread::scope(|scope| {
        let change = |method, path, field, name| {
            scope.spawn(move || gateway.admin(method, path, &[(field, name)]).status)
        };
        let targets = NAMES[..3]
            .iter()
            .map(|name| change("POST", "/upstreams/u/targets", "target", name));
        let mut slow: Vec<_> = targets.collect();
        slow.push(change("PATCH", "/services/u-service", "host", NAMES[3]));
        for name in NAMES {
            until("the name is queried", || dns.queries(name) > 0);
        }
        // The service keeps its old host until the new one has resolved.
        assert_eq!(gateway.backend_of("/"), "b");
        let mut others = 0;
        while !slow.iter().any(|change| change.is_finished()) {
            let fields = [("host", "127.0.0.1")];
            gateway.admin("POST", "/services", &fields).expect(201);
            others += 1;
        }
        // If changes waited for each other, at most one would have been answered meanwhile.
        assert!(others > 1, "{others}");
        for change in slow {
            assert!(matches!(change.join().unwrap(), 200 | 201));
        }
    });
}

#[test]
fn a_deleted_upstream_serves_until_its_name_is_looked_up() {
    let dns = Dns::start();
    dns.set("api.test", DnsReply::NoResponse);
    let gateway = &setup(&dns).start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let rename = |path, field| {
        gateway
            .admin("PATCH", path, &[(field, "api.test")])
            .expect(200)
    };
    rename("/upstreams/u", "name");
    rename("/services/u-service", "host");
    std::thread::scope(|scope| {
        let delete = scope.spawn(|| gateway.admin("DELETE", "/upstreams/api.test", &[]).status);
        until("the name is queried", || dns.queries("api.test") > 0);
        for _ in 0..50 {
            assert_eq!(gateway.backend_of("/"), "b");
        }
        assert_eq!(delete.join().unwrap(), 204);
    });
}

#[test]
fn a_name_may_have_ipv6_addresses_only() {
    let dns = Dns::start();
    let replies = DnsReply::Addresses6(vec![Ipv6Addr::LOCALHOST], 60);
    dns.set("six.test", replies);
    let gateway = setup(&dns).start();
    let six = Backend::start_on("six", (Ipv6Addr::LOCALHOST, 0).into());
    gateway.balanced(&[]);
    target(&gateway, &format!("six.test:{}", six.address.port()));
    assert_eq!(gateway.backend_of("/"), "six");
    let data = &health(&gateway)["data"];
    assert_eq!(data["dns"], "AAAA");
    assert_eq!(data["addresses"][0]["ip"], "::1");
    let dns = &data["pointsman"]["dns"];
    let age = dns["age"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&age), "{dns}");
    let left = dns["expires_in"].as_f64().unwrap();
    assert!((0.0..=60.0).contains(&left), "{dns}");
}

#[test]
fn failed_srv_queries_do_not_fall_back_to_addresses() {
    let dns = Dns::start();
    let [one, other] = ["one", "other"].map(Backend::start);
    let services = vec![(1, 10, one.address.port(), "host.test.")];
    let services = DnsReply::Services(services, 0);
    let name = "_http._tcp.test";
    dns.set_type(name, RecordType::SRV, services.clone());
    dns.set_type(name, RecordType::A, DnsReply::Addresses(vec![ONE], 0));
    dns.set("host.test", DnsReply::Addresses(vec![ONE], 60));
    let gateway = setup(&dns).start();
    gateway.balanced(&[]);
    target(&gateway, &format!("{name}:{}", other.address.port()));
    assert_eq!(gateway.backend_of("/"), "one");
    for reply in [DnsReply::ServerFailure, DnsReply::NoResponse] {
        dns.set_type(name, RecordType::SRV, reply);
        until("the failed lookup is shown", || {
            let said = health(&gateway)["data"]["dns"].clone();
            assert_ne!(said, "A");
            said != "SRV"
        });
        assert_eq!(gateway.backend_of("/"), "one");
        dns.set_type(name, RecordType::SRV, services.clone());
        until("the name resolves again", || {
            health(&gateway)["data"]["dns"] == "SRV"
        });
    }
    // An answer without SRV records does fall back to addresses.
    dns.set_type(name, RecordType::SRV, DnsReply::Addresses(vec![], 0));
    until("the lookup of addresses is shown", || {
        health(&gateway)["data"]["dns"] == "A"
    });
    assert_eq!(gateway.backend_of("/"), "other");
}

#[test]
fn a_name_without_dns_responses_delays_no_other_name() {
    let dns = Dns::start();
    dns.set("dead.test", DnsReply::NoResponse);
    dns.set("live.test", DnsReply::Addresses(vec![ONE], 0));
    let gateway = setup(&dns).start();
    let (one, _two) = pair();
    gateway.balanced(&[]);
    target(&gateway, "dead.test:80");
    target(&gateway, &format!("live.test:{}", one.address.port()));
    assert_eq!(gateway.backend_of("/"), "one");
    // For each of three record types the resolver queries several times, and waits for seconds.
    let begun = dns.queries("dead.test");
    until("a lookup begins", || dns.queries("dead.test") > begun);
    let begun = dns.queries("dead.test");
    dns.set("live.test", DnsReply::Addresses(vec![TWO], 0));
    until("requests at the changed address", || {
        gateway.backend_of("/") == "two"
    });
    assert!(dns.queries("dead.test") < begun + 4);
}

#[test]
fn a_probe_follows_the_name_in_a_service_record() {
    let dns = Dns::start();
    let one = Backend::start("one");
    let port = one.address.port();
    let at = |host| DnsReply::Services(vec![(1, 1, port, host)], 0);
    dns.set("_http._tcp.test", at("old.test."));
    for host in ["old.test", "new.test"] {
        dns.set(host, DnsReply::Addresses(vec![ONE], 60));
    }
    let gateway = setup(&dns).start();
    gateway.balanced(&[]);
    let mut settings = active_checks("http", &json!({}));
    settings["use_srv_name"] = json!(true);
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    target(&gateway, "_http._tcp.test:1");
    let probed = |host: &str| one.probes().iter().any(|probe| probe.contains(host));
    until("a probe with the old name", || probed("old.test"));
    dns.set("_http._tcp.test", at("new.test."));
    until("a probe with the new name", || probed("new.test"));
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
        dns.set(name, DnsReply::Addresses(vec![Ipv4Addr::LOCALHOST], 60));
    }
    let gateway = setup(&dns).arg("--dns-hostsfile", hosts.display()).start();
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
