//! The laws that hold for every entity of the Admin API, on a table of valid bodies.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::harness::Gateway;

/// How many different valid bodies each entity has.
pub(crate) const BODIES: usize = 5;

/// An id that no row has.
pub(crate) const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

/// An entity as the laws need it.
pub(crate) struct Entity {
    /// Its collection.
    pub(crate) path: String,
    /// The field by which a path may name a row.
    pub(crate) key: Option<&'static str>,
    /// Valid bodies that differ in all unique fields.
    pub(crate) bodies: Vec<Value>,
    /// The fields of a unique key.
    pub(crate) unique: &'static [&'static str],
    /// A field that refers to another entity, with the name of that.
    pub(crate) reference: Option<(&'static str, &'static str)>,
    /// Fields that may be null.
    pub(crate) optional: &'static [&'static str],
}

/// The bodies that are made of a number.
fn bodies(body: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..BODIES).map(body).collect()
}

fn authority() -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

pub(crate) fn id_of(row: &Value) -> String {
    row["id"].as_str().unwrap().to_owned()
}

pub(crate) fn post(gateway: &Gateway, path: &str, body: &Value) -> Value {
    gateway.admin_json("POST", path, body).expect(201).json()
}

/// A gateway, and the entities with bodies that refer to rows that it has.
pub(crate) fn every_entity() -> (Gateway, Vec<Entity>) {
    let gateway = Gateway::start();
    let link = |path: &str, body: Value| json!({ "id": id_of(&post(&gateway, path, &body)) });
    let services: Vec<Value> = (0..BODIES)
        .map(|_| link("/services", json!({ "host": "h" })))
        .collect();
    let consumer = link("/consumers", json!({ "username": "owner" }));
    let vault = "{vault://env/x}";
    let certificate = link("/certificates", json!({ "cert": vault, "key": vault }));
    let set = link("/key-sets", json!({ "name": "owner" }));
    link("/upstreams", json!({ "name": "owner" }));
    let entity = |path: &str, key, unique, bodies| Entity {
        path: path.to_owned(),
        key,
        bodies,
        unique,
        reference: None,
        optional: &["tags"],
    };
    let of_consumer = |path: &str, key, unique, body: &dyn Fn(usize) -> Value| Entity {
        reference: Some(("consumer", "consumers")),
        ..entity(
            path,
            key,
            unique,
            bodies(|n| {
                let mut body = body(n);
                body["consumer"] = consumer.clone();
                body
            }),
        )
    };
    let entities = vec![
        Entity {
            optional: &[
                "name",
                "path",
                "retries",
                "tls_verify",
                "client_certificate",
                "tags",
            ],
            ..entity(
                "/services",
                Some("name"),
                &["name"],
                bodies(|n| json!({ "name": format!("s{n}"), "host": "h", "protocol": "https" })),
            )
        },
        Entity {
            reference: Some(("service", "services")),
            optional: &["service", "hosts", "methods", "headers", "tags"],
            ..entity(
                "/routes",
                Some("name"),
                &["name"],
                bodies(|n| json!({ "name": format!("r{n}"), "paths": ["/"] })),
            )
        },
        Entity {
            optional: &[
                "host_header",
                "hash_on_header",
                "client_certificate",
                "tags",
            ],
            ..entity(
                "/upstreams",
                Some("name"),
                &["name"],
                bodies(|n| json!({ "name": format!("u{n}") })),
            )
        },
        entity(
            "/upstreams/owner/targets",
            Some("target"),
            &["target", "upstream"],
            bodies(|n| json!({ "target": format!("h{n}:80") })),
        ),
        Entity {
            optional: &["custom_id", "tags"],
            ..entity(
                "/consumers",
                Some("username"),
                &["username"],
                bodies(|n| json!({ "username": format!("c{n}") })),
            )
        },
        Entity {
            reference: Some(("route", "routes")),
            optional: &["instance_name", "route", "consumer", "tags"],
            ..entity(
                "/plugins",
                Some("instance_name"),
                &["instance_name"],
                bodies(|n| {
                    json!({
                        "name": "request-termination",
                        "instance_name": format!("p{n}"),
                        "service": services[n],
                    })
                }),
            )
        },
        Entity {
            optional: &["ttl", "tags"],
            ..of_consumer(
                "/key-auths",
                Some("key"),
                &["key"],
                &|n| json!({ "key": format!("k{n}") }),
            )
        },
        of_consumer(
            "/basic-auths",
            Some("username"),
            &["username"],
            &|n| json!({ "username": format!("b{n}"), "password": "p" }),
        ),
        Entity {
            optional: &["rsa_public_key", "algorithm", "tags"],
            ..of_consumer(
                "/jwts",
                Some("key"),
                &["key"],
                &|n| json!({ "key": format!("j{n}") }),
            )
        },
        of_consumer(
            "/acls",
            None,
            &["group", "consumer"],
            &|n| json!({ "group": format!("g{n}") }),
        ),
        Entity {
            optional: &["cert_alt", "key_alt", "snis", "tags"],
            ..entity(
                "/certificates",
                None,
                &[],
                bodies(|_| json!({ "cert": vault, "key": vault })),
            )
        },
        Entity {
            reference: Some(("certificate", "certificates")),
            ..entity(
                "/snis",
                Some("name"),
                &["name"],
                bodies(|n| json!({ "name": format!("n{n}.example"), "certificate": certificate })),
            )
        },
        entity(
            "/ca_certificates",
            None,
            &["cert_digest"],
            bodies(|_| json!({ "cert": authority() })),
        ),
        Entity {
            optional: &["description", "tags"],
            ..entity(
                "/vaults",
                Some("prefix"),
                &["prefix"],
                bodies(|n| json!({ "prefix": format!("vault{n}"), "name": "env" })),
            )
        },
        Entity {
            optional: &["name", "tags"],
            ..entity(
                "/key-sets",
                Some("name"),
                &["name"],
                bodies(|n| json!({ "name": format!("set {n}") })),
            )
        },
        Entity {
            reference: Some(("set", "key_sets")),
            optional: &["name", "pem", "tags"],
            ..entity(
                "/keys",
                Some("name"),
                &["name"],
                bodies(
                    |n| json!({ "name": format!("key{n}"), "kid": n.to_string(), "jwk": vault, "set": set }),
                ),
            )
        },
    ];
    (gateway, entities)
}

/// Runs a law for each entity, on a gateway for all of them.
pub(crate) fn for_each(law: impl Fn(&Gateway, &Entity)) {
    let (gateway, entities) = every_entity();
    for entity in &entities {
        law(&gateway, entity);
    }
}

impl Entity {
    pub(crate) fn of(&self, row: &Value) -> String {
        format!("{}/{}", self.path, id_of(row))
    }

    /// The path of a row by its key, if it has one.
    fn by_key(&self, row: &Value) -> Option<String> {
        let key = row[self.key?].as_str().unwrap().replace(' ', "%20");
        Some(format!("{}/{key}", self.path))
    }

    fn paths(&self, row: &Value) -> Vec<String> {
        [Some(self.of(row)), self.by_key(row)]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// A row without what every write of all fields sets anew.
fn settled(mut row: Value) -> Value {
    for field in ["created_at", "updated_at", "secret"] {
        row.as_object_mut().unwrap().remove(field);
    }
    row
}

#[test]
fn what_is_created_is_read_by_its_id_and_by_its_key() {
    for_each(|gateway, entity| {
        let made = post(gateway, &entity.path, &entity.bodies[0]);
        for path in entity.paths(&made) {
            let read = gateway.admin("GET", &path, &[]).expect(200);
            assert_eq!(read.json(), made, "{path}");
        }
        let other = format!("{}/{UNKNOWN}", entity.path);
        gateway.admin("GET", &other, &[]).expect(404);
    });
}

#[test]
fn a_list_in_pages_has_every_row_once() {
    for_each(|gateway, entity| {
        let made = entity
            .bodies
            .iter()
            .map(|body| id_of(&post(gateway, &entity.path, body)));
        let mut made: Vec<String> = made.collect();
        let mut listed = Vec::new();
        let mut next = format!("{}?size=2", entity.path);
        loop {
            let page = gateway.admin("GET", &next, &[]).expect(200).json();
            let rows = page["data"].as_array().unwrap();
            assert!(rows.len() <= 2, "{next}");
            listed.extend(rows.iter().map(id_of));
            match page["next"].as_str() {
                Some(path) => path.clone_into(&mut next),
                None => break,
            }
        }
        let unique: std::collections::BTreeSet<&String> = listed.iter().collect();
        assert_eq!(unique.len(), listed.len(), "{}", entity.path);
        made.retain(|id| !listed.contains(id));
        assert_eq!(made, [""; 0], "{}", entity.path);
    });
}

#[test]
fn put_replaces_a_row_or_creates_it() {
    for_each(|gateway, entity| {
        let mut tagged = entity.bodies[0].clone();
        tagged["tags"] = json!(["a"]);
        let made = post(gateway, &entity.path, &tagged);
        for path in entity.paths(&made) {
            gateway
                .admin_json("PATCH", &path, &json!({ "tags": ["a"] }))
                .expect(200);
            let put = gateway
                .admin_json("PUT", &path, &entity.bodies[0])
                .expect(200)
                .json();
            let mut expected = settled(made.clone());
            expected["tags"] = Value::Null;
            assert_eq!(settled(put.clone()), expected, "{path}");
            let read = gateway.admin("GET", &path, &[]).expect(200).json();
            assert_eq!(read, put, "{path}");
        }
        let path = format!("{}/{UNKNOWN}", entity.path);
        let created = gateway
            .admin_json("PUT", &path, &entity.bodies[1])
            .expect(200)
            .json();
        assert_eq!(created["id"], UNKNOWN);
        if let Some(key) = entity.key {
            let mut body = entity.bodies[2].clone();
            let path = entity.by_key(&body).unwrap();
            let name = body.as_object_mut().unwrap().remove(key);
            let created = gateway.admin_json("PUT", &path, &body).expect(200).json();
            assert_eq!(Some(&created[key]), name.as_ref(), "{path}");
        }
    });
}

#[test]
fn patch_changes_what_it_names_alone() {
    for_each(|gateway, entity| {
        let made = post(gateway, &entity.path, &entity.bodies[0]);
        for path in entity.paths(&made) {
            let change = json!({ "tags": ["a", "b"] });
            let changed = gateway
                .admin_json("PATCH", &path, &change)
                .expect(200)
                .json();
            let mut expected = settled(made.clone());
            expected["tags"] = json!(["a", "b"]);
            assert_eq!(settled(changed), expected, "{path}");
        }
        let path = format!("{}/{UNKNOWN}", entity.path);
        gateway.admin_json("PATCH", &path, &json!({})).expect(404);
    });
}

#[test]
fn a_deleted_row_is_gone() {
    for_each(|gateway, entity| {
        // Below a parent, a row that is not there cannot be deleted. Source: Kong.
        let absent = if entity.path.ends_with("/targets") {
            404
        } else {
            204
        };
        let ways = if entity.key.is_some() { 2 } else { 1 };
        for way in 0..ways {
            let made = post(gateway, &entity.path, &entity.bodies[0]);
            let path = entity.paths(&made)[way].clone();
            gateway.admin("DELETE", &path, &[]).expect(204);
            gateway.admin("GET", &entity.of(&made), &[]).expect(404);
            gateway.admin("DELETE", &path, &[]).expect(absent);
        }
    });
}

#[test]
fn a_unique_value_is_taken_once() {
    for_each(|gateway, entity| {
        if entity.unique.is_empty() {
            return;
        }
        let made = post(gateway, &entity.path, &entity.bodies[0]);
        let taken = gateway
            .admin_json("POST", &entity.path, &entity.bodies[0])
            .expect(409);
        let taken = taken.json();
        let name = "unique constraint violation";
        assert_eq!((&taken["code"], &taken["name"]), (&json!(5), &json!(name)));
        for field in entity.unique {
            // A secret is not told: it may be another client's.
            let secret = json!("<secret>");
            let is_secret = entity.path.contains("key-auth");
            let told = if is_secret { &secret } else { &made[field] };
            assert_eq!(taken["fields"][field], *told, "{}", entity.path);
        }
        let mut same_id = entity.bodies[1].clone();
        same_id["id"] = made["id"].clone();
        let taken = gateway
            .admin_json("POST", &entity.path, &same_id)
            .expect(400);
        assert_eq!(taken.json()["code"], 3, "{}", entity.path);
    });
}

#[test]
fn a_reference_names_a_row_that_exists() {
    for_each(|gateway, entity| {
        let Some((field, to)) = entity.reference else {
            return;
        };
        let mut body = entity.bodies[0].clone();
        body[field] = json!({ "id": UNKNOWN });
        let refused = gateway
            .admin_json("POST", &entity.path, &body)
            .expect(400)
            .json();
        let message = format!(
            "the foreign key '{{id=\"{UNKNOWN}\"}}' does not reference an existing '{to}' entity."
        );
        assert_eq!(refused["code"], 4, "{}", entity.path);
        assert_eq!(refused["message"], message);
        assert_eq!(refused["fields"], json!({ field: { "id": UNKNOWN } }));
    });
}

#[test]
fn an_optional_field_may_be_null() {
    for_each(|gateway, entity| {
        let made = post(gateway, &entity.path, &entity.bodies[0]);
        for field in entity.optional {
            let change = json!({ *field: null });
            let changed = gateway
                .admin_json("PATCH", &entity.of(&made), &change)
                .expect(200);
            // Certificates show their server names as a list in any case.
            let shown = changed.json()[field].clone();
            assert!(
                shown.is_null() || shown == json!([]),
                "{} {field}: {shown}",
                entity.path
            );
        }
    });
}

#[test]
fn wrong_input_is_refused_with_the_field_and_the_reason() {
    for_each(|gateway, entity| {
        let made = post(gateway, &entity.path, &entity.bodies[0]);
        for (field, value, reason) in [
            ("nonsense", json!(1), "unknown field"),
            ("tags", json!(5), "expected a set"),
        ] {
            let mut body = entity.bodies[1].clone();
            body[field] = value.clone();
            let change = json!({ field: value });
            for (method, path, body) in [
                ("POST", entity.path.clone(), &body),
                ("PUT", entity.of(&made), &body),
                ("PATCH", entity.of(&made), &change),
            ] {
                let refused = gateway.admin_json(method, &path, body).expect(400).json();
                assert_eq!(refused["code"], 2, "{method} {path}");
                assert_eq!(
                    refused["fields"],
                    json!({ field: reason }),
                    "{method} {path}"
                );
                let message = format!("schema violation ({field}: {reason})");
                assert_eq!(refused["message"], message);
            }
        }
    });
}
