//! The stored rows with those of components that an import brings along, before they are stored.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::rows::id_of;
use crate::entity::{Kind, Row};
use crate::store::{Commit, Condition, Error, Nodes, Revision, Store, Stored, Write};

/// The stored rows, and over them the rows of writes that are still to come.
#[derive(Clone)]
pub(super) struct Overlay {
    store: Arc<dyn Store>,
    /// Rows with their blobs.
    rows: Vec<(Kind, Stored, Option<Bytes>)>,
}

impl Overlay {
    pub(super) fn new(store: &Arc<dyn Store>) -> Self {
        Self {
            store: Arc::clone(store),
            rows: Vec::new(),
        }
    }

    /// Adds the rows of writes.
    pub(super) fn add(&mut self, writes: &[Write]) {
        for write in writes {
            let (row, revision, blob) = match write {
                Write::Insert { row, blob, .. } => (row, 0, blob),
                Write::Replace {
                    row,
                    expected,
                    blob,
                    ..
                } => (row, *expected, blob),
                Write::Delete { .. } => continue,
            };
            let row = row.clone();
            let stored = Stored { row, revision };
            self.rows.push((write.kind(), stored, blob.clone()));
        }
    }

    fn own(
        &self,
        kind: Kind,
        is_it: impl Fn(&Row) -> bool,
    ) -> Option<&(Kind, Stored, Option<Bytes>)> {
        let mut rows = self.rows.iter();
        rows.find(|(own, stored, _)| *own == kind && is_it(&stored.row))
    }
}

impl Store for Overlay {
    fn get(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        match self.own(kind, |row| id_of(row) == id) {
            Some((_, stored, _)) => Ok(Some(stored.clone())),
            None => self.store.get(kind, id),
        }
    }

    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error> {
        match self.own(kind, |row| id_of(row) == id) {
            Some((_, _, Some(blob))) => Ok(Some(blob.clone())),
            _ => self.store.blob(kind, id),
        }
    }

    fn find(&self, kind: Kind, key: &[&str], values: &[&Value]) -> Result<Option<Stored>, Error> {
        let has = |row: &Row| {
            let mut all = key.iter().zip(values);
            all.all(|(field, value)| row.get(*field) == Some(*value))
        };
        match self.own(kind, has) {
            Some((_, stored, _)) => Ok(Some(stored.clone())),
            None => self.store.find(kind, key, values),
        }
    }

    fn list(
        &self,
        kind: Kind,
        from: Option<Uuid>,
        limit: usize,
        filter: &dyn Fn(&Row) -> bool,
    ) -> Result<Vec<Stored>, Error> {
        self.store.list(kind, from, limit, filter)
    }

    fn list_referring(
        &self,
        kind: Kind,
        field: &'static str,
        parent: Uuid,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Stored>, Error> {
        self.store.list_referring(kind, field, parent, from, limit)
    }

    fn head(&self) -> Revision {
        self.store.head()
    }

    fn reach(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.store.reach(revision)
    }

    fn condition(&self) -> Condition {
        self.store.condition()
    }

    fn content_hash(&self) -> String {
        self.store.content_hash()
    }

    fn nodes(&self) -> Option<Arc<dyn Nodes>> {
        self.store.nodes()
    }

    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, Error>> {
        self.store.write(writes)
    }

    fn exchange(
        &self,
        writes: Vec<Write>,
        base: Option<Revision>,
    ) -> BoxFuture<'_, Result<Revision, Error>> {
        self.store.exchange(writes, base)
    }

    fn check(&self, writes: &[Write]) -> Result<(), Error> {
        self.store.check(writes)
    }

    fn release(&self, reason: &str) -> BoxFuture<'_, Result<(), Error>> {
        self.store.release(reason)
    }

    fn resume(&self) {
        self.store.resume();
    }

    fn watch(&self) -> Result<mpsc::UnboundedReceiver<Commit>, Error> {
        self.store.watch()
    }
}
