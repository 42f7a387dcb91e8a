//! `basic-auth`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, add_consumer, add_credential, add_plugin, received, with_route,
};

/// A gateway whose service asks for a password, with a consumer `c` whose username is `u` and whose
/// password is `p:w`.
fn with_basic_auth(config: Value) -> (Gateway, Backend) {
    let (gateway, backend) = with_route();
    add_consumer(&gateway, "c");
    let row = json!({ "username": "u", "password": "p:w" });
    add_credential(&gateway, "c", "basic-auth", row);
    add_plugin(&gateway, "basic-auth", config, json!({}));
    (gateway, backend)
}

fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

#[test]
fn a_password_names_the_consumer() {
    let (gateway, _backend) = with_basic_auth(json!({}));
    let value = basic("u", "p:w");
    let headers = received(gateway.get_with("/", &[("authorization", &value)]));
    assert_eq!(headers["x-consumer-username"], "c");
    assert_eq!(headers["x-credential-identifier"], "u");
    assert_eq!(headers["authorization"], value);
    let lower = value.replace("Basic", "basic ");
    gateway
        .get_with("/", &[("authorization", &lower)])
        .expect(200);
}

#[test]
fn every_failure_has_the_same_answer() {
    let (gateway, backend) = with_basic_auth(json!({}));
    let wrong = [
        basic("u", "p:x"),
        basic("u", "p:w "),
        basic("u", ""),
        basic("U", "p:w"),
        basic("", "p:w"),
        basic("nobody", ""),
        basic("u", "p:w").replace("Basic", "Bearer"),
        "Basic".into(),
        "Basic %%%".into(),
        "Basic dTpw/w==".into(),
        format!("Basic {}", STANDARD.encode("u")),
    ];
    let mut replies: Vec<_> = wrong
        .iter()
        .map(|value| gateway.get_with("/", &[("authorization", value)]))
        .collect();
    replies.push(gateway.get("/"));
    for reply in replies {
        let reply = reply.expect(401);
        assert_eq!(reply.header("www-authenticate"), "Basic realm=\"service\"");
        let body = reply.json();
        assert_eq!(body["message"], "Unauthorized");
        assert_eq!(body["request_id"], reply.header("x-kong-request-id"));
    }
    assert_eq!(backend.served(), 0);
}

#[test]
fn the_credentials_for_proxies_come_first() {
    let (gateway, _backend) = with_basic_auth(json!({}));
    let (right, wrong) = (basic("u", "p:w"), basic("u", "x"));
    let unknown = basic("nobody", "x");
    for (proxy, own, status) in [
        (&right, &wrong, 200),
        (&wrong, &right, 401),
        // Of a username that does not exist, the other header decides.
        (&unknown, &right, 200),
        (&unknown, &wrong, 401),
    ] {
        let headers = [
            ("proxy-authorization", proxy.as_str()),
            ("authorization", own.as_str()),
        ];
        assert_eq!(
            gateway.get_with("/", &headers).status,
            status,
            "{headers:?}"
        );
    }
    gateway
        .get_with("/", &[("proxy-authorization", &right)])
        .expect(200);
}

#[test]
fn hidden_credentials_are_not_sent_to_the_endpoint() {
    let (gateway, _backend) = with_basic_auth(json!({ "hide_credentials": true }));
    let right = basic("u", "p:w");
    for name in ["authorization", "proxy-authorization"] {
        let headers = received(gateway.get_with("/", &[(name, &right)]));
        assert_eq!(headers[name], Value::Null);
    }
}

#[test]
fn the_realm_is_that_of_the_settings() {
    let (gateway, _backend) = with_basic_auth(json!({ "realm": "shop" }));
    let reply = gateway.get("/").expect(401);
    assert_eq!(reply.header("www-authenticate"), "Basic realm=\"shop\"");
}

#[test]
fn a_changed_password_is_in_effect_for_the_next_request() {
    let (gateway, _backend) = with_basic_auth(json!({}));
    let status = |password: &str| {
        let value = basic("u", password);
        gateway.get_with("/", &[("authorization", &value)]).status
    };
    let change = json!({ "password": "new" });
    gateway
        .admin_json("PATCH", "/basic-auths/u", &change)
        .expect(200);
    assert_eq!((status("p:w"), status("new")), (401, 200));
    gateway
        .admin("DELETE", "/consumers/c/basic-auth/u", &[])
        .expect(204);
    assert_eq!(status("new"), 401);
}
