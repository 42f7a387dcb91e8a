//! Which route a request matches, and the path and host that are sent.

use serde_json::json;

use crate::harness::{Backend, Gateway};
use crate::hosts::{answer, received, route, status};
use crate::proxy::add_route;

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
