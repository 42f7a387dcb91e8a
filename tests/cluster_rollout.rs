//! Rollouts among gateways that share a configuration: first to the channel `canary`, then to all.

use serde_json::json;

use crate::harness::{
    Backend, Etcd, Gateway, Reply, Setup, add_consumer, guest, put_document, until,
};

/// A document whose service has this backend.
fn to(backend: &Backend) -> String {
    let address = backend.address;
    format!(
        "_format_version: '3.0'
_info: {{select_tags: [team]}}
services:
- name: s
  url: http://{address}
  routes:
  - {{name: r, paths: [/s]}}
"
    )
}

fn roll_out(gateway: &Gateway, document: &str) -> Reply {
    put_document(gateway, document, "?channel=canary")
}

fn rollout(gateway: &Gateway) -> Reply {
    gateway.admin("GET", "/pointsman/rollout", &[])
}

/// Whether a gateway shows the rollout in this state.
fn has_state(gateway: &Gateway, state: &str) -> bool {
    rollout(gateway).expect(200).json()["state"] == state
}

fn promote(gateway: &Gateway) -> Reply {
    gateway.admin("POST", "/pointsman/rollout/promote", &[])
}

fn answers(gateway: &Gateway, name: &str) -> bool {
    let answer = gateway.get("/s");
    answer.status == 200 && answer.header("x-backend") == name
}

#[test]
fn a_rollout_is_in_effect_at_the_canary_until_it_is_promoted_or_dropped() {
    let etcd = Etcd::start();
    let (a, b) = (etcd.gateway().start(), etcd.gateway().start());
    let canary = etcd.gateway().arg("--channel", "canary").start();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    put_document(&a, &to(&old), "").expect(200);
    rollout(&a).expect(404);
    promote(&a).expect(404);
    until("all have it", || {
        [&a, &b, &canary].iter().all(|node| answers(node, "old"))
    });
    roll_out(&a, &to(&new)).expect(200);
    until("the canary has it", || answers(&canary, "new"));
    assert!(answers(&a, "old") && answers(&b, "old"));
    until("the other gateway shows it", || rollout(&b).status == 200);
    let shown = rollout(&b).expect(200).json();
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["changes"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(shown["changes"][0]["change"], "update");
    assert_eq!(shown["changes"][0]["overtaken"], false);
    // Other changes are in effect at all.
    a.admin_json("PATCH", "/routes/r", &json!({ "paths": ["/s", "/t"] }))
        .expect(200);
    until("the change is at the canary", || {
        canary.get("/t").status == 200
    });
    assert!(answers(&canary, "new"));
    // One that is started now has it as well.
    let later = etcd.gateway().arg("--channel", "canary").start();
    assert!(answers(&later, "new"));
    until("both are listed as canaries", || {
        let nodes = a.admin("GET", "/clustering/data-planes", &[]).expect(200);
        let nodes = nodes.json()["data"].as_array().unwrap().clone();
        let channels = nodes.iter().map(|node| &node["pointsman"]["channel"]);
        channels.filter(|channel| **channel == "canary").count() == 2
    });
    a.admin("DELETE", "/pointsman/rollout", &[]).expect(204);
    assert!(has_state(&a, "dropped"));
    a.admin("DELETE", "/pointsman/rollout", &[]).expect(404);
    until("it has ended at the other gateway", || {
        has_state(&b, "dropped")
    });
    until("the canaries have returned", || {
        [&canary, &later].iter().all(|node| answers(node, "old"))
    });
    assert_eq!(canary.get("/t").status, 200, "what was changed meanwhile");
    roll_out(&b, &to(&new)).expect(200);
    until("the canary has it", || answers(&canary, "new"));
    until("the other gateway shows it", || has_state(&a, "running"));
    assert_eq!(promote(&a).expect(200).json()["changes"], 2);
    assert!(answers(&a, "new"));
    until("all have it", || {
        [&b, &canary, &later]
            .iter()
            .all(|node| answers(node, "new"))
    });
    assert!(has_state(&a, "promoted"));
}

#[test]
fn a_rollout_undoes_no_change_that_was_made_since_it_began() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let canary = etcd.gateway().arg("--channel", "canary").start();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    put_document(&a, &to(&old), "").expect(200);
    roll_out(&a, &to(&new)).expect(200);
    until("the canary has it", || answers(&canary, "new"));
    a.admin_json("PATCH", "/services/s", &json!({ "retries": 2 }))
        .expect(200);
    let refused = promote(&canary);
    assert!(refused.expect(409).text().contains("services"));
    let change = &rollout(&a).json()["changes"][0];
    assert_eq!(
        (&change["name"], &change["overtaken"]),
        (&json!("s"), &json!(true))
    );
    let kept = a.admin("GET", "/services/s", &[]).expect(200).json();
    assert_eq!(kept["retries"], 2);
    // One that deletes all, in place of that.
    let nothing = "_format_version: '3.0'\n_info: {select_tags: [team]}\n";
    roll_out(&a, nothing).expect(200);
    until("the canary has it", || canary.get("/s").status == 404);
    assert!(answers(&a, "old"));
    a.admin_json("PATCH", "/routes/r", &json!({ "regex_priority": 3 }))
        .expect(200);
    promote(&a).expect(409);
    assert!(answers(&a, "old"));
    roll_out(&a, nothing).expect(200);
    let added = a.admin("POST", "/services/s/plugins", &[("name", "cors")]);
    let added = added.expect(201).json()["id"].as_str().unwrap().to_owned();
    let refused = promote(&a).expect(409).text();
    assert!(
        refused.contains(&format!("plugins {added} refers")),
        "{refused}"
    );
    a.admin("DELETE", &format!("/plugins/{added}"), &[])
        .expect(204);
    promote(&a).expect(200);
    a.admin("GET", "/services/s", &[]).expect(404);
    until("it is gone everywhere", || {
        [&a, &canary]
            .iter()
            .all(|node| node.get("/s").status == 404)
    });
    add_consumer(&canary, "after");
}

#[test]
fn what_cannot_be_rolled_out_is_refused() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let backend = Backend::start("b");
    let alone = Gateway::start();
    let refused = roll_out(&alone, &to(&backend)).expect(400);
    assert!(refused.text().contains("set store to etcd"));
    put_document(&a, &to(&backend), "?channel=blue").expect(400);
    put_document(&a, &to(&backend), "?channel=canary&dry_run=true").expect(400);
    // The rules of the store hold for it.
    a.admin(
        "POST",
        "/services",
        &[("name", "s"), ("url", "http://a.example")],
    )
    .expect(201);
    let refused = roll_out(&a, &to(&backend)).expect(400);
    assert!(refused.text().contains("uniqueness violation"));
    // Its changes are one row.
    let mut large = to(&backend).replace("name: s\n", "name: other\n");
    for number in 0..3_000 {
        large.push_str(&format!("- {{name: s{number}, host: a.example}}\n"));
    }
    let refused = roll_out(&a, &large).expect(400);
    assert!(refused.text().contains("roll out a part"));
    // Balancers have versions with canaries of their own.
    let uploaded = a.upload("own", guest("first")).expect(201).json();
    let digest = &uploaded["digest"];
    let balancers = format!("balancers:\n- {{name: own, digest: {digest}, tags: [x]}}\n");
    let refused = roll_out(&a, &format!("_format_version: '3.0'\n{balancers}")).expect(400);
    assert!(refused.text().contains("cannot change balancers"));
    rollout(&a).expect(404);
    let (_, said) = Setup::new().arg("--channel", "canary").fail();
    assert!(said.contains("but store is sled"), "{said}");
}

#[test]
fn a_document_of_what_is_stored_ends_the_rollout() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let canary = etcd.gateway().arg("--channel", "canary").start();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    put_document(&a, &to(&old), "").expect(200);
    roll_out(&a, &to(&old)).expect(200);
    rollout(&a).expect(404);
    roll_out(&a, &to(&new)).expect(200);
    until("the canary has it", || answers(&canary, "new"));
    roll_out(&canary, &to(&old)).expect(200);
    assert!(answers(&canary, "old"));
    assert!(has_state(&canary, "dropped"));
}
