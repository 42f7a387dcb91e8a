//! Spellings of hosts, addresses, paths and names: which are accepted, matched, stored and
//! forwarded.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Dns, DnsReply, Gateway, Reply, Setup, active_checks, exchange, until,
};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn with_dns(dns: &Dns) -> Setup {
    Setup::new()
        .arg("--dns-resolver", dns.address)
        .arg("--dns-min-ttl", 50)
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

/// The request as the backend received it.
fn received(answer: &str) -> Value {
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

#[test]
fn a_host_is_matched_in_any_spelling() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    serve(&gateway, "s", &format!("http://{}", backend.address));
    for (of_route, of_request) in [
        ("example.com", "example.com."),
        ("example.org", "EXAMPLE.Org"),
        ("Example.net.", "example.net"),
        ("*.Wild.test", "a.WILD.test."),
        ("tail.*", "TAIL.example."),
        ("ported.test:8443", "Ported.Test.:8443"),
        ("[::1]", "[0:0:0::0001]"),
        ("2001:DB8::1", "[2001:db8::1]:80"),
        ("127.000.000.009", "127.0.0.9"),
        ("127.0.0.8", "127.000.0.08:80"),
    ] {
        let made = route(&gateway, "s", &[("hosts[]", of_route)]);
        assert_eq!(made["hosts"], json!([of_route]), "shown as it was written");
        assert_eq!(status(&gateway, "/", of_request), "200", "{of_request}");
    }
    assert_eq!(status(&gateway, "/", "example.com.."), "400");
    assert_eq!(status(&gateway, "/", "other.test"), "404");
}

#[test]
fn a_service_finds_its_upstream_in_any_spelling() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced_as("Orders.internal", "/", &[(backend.address, 1)]);
    for host in ["orders.internal", "ORDERS.INTERNAL", "orders.internal."] {
        let fields = [("host", host)];
        let service = "/services/Orders.internal-service";
        gateway.admin("PATCH", service, &fields).expect(200);
        assert_eq!(gateway.backend_of("/"), "b", "{host}");
        let path = format!("/upstreams/{host}");
        let shown = gateway.admin("GET", &path, &[]).expect(200).json();
        assert_eq!(shown["name"], "Orders.internal");
        let taken = gateway.admin("POST", "/upstreams", &[("name", host)]);
        assert_eq!(taken.expect(409).json()["code"], 5);
    }
    // The name of a service is not a host: it is compared byte by byte.
    let service = "/services/ORDERS.internal-service";
    gateway.admin("GET", service, &[]).expect(404);
}

#[test]
fn a_target_is_named_in_any_spelling_of_its_address() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let spellings = [
        (
            "[::1]:81",
            "[0000:0000:0000:0000:0000:0000:0000:0001]:81",
            ["[0:0::1]:81", "[::0001]:81"],
        ),
        (
            "2001:DB8::1",
            "[2001:0db8:0000:0000:0000:0000:0000:0001]:8000",
            ["2001:db8:0::1", "[2001:db8::1]"],
        ),
        (
            "127.0.0.1",
            "127.0.0.1:8000",
            ["127.000.0.001:8000", "127.0.0.1"],
        ),
        (
            "Api_1.test:80",
            "Api_1.test:80",
            ["api_1.TEST:80", "api_1.test.:80"],
        ),
        ("b.test.", "b.test.:8000", ["b.test", "B.test:8000"]),
    ];
    for (given, stored, others) in spellings {
        let post = |target| gateway.admin("POST", "/upstreams/u/targets", &[("target", target)]);
        let made = post(given).expect(201).json();
        assert_eq!(made["target"], stored);
        for other in others.iter().chain([&given, &stored]) {
            assert_eq!(post(other).expect(409).json()["code"], 5, "{other}");
            for path in [(*other).to_owned(), escaped(other)] {
                if path.contains(['[', ']']) {
                    continue;
                }
                let path = format!("/upstreams/u/targets/{path}");
                let shown = gateway.admin("GET", &path, &[]).expect(200).json();
                assert_eq!(shown["id"], made["id"], "{other}");
                let fields = [("weight", "7")];
                let changed = gateway.admin("PATCH", &path, &fields).expect(200).json();
                assert_eq!(changed["id"], made["id"], "{other}");
            }
        }
        let path = format!("/upstreams/u/targets/{}", escaped(others[0]));
        gateway.admin("DELETE", &path, &[]).expect(204);
        gateway.admin("GET", &path, &[]).expect(404);
    }
}

#[test]
fn the_health_of_an_address_is_set_by_any_spelling() {
    let gateway = Gateway::start();
    let backend = Backend::start_on("six", (Ipv6Addr::LOCALHOST, 0).into());
    gateway.balanced(&[(backend.address, 1)]);
    let checks = json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &checks)
        .expect(200);
    let port = backend.address.port();
    let target = escaped(&format!("[::1]:{port}"));
    let address = escaped(&format!("[0:0::0001]:{port}"));
    let path = format!("/upstreams/u/targets/{target}/{address}");
    let put = |word| gateway.admin("PUT", &format!("{path}/{word}"), &[]);
    put("unhealthy").expect(204);
    gateway.get("/").expect(503);
    put("healthy").expect(204);
    assert_eq!(gateway.backend_of("/"), "six");
}

#[test]
fn the_host_sent_to_an_endpoint_has_a_port_and_the_canonical_form() {
    let gateway = Gateway::start();
    let six = Backend::start_on("six", (Ipv6Addr::LOCALHOST, 0).into());
    gateway.balanced(&[(six.address, 1)]);
    let port = six.address.port();
    let host = || gateway.get("/").expect(200).json()["headers"]["host"].clone();
    assert_eq!(host(), format!("[::1]:{port}"));
    for (host_header, sent) in [
        ("api.example", format!("api.example:{port}")),
        ("api.example:7", "api.example:7".into()),
        ("[2001:DB8:0::1]", format!("[2001:db8::1]:{port}")),
        ("2001:DB8:0::1", format!("[2001:db8::1]:{port}")),
        ("[2001:db8::1]:7", "[2001:db8::1]:7".into()),
    ] {
        let fields = [("host_header", host_header)];
        gateway.admin("PATCH", "/upstreams/u", &fields).expect(200);
        assert_eq!(host(), sent);
    }
}

#[test]
fn a_probe_names_an_ipv6_address_as_a_request_does() {
    let gateway = Gateway::start();
    let six = Backend::start_on("six", (Ipv6Addr::LOCALHOST, 0).into());
    gateway.balanced(&[(six.address, 1)]);
    let settings = active_checks("http", &json!({}));
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    until("a probe", || !six.probes().is_empty());
    let host = format!("\"[::1]:{}\"", six.address.port());
    assert!(six.probes()[0].contains(&host), "{:?}", six.probes());
}

#[test]
fn the_authority_of_an_absolute_target_is_read_as_a_host() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    serve(&gateway, "s", &format!("http://{}", backend.address));
    route(
        &gateway,
        "s",
        &[("hosts[]", "example.com"), ("preserve_host", "true")],
    );
    for refused in [
        "http://user@example.com/",
        "http://user:word@example.com:80/",
        "http://@example.com/",
        "http://example.com:port/",
        "http://example.com:99999/",
        "http://example..com/",
    ] {
        assert_eq!(status(&gateway, refused, "example.com"), "400", "{refused}");
    }
    for refused in ["user@example.com", "a:b", "[::1", "::1", "example.com:+1"] {
        assert_eq!(status(&gateway, "/", refused), "400", "{refused}");
    }
    let taken = received(&answer(&gateway, "http://EXAMPLE.com.?a=b", "other.test"));
    assert_eq!(taken["uri"], "/?a=b");
    assert_eq!(taken["headers"]["x-forwarded-host"], "example.com");
    assert_eq!(taken["headers"]["host"], "EXAMPLE.com.");
    let taken = received(&answer(&gateway, "http://example.com", "other.test"));
    assert_eq!(taken["uri"], "/");
    let taken = received(&answer(&gateway, "http://example.com?", "other.test"));
    assert_eq!(taken["uri"], "/?");
}

#[test]
fn a_redirect_has_the_canonical_host() {
    let gateway = Gateway::start();
    let service = [("name", "s"), ("host", "127.0.0.1")];
    gateway.admin("POST", "/services", &service).expect(201);
    route(
        &gateway,
        "s",
        &[
            ("paths[]", "/"),
            ("protocols[]", "https"),
            ("https_redirect_status_code", "301"),
        ],
    );
    for (host, location) in [
        ("Example.com.:8000", "https://example.com/x?y"),
        ("[0:0::1]:8000", "https://[::1]/x?y"),
    ] {
        let answer = answer(&gateway, "/x?y", host).to_lowercase();
        assert!(
            answer.contains(&format!("location: {location}\r\n")),
            "{answer}"
        );
    }
    let answer = answer(&gateway, "http://example.com?a=b", "x").to_lowercase();
    assert!(
        answer.contains("location: https://example.com/?a=b\r\n"),
        "{answer}"
    );
}

#[test]
fn a_plain_path_may_have_any_character_in_its_normal_form() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    let service = format!("http://{}", backend.address);
    let service = [("name", "s"), ("url", &*service)];
    gateway.admin("POST", "/services", &service).expect(201);
    for (path, request) in [
        ("/{id}", "/%7Bid%7D"),
        ("/a[b]", "/a[b]"),
        ("/c|d", "/c%7Cd"),
        ("/e^f", "/e%5Ef"),
        ("/g h", "/g%20h/more"),
        ("/q\"r", "/q%22r"),
        ("/\u{e4}", "/%C3%A4"),
        ("/i%20j", "/i%20j"),
    ] {
        let made = route(&gateway, "s", &[("paths[]", path)]);
        assert_eq!(made["paths"], json!([path]));
        assert_eq!(status(&gateway, request, "h"), "200", "{path}");
    }
    for (path, message) in [
        ("x", "should start with: / (fixed path) or ~/ (regex path)"),
        ("/a//b", "must not have empty segments"),
        ("/{a}%zz", "invalid url-encoded value: '%zz'"),
        ("/{a}%2", "invalid url-encoded value: '%2'"),
        (
            "/{a}/../b",
            "non-normalized path, consider use '/b' instead",
        ),
        ("/%7ba", "non-normalized path, consider use '/{a' instead"),
        ("/a%2f", "non-normalized path, consider use '/a%2F' instead"),
    ] {
        let refused = gateway.admin("POST", "/services/s/routes", &[("paths[]", path)]);
        let refused = refused.expect(400).json();
        assert_eq!(refused["fields"]["paths"], json!([message]), "{path}");
    }
    // The path of a service is sent and not compared, so it must be valid by RFC 3986.
    let refused = gateway.admin("PATCH", "/services/s", &[("path", "/{a}")]);
    refused.expect(400);
}

#[test]
fn a_host_of_digits_is_an_invalid_address() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let field = |reply: Reply, field: &str| reply.expect(400).json()["fields"][field].clone();
    for host in ["123", "1.2.3", "1.2.3.4.5", "300.1.1.1", "123."] {
        let reply = gateway.admin("POST", "/services", &[("host", host)]);
        assert_eq!(field(reply, "host"), format!("invalid value: {host}"));
        let reply = gateway.admin("POST", "/upstreams", &[("name", host)]);
        let message = format!("Invalid name ('{host}'); must be a valid hostname");
        assert_eq!(field(reply, "name"), message);
        for target in [host.to_owned(), format!("{host}:80")] {
            let targets = "/upstreams/u/targets";
            let reply = gateway.admin("POST", targets, &[("target", &target)]);
            assert_ne!(field(reply, "target"), Value::Null, "{target}");
        }
        let fields = [("hosts[]", host)];
        let reply = gateway.admin("POST", "/routes", &fields);
        assert_ne!(field(reply, "hosts"), Value::Null, "{host}");
        let fields = [("host_header", host)];
        let reply = gateway.admin("PATCH", "/upstreams/u", &fields);
        assert_ne!(field(reply, "host_header"), Value::Null, "{host}");
    }
    for host in ["1a", "123.test", "a.1"] {
        let fields = [("host", host)];
        gateway.admin("POST", "/services", &fields).expect(201);
    }
}

#[test]
fn a_put_creates_or_replaces_a_target() {
    let gateway = Gateway::start();
    for name in ["u", "v"] {
        gateway
            .admin("POST", "/upstreams", &[("name", name)])
            .expect(201);
    }
    let put = |path: &str, fields: &[(&str, &str)]| {
        gateway.admin("PUT", &format!("/upstreams/{path}"), fields)
    };
    // By the target's address, in any spelling.
    let made = put("u/targets/a.test:80", &[("tags[]", "x")])
        .expect(200)
        .json();
    assert_eq!(
        (&made["target"], &made["weight"]),
        (&json!("a.test:80"), &json!(100))
    );
    let made = put("u/targets/127.0.0.01", &[("weight", "7")])
        .expect(200)
        .json();
    assert_eq!(
        (&made["target"], &made["weight"]),
        (&json!("127.0.0.1:8000"), &json!(7))
    );
    // An existing target is replaced: fields that are not given have their defaults.
    let replaced = put("u/targets/127.0.0.1:8000", &[("tags[]", "x")])
        .expect(200)
        .json();
    assert_eq!(replaced["id"], made["id"]);
    assert_eq!(
        (&replaced["weight"], &replaced["tags"]),
        (&json!(100), &json!(["x"]))
    );
    // By its id.
    let id = "3f2e27a8-5b7d-4a36-9d0e-0d6a4c1b2e3f";
    let path = format!("u/targets/{id}");
    put(&path, &[("weight", "1")]).expect(400);
    let made = put(&path, &[("target", "c.test:1")]).expect(200).json();
    assert_eq!(
        (&made["id"], &made["target"]),
        (&json!(id), &json!("c.test:1"))
    );
    let made = put(&path, &[("weight", "3")]).expect(200).json();
    assert_eq!(
        (&made["target"], &made["weight"]),
        (&json!("c.test:1"), &json!(3))
    );
    // A target of another upstream is not found, and does not change.
    put(&format!("v/targets/{id}"), &[("target", "c.test:1")]).expect(404);
    let fields = [("weight", "1")];
    put("v/targets/c.test:1", &fields).expect(200);
    put("w/targets/c.test:1", &fields).expect(404);
    put("u/targets/a%20b", &fields).expect(400);
    put(&path, &[("target", "a.test:80")]).expect(409);
    let all = gateway.admin("GET", "/upstreams/u/targets", &[]).json();
    assert_eq!(all["data"].as_array().unwrap().len(), 3, "{all}");
}

#[test]
fn concurrent_puts_of_a_target_create_one() {
    let gateway = &Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    std::thread::scope(|scope| {
        for weight in 1..=8 {
            scope.spawn(move || {
                let fields = [("weight", &*weight.to_string())];
                let path = "/upstreams/u/targets/127.0.0.1:9";
                gateway.admin("PUT", path, &fields).expect(200);
            });
        }
    });
    let all = gateway.admin("GET", "/upstreams/u/targets", &[]).json();
    assert_eq!(all["data"].as_array().unwrap().len(), 1, "{all}");
}

#[test]
fn a_slow_lookup_is_not_started_again() {
    let dns = Dns::start();
    let backend = Backend::start("b");
    dns.set_type("slow.test", RecordType::SRV, DnsReply::NoResponse);
    dns.set_type(
        "slow.test",
        RecordType::A,
        DnsReply::Addresses(vec![LOCAL], 3600),
    );
    let gateway = with_dns(&dns).start();
    gateway.balanced(&[]);
    let target = format!("slow.test:{}", backend.address.port());
    gateway
        .admin("POST", "/upstreams/u/targets", &[("target", &target)])
        .expect(201);
    until("an address", || gateway.get("/").status == 200);
    // Two lookups of SRV records with three datagrams each, and one of the address.
    let asked = dns.queries("slow.test");
    assert!(asked <= 7, "{asked}");
}

#[test]
fn algorithm_and_hash_on_read_back_as_in_kong() {
    let gateway = Gateway::start();
    let made = |number: usize, fields: &[(&str, &str)]| {
        let name = format!("u{number}");
        let fields = [&[("name", &*name)], fields].concat();
        let made = gateway
            .admin("POST", "/upstreams", &fields)
            .expect(201)
            .json();
        let path = format!("/upstreams/{name}");
        let read = gateway.admin("GET", &path, &[]).expect(200).json();
        assert_eq!(made, read);
        (
            path,
            format!("{} {}", text(&read["algorithm"]), text(&read["hash_on"])),
        )
    };
    fn text(value: &Value) -> String {
        value.as_str().unwrap().to_owned()
    }
    const HASHING: (&str, &str) = ("algorithm", "consistent-hashing");
    const LEAST: (&str, &str) = ("algorithm", "least-connections");
    const ROUND: (&str, &str) = ("algorithm", "round-robin");
    const IP: (&str, &str) = ("hash_on", "ip");
    const NONE: (&str, &str) = ("hash_on", "none");
    const NULL: (&str, &str) = ("hash_on", "");
    const LATENCY: (&str, &str) = ("algorithm", "latency");
    const MAGLEV: (&str, &str) = ("algorithm", "maglev");
    type Fields = &'static [(&'static str, &'static str)];
    let cases: &[(Fields, Fields, &str)] = &[
        // Fields of the POST, fields of the PATCH, and what a GET shows.
        (&[], &[], "round-robin none"),
        (&[HASHING], &[], "round-robin none"),
        (&[HASHING, NONE], &[], "round-robin none"),
        (&[HASHING, NULL], &[], "round-robin none"),
        (&[HASHING, IP], &[], "consistent-hashing ip"),
        (&[IP], &[], "consistent-hashing ip"),
        (&[ROUND, IP], &[], "consistent-hashing ip"),
        (&[LEAST], &[], "least-connections none"),
        (&[LEAST, IP], &[], "least-connections none"),
        (&[LEAST, NONE], &[], "least-connections none"),
        (&[LEAST, NULL], &[], "least-connections none"),
        (&[LATENCY, IP], &[], "latency none"),
        (&[LEAST], &[NONE], "round-robin none"),
        (&[LEAST], &[NULL], "least-connections none"),
        (&[LEAST], &[IP], "consistent-hashing ip"),
        (&[LEAST], &[("slots", "20")], "least-connections none"),
        (&[IP], &[ROUND], "consistent-hashing ip"),
        (&[IP], &[LEAST], "least-connections none"),
        (&[IP], &[NONE], "round-robin none"),
        (&[IP], &[NULL], "round-robin none"),
        (&[IP], &[ROUND, NONE], "round-robin none"),
        (&[LEAST], &[HASHING], "round-robin none"),
        // A balancer that Kong does not have keeps any `hash_on`.
        (&[MAGLEV], &[], "maglev none"),
        (&[MAGLEV, IP], &[], "maglev ip"),
        (&[MAGLEV, IP], &[NONE], "maglev none"),
        (&[MAGLEV, NONE], &[IP], "maglev ip"),
        (&[MAGLEV, IP], &[HASHING], "consistent-hashing ip"),
        (&[MAGLEV], &[HASHING], "round-robin none"),
        (&[LEAST], &[MAGLEV, IP], "maglev ip"),
    ];
    for (number, (posted, patched, read)) in cases.iter().enumerate() {
        let (path, mut found) = made(number, posted);
        if !patched.is_empty() {
            let row = gateway.admin("PATCH", &path, patched).expect(200).json();
            assert_eq!(row, gateway.admin("GET", &path, &[]).json());
            found = format!("{} {}", text(&row["algorithm"]), text(&row["hash_on"]));
        }
        assert_eq!(&found, read, "{posted:?} {patched:?}");
    }
}

#[test]
fn a_host_with_a_port_wins_over_the_same_without() {
    let gateway = Gateway::start();
    let [plain, ported] = ["plain", "ported"].map(Backend::start);
    for backend in [(&plain, "plain"), (&ported, "ported")] {
        let url = format!("http://{}", backend.0.address);
        let fields = [("name", backend.1), ("url", &*url)];
        gateway.admin("POST", "/services", &fields).expect(201);
    }
    let small = "00000000-0000-4000-8000-000000000001";
    let great = "ffffffff-ffff-4fff-bfff-fffffffffff1";
    for ids in [[small, great], [great, small]] {
        for (service, host, id) in [
            ("plain", "example.com", ids[0]),
            ("ported", "example.com:81", ids[1]),
        ] {
            let path = format!("/routes/{id}");
            let fields = json!({"hosts": [host], "service": {"name": service}});
            gateway.admin_json("PUT", &path, &fields).expect(200);
        }
        let of = |host| received(&answer(&gateway, "/", host))["backend"].clone();
        assert_eq!(of("example.com:81"), "ported", "{ids:?}");
        assert_eq!(of("example.com:82"), "plain");
    }
}

#[test]
fn kongs_entities_that_are_not_supported_are_named() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/services", &[("name", "s"), ("host", "h")])
        .expect(201);
    let message = |method, path: &str, status| {
        let reply = gateway.admin(method, path, &[]).expect(status);
        reply.json()["message"].as_str().unwrap().to_owned()
    };
    for (path, entity) in [
        ("/consumers", "consumers"),
        ("/consumers/luka", "consumers"),
        ("/consumers/luka/key-auth", "key-auth"),
        ("/certificates", "certificates"),
        ("/certificates/x/snis", "snis"),
        ("/snis", "snis"),
        ("/ca_certificates", "ca_certificates"),
        ("/vaults", "vaults"),
        ("/keys", "keys"),
        ("/key-sets/x/keys", "keys"),
        ("/key-auths", "key-auths"),
        ("/acls", "acls"),
        ("/filter-chains", "filter-chains"),
        ("/plugins", "plugins"),
        ("/plugins/enabled", "plugins"),
        ("/services/s/plugins", "plugins"),
        ("/routes/r/plugins/p", "plugins"),
        ("/schemas/services", "schemas"),
        ("/tags", "tags"),
        ("/config", "config"),
        ("/services/s/client_certificate", "certificates"),
    ] {
        let said = message("GET", path, 404);
        assert!(said.contains(&format!("'{entity}'")), "{path}: {said}");
        for there in ["services", "routes", "upstreams", "targets", "balancers"] {
            assert!(said.contains(there), "{path}: {said}");
        }
    }
    for (method, path) in [
        ("POST", "/plugins"),
        ("PUT", "/plugins/x"),
        ("PATCH", "/plugins/x"),
        ("POST", "/services/s/plugins"),
        ("POST", "/routes/r/plugins"),
        ("POST", "/consumers/luka/plugins"),
    ] {
        let said = message(method, path, 501);
        assert!(said.contains("'plugins'"), "{path}: {said}");
    }
    let fields = [("name", "rate-limiting"), ("config.minute", "5")];
    let said = gateway
        .admin("POST", "/plugins", &fields)
        .expect(501)
        .text();
    assert!(said.contains("'plugins'"), "{said}");
    message("POST", "/consumers", 404);
    message("DELETE", "/plugins/x", 404);
    for path in ["/konsumers", "/services/s/targets", "/x", "/services/s/x"] {
        assert_eq!(message("GET", path, 404), "Not found", "{path}");
    }
}
