//! What keys of `key-auth` need that are stored as hashes: see `entity/key_hash.rs`.

use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::Value;

use super::Admin;
use super::error::Error;
use super::hooks::Hooks;
use super::rows::id_of;
use crate::entity::{Kind, Row, key_hash};
use crate::store::{self, Store, Write};

const KIND: Kind = Kind::KeyAuthCredential;

/// Rows that are replaced in one step.
const AT_ONCE: usize = 100;

pub(super) const HOOKS: Hooks = Hooks {
    check: |admin, row| std::future::ready(check(admin, row).map(|()| Vec::new())).boxed(),
    shown_once: |input| {
        let is_named = input.contains_key("key");
        let key = (!is_named).then(key_hash::generate).flatten()?;
        input.insert("key".into(), key.clone().into());
        Some(("key", key.into()))
    },
    ..Hooks::NONE
};

/// Refuses a key that another row has as a hash. The store compares only keys of the same form.
fn check(admin: &Admin, row: &Row) -> Result<(), Error> {
    let Some(Value::String(key)) = row.get("key") else {
        return Ok(());
    };
    let Some(hash) = key_hash::text(key) else {
        return Ok(());
    };
    match admin.store.find(KIND, &["key"], &[&hash.into()])? {
        Some(other) if id_of(&other.row) != id_of(row) => Err(Error::unique(Row::from_iter([(
            "key".into(),
            key.clone().into(),
        )]))),
        _ => Ok(()),
    }
}

/// Replaces the keys that are stored in clear by their hashes. Where that fails, clients can use
/// them all the same.
pub async fn hash_stored_keys(store: &Arc<dyn Store>) {
    match replace_all(store).await {
        Ok(0) => {}
        Ok(count) => tracing::info!("{count} keys of key-auth are stored as hashes from now on"),
        Err(error) => {
            tracing::error!("some keys of key-auth are still stored in clear: {error}");
        }
    }
}

async fn replace_all(store: &Arc<dyn Store>) -> Result<usize, store::Error> {
    let mut count = 0;
    loop {
        let is_clear = |row: &Row| hashed(row).is_some();
        let rows = store.list(KIND, None, AT_ONCE, &is_clear)?;
        let writes = rows.into_iter().filter_map(|stored| {
            Some(Write::Replace {
                kind: KIND,
                id: id_of(&stored.row),
                row: hashed(&stored.row)?,
                expected: stored.revision,
                blob: None,
            })
        });
        let writes: Vec<_> = writes.collect();
        if writes.is_empty() {
            return Ok(count);
        }
        count += writes.len();
        store.write(writes).await?;
    }
}

/// The row with the hash of its key; `None` if it has that already.
fn hashed(row: &Row) -> Option<Row> {
    let hash = key_hash::text(row.get("key")?.as_str()?)?;
    let mut row = row.clone();
    row.insert("key".into(), hash.into());
    Some(row)
}
