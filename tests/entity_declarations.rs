//! The laws that follow from the declarations of entities: for each of their fields what is
//! refused, what null does, and what a reference or a unique value means. The table of
//! `entities.rs` has the valid bodies.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::entities::{Entity, UNKNOWN, every_entity, for_each, id_of, post};
use crate::harness::Gateway;

impl Entity {
    /// Its name in `/schemas`.
    fn name(&self) -> &str {
        match &*self.path {
            "/key-auths" => "keyauth_credentials",
            "/basic-auths" => "basicauth_credentials",
            "/jwts" => "jwt_secrets",
            "/key-sets" => "key_sets",
            "/upstreams/owner/targets" => "targets",
            path => path.trim_start_matches('/'),
        }
    }

    /// Its fields, with their attributes.
    fn fields(&self, gateway: &Gateway) -> Vec<(String, Value)> {
        let path = format!("/schemas/{}", self.name());
        fields_of(&gateway.admin("GET", &path, &[]).expect(200).json())
    }
}

/// The fields of an entity or a record, with their attributes.
fn fields_of(schema: &Value) -> Vec<(String, Value)> {
    let fields = schema["fields"].as_array().into_iter().flatten();
    let fields = fields.flat_map(|field| field.as_object().unwrap().clone());
    fields.collect()
}

fn is_set(field: &Value, attribute: &str) -> bool {
    field[attribute] == json!(true)
}

/// Whether clients write the field: neither the key, nor a time, nor what is computed.
fn is_written(name: &str, field: &Value) -> bool {
    !["id", "cert_digest"].contains(&name) && !is_set(field, "timestamp")
}

/// Values that a field refuses, each with the message.
fn wrong_values(field: &Value) -> Vec<(Value, Value)> {
    let of_type = match field["type"].as_str().unwrap() {
        "string" => (json!(5), "expected a string"),
        "integer" => (json!("x"), "expected an integer"),
        "number" => (json!("x"), "expected a number"),
        "boolean" => (json!("x"), "expected a boolean"),
        "array" => (json!(5), "expected an array"),
        "set" => (json!(5), "expected a set"),
        "map" => (json!(5), "expected a map"),
        "record" | "foreign" => (json!(5), "expected a record"),
        other => panic!("{other}"),
    };
    let mut wrong = vec![(of_type.0, json!(of_type.1))];
    if field["type"] == "string" && field["len_min"] != 0 && field.get("one_of").is_none() {
        let message = match is_set(field, "uuid") {
            true => "expected a valid UUID",
            false => "length must be at least 1",
        };
        wrong.push((json!(""), json!(message)));
    }
    if let Some([least, most]) = field["between"].as_array().map(Vec::as_slice) {
        let message = format!("value should be between {least} and {most}");
        let beyond = json!(most.as_f64().unwrap() as i64 + 1);
        let below = json!(least.as_f64().unwrap() as i64 - 1);
        wrong.extend([beyond, below].map(|value| (value, json!(message))));
    }
    if let Some(words) = field["one_of"].as_array() {
        let texts = words.iter().map(|word| match word.as_str() {
            Some(text) => text.to_owned(),
            None => word.to_string(),
        });
        let texts: Vec<String> = texts.collect();
        let message = format!("expected one of: {}", texts.join(", "));
        let other = match words[0].is_string() {
            true => json!("nonsense"),
            false => json!(1),
        };
        wrong.push((other, json!(message)));
    }
    if field["elements"].is_object() {
        let (element, message) = wrong_values(&field["elements"]).swap_remove(0);
        wrong.push((json!([element]), json!([message])));
    }
    wrong
}

/// Calls `each` with the path of every field, those of records included.
fn each_field(fields: &[(String, Value)], above: &[&str], each: &mut impl FnMut(&[&str], &Value)) {
    for (name, field) in fields {
        if above.is_empty() && !is_written(name, field) {
            continue;
        }
        let path = [above, &[name]].concat();
        each(&path, field);
        each_field(&fields_of(field), &path, each);
    }
}

/// Fields with messages of their own for texts: which fallbacks there are depends on `hash_on`, and
/// which fields a plugin or a vault has on its name.
const OWN_MESSAGES: [(&str, &str); 4] = [
    ("plugins", "name"),
    ("targets", "target"),
    ("upstreams", "hash_fallback"),
    ("vaults", "name"),
];

/// A document with one value at this path.
fn at(path: &[&str], value: Value) -> Value {
    let inwards = path.iter().rev();
    inwards.fold(value, |inner, name| json!({ *name: inner }))
}

#[test]
fn the_table_has_every_entity() {
    let (gateway, entities) = every_entity();
    let document = gateway.admin("GET", "/openapi.json", &[]).expect(200);
    let document = document.json();
    let creates = |(_, item): &(&String, &Value)| {
        let operation = item["post"]["operationId"].as_str();
        operation.is_some_and(|operation| operation.starts_with("create_"))
    };
    let paths = document["paths"].as_object().unwrap();
    let collections: BTreeSet<&str> = paths
        .iter()
        .filter(creates)
        .map(|(path, _)| path.rsplit('/').next().unwrap())
        // Below a consumer, the credentials have other names.
        .filter(|name| !["key-auth", "basic-auth", "jwt"].contains(name))
        .collect();
    let table = entities.iter();
    let table: BTreeSet<&str> = table
        .map(|entity| entity.path.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(table, collections);
    // All that the table says is unique, and all references, are declared.
    for entity in &entities {
        let fields = entity.fields(&gateway);
        let has = |name: &&str| fields.iter().any(|(field, _)| field == name);
        let reference = entity.reference.iter().map(|(field, _)| *field);
        let named = entity.unique.iter().copied().chain(reference);
        let unknown: Vec<&str> = named.filter(|name| !has(name)).collect();
        assert_eq!(unknown, [""; 0], "{}", entity.path);
    }
}

#[test]
fn each_field_refuses_what_its_declaration_does_not_allow() {
    for_each(|gateway, entity| {
        let made = post(gateway, &entity.path, &entity.bodies[0]);
        let fields = entity.fields(gateway);
        let mut checked = 0;
        each_field(&fields, &[], &mut |path, field| {
            for (value, message) in wrong_values(field) {
                // A target below an upstream is that upstream's, whatever the body says.
                let has_own = OWN_MESSAGES.contains(&(entity.name(), path[0]));
                if path == ["upstream"] || has_own && value.is_string() {
                    continue;
                }
                let pointer = format!("/fields/{}", path.join("/"));
                let change = at(path, value);
                let mut body = entity.bodies[1].clone();
                body[path[0]] = change[path[0]].clone();
                for (method, url, document) in [
                    ("PATCH", entity.of(&made), &change),
                    ("POST", entity.path.clone(), &body),
                ] {
                    let refused = gateway.admin_json(method, &url, document).expect(400);
                    let refused = refused.json();
                    assert_eq!(refused["code"], 2, "{method} {url} {change}");
                    assert_eq!(
                        refused.pointer(&pointer),
                        Some(&message),
                        "{method} {url} {change}: {refused}"
                    );
                }
                checked += 1;
            }
        });
        assert!(checked > 0, "{}", entity.path);
    });
}

/// An id has the form with hyphens, wherever it is written.
#[test]
fn an_id_has_one_form() {
    for_each(|gateway, entity| {
        for (value, reason) in [
            (json!(5), "expected a string"),
            (json!("x"), "expected a valid UUID"),
            (json!(UNKNOWN.replace('-', "")), "expected a valid UUID"),
            (json!(format!("{{{UNKNOWN}}}")), "expected a valid UUID"),
        ] {
            let mut body = entity.bodies[0].clone();
            body["id"] = value.clone();
            let refused = gateway.admin_json("POST", &entity.path, &body).expect(400);
            assert_eq!(refused.json()["fields"], json!({ "id": reason }), "{value}");
            let Some((reference, _)) = entity.reference else {
                continue;
            };
            let mut body = entity.bodies[0].clone();
            body[reference] = json!({ "id": value });
            let refused = gateway.admin_json("POST", &entity.path, &body).expect(400);
            let expected = json!({ reference: { "id": reason } });
            assert_eq!(
                refused.json()["fields"],
                expected,
                "{} {value}",
                entity.path
            );
        }
    });
}

#[test]
fn null_clears_a_field_unless_it_is_required() {
    for_each(|gateway, entity| {
        let made = post(gateway, &entity.path, &entity.bodies[0]);
        for (name, field) in entity.fields(gateway) {
            if !is_written(&name, &field) || name == "upstream" {
                continue;
            }
            let change = json!({ &*name: null });
            let reply = gateway.admin_json("PATCH", &entity.of(&made), &change);
            let document = reply.json();
            // Null stands for the default settings of plugins and vaults.
            let is_needed = is_set(&field, "required") && field["type"] != "record";
            if is_needed || is_set(&field, "auto") {
                assert_eq!(reply.status, 400, "{} {name}", entity.path);
                assert_eq!(
                    document["fields"][&name], "required field missing",
                    "{} {name}",
                    entity.path
                );
            } else if reply.status == 400 {
                // A record needs a value, or one of several fields has to be set.
                let is_missing = document["fields"][&name] == "required field missing";
                let refuses = is_missing && field["type"] == "record";
                assert!(
                    refuses || document["fields"]["@entity"].is_array(),
                    "{document}"
                );
            } else {
                let shown = &reply.expect(200).json()[&name];
                // Without a header or the like to hash on, that is `none`. Source: Kong.
                let is_none = name == "hash_on" && shown == "none";
                assert!(
                    shown.is_null() || *shown == json!([]) || field["type"] == "record" || is_none,
                    "{} {name}: {shown}",
                    entity.path
                );
            }
            // Without a default, a new row needs a value.
            let has_default = field.get("default").is_some() || is_set(&field, "auto");
            let body = entity.bodies[1].as_object().unwrap();
            if is_needed && !has_default {
                let mut body = body.clone();
                body.remove(&name);
                let refused = gateway.admin_json("POST", &entity.path, &body.into());
                assert_eq!(
                    refused.expect(400).json()["fields"][&name],
                    "required field missing",
                    "{} {name}",
                    entity.path
                );
            }
        }
    });
}

#[test]
fn a_unique_field_is_taken_once() {
    for_each(|gateway, entity| {
        let [one, other] = [0, 1].map(|body| post(gateway, &entity.path, &entity.bodies[body]));
        for (name, field) in entity.fields(gateway) {
            if !is_set(&field, "unique") || !is_written(&name, &field) {
                continue;
            }
            let value = match &one[&name] {
                Value::Null => json!("taken"),
                value => value.clone(),
            };
            let change = json!({ &*name: value });
            gateway
                .admin_json("PATCH", &entity.of(&one), &change)
                .expect(200);
            let taken = gateway
                .admin_json("PATCH", &entity.of(&other), &change)
                .expect(409)
                .json();
            assert_eq!(taken["code"], 5, "{} {name}: {taken}", entity.path);
            // With a value of its own, it may be both's.
            assert!(taken["fields"].get(&name).is_some(), "{taken}");
        }
    });
}

/// What a row refers to cannot be deleted while it does, or takes the row with it.
#[test]
fn a_deleted_row_takes_what_refers_to_it_along_or_is_kept() {
    let (gateway, entities) = every_entity();
    let gateway = &gateway;
    let mut cascades = BTreeSet::new();
    let mut restricts = BTreeSet::new();
    for entity in &entities {
        for (name, field) in entity.fields(gateway) {
            if field["type"] != "foreign" {
                continue;
            }
            let kind = field["reference"].as_str().unwrap();
            let parents = entities.iter().find(|entity| entity.name() == kind);
            let parents = parents.unwrap();
            // A body that no row of the other tests has.
            let parent = post(gateway, &parents.path, &parents.bodies[2]);
            let (parent_path, parent_id) = (parents.of(&parent), id_of(&parent));
            let mut body = entity.bodies[3].clone();
            body[&name] = json!({ "id": parent_id });
            let below = match entity.name() {
                "targets" => format!("{parent_path}/targets"),
                _ => entity.path.clone(),
            };
            let child = post(gateway, &below, &body);
            assert_eq!(child[&name], json!({ "id": parent_id }));
            let child_path = format!("{below}/{}", id_of(&child));
            let reference = format!("{}.{name}", entity.name());
            let deleted = gateway.admin("DELETE", &parent_path, &[]);
            if field["on_delete"] == "cascade" {
                deleted.expect(204);
                gateway.admin("GET", &child_path, &[]).expect(404);
                cascades.insert(reference.clone());
            } else {
                let refused = deleted.expect(400).json();
                assert_eq!(refused["code"], 4, "{reference}");
                let by = json!({ "@referenced_by": entity.name() });
                assert_eq!(refused["fields"], by, "{reference}");
                gateway.admin("GET", &child_path, &[]).expect(200);
                gateway.admin("DELETE", &child_path, &[]).expect(204);
                gateway.admin("DELETE", &parent_path, &[]).expect(204);
                restricts.insert(reference.clone());
            }
            // A row that is not there cannot be referred to.
            if entity.name() == "targets" {
                continue;
            }
            body[&name] = json!({ "id": UNKNOWN });
            let refused = gateway.admin_json("POST", &entity.path, &body).expect(400);
            let refused = refused.json();
            assert_eq!(refused["code"], 4, "{reference}: {refused}");
            assert_eq!(refused["fields"], json!({ &*name: { "id": UNKNOWN } }));
        }
    }
    // Source: Kong 3.9.
    let kongs = [
        "acls.consumer",
        "basicauth_credentials.consumer",
        "jwt_secrets.consumer",
        "keyauth_credentials.consumer",
        "keys.set",
        "plugins.consumer",
        "plugins.route",
        "plugins.service",
        "snis.certificate",
        "targets.upstream",
    ];
    assert_eq!(cascades, BTreeSet::from(kongs.map(str::to_owned)));
    let kongs = [
        "routes.service",
        "services.client_certificate",
        "upstreams.client_certificate",
    ];
    assert_eq!(restricts, BTreeSet::from(kongs.map(str::to_owned)));
}
