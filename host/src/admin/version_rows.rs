//! Rows of balancers and of their versions: finding them, reading their state, and writing several
//! at once.

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Admin;
use super::error::Error;
use super::rows::{find, id_of};
use crate::entity::version::BY_DIGEST;
use crate::entity::{Kind, Row};
use crate::store::{self, Store, Stored, Write};

const KIND: Kind = Kind::BalancerVersion;

/// Fewest digits that the beginning of a digest must have to stand for it.
const PREFIX: usize = 8;

/// Digits of a whole digest.
const DIGEST: usize = 64;

pub(super) fn text<'r>(row: &'r Row, field: &str) -> &'r str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn balancer_of(admin: &Admin, key: &str) -> Result<Stored, Error> {
    find(admin, Kind::Balancer, key)?.ok_or_else(|| Error::missing("balancer", key))
}

/// The version of a balancer that has this digest.
pub(super) fn of_digest(
    store: &dyn Store,
    balancer: Uuid,
    digest: &str,
) -> Result<Option<Stored>, store::Error> {
    store.find(
        KIND,
        BY_DIGEST.fields,
        &[&digest.into(), &json!({ "id": balancer })],
    )
}

/// The versions of a balancer.
pub(super) fn all(store: &dyn Store, balancer: Uuid) -> Result<Vec<Stored>, store::Error> {
    store.list_referring(KIND, "balancer", balancer, None, usize::MAX)
}

/// An id as in paths and pins: with its hyphens, since digits alone can be the beginning of a
/// digest.
pub(super) fn id(key: &str) -> Option<Uuid> {
    key.contains('-').then(|| Uuid::try_parse(key).ok())?
}

/// The version that a path names by its id, its digest, or the beginning of its digest.
pub(super) fn named(admin: &Admin, balancer: &Stored, key: &str) -> Result<Stored, Error> {
    let parent = id_of(&balancer.row);
    let missing = || {
        let name = text(&balancer.row, "name");
        let advice = match key.len() {
            0..PREFIX => format!("; give its id, or {PREFIX} digits of its digest or more"),
            _ => String::new(),
        };
        let message = format!("the balancer {name:?} has no version {key:?}{advice}");
        Error::Plain(StatusCode::NOT_FOUND, message)
    };
    if let Some(id) = id(key) {
        let found = admin.store.get(KIND, id)?;
        let link = json!({ "id": parent });
        let own = found.filter(|version| version.row.get("balancer") == Some(&link));
        return own.ok_or_else(missing);
    }
    let digest = key.to_ascii_lowercase();
    if digest.len() == DIGEST {
        let found = of_digest(&*admin.store, parent, &digest)?;
        return found.ok_or_else(missing);
    }
    if digest.len() < PREFIX {
        return Err(missing());
    }
    let mut found = all(&*admin.store, parent)?;
    found.retain(|version| text(&version.row, "digest").starts_with(&digest));
    let first = found.pop().ok_or_else(missing)?;
    if found.is_empty() {
        return Ok(first);
    }
    Err(Error::bad_request(format!(
        "several versions of this balancer have a digest that begins with {digest}: give more of it"
    )))
}

/// Why a version cannot serve; none if it can.
pub(super) fn not_ready(version: &Row) -> Option<String> {
    let digest = text(version, "digest");
    match text(version, "state") {
        "ready" => None,
        "checking" => Some(format!(
            "the version {digest} is still being checked: wait until its state is ready"
        )),
        _ => Some(format!(
            "the version {digest} has failed its check: {}",
            text(version, "reason")
        )),
    }
}

/// Refuses to change a balancer that ships with the gateway.
pub(super) fn not_shipped(row: &Row, done: &str) -> Result<(), Error> {
    if row.get("source") == Some(&"shipped".into()) {
        return Err(Error::bad_request(format!(
            "this balancer ships with the gateway and cannot be {done}: upload yours under another name"
        )));
    }
    Ok(())
}

/// Writes, unless a row has changed since it was read: then nothing is written, and the result is
/// false.
pub(super) async fn written(admin: &Admin, writes: Vec<Write>) -> Result<bool, Error> {
    match admin.store.write(writes).await {
        Ok(revision) => {
            admin.wait_for(revision).await;
            Ok(true)
        }
        // The same component was uploaded twice at the same time.
        Err(store::Error::UniqueKeyTaken { kind: KIND, .. }) => Ok(false),
        Err(store::Error::Changed { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
