#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::super::index::{Parent, ReferenceEntry, UniqueEntry};
use super::super::record::{self, DEPTH};
use super::super::tests::{delete, ids_of, insert, link, put, row};
use super::super::{Change, Error, Store, Write};
use super::files::Handle;
use super::*;
use crate::entity::{Kind, UniqueKey};

const NAME: UniqueKey = UniqueKey::of(&["name"]);

mod damage;
mod failure;
mod hand_over;
mod lifetime;
mod upgrade;

/// A store in a data folder, with access to its files.
#[derive(Debug)]
struct Opened {
    store: JournaledStore,
    handle: Arc<Handle>,
}

impl Deref for Opened {
    type Target = JournaledStore;

    fn deref(&self) -> &JournaledStore {
        &self.store
    }
}

fn open(folder: &Path) -> Result<Opened, OpenError> {
    let journal = SledJournal::new(folder);
    let handle = Arc::clone(&journal.handle);
    let store = JournaledStore::start(journal, Schema::DECLARED)?;
    Ok(Opened { store, handle })
}

fn store() -> (TempDir, Opened) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    (folder, store)
}

/// Opens the store again. The writer ends with the store, but releases the folder a moment later.
fn reopen(folder: &TempDir) -> Opened {
    loop {
        match open(folder.path()) {
            Ok(store) => return store,
            Err(error) if error.to_string().contains("in use") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Changes the data on disk without the store.
fn tamper(store: &Opened, key: &[u8], value: Option<&[u8]>) {
    let db = store.handle.working.lock().clone().unwrap();
    let rows = db.open_tree("rows").unwrap();
    match value {
        Some(value) => rows.insert(key, value).unwrap(),
        None => rows.remove(key).unwrap(),
    };
    db.flush().unwrap();
}

/// This many nested objects.
fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }))
}

/// Rows of a service with a route, and of an upstream with a target.
async fn filled() -> (TempDir, Opened) {
    let (folder, store) = store();
    let upstream = json!({"id": Uuid::from_u128(3), "name": "u", "algorithm": "latency"});
    let writes = vec![
        insert(Kind::Service, 1, json!({"name": "a"})),
        insert(Kind::Route, 2, json!({"name": "r", "service": link(1)})),
        insert(Kind::Upstream, 3, upstream),
        insert(
            Kind::Upstream,
            4,
            json!({"name": "v", "algorithm": "latency"}),
        ),
        insert(Kind::Target, 5, json!({"target": "t", "upstream": link(3)})),
    ];
    store.write(writes).await.unwrap();
    (folder, store)
}

/// The key of a row.
fn row_key(kind: Kind, id: u128) -> Vec<u8> {
    format::row((kind, Uuid::from_u128(id)))
}

/// The key of the entry for the name of a row.
fn name_key(kind: Kind, name: &str) -> Vec<u8> {
    format::unique(&UniqueEntry::new(kind, NAME, &[&json!(name)]))
}

/// The same for exactly this spelling.
fn name_key_as_written(kind: Kind, name: &str) -> Vec<u8> {
    format::unique(&UniqueEntry::as_written(kind, NAME, &[&json!(name)]))
}
