//! `proxy-cache`: requests that change something outdate the responses that are stored.

use serde_json::json;

use crate::harness::{Raw, Setup, until};
use crate::proxy_cache::{PLAIN, cached, cached_with, origin, status};
use crate::proxy_cache_misses::held;

const FRESH: &str = "cache-control: max-age=60\r\n\r\nok";

#[test]
fn a_request_that_changes_something_outdates_the_responses_of_its_target() {
    let origin = origin(|head| {
        let status = match head.contains("x-fails") {
            true => "500 Error",
            false => "200 OK",
        };
        let plain = PLAIN.replace("200 OK", status);
        format!("{plain}cache-control: max-age=60\r\n\r\nok")
    });
    for is_by_rfc in [true, false] {
        let gateway = cached(&origin, json!({ "cache_control": is_by_rfc }));
        let change = |method, path, headers: &[(&str, &str)]| {
            gateway.send(gateway.proxy, method, path, headers, None);
        };
        let is_stored = |path| status(&gateway.get(path)) == "Hit";
        for path in ["/a", "/a?b=1", "/c"] {
            gateway.get(path).expect(200);
        }
        change("DELETE", "/a", &[("x-fails", "1")]);
        change("OPTIONS", "/a", &[]);
        change("PUT", "/a?b=2", &[]);
        assert!(["/a", "/a?b=1", "/c"].into_iter().all(is_stored));
        change("DELETE", "/a", &[]);
        change("PATCH", "/a?b=1", &[]);
        let found = ["/a", "/a?b=1", "/c"].map(is_stored);
        assert_eq!(found, [!is_by_rfc, !is_by_rfc, true]);
    }
}

#[test]
fn a_request_outdates_the_responses_of_its_target_although_a_policy_adds_a_query() {
    let origin = origin(|_| format!("{PLAIN}{FRESH}"));
    let gateway = cached(&origin, json!({ "cache_control": true }));
    let added = json!({ "add": { "querystring": ["k:v"] } });
    let transformer = json!({ "name": "request-transformer", "config": added });
    gateway
        .admin_json("POST", "/plugins", &transformer)
        .expect(201);
    for path in ["/a", "/a?b=1"] {
        for expected in ["Miss", "Hit"] {
            assert_eq!(status(&gateway.get(path).expect(200)), expected, "{path}");
        }
        gateway.send(gateway.proxy, "DELETE", path, &[], None);
        assert_eq!(status(&gateway.get(path).expect(200)), "Miss", "{path}");
    }
}

#[test]
fn a_request_outdates_the_responses_to_all_methods_that_are_stored() {
    let origin = origin(|_| format!("{PLAIN}{FRESH}"));
    let config = json!({ "cache_control": true, "request_method": ["GET", "POST"] });
    let gateway = cached(&origin, config);
    let ask = |method| status(&gateway.send(gateway.proxy, method, "/a", &[], None));
    for method in ["POST", "GET"] {
        let found = [method; 2].map(ask);
        assert_eq!(found, ["Miss", "Hit"], "{method}");
    }
    assert_eq!(
        ["DELETE", "GET", "POST"].map(ask),
        ["Bypass", "Miss", "Miss"]
    );
}

#[test]
fn a_purge_counts_for_the_response_to_a_request_that_changes_something() {
    let (origin, answer) = held();
    let config = json!({ "cache_control": true, "request_method": ["GET", "POST"] });
    let gateway = cached_with(Setup::new(), &origin, config);
    let post = || {
        let mut client = Raw::connect(gateway.proxy);
        client
            .send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        client
    };
    let mut client = post();
    until("the endpoint is asked", || origin.accepted() == 1);
    gateway.admin("DELETE", "/proxy-cache", &[]).expect(204);
    for expected in ["Miss", "Miss", "Hit"] {
        answer.send(format!("{PLAIN}{FRESH}")).unwrap();
        let reply = client.read_to_end();
        let expected = format!("x-cache-status: {expected}\r\n");
        assert!(reply.contains(&expected), "{reply}");
        client = post();
    }
}
