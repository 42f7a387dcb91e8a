//! `POST /pointsman/explain`: what each policy decides about the described request, without effect.

use serde_json::{Value, json};

use crate::harness::{Gateway, add_consumer, add_credential, add_plugin, with_route};

/// The policies of the answer, each by its name with what it decides.
fn verdicts(gateway: &Gateway, request: Value) -> Vec<(String, Value)> {
    let answer = gateway.admin_json("POST", "/pointsman/explain", &request);
    let answer = answer.expect(200).json();
    let policies = answer["policies"].as_array().unwrap().iter();
    let shown = policies.map(|policy| {
        let mut shown = policy.clone();
        let shown = shown.as_object_mut().unwrap();
        let name = shown["name"].as_str().unwrap().to_owned();
        for field in ["id", "name", "priority", "scope"] {
            shown.remove(field);
        }
        (name, Value::Object(shown.clone()))
    });
    shown.collect()
}

fn of(verdicts: &[(String, Value)], name: &str) -> Value {
    let found = verdicts.iter().find(|(known, _)| known == name);
    found.map_or(Value::Null, |(_, verdict)| verdict.clone())
}

#[test]
fn each_policy_says_what_it_would_decide() {
    let (gateway, _backend) = with_route();
    add_consumer(&gateway, "jane");
    add_credential(&gateway, "jane", "key-auth", json!({"key": "secret"}));
    add_credential(&gateway, "jane", "acls", json!({"group": "staff"}));
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    add_plugin(&gateway, "acl", json!({"allow": ["staff"]}), json!({}));
    add_plugin(
        &gateway,
        "ip-restriction",
        json!({"deny": ["10.0.0.0/8"]}),
        json!({}),
    );
    add_plugin(
        &gateway,
        "http-log",
        json!({"http_endpoint": "http://127.0.0.1:1/"}),
        json!({}),
    );
    add_plugin(&gateway, "bot-detection", json!({}), json!({}));
    let counter = json!({"day": 1, "policy": "local"});
    add_plugin(&gateway, "rate-limiting", counter, json!({}));

    let refused = verdicts(&gateway, json!({"path": "/"}));
    let answer =
        json!({"verdict": "answers", "status": 401, "message": "No API key found in request"});
    assert_eq!(of(&refused, "key-auth"), answer);
    // Those before it have passed, and those behind it are not reached.
    assert_eq!(of(&refused, "bot-detection"), json!({"verdict": "passes"}));
    assert_eq!(
        of(&refused, "ip-restriction"),
        json!({"verdict": "not reached"})
    );
    assert_eq!(of(&refused, "acl"), json!({"verdict": "not reached"}));

    let keyed = json!({"path": "/", "headers": {"apikey": "secret"}});
    for _ in 0..3 {
        let passed = verdicts(&gateway, keyed.clone());
        assert_eq!(
            of(&passed, "key-auth"),
            json!({"verdict": "passes", "consumer": "jane"})
        );
        assert_eq!(of(&passed, "acl"), json!({"verdict": "passes"}));
        assert_eq!(
            of(&passed, "rate-limiting"),
            json!({"verdict": "not evaluated", "reason": "it counts requests"})
        );
        assert_eq!(of(&passed, "http-log"), json!({"verdict": "passes"}));
    }
    // Nothing was counted: the one request of the day is still allowed.
    gateway.get_with("/", &[("apikey", "secret")]).expect(200);
    gateway.get_with("/", &[("apikey", "secret")]).expect(429);

    let denied = json!({"path": "/", "client_ip": "10.1.2.3", "headers": {"apikey": "secret"}});
    let denied = verdicts(&gateway, denied);
    assert_eq!(of(&denied, "ip-restriction")["status"], 403);
}

#[test]
fn a_consumer_that_is_named_counts_as_authenticated() {
    let (gateway, _backend) = with_route();
    for (name, group) in [("jane", "staff"), ("joe", "guests")] {
        add_consumer(&gateway, name);
        add_credential(&gateway, name, "acls", json!({"group": group}));
    }
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    add_plugin(&gateway, "acl", json!({"allow": ["staff"]}), json!({}));
    let as_consumer = |name: &str| verdicts(&gateway, json!({"path": "/", "consumer": name}));
    let jane = as_consumer("jane");
    assert_eq!(of(&jane, "key-auth")["verdict"], "not evaluated");
    assert_eq!(of(&jane, "acl"), json!({"verdict": "passes"}));
    assert_eq!(of(&as_consumer("joe"), "acl")["status"], 403);
}

#[test]
fn a_body_is_judged_as_it_is_described() {
    let (gateway, _backend) = with_route();
    let config = json!({"allowed_payload_size": 8, "size_unit": "bytes"});
    add_plugin(&gateway, "request-size-limiting", config, json!({}));
    let of_body = |body: &str| {
        let verdicts = verdicts(
            &gateway,
            json!({"path": "/", "method": "POST", "body": body}),
        );
        of(&verdicts, "request-size-limiting")
    };
    assert_eq!(of_body("12345678"), json!({"verdict": "passes"}));
    assert_eq!(of_body("123456789")["status"], 413);
}
