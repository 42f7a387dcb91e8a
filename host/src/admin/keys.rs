//! What keys of `key-auth` need that are stored as hashes: see `entity/key_hash.rs`.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::Value;
use uuid::Uuid;

use super::Admin;
use super::error::Error;
use super::hooks::Hooks;
use super::rows::id_of;
use crate::entity::key_hash::KeyHash;
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
        Some(other) if id_of(&other.row) != id_of(row) => {
            let values = Row::from_iter([("key".into(), key.clone().into())]);
            Err(Error::unique(KIND, values))
        }
        _ => Ok(()),
    }
}

/// Has this process use the key of the hashes that is in `file`. If `stores_hashes`, a missing file
/// is made, and the keys that are stored in clear are replaced by their hashes.
///
/// # Errors
/// A sentence, if the file cannot be read or made; also if it would be made anew although keys are
/// stored as hashes: clients could never use those again.
pub async fn install_key_hash(
    store: &Arc<dyn Store>,
    file: &Path,
    stores_hashes: bool,
) -> Result<(), String> {
    let key_hash = match KeyHash::open(file)? {
        Some(key_hash) => key_hash,
        None => {
            let has_hash = |row: &Row| key_of(row).and_then(key_hash::parse).is_some();
            let hashes = store.list(KIND, None, 1, &has_hash);
            let is_lost = !hashes.map_err(|error| error.to_string())?.is_empty();
            let lost = format!(
                "keys of key-auth are stored as hashes, but the file with the key of the hashes, \
                 {}, is missing, so no client can use them",
                file.display()
            );
            match (stores_hashes, is_lost) {
                (true, true) => {
                    return Err(format!(
                        "{lost}: restore the file; if it is lost for good, start with hash_keys = \
                         off, and delete those keys"
                    ));
                }
                (true, false) => KeyHash::create(file)?,
                (false, true) => {
                    tracing::error!("{lost}: restore the file, or delete those keys");
                    return Ok(());
                }
                (false, false) => return Ok(()),
            }
        }
    };
    key_hash.install(stores_hashes);
    if stores_hashes {
        hash_stored_keys(store).await;
    }
    Ok(())
}

/// Replaces the keys that are stored in clear by their hashes. Where that fails, clients can use
/// them all the same.
async fn hash_stored_keys(store: &Arc<dyn Store>) {
    match replace_all(store, hashed).await {
        Ok(0) => {}
        Ok(count) => tracing::info!("{count} keys of key-auth are stored as hashes from now on"),
        Err(error) => {
            tracing::error!("some keys of key-auth are still stored in clear: {error}");
        }
    }
}

/// Replaces all rows for which `hashed` has another form. Returns how many.
async fn replace_all(
    store: &Arc<dyn Store>,
    hashed: fn(&Row) -> Option<Row>,
) -> Result<usize, store::Error> {
    let mut count = 0;
    let mut from = None;
    loop {
        let is_clear = |row: &Row| hashed(row).is_some();
        let rows = store.list(KIND, from, AT_ONCE, &is_clear)?;
        let Some(last) = rows.last().map(|stored| id_of(&stored.row)) else {
            return Ok(count);
        };
        let writes = rows.into_iter().filter_map(|stored| {
            Some(Write::Replace {
                kind: KIND,
                id: id_of(&stored.row),
                row: hashed(&stored.row)?,
                expected: stored.revision,
                blob: None,
            })
        });
        count += replace(store, writes.collect()).await?;
        // A row that was refused is not tried again.
        match last.as_u128().checked_add(1) {
            Some(next) => from = Some(Uuid::from_u128(next)),
            None => return Ok(count),
        }
    }
}

/// Does the writes in one step or, if one of them is refused, all others one by one. Returns how
/// many were done.
async fn replace(store: &Arc<dyn Store>, writes: Vec<Write>) -> Result<usize, store::Error> {
    match store.write(writes.clone()).await {
        Ok(_) => return Ok(writes.len()),
        Err(error) if is_of_store(&error) => return Err(error),
        Err(_) => {}
    }
    let mut count = 0;
    for write in writes {
        let id = write.id();
        match store.write(vec![write]).await {
            Ok(_) => count += 1,
            Err(error) if is_of_store(&error) => return Err(error),
            Err(error) => tracing::error!(
                %id,
                "a key of key-auth is still stored in clear: {error}"
            ),
        }
    }
    Ok(count)
}

/// Whether the store can do no write now. Any other error is about a row.
fn is_of_store(error: &store::Error) -> bool {
    matches!(
        error,
        store::Error::Unavailable(_) | store::Error::Backend(_)
    )
}

/// The key of a row, in clear or as a hash.
fn key_of(row: &Row) -> Option<&str> {
    row.get("key")?.as_str()
}

/// The row with the hash of its key; `None` if it has that already.
fn hashed(row: &Row) -> Option<Row> {
    let hash = key_hash::text(key_of(row)?)?;
    let mut row = row.clone();
    row.insert("key".into(), hash.into());
    Some(row)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    /// In place of a hash, the key with a prefix.
    fn prefixed(row: &Row) -> Option<Row> {
        let key = row.get("key")?.as_str()?;
        let mut row = row.clone();
        row.insert("key".into(), format!("hash-{key}").into());
        (!key.starts_with("hash-")).then_some(row)
    }

    fn insert(kind: Kind, id: u128, fields: Value) -> Write {
        let id = Uuid::from_u128(id);
        let mut row = fields.as_object().cloned().unwrap();
        row.insert("id".into(), id.to_string().into());
        Write::Insert {
            kind,
            id,
            row,
            blob: None,
        }
    }

    #[tokio::test]
    async fn a_key_whose_hash_is_taken_does_not_keep_others_from_being_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(store::open_test(folder.path()));
        let consumer = Uuid::from_u128(9);
        let mut writes = vec![insert(Kind::Consumer, 9, json!({ "username": "a" }))];
        let keys = ["a", "b", "hash-b", "c"];
        writes.extend(keys.into_iter().zip(1..).map(|(key, id)| {
            let row = json!({ "key": key, "consumer": { "id": consumer } });
            insert(KIND, id, row)
        }));
        store.write(writes).await.unwrap();

        assert_eq!(replace_all(&store, prefixed).await.unwrap(), 2);
        let rows = store.list(KIND, None, 10, &|_| true).unwrap();
        let keys: Vec<_> = rows.iter().map(|stored| &stored.row["key"]).collect();
        assert_eq!(keys, ["hash-a", "b", "hash-b", "hash-c"]);
        assert_eq!(replace_all(&store, prefixed).await.unwrap(), 0);
    }
}
