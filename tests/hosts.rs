//! Spellings of hosts: which are accepted, matched and forwarded.

use std::net::Ipv6Addr;

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Reply, active_checks, exchange, until};

/// A route to a service with this URL, under a path of its own.
pub(crate) fn serve(gateway: &Gateway, name: &str, url: &str) -> String {
    let service = [("name", name), ("url", url)];
    gateway.admin("POST", "/services", &service).expect(201);
    route(gateway, name, &[("paths[]", &format!("/{name}"))]);
    format!("/{name}")
}

pub(crate) fn route(gateway: &Gateway, service: &str, fields: &[(&str, &str)]) -> Value {
    let routes = format!("/services/{service}/routes");
    gateway.admin("POST", &routes, fields).expect(201).json()
}

/// The status of a request with this request line and this `Host`.
pub(crate) fn status(gateway: &Gateway, target: &str, host: &str) -> String {
    answer(gateway, target, host)[9..12].to_owned()
}

pub(crate) fn answer(gateway: &Gateway, target: &str, host: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(gateway.proxy, &request)
}

/// The request as the backend received it.
pub(crate) fn received(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

pub(crate) fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
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
