//! What decK knows of each collection.

use serde_json::{Value, json};

use super::{Row, Rows};

/// What decK knows of a collection.
pub(super) struct Collection {
    pub(super) name: &'static str,
    /// Where it is read; that of targets is below each upstream.
    pub(super) path: &'static str,
    /// Where its entities are written, if that is below the entity that this field refers to.
    pub(super) below: Option<(&'static str, &'static str)>,
    /// Changes of a level are made at the same time, after those of lower ones.
    pub(super) level: usize,
    /// The fields by which an entity without an id is found.
    pub(super) key: &'static [&'static str],
    /// Whether files have its ids in any case.
    pub(super) keeps_id: bool,
}

const fn collection(
    name: &'static str,
    path: &'static str,
    level: usize,
    key: &'static [&'static str],
) -> Collection {
    Collection {
        name,
        path,
        below: None,
        level,
        key,
        keeps_id: false,
    }
}

const fn of_consumers(
    name: &'static str,
    path: &'static str,
    nested: &'static str,
    key: &'static [&'static str],
) -> Collection {
    Collection {
        below: Some(("consumer", nested)),
        ..collection(name, path, 2, key)
    }
}

/// In an order in which references lead backwards.
pub(super) static COLLECTIONS: [Collection; 16] = [
    Collection {
        keeps_id: true,
        ..collection("certificates", "/certificates", 1, &["id"])
    },
    Collection {
        keeps_id: true,
        ..collection("ca_certificates", "/ca_certificates", 1, &["cert"])
    },
    collection("consumers", "/consumers", 1, &["username"]),
    collection("vaults", "/vaults", 1, &["prefix"]),
    collection("key_sets", "/key-sets", 1, &["name"]),
    collection("snis", "/snis", 2, &["name"]),
    collection("services", "/services", 2, &["name"]),
    collection("upstreams", "/upstreams", 2, &["name"]),
    collection("keys", "/keys", 2, &["name"]),
    of_consumers("keyauth_credentials", "/key-auths", "key-auth", &["key"]),
    of_consumers(
        "basicauth_credentials",
        "/basic-auths",
        "basic-auth",
        &["username"],
    ),
    of_consumers("jwt_secrets", "/jwts", "jwt", &["key"]),
    of_consumers("acls", "/acls", "acls", &["consumer", "group"]),
    collection("routes", "/routes", 3, &["name"]),
    Collection {
        below: Some(("upstream", "targets")),
        ..collection("targets", "", 3, &["upstream", "target"])
    },
    collection(
        "plugins",
        "/plugins",
        4,
        &["name", "service", "route", "consumer"],
    ),
];

/// The collection that a field refers to.
pub(super) fn referred(field: &str) -> Option<&'static str> {
    Some(match field {
        "service" => "services",
        "route" => "routes",
        "consumer" => "consumers",
        "upstream" => "upstreams",
        "certificate" | "client_certificate" => "certificates",
        "set" => "key_sets",
        _ => return None,
    })
}

/// The name of an entity, by which files refer to it.
pub(super) fn name_of(rows: &Rows, collection: &str, id: &str) -> String {
    let known = COLLECTIONS.iter().find(|known| known.name == collection);
    let row = rows[collection].get(id);
    let name = row.and_then(|row| row.get(known.unwrap().key[0])?.as_str());
    name.unwrap_or(id).to_owned()
}

pub(super) fn id_of(rows: &Rows, collection: &str, name: &str) -> Option<String> {
    let known = COLLECTIONS.iter().find(|known| known.name == collection);
    let field = known.unwrap().key[0];
    let mut rows = rows.get(collection)?.iter();
    let found = rows.find(|(id, row)| *id == name || row.get(field) == Some(&json!(name)));
    found.map(|(id, _)| id.clone())
}

/// Whether two rows are of the same entity by what names it.
pub(super) fn is_same(collection: &Collection, one: &Row, other: &Row) -> bool {
    let is_named = one.get(collection.key[0]).is_some();
    is_named
        && collection
            .key
            .iter()
            .all(|field| one.get(*field) == other.get(*field))
}

/// A row as Go writes it: without what is null or empty. The settings of a plugin are a map, of
/// which everything is written.
pub(super) fn sent(row: Row) -> Row {
    let kept = row.into_iter().filter_map(|(field, value)| {
        let value = match (field.as_str(), value) {
            ("config", value) => value,
            (_, Value::Object(inner)) => sent(inner).into(),
            (_, value) => value,
        };
        let is_empty = match &value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(inner) => inner.is_empty(),
            _ => false,
        };
        (!is_empty || field == "config").then_some((field, value))
    });
    kept.collect()
}

/// What is compared of a row. Passwords are not: a gateway tells only their hashes.
pub(super) fn compared(collection: &Collection, row: &Row) -> Row {
    let mut row = row.clone();
    if collection.name == "basicauth_credentials" {
        row.remove("password");
    }
    for field in ["tags", "ca_certificates"] {
        if let Some(Value::Array(list)) = row.get_mut(field) {
            list.sort_by_key(Value::to_string);
        }
    }
    row
}
