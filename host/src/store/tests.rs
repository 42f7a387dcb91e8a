//! Tests of the rules and of the writer, with a journal in memory; and helpers for the tests of
//! journals.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde_json::{Value, json};
use uuid::Uuid;

use super::journaled::JournaledStore;
use super::memory::Memory;
use super::schema::Schema;
use super::{Error, Revision, Store, Write};
use crate::entity::{Kind, Row};

mod conflicts;
pub(super) mod references;
mod release;
mod rules;

fn store() -> JournaledStore {
    JournaledStore::start(Memory::default().journal([]), Schema::DECLARED).unwrap()
}

/// Repeats a write until it succeeds.
pub(super) async fn written_at_last(store: &JournaledStore, write: Write) -> Revision {
    loop {
        match store.write(vec![write.clone()]).await {
            Ok(revision) => return revision,
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) fn row(value: Value) -> Row {
    value.as_object().unwrap().clone()
}

pub(super) fn insert(kind: Kind, id: u128, fields: Value) -> Write {
    Write::Insert {
        kind,
        id: Uuid::from_u128(id),
        row: row(fields),
        blob: None,
    }
}

pub(super) fn delete(kind: Kind, id: u128) -> Write {
    let id = Uuid::from_u128(id);
    Write::Delete { kind, id }
}

pub(super) fn link(id: u128) -> Value {
    json!({ "id": Uuid::from_u128(id) })
}

pub(super) async fn put(store: &JournaledStore, write: Write) -> Revision {
    store.write(vec![write]).await.unwrap()
}

pub(super) fn ids_of(store: &JournaledStore, kind: Kind) -> Vec<u128> {
    let rows = store.state().rows();
    rows.of_kind(kind, None)
        .map(|(id, _)| id.as_u128())
        .collect()
}
