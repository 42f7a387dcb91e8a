//! `acl`.

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Reply, add_consumer, add_credential, add_plugin, received, with_route,
};

/// A gateway whose service asks for a key, and lets in by groups. The consumers have their names as
/// keys: `one` is in `a`, `two` in `b` and `c`, `none` in no group.
fn with_acl(config: Value, key_auth: Value) -> (Gateway, Backend) {
    let (gateway, backend) = with_route();
    for (consumer, groups) in [("one", &["a"][..]), ("two", &["c", "b"]), ("none", &[])] {
        add_consumer(&gateway, consumer);
        add_credential(&gateway, consumer, "key-auth", json!({ "key": consumer }));
        for group in groups {
            add_credential(&gateway, consumer, "acls", json!({ "group": group }));
        }
    }
    add_plugin(&gateway, "key-auth", key_auth, json!({}));
    add_plugin(&gateway, "acl", config, json!({}));
    (gateway, backend)
}

fn get(gateway: &Gateway, key: &str) -> Reply {
    gateway.get_with("/", &[("apikey", key)])
}

#[track_caller]
fn forbidden(reply: Reply) {
    let reply = reply.expect(403);
    let body = reply.json();
    assert_eq!(body["message"], "You cannot consume this service");
    assert_eq!(body["request_id"], reply.header("x-kong-request-id"));
}

#[test]
fn consumers_in_an_allowed_group_are_let_in() {
    let (gateway, backend) = with_acl(json!({ "allow": ["a", "c", "unknown"] }), json!({}));
    assert_eq!(received(get(&gateway, "one"))["x-consumer-groups"], "a");
    assert_eq!(received(get(&gateway, "two"))["x-consumer-groups"], "b, c");
    forbidden(get(&gateway, "none"));
    assert_eq!(backend.served(), 2);
}

#[test]
fn consumers_in_a_denied_group_are_kept_out() {
    let (gateway, _backend) = with_acl(json!({ "deny": ["c"] }), json!({}));
    assert_eq!(received(get(&gateway, "one"))["x-consumer-groups"], "a");
    forbidden(get(&gateway, "two"));
    get(&gateway, "none").expect(200);
}

#[test]
fn a_request_without_a_consumer_is_refused() {
    for config in [json!({ "allow": ["a"] }), json!({ "deny": ["a"] })] {
        let (gateway, _backend) = with_route();
        add_plugin(&gateway, "acl", config, json!({}));
        let reply = gateway.get("/").expect(401);
        let body = reply.json();
        assert_eq!(body["message"], "Unauthorized");
        assert_eq!(body["request_id"], reply.header("x-kong-request-id"));
    }
}

#[test]
fn groups_are_hidden_where_it_is_asked_for() {
    let (gateway, _backend) = with_acl(
        json!({ "allow": ["a"], "hide_groups_header": true }),
        json!({}),
    );
    let sent = [
        ("apikey", "one"),
        ("x-consumer-groups", "forged"),
        ("x-authenticated-groups", "forged"),
    ];
    let headers = received(gateway.get_with("/", &sent));
    assert_eq!(headers["x-consumer-groups"], Value::Null);
    assert_eq!(headers["x-authenticated-groups"], Value::Null);
}

#[test]
fn an_anonymous_consumer_has_groups_as_any_other() {
    let (gateway, _backend) = with_acl(
        json!({ "allow": ["guests"] }),
        json!({ "anonymous": "none" }),
    );
    // Without a group, it may be let in once it authenticates.
    assert_eq!(
        gateway.get("/").expect(401).json()["message"],
        "Unauthorized"
    );
    forbidden(get(&gateway, "one"));
    add_credential(&gateway, "none", "acls", json!({ "group": "guests" }));
    assert_eq!(received(gateway.get("/"))["x-consumer-groups"], "guests");
    add_plugin(
        &gateway,
        "acl",
        json!({ "deny": ["guests"] }),
        json!({ "route": { "name": "r" } }),
    );
    forbidden(gateway.get("/"));
    get(&gateway, "one").expect(200);
}

#[test]
fn a_changed_group_is_in_effect_for_the_next_request() {
    let (gateway, _backend) = with_acl(json!({ "allow": ["a"] }), json!({}));
    forbidden(get(&gateway, "two"));
    for round in 0..10 {
        gateway
            .admin_json("PUT", "/consumers/two/acls/a", &json!({}))
            .expect(200);
        let groups = received(get(&gateway, "two"))["x-consumer-groups"].clone();
        assert_eq!(groups, "a, b, c", "{round}");
        gateway
            .admin("DELETE", "/consumers/two/acls/a", &[])
            .expect(204);
        forbidden(get(&gateway, "two"));
    }
}
