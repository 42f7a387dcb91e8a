#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::Change;
use super::super::rules::{self as stage, Stage};
use super::*;

mod damage;
mod failure;
mod lifetime;
mod rules;
mod upgrade;

fn store() -> (TempDir, SledStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    (folder, store)
}

fn row(value: Value) -> Row {
    value.as_object().unwrap().clone()
}

fn insert(kind: Kind, id: u128, fields: Value) -> Write {
    Write::Insert {
        kind,
        id: Uuid::from_u128(id),
        row: row(fields),
        blob: None,
    }
}

fn delete(kind: Kind, id: u128) -> Write {
    let id = Uuid::from_u128(id);
    Write::Delete { kind, id }
}

fn link(id: u128) -> Value {
    json!({ "id": Uuid::from_u128(id) })
}

async fn put(store: &SledStore, write: Write) -> Revision {
    store.write(vec![write]).await.unwrap()
}

/// The writer ends with the store, and lets go of the folder a moment later.
fn reopen(folder: &TempDir) -> SledStore {
    loop {
        match SledStore::open(folder.path()) {
            Ok(store) => return store,
            Err(error) if error.to_string().contains("in use") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Changes what is on disk, behind the back of the store.
fn tamper(store: &SledStore, key: &[u8], value: Option<&[u8]>) {
    let disk = store.shared.disk.read().clone().unwrap();
    match value {
        Some(value) => disk.rows.insert(key, value).unwrap(),
        None => disk.rows.remove(key).unwrap(),
    };
    disk.db.flush().unwrap();
}

/// Objects inside each other, this many.
fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }))
}

/// Rows of a service with a route, and of an upstream with a target.
async fn filled() -> (TempDir, SledStore) {
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

fn ids_of(store: &SledStore, kind: Kind) -> Vec<u128> {
    let rows = store.shared.rows();
    rows.of_kind(kind, None)
        .map(|(id, _)| id.as_u128())
        .collect()
}
