//! Ids of entities without one: UUIDs of version 5 (RFC 9562, 5.5) of what names them, so that they
//! are the same at every load. Source: Kong 3.9, `generate_ids` and `build_cache_key`.

use serde_json::Value;
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid, uuid};

use super::item::Item;
use crate::entity::Kind;

/// The namespace of all ids.
const NAMESPACE: Uuid = uuid!("fd02801f-0957-4a15-a55a-c8d9606f30b5");

/// Fills in the id of each item.
pub(super) fn fill_in(items: &mut [Item]) {
    for place in 0..items.len() {
        let generated = || match key(items, place) {
            Some(key) => of(items[place].kind.name(), &key),
            None => Uuid::new_v4(),
        };
        items[place].id = items[place].given_id().unwrap_or_else(generated);
    }
}

/// The id of the entity of a collection that has this key.
pub(super) fn of(collection: &str, key: &str) -> Uuid {
    version_5(version_5(NAMESPACE, collection), key)
}

fn version_5(namespace: Uuid, name: &str) -> Uuid {
    let hash = Sha1::new()
        .chain_update(namespace.as_bytes())
        .chain_update(name)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Builder::from_sha1_bytes(bytes).into_uuid()
}

/// What names an item; none if nothing does, or if what it belongs to has an id by chance.
fn key(items: &[Item], place: usize) -> Option<String> {
    let item = &items[place];
    let name = |field| item.text(field).map(str::to_owned);
    let key = |parts: &[&str]| format!("{}:*:{}", item.kind.name(), parts.join(":"));
    let foreign = |field| foreign(items, item, field);
    match item.kind {
        Kind::Service | Kind::Route | Kind::Upstream | Kind::Sni | Kind::KeySet => name("name"),
        Kind::Consumer => name("username"),
        Kind::Plugin => {
            let name = item.text("name")?;
            let scope = ["route", "service", "consumer"].map(foreign);
            let mut parts = vec![name];
            // A reference that is an object is left out, with its colon. Source: Kong.
            parts.extend(scope.iter().flatten().map(String::as_str));
            Some(key(&parts))
        }
        Kind::Target => Some(key(&[&foreign("upstream")?, item.text("target")?])),
        Kind::Acl => Some(key(&[&foreign("consumer")?, item.text("group")?])),
        Kind::BasicAuthCredential => Some(key(&[item.text("username")?])),
        Kind::Vault => Some(key(&[item.text("prefix")?])),
        Kind::Key => {
            let set = foreign("set");
            let mut parts = vec![item.text("kid")?];
            parts.extend(set.as_deref());
            Some(key(&parts))
        }
        Kind::Balancer
        | Kind::BalancerVersion
        | Kind::Rollout
        | Kind::KeyAuthCredential
        | Kind::JwtSecret
        | Kind::Certificate
        | Kind::CaCertificate => None,
    }
}

/// A reference as it is part of a key: as it is written, or the id of the entity around it. None if
/// it is written as an object.
fn foreign(items: &[Item], item: &Item, field: &str) -> Option<String> {
    if let Some((parent, of)) = item.parent
        && of == field
    {
        return Some(items[parent].id.to_string());
    }
    match item.input.get(field) {
        None => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_kong_gives() {
        for (collection, key, id) in [
            (
                "services",
                "my-service",
                "0855b320-0dd2-547d-891d-601e9b38647f",
            ),
            ("routes", "my-route", "481a9539-f49c-51b6-b2e2-fe99ee68866c"),
            (
                "consumers",
                "my-user",
                "4b1b701d-de2b-5588-9aa2-3b97061d9f52",
            ),
            (
                "plugins",
                "plugins:*:key-auth:::",
                "6b4f38d1-e026-540b-a5ea-8634739dd2a7",
            ),
            (
                "plugins",
                "plugins:*:key-auth::0855b320-0dd2-547d-891d-601e9b38647f:",
                "4a4d9361-8cf7-5304-acb5-d4e8f72ac40b",
            ),
        ] {
            assert_eq!(of(collection, key).to_string(), id, "{key}");
        }
    }
}
