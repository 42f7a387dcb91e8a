//! Documents with select tags, which are about a part of the entities.

use serde_json::json;

use crate::harness::{Gateway, Reply, put_document};

fn get(gateway: &Gateway, path: &str) -> Reply {
    gateway.admin("GET", path, &[])
}

/// As their deletion by the Admin API does, which is what decK calls.
#[test]
fn what_a_deleted_entity_takes_with_it_needs_no_tag() {
    let gateway = Gateway::start();
    let text = "_format_version: '3.0'
_info: {select_tags: [team]}
consumers:
- username: cs
";
    put_document(&gateway, text, "").expect(200);
    let key = json!({ "key": "by-hand" });
    gateway
        .admin_json("POST", "/consumers/cs/key-auth", &key)
        .expect(201);
    let limit = json!({ "name": "rate-limiting", "config": { "minute": 5 } });
    gateway
        .admin_json("POST", "/consumers/cs/plugins", &limit)
        .expect(201);
    gateway
        .admin("POST", "/consumers", &[("username", "other")])
        .expect(201);
    let nothing = "_format_version: '3.0'\n_info: {select_tags: [team]}\n";
    let trial = put_document(&gateway, nothing, "?dry_run=true")
        .expect(200)
        .json();
    let changed: Vec<&str> = trial["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["entity"].as_str().unwrap())
        .collect();
    assert_eq!(
        changed,
        ["consumers", "plugins", "keyauth_credentials"],
        "{trial}"
    );
    put_document(&gateway, nothing, "").expect(200);
    for (list, left) in [("/consumers", 1), ("/key-auths", 0), ("/plugins", 0)] {
        let rows = get(&gateway, list).json();
        assert_eq!(rows["data"].as_array().unwrap().len(), left, "{list}");
    }
}

#[test]
fn a_document_with_select_tags_leaves_other_entities_alone() {
    let gateway = Gateway::start();
    let other = [("name", "other"), ("url", "http://b.example")];
    gateway.admin("POST", "/services", &other).expect(201);
    let text = "_format_version: '3.0'
_info: {select_tags: [team]}
services:
- {name: own, host: a.example}
routes:
- {name: r, service: other, paths: [/]}
";
    put_document(&gateway, text, "").expect(200);
    let own = get(&gateway, "/services/own").expect(200).json();
    assert_eq!(own["tags"], json!(["team"]));
    get(&gateway, "/routes/r/service").expect(200);
    let nothing = "_format_version: '3.0'\n_info: {select_tags: [team]}\n";
    put_document(&gateway, nothing, "").expect(200);
    get(&gateway, "/services/own").expect(404);
    get(&gateway, "/services/other").expect(200);
}
