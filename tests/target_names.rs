//! How targets are named in the Admin API: spellings of addresses, and PUT.

use std::net::Ipv6Addr;

use serde_json::json;

use crate::harness::{Backend, Gateway};
use crate::hosts::escaped;

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
    // Another name in the body renames it; a name of none renames none, so that a client that
    // repeats the request learns it.
    let renamed = put("u/targets/127.0.0.1:8000", &[("target", "127.0.0.2")])
        .expect(200)
        .json();
    assert_eq!(
        (&renamed["id"], &renamed["target"]),
        (&made["id"], &json!("127.0.0.2:8000"))
    );
    put("u/targets/127.0.0.1", &[("target", "127.0.0.2")]).expect(404);
    put("u/targets/127.0.0.2", &[("target", "a.test:80")]).expect(409);
    put("u/targets/127.0.0.02", &[("target", "127.0.0.2:8000")]).expect(200);
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
