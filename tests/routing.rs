//! Which route a request matches, and the path and host that are sent.

use crate::harness::{Backend, Gateway};
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
