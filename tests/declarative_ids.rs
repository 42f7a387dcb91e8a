//! Which entity a document without ids means: the stored one of the same name, if there is one.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, put_document};

fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

/// What an import changes: what is done, to which list, and to which fields.
fn changes(gateway: &Gateway, text: &str, query: &str) -> Vec<(String, String, Value)> {
    let done = put_document(gateway, text, query).expect(200).json();
    let changes = done["changes"].as_array().unwrap().iter();
    let changes = changes.map(|change| {
        let text = |field: &str| change[field].as_str().unwrap().to_owned();
        (text("change"), text("entity"), change["fields"].clone())
    });
    changes.collect()
}

#[test]
fn a_document_without_ids_updates_what_the_admin_api_has_made() {
    let gateway = Gateway::start();
    let post = |path: &str, body: Value| {
        let made = gateway.admin_json("POST", path, &body).expect(201).json();
        made["id"].as_str().unwrap().to_owned()
    };
    let service = post("/services", json!({"name": "s", "host": "a.example"}));
    let ids = [
        (
            "/routes/r",
            post("/services/s/routes", json!({"name": "r", "paths": ["/"]})),
        ),
        ("/consumers/c", post("/consumers", json!({"username": "c"}))),
        ("/upstreams/u", post("/upstreams", json!({"name": "u"}))),
    ];
    let plugin = post("/services/s/plugins", json!({"name": "key-auth"}));
    let key = post("/consumers/c/key-auth", json!({"key": "one-key"}));
    let target = post("/upstreams/u/targets", json!({"target": "a.example"}));
    let group = post("/consumers/c/acls", json!({"group": "g"}));
    let text = "_format_version: '3.0'
services:
- name: s
  host: b.example
  routes:
  - {name: r, paths: [/]}
  - {name: new, paths: [/new]}
  plugins:
  - name: key-auth
consumers:
- username: c
  keyauth_credentials: [{key: one-key}]
  acls: [{group: g}]
upstreams:
- name: u
  targets: [{target: a.example}]
";
    let expected = [
        ("update".into(), "services".into(), json!(["host"])),
        ("create".into(), "routes".into(), Value::Null),
    ];
    assert_eq!(changes(&gateway, text, "?dry_run=true"), expected);
    assert_eq!(changes(&gateway, text, ""), expected);
    assert_eq!(changes(&gateway, text, ""), []);
    let shown = get(&gateway, "/services/s");
    assert_eq!(
        (&shown["id"], &shown["host"]),
        (&json!(service), &json!("b.example"))
    );
    for (path, id) in ids {
        assert_eq!(get(&gateway, path)["id"], id.as_str(), "{path}");
    }
    for (path, id) in [
        ("/services/s/plugins", plugin),
        ("/consumers/c/key-auth", key),
        ("/upstreams/u/targets", target),
        ("/consumers/c/acls", group),
    ] {
        assert_eq!(get(&gateway, path)["data"][0]["id"], id.as_str(), "{path}");
    }
    // A new entity has the id that Kong makes of its name, and refers to the stored one.
    let new = get(&gateway, "/routes/new");
    assert_eq!(new["service"]["id"], service.as_str());
    assert_eq!(&new["id"].as_str().unwrap()[14..15], "5");
}

#[test]
fn an_id_in_the_document_comes_before_a_name() {
    let gateway = Gateway::start();
    let made = json!({"name": "s", "host": "a.example"});
    let made = gateway
        .admin_json("POST", "/services", &made)
        .expect(201)
        .json();
    let id = made["id"].as_str().unwrap();
    // The stored entity is renamed, and another one gets its name.
    let text = format!(
        "_format_version: '3.0'
services:
- {{name: s, host: new.example, routes: [{{name: r, paths: [/]}}]}}
- {{id: {id}, name: renamed, host: a.example}}
"
    );
    put_document(&gateway, &text, "").expect(200);
    assert_eq!(get(&gateway, "/services/renamed")["id"], id);
    let other = get(&gateway, "/services/s");
    assert_ne!(other["id"], id);
    assert_eq!(get(&gateway, "/routes/r")["service"]["id"], other["id"]);
}

#[test]
fn an_id_that_was_made_of_another_name_is_not_given_twice() {
    let gateway = Gateway::start();
    let with = |names: &[&str]| {
        let services = names
            .iter()
            .map(|name| format!("- {{name: {name}, host: a.example}}\n"));
        format!(
            "_format_version: '3.0'\nservices:\n{}",
            services.collect::<String>()
        )
    };
    put_document(&gateway, &with(&["x"]), "").expect(200);
    let id = get(&gateway, "/services/x")["id"].clone();
    gateway
        .admin("PATCH", "/services/x", &[("name", "y")])
        .expect(200);
    put_document(&gateway, &with(&["x", "y"]), "").expect(200);
    assert_eq!(get(&gateway, "/services/y")["id"], id);
    assert_ne!(get(&gateway, "/services/x")["id"], id);
    assert_eq!(changes(&gateway, &with(&["x", "y"]), ""), []);
}

#[test]
fn with_select_tags_an_entity_without_them_is_left_alone() {
    let gateway = Gateway::start();
    let other = [("name", "s"), ("url", "http://b.example")];
    let id = gateway
        .admin("POST", "/services", &other)
        .expect(201)
        .json()["id"]
        .clone();
    let text = "_format_version: '3.0'
_info: {select_tags: [team]}
services:
- {name: s, host: a.example}
";
    put_document(&gateway, text, "").expect(400);
    let tagged = json!({"tags": ["team"]});
    gateway
        .admin_json("PATCH", "/services/s", &tagged)
        .expect(200);
    put_document(&gateway, text, "").expect(200);
    assert_eq!(get(&gateway, "/services/s")["id"], id);
}

/// The hash of a password is bound to the id of its consumer.
#[test]
fn a_password_of_a_document_authenticates_the_stored_consumer() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway
        .admin("POST", "/consumers", &[("username", "c")])
        .expect(201);
    let text = format!(
        "_format_version: '3.0'
services:
- name: s
  url: http://{}
  routes:
  - {{name: r, paths: [/]}}
  plugins:
  - name: basic-auth
consumers:
- username: c
  basicauth_credentials: [{{username: u, password: p}}]
",
        backend.address
    );
    put_document(&gateway, &text, "").expect(200);
    // `u:p`
    let authorized = [("authorization", "Basic dTpw")];
    gateway.get_with("/", &authorized).expect(200);
    gateway.get("/").expect(401);
    assert!(changes(&gateway, &text, "").is_empty());
    gateway.get_with("/", &authorized).expect(200);
}

#[test]
fn an_entity_of_another_team_is_not_taken_over_by_the_id_of_its_former_name() {
    let gateway = Gateway::start();
    let text = "_format_version: '3.0'
_info: {select_tags: [team]}
services:
- {name: x, host: a.example}
";
    put_document(&gateway, text, "").expect(200);
    let before = get(&gateway, "/services/x");
    let id = before["id"].as_str().unwrap();
    let change = json!({ "name": "y", "tags": ["other"] });
    gateway
        .admin_json("PATCH", &format!("/services/{id}"), &change)
        .expect(200);
    put_document(&gateway, text, "").expect(200);
    let other = get(&gateway, "/services/y");
    assert_eq!(
        (&other["id"], &other["tags"]),
        (&json!(id), &json!(["other"]))
    );
    assert_ne!(get(&gateway, "/services/x")["id"], json!(id));
}
