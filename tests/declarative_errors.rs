//! `POST /config` as Kong's tools use it, row by row: what it takes, when it compares hashes, and
//! the errors by entity. Source: Kong 3.9, `kong.api.routes.config` and `kong.db.errors`.

use serde_json::{Value, json};

use crate::harness::{Gateway, Reply, Setup};

const ID: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "22222222-2222-4222-8222-222222222222";

pub(crate) fn start() -> Gateway {
    Setup::new().arg("--database", "off").start()
}

fn post_as(gateway: &Gateway, query: &str, content_type: &str, body: &str) -> Reply {
    let body = (content_type, body.as_bytes().to_vec());
    let path = format!("/config{query}");
    gateway.send(gateway.admin, "POST", &path, &[], Some(body))
}

/// What is answered to a document with these lists, with `flatten_errors`.
pub(crate) fn flattened(gateway: &Gateway, mut document: Value) -> Value {
    let top = document.as_object_mut().unwrap();
    top.entry("_format_version").or_insert(json!("3.0"));
    let path = "/config?flatten_errors=1";
    let refused = gateway.admin_json("POST", path, &document).expect(400);
    let refused = refused.json();
    assert_eq!(refused["code"], 14);
    assert_eq!(refused["name"], "invalid declarative configuration");
    refused
}

/// The items, in the order of their types and names.
pub(crate) fn items(refused: &Value) -> Vec<Value> {
    let mut items = refused["flattened_errors"].as_array().unwrap().clone();
    items.sort_by_key(|item| format!("{} {}", item["entity_type"], item["entity"]));
    items
}

/// The only item.
#[track_caller]
fn item(refused: &Value) -> Value {
    let items = items(refused);
    assert_eq!(items.len(), 1, "{refused}");
    items[0].clone()
}

pub(crate) fn field(field: &str, message: &str) -> Value {
    json!({ "type": "field", "field": field, "message": message })
}

#[test]
fn a_document_is_taken_in_the_forms_that_kong_takes() {
    let gateway = start();
    let yaml = "_format_version: '3.0'\nservices:\n- {name: s, host: a.example}\n";
    let object = json!({ "_format_version": "3.0", "services": [{ "name": "s", "host": "a" }] });
    let object = object.to_string();
    let in_field = json!({ "config": yaml, "other": 1 }).to_string();
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("config", yaml)
        .append_pair("other", "x")
        .finish();
    let multipart = format!(
        "--b\r\nContent-Disposition: form-data; name=\"config\"\r\n\r\n{yaml}\r\n--b--\r\n"
    );
    for (content_type, body) in [
        ("application/json", &*object),
        ("application/json", &in_field),
        ("application/x-www-form-urlencoded", &form),
        ("multipart/form-data; boundary=b", &multipart),
        ("application/yaml", yaml),
        ("text/yaml; charset=utf-8", yaml),
        // JSON is tried first.
        ("text/yaml", &object),
    ] {
        post_as(&gateway, "", content_type, body).expect(201);
    }
    for (content_type, body, status, message) in [
        ("application/json", "{", 400, "Cannot parse JSON body"),
        ("application/json", "[]", 400, "Cannot parse JSON body"),
        (
            "application/json",
            "{}",
            400,
            "expected a declarative configuration",
        ),
        (
            "application/x-www-form-urlencoded",
            "a=b",
            400,
            "expected a declarative configuration",
        ),
        (
            "application/yaml",
            "",
            400,
            "expected a declarative configuration",
        ),
    ] {
        let refused = post_as(&gateway, "", content_type, body)
            .expect(status)
            .json();
        assert_eq!(refused["message"], message, "{content_type} {body}");
    }
    post_as(&gateway, "", "application/xml", "<a/>").expect(415);
    // A refused document leaves the running one untouched.
    gateway.admin("GET", "/services/s", &[]).expect(200);
    for (document, message) in [
        (
            "services: []",
            json!({ "_format_version": "required field missing" }),
        ),
        (
            "_format_version: 3.0",
            json!({ "_format_version": "expected a string" }),
        ),
        (
            "_format_version: '3.1'",
            json!({ "_format_version": "expected one of: 1.1, 2.1, 3.0" }),
        ),
        (
            "_format_version: '3.0'\n_konnect: {}\nmeteors: []",
            json!({ "_konnect": "unknown field", "meteors": "unknown field" }),
        ),
    ] {
        for query in ["", "?flatten_errors=1"] {
            let refused = post_as(&gateway, query, "text/yaml", document)
                .expect(400)
                .json();
            // What belongs to no entity stays in `fields`.
            assert_eq!(refused["fields"], message, "{document}");
            let flat = (!query.is_empty()).then(|| json!([]));
            assert_eq!(refused.get("flattened_errors"), flat.as_ref());
        }
    }
    let unread = post_as(&gateway, "?flatten_errors=1", "text/yaml", "a scalar").expect(400);
    let unread = unread.json()["fields"]["error"].clone();
    let begins = "failed parsing declarative configuration: ";
    assert!(unread.as_str().unwrap().starts_with(begins), "{unread}");
}

#[test]
fn a_hash_is_compared_for_texts_alone_and_only_if_it_is_asked_for() {
    let gateway = start();
    let hash = |gateway: &Gateway| {
        let status = gateway.admin("GET", "/status", &[]).expect(200).json();
        status.get("configuration_hash").cloned()
    };
    let none = json!("0".repeat(32));
    assert_eq!(hash(&gateway), Some(none), "before the first load");
    let text = "_format_version: '3.0'\nservices:\n- {name: s, host: a.example}\n";
    let yaml = |query: &str, text: &str| post_as(&gateway, query, "text/yaml", text).status;
    assert_eq!(yaml("?check_hash=1", text), 201, "nothing is loaded yet");
    // `printf … | md5sum` says the same.
    assert_eq!(
        hash(&gateway),
        Some(json!("c2c4cb7282f96ea4569eb1896d41c4e3"))
    );
    assert_eq!(yaml("?check_hash=1", text), 304);
    let unchanged = post_as(&gateway, "?check_hash=1", "text/yaml", text);
    assert_eq!(unchanged.text(), "");
    for other in [
        "",
        "?check_hash=true",
        "?check_hash=on",
        "?check_hash=0",
        "?check_hash=2",
    ] {
        assert_eq!(yaml(other, text), 201, "{other}");
    }
    assert_eq!(
        yaml("?check_hash=1", &format!("{text}\n")),
        201,
        "another text"
    );
    assert_eq!(yaml("?check_hash=1", text), 201, "no longer the last one");
    // In the body, the text of the field counts.
    let form = |check: &str| {
        let fields = [("config", text), ("check_hash", check)];
        gateway.admin("POST", "/config", &fields).status
    };
    assert_eq!((form("1"), form("true")), (304, 201));
    let object = json!({ "config": text, "check_hash": 1 });
    gateway.admin_json("POST", "/config", &object).expect(304);
    // A document that is refused does not count as loaded.
    assert_eq!(yaml("", "_format_version: '9'"), 400);
    assert_eq!(yaml("?check_hash=1", text), 304);
    // An object has no text.
    let object = json!({ "_format_version": "3.0", "services": [{ "name": "s", "host": "a" }] });
    for _ in 0..2 {
        let path = "/config?check_hash=1";
        gateway.admin_json("POST", path, &object).expect(201);
    }
    assert_ne!(hash(&gateway), Some(json!("0".repeat(32))));
    assert_eq!(yaml("", "_format_version: '3.0'"), 201);
    assert_eq!(hash(&gateway), Some(json!("0".repeat(32))), "no entities");
    // It survives a restart.
    assert_eq!(yaml("", text), 201);
    let (data_dir, before) = (gateway.data_dir.clone(), hash(&gateway));
    let owned = gateway.kill();
    let again = Setup::with_data(&data_dir).arg("--database", "off").start();
    assert_eq!(hash(&again), before);
    post_as(&again, "?check_hash=1", "text/yaml", text).expect(304);
    drop((again, owned));
}

#[test]
fn errors_are_flattened_if_that_is_asked_for_in_any_spelling() {
    let gateway = start();
    let wrong = "_format_version: '3.0'\nservices:\n- {name: s, host: a b}\n";
    for (query, is_flat) in [
        ("", false),
        ("?flatten_errors=0", false),
        ("?flatten_errors=off", false),
        ("?flatten_errors=2", false),
        ("?flatten_errors=1", true),
        ("?flatten_errors=true", true),
        ("?flatten_errors=ON", true),
        ("?flatten_errors=Yes", true),
    ] {
        let refused = post_as(&gateway, query, "text/yaml", wrong)
            .expect(400)
            .json();
        let (flat, fields) = (refused.get("flattened_errors"), &refused["fields"]);
        assert_eq!(flat.is_some(), is_flat, "{query}");
        let there = json!({ "services": [{ "host": "invalid value: a b" }] });
        assert_eq!(*fields, if is_flat { json!({}) } else { there }, "{query}");
    }
    let fields = [("config", wrong), ("flatten_errors", "on")];
    let refused = gateway.admin("POST", "/config", &fields).expect(400).json();
    assert_eq!(refused["flattened_errors"].as_array().unwrap().len(), 1);
}

#[test]
fn a_flattened_error_has_the_valid_ids_and_the_entity_as_it_was_sent() {
    let gateway = start();
    let service = |more: Value| {
        let mut service = json!({ "host": "a b" });
        let fields = more.as_object().unwrap().clone();
        service.as_object_mut().unwrap().extend(fields);
        let refused = flattened(&gateway, json!({ "services": [service.clone()] }));
        let item = item(&refused);
        assert_eq!(item["entity_type"], "service");
        assert_eq!(item["entity"], service);
        item
    };
    let whole = service(json!({ "id": ID, "name": "s", "tags": ["a", "b"] }));
    assert_eq!(whole["entity_id"], ID);
    assert_eq!(whole["entity_name"], "s");
    assert_eq!(whole["entity_tags"], json!(["a", "b"]));
    assert_eq!(
        whole["errors"],
        json!([field("host", "invalid value: a b")])
    );
    // Without them, and with ones that are not valid.
    for more in [
        json!({}),
        json!({ "id": "x", "name": "", "tags": [1] }),
        json!({ "name": 7 }),
    ] {
        let item = service(more);
        for absent in ["entity_id", "entity_name", "entity_tags"] {
            assert_eq!(item.get(absent), None, "{item}");
        }
    }
    // A generated id is not shown for mistakes in fields.
    assert_eq!(service(json!({ "name": "s" }))["entity"].get("id"), None);
    // Consumers have no `name`.
    let consumer = json!({ "consumers": [{ "username": "c", "custom_id": 7 }] });
    let item = item(&flattened(&gateway, consumer));
    assert_eq!(item["entity_type"], "consumer");
    assert_eq!(item.get("entity_name"), None);
}

#[test]
fn each_kind_of_entity_has_its_singular_and_the_paths_of_its_fields() {
    let gateway = start();
    let consumer = |list: &str, credential: Value| json!({ "consumers": [{ "username": "c", list: [credential] }] });
    for (document, kind, wrong) in [
        (
            json!({ "services": [{ "host": "a", "retries": -1 }] }),
            "service",
            "retries",
        ),
        (
            json!({ "routes": [{ "paths": ["/"], "protocols": ["http", "smoke"] }] }),
            "route",
            "protocols.2",
        ),
        (
            json!({ "upstreams": [{ "name": "u", "slots": 1 }] }),
            "upstream",
            "slots",
        ),
        (
            json!({ "upstreams": [{ "name": "u", "healthchecks": { "active": { "concurrency": 0 } } }] }),
            "upstream",
            "healthchecks.active.concurrency",
        ),
        (
            json!({ "upstreams": [{ "name": "u", "targets": [{ "target": "a", "weight": -1 }] }] }),
            "target",
            "weight",
        ),
        (
            json!({ "plugins": [{ "name": "http-log", "config": { "http_endpoint": "x" } }] }),
            "plugin",
            "config.http_endpoint",
        ),
        (
            json!({ "plugins": [{ "name": "meteor" }] }),
            "plugin",
            "name",
        ),
        (
            json!({ "certificates": [{ "cert": "x", "key": 1 }] }),
            "certificate",
            "key",
        ),
        (
            json!({ "snis": [{ "name": "a b", "certificate": ID }] }),
            "sni",
            "name",
        ),
        (
            json!({ "ca_certificates": [{ "cert": 1 }] }),
            "ca_certificate",
            "cert",
        ),
        (
            json!({ "vaults": [{ "name": "env", "prefix": "A" }] }),
            "vault",
            "prefix",
        ),
        (json!({ "key_sets": [{ "name": 1 }] }), "key_set", "name"),
        (json!({ "keys": [{ "kid": 1, "jwk": "{}" }] }), "key", "kid"),
        (
            consumer("keyauth_credentials", json!({ "key": 1 })),
            "keyauth_credential",
            "key",
        ),
        (
            consumer(
                "basicauth_credentials",
                json!({ "username": 1, "password": "p" }),
            ),
            "basicauth_credential",
            "username",
        ),
        (
            consumer("jwt_secrets", json!({ "algorithm": "none" })),
            "jwt_secret",
            "algorithm",
        ),
        (consumer("acls", json!({ "group": 1 })), "acl", "group"),
    ] {
        let refused = flattened(&gateway, document);
        let item = item(&refused);
        assert_eq!(item["entity_type"], kind, "{refused}");
        let mut errors = item["errors"].as_array().unwrap().iter();
        assert!(
            errors.any(|error| error["type"] == "field" && error["field"] == wrong),
            "{item}"
        );
        assert_eq!(refused["fields"], json!({}));
        assert_eq!(refused["message"], "declarative config is invalid: {}");
    }
}

#[test]
fn each_message_is_an_item_of_its_own_and_those_about_the_entity_say_so() {
    let gateway = start();
    let document = json!({ "services": [{ "host": "a b", "port": -1, "meteors": 1 }] });
    let item = item(&flattened(&gateway, document));
    let mut errors = item["errors"].as_array().unwrap().clone();
    errors.sort_by_key(|error| error["field"].to_string());
    let fields: Vec<&Value> = errors.iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["host", "meteors", "port"]);
    assert_eq!(errors[1], field("meteors", "unknown field"));
    // A route without anything that it could match.
    let document = json!({ "routes": [{ "name": "r", "protocols": ["http"] }] });
    let refused = flattened(&gateway, document.clone());
    let error = &items(&refused)[0]["errors"][0];
    assert_eq!(error["type"], "entity");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("must set one of 'methods', 'hosts'"),
        "{message}"
    );
    let mut whole = document;
    whole["_format_version"] = json!("3.0");
    let plain = gateway
        .admin_json("POST", "/config", &whole)
        .expect(400)
        .json();
    assert_eq!(plain["fields"]["routes"][0]["@entity"], json!([message]));
}

#[test]
fn errors_of_nested_entities_are_listed_beside_those_of_their_parents() {
    let gateway = start();
    let document = json!({
        "services": [
            { "id": ID, "name": "right", "host": "a", "routes": [
                { "name": "one", "protocols": ["smoke"] },
                { "name": "good", "paths": ["/"] },
                { "name": "two", "paths": ["/"], "plugins": [
                    { "name": "key-auth", "config": { "anonymous": 1 } },
                ] },
            ] },
            { "name": "wrong", "host": "a b", "routes": [{ "name": "three", "paths": [1] }] },
        ],
    });
    let refused = flattened(&gateway, document);
    let items = items(&refused);
    let told: Vec<[&str; 2]> = items
        .iter()
        .map(|item| ["entity_type", "entity_name"].map(|field| item[field].as_str().unwrap()))
        .collect();
    // A parent that is right is not told.
    let wanted = [
        ["plugin", "key-auth"],
        ["route", "one"],
        ["route", "three"],
        ["service", "wrong"],
    ];
    assert_eq!(told, wanted);
    let of = |name: &str| {
        let found = items.iter().find(|item| item["entity_name"] == name);
        found.unwrap()["entity"].clone()
    };
    // The link to the parent is there if the parent was sent with an id.
    assert_eq!(of("one")["service"], json!({ "id": ID }));
    assert_eq!(of("three").get("service"), None);
    assert_eq!(of("key-auth").get("route"), None);
    // Lists of children are left out.
    assert_eq!(of("wrong"), json!({ "name": "wrong", "host": "a b" }));
    assert_eq!(refused["fields"], json!({}));
}

#[test]
fn references_inside_an_entity_are_ids_or_nothing() {
    let gateway = start();
    let route = |service: Value| {
        let route = json!({ "name": "r", "paths": [1], "service": service });
        items(&flattened(&gateway, json!({ "routes": [route] })))
    };
    let by_id = route(json!({ "id": OTHER, "name": "more" }));
    assert_eq!(by_id[0]["entity"]["service"], json!({ "id": OTHER }));
    // What is wrong with the other entity is told as its own.
    let [route, service] = &*route(json!({ "id": "x" })) else {
        panic!("not two items");
    };
    assert_eq!(route["entity"].get("service"), None);
    assert_eq!(service["entity_type"], "service");
}

#[test]
fn duplicates_and_dangling_references_are_errors_of_the_entity() {
    let gateway = start();
    let twice = json!({ "services": [
        { "name": "a", "host": "a", "tags": ["first"] },
        { "name": "a", "host": "b", "tags": ["second"] },
    ] });
    let refused = flattened(&gateway, twice);
    let told = item(&refused);
    assert_eq!(told["entity_tags"], json!(["second"]));
    // A generated id is shown here.
    assert!(told["entity"]["id"].is_string(), "{told}");
    let message = "uniqueness violation: 'services' entity with name set to 'a' already declared";
    assert_eq!(
        told["errors"],
        json!([{ "type": "entity", "message": message }])
    );
    assert_eq!(refused["fields"], json!({}));
    let ids =
        json!({ "consumers": [{ "id": ID, "username": "a" }, { "id": ID, "username": "b" }] });
    let told = item(&flattened(&gateway, ids));
    let message = format!(
        "uniqueness violation: 'consumers' entity with primary key set to '{ID}' already declared"
    );
    assert_eq!(told["errors"][0]["message"], message);
    let custom = json!({ "consumers": [
        { "username": "a", "custom_id": "x" }, { "username": "b", "custom_id": "x" },
    ] });
    let told = item(&flattened(&gateway, custom));
    let message =
        "uniqueness violation: 'consumers' entity with custom_id set to 'x' already declared";
    assert_eq!(told["errors"][0]["message"], message);
    let nowhere = json!({ "routes": [{ "name": "r", "paths": ["/"], "service": "absent" }] });
    let told = item(&flattened(&gateway, nowhere));
    let message = "invalid reference 'service: absent' (no such entry in 'services')";
    assert_eq!(
        told["errors"],
        json!([{ "type": "entity", "message": message }])
    );
}
