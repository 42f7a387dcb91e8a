//! What authentication policies share: several at once, anonymous consumers, and what depends on
//! the consumer of a request.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Reply, add_consumer, add_credential, add_plugin, patch_upstream, received,
    with_route,
};

/// The key of the consumer `key`.
const KEY: (&str, &str) = ("apikey", "k");

/// The password of the consumer `basic`.
fn basic() -> (&'static str, String) {
    ("authorization", format!("Basic {}", STANDARD.encode("u:p")))
}

/// A gateway whose service asks for a key and for a password. The two belong to the consumers `key`
/// and `basic`; there is a consumer `guest` without any credential.
fn with_both(key_auth: Value, basic_auth: Value) -> (Gateway, Backend) {
    let (gateway, backend) = with_route();
    for consumer in ["key", "basic", "guest"] {
        add_consumer(&gateway, consumer);
    }
    add_credential(&gateway, "key", "key-auth", json!({ "key": "k" }));
    let row = json!({ "username": "u", "password": "p" });
    add_credential(&gateway, "basic", "basic-auth", row);
    add_plugin(&gateway, "key-auth", key_auth, json!({}));
    add_plugin(&gateway, "basic-auth", basic_auth, json!({}));
    (gateway, backend)
}

fn get(gateway: &Gateway, has_key: bool, has_password: bool) -> Reply {
    let (name, value) = basic();
    let password = (name, &*value);
    let sent = [has_key.then_some(KEY), has_password.then_some(password)];
    let sent: Vec<(&str, &str)> = sent.into_iter().flatten().collect();
    gateway.get_with("/", &sent)
}

#[test]
fn several_policies_are_all_asked() {
    let (gateway, _backend) = with_both(json!({}), json!({}));
    // The first one that refuses a request answers it.
    let reply = get(&gateway, false, true).expect(401);
    assert_eq!(reply.header("www-authenticate"), "Key");
    let reply = get(&gateway, true, false).expect(401);
    assert_eq!(reply.header("www-authenticate"), "Basic realm=\"service\"");
    // The last one names the consumer.
    let headers = received(get(&gateway, true, true));
    assert_eq!(headers["x-consumer-username"], "basic");
    assert_eq!(headers["x-credential-identifier"], "u");
}

#[test]
fn one_policy_of_several_that_allow_anonymous_requests_is_enough() {
    let anonymous = json!({ "anonymous": "guest" });
    let (gateway, _backend) = with_both(anonymous.clone(), anonymous);
    for (has_key, has_password, consumer) in [
        (true, false, "key"),
        (false, true, "basic"),
        (true, true, "key"),
    ] {
        let headers = received(get(&gateway, has_key, has_password));
        assert_eq!(headers["x-consumer-username"], consumer);
        assert_eq!(headers["x-anonymous-consumer"], Value::Null);
        assert!(headers["x-credential-identifier"].is_string(), "{headers}");
    }
    let headers = received(get(&gateway, false, false));
    assert_eq!(headers["x-consumer-username"], "guest");
    assert_eq!(headers["x-anonymous-consumer"], "true");
    assert_eq!(headers["x-credential-identifier"], Value::Null);
    // An invalid credential is as good as none.
    let headers = received(gateway.get("/?apikey=wrong"));
    assert_eq!(headers["x-consumer-username"], "guest");
}

#[test]
fn request_termination_for_the_anonymous_consumer_requires_one_authentication() {
    // As Kong documents it: anonymous requests are let through by all policies, and ended after
    // them.
    let anonymous = json!({ "anonymous": "guest" });
    let (gateway, _backend) = with_both(anonymous.clone(), anonymous);
    let guest = gateway
        .admin("GET", "/consumers/guest", &[])
        .expect(200)
        .json();
    let scope = json!({ "consumer": { "id": guest["id"] } });
    let config = json!({ "status_code": 401, "message": "Log in" });
    add_plugin(&gateway, "request-termination", config, scope);
    get(&gateway, true, false).expect(200);
    get(&gateway, false, true).expect(200);
    let reply = get(&gateway, false, false).expect(401);
    assert_eq!(reply.json(), json!({ "message": "Log in" }));
}

#[test]
fn an_anonymous_consumer_is_named_by_id_or_username() {
    let (gateway, _backend) = with_route();
    let guest = add_consumer(&gateway, "guest");
    let plugin = add_plugin(
        &gateway,
        "key-auth",
        json!({ "anonymous": guest }),
        json!({}),
    );
    let headers = received(gateway.get_with("/", &[("x-anonymous-consumer", "false")]));
    assert_eq!(headers["x-consumer-id"], guest);
    assert_eq!(headers["x-anonymous-consumer"], "true");
    // A client cannot have the gateway hide that it is anonymous.
    let headers = received(gateway.get_with("/", &[("connection", "x-anonymous-consumer")]));
    assert_eq!(headers["x-anonymous-consumer"], "true");
    let change = json!({ "config": { "anonymous": "nobody" } });
    gateway.admin_json("PATCH", &plugin, &change).expect(200);
    let reply = gateway.get("/").expect(500);
    let message = "anonymous consumer nobody is configured but doesn't exist";
    assert_eq!(reply.json()["message"], message);
    add_consumer(&gateway, "nobody");
    gateway.get("/").expect(200);
}

/// A gateway whose upstream hashes on the consumer, with three targets and twelve consumers. Each
/// has its number as key.
fn with_hashing(anonymous: Option<&str>) -> (Gateway, Vec<Backend>) {
    let gateway = Gateway::start();
    let backends: Vec<Backend> = ["a", "b", "c"].into_iter().map(Backend::start).collect();
    let targets: Vec<_> = backends
        .iter()
        .map(|backend| (backend.address, 100))
        .collect();
    gateway.balanced(&targets);
    let settings = json!({
        "hash_on": "consumer", "hash_fallback": "header", "hash_fallback_header": "x-fallback",
    });
    patch_upstream(&gateway, &settings);
    for number in 0..12 {
        let name = number.to_string();
        add_consumer(&gateway, &name);
        add_credential(&gateway, &name, "key-auth", json!({ "key": name }));
    }
    if let Some(anonymous) = anonymous {
        add_consumer(&gateway, anonymous);
    }
    add_plugin(
        &gateway,
        "key-auth",
        json!({ "anonymous": anonymous }),
        json!({}),
    );
    (gateway, backends)
}

#[test]
fn requests_of_a_consumer_go_to_one_target() {
    let (gateway, backends) = with_hashing(None);
    let target = |key: &str| {
        let reply = gateway.get_with("/", &[("apikey", key)]).expect(200);
        reply.header("x-backend").to_owned()
    };
    let mut targets = BTreeMap::new();
    for number in 0..12 {
        let name = number.to_string();
        let first = target(&name);
        for _ in 0..3 {
            assert_eq!(target(&name), first);
        }
        // Another key of the consumer leads to the same target.
        let other = format!("other-{number}");
        add_credential(&gateway, &name, "key-auth", json!({ "key": other }));
        assert_eq!(target(&other), first);
        // So does a request that is described.
        let described = json!({ "consumer": name });
        let said = gateway.admin_json("POST", "/upstreams/u/explain", &described);
        let address = said.expect(200).json()["answers"][0]["address"].clone();
        let backend = backends
            .iter()
            .find(|backend| address == backend.address.to_string());
        let reply = gateway.get_with("/", &[("apikey", &name)]).expect(200);
        assert!(backend.is_some(), "{address}");
        targets.insert(name, (first, address, reply.header("x-backend").to_owned()));
    }
    let by_address: BTreeSet<_> = targets
        .values()
        .cloned()
        .map(|(name, address, again)| {
            assert_eq!(name, again);
            (name, address.to_string())
        })
        .collect();
    // A target has one address, and there is more than one target.
    let names: BTreeSet<&String> = by_address.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), by_address.len());
    assert!(names.len() > 1, "{by_address:?}");
    let wrong = json!({ "consumer": "nobody" });
    let reply = gateway
        .admin_json("POST", "/upstreams/u/explain", &wrong)
        .expect(400);
    assert_eq!(
        reply.json()["fields"]["consumer"],
        "no consumer has this id or username"
    );
}

#[test]
fn an_anonymous_consumer_is_hashed_as_any_other() {
    let (gateway, _backends) = with_hashing(Some("guest"));
    let target = |headers: &[(&str, &str)]| {
        gateway
            .get_with("/", headers)
            .expect(200)
            .header("x-backend")
            .to_owned()
    };
    let first = target(&[]);
    for number in 0..12 {
        assert_eq!(target(&[("x-fallback", &number.to_string())]), first);
    }
}

#[test]
fn a_request_without_a_consumer_is_hashed_on_the_fallback() {
    let (gateway, _backends) = with_hashing(None);
    let list = gateway.admin("GET", "/plugins", &[]).expect(200).json();
    let plugin = format!("/plugins/{}", list["data"][0]["id"].as_str().unwrap());
    gateway.admin("DELETE", &plugin, &[]).expect(204);
    let target = |value: &str| {
        let reply = gateway.get_with("/", &[("x-fallback", value)]).expect(200);
        reply.header("x-backend").to_owned()
    };
    let targets: BTreeSet<String> = (0..12)
        .map(|number| {
            let value = number.to_string();
            let first = target(&value);
            assert_eq!(target(&value), first);
            first
        })
        .collect();
    assert!(targets.len() > 1, "{targets:?}");
}
