//! The rows as they were last acknowledged, in memory, with their indexes.
//!
//! All reads are from here. So no reader sees a change that is not durable, no reader waits for the
//! journal, and all rows can still be read when the journal cannot be written any longer.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use serde_json::Value;
use twox_hash::XxHash64;
use uuid::Uuid;

use super::index::{Parent, ReferenceEntry, RowKey, UniqueEntry};
use super::operations::Operations;
use super::schema::Schema;
use super::{Change, Error, Revision, SetAside, Stored, record};
use crate::entity::Kind;

/// Rows and indexes.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    schema: Schema,
    /// The newest revision; 0 if nothing has been written.
    head: Revision,
    /// As `record.rs` writes them.
    pub(super) records: BTreeMap<RowKey, Arc<[u8]>>,
    pub(super) unique: BTreeMap<UniqueEntry, Uuid>,
    pub(super) references: BTreeMap<ReferenceEntry, ()>,
    /// Rows that are not shown and have no effect, with the reason.
    set_aside: BTreeMap<RowKey, String>,
}

impl Rows {
    /// Creates an empty set of rows.
    pub(super) fn new(schema: Schema) -> Self {
        Self {
            schema,
            head: 0,
            records: BTreeMap::new(),
            unique: BTreeMap::new(),
            references: BTreeMap::new(),
            set_aside: BTreeMap::new(),
        }
    }

    pub(super) fn schema(&self) -> Schema {
        self.schema
    }

    /// The newest revision.
    pub(super) fn head(&self) -> Revision {
        self.head
    }

    pub(super) fn set_head(&mut self, head: Revision) {
        self.head = head;
    }

    /// Reads a row; an error if it is set aside.
    pub(super) fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        let Some(record) = self.records.get(&(kind, id)) else {
            return Ok(None);
        };
        let set_aside = |reason| Error::SetAside { kind, id, reason };
        if let Some(reason) = self.set_aside.get(&(kind, id)) {
            return Err(set_aside(reason.clone()));
        }
        record::decode(record).map(Some).map_err(set_aside)
    }

    /// The rows of a kind from an id on, without those that are set aside.
    pub(super) fn of_kind(
        &self,
        kind: Kind,
        from: Option<Uuid>,
    ) -> impl Iterator<Item = (Uuid, Stored)> {
        let (first, last) = ((kind, from.unwrap_or(Uuid::nil())), (kind, Uuid::max()));
        self.records
            .range(first..=last)
            .filter_map(move |(key, record)| {
                if self.set_aside.contains_key(key) {
                    return None;
                }
                Some((key.1, record::decode(record).ok()?))
            })
    }

    /// Finds the row that has these values of a unique key.
    pub(super) fn find(
        &self,
        kind: Kind,
        key: &[&str],
        values: &[&Value],
    ) -> Result<Option<Stored>, Error> {
        let Some(key) = self.schema.unique_key(kind, key) else {
            return Ok(None);
        };
        // This exact spelling first: an earlier version may have stored two rows whose values
        // differ in spelling only.
        for entry in [
            UniqueEntry::as_written(kind, key, values),
            UniqueEntry::new(kind, key, values),
        ] {
            if let Some(id) = self.unique.get(&entry) {
                return self.stored(kind, *id);
            }
        }
        Ok(None)
    }

    /// The rows of a kind whose field refers to a row by its id, from an id on.
    pub(super) fn referring(
        &self,
        kind: Kind,
        field: &str,
        parent: Uuid,
        from: Option<Uuid>,
    ) -> impl Iterator<Item = Uuid> {
        let reference = self.schema.reference(kind, field);
        let entries = reference.map(|reference| {
            let entry = |id| ReferenceEntry {
                to: reference.to,
                parent: Parent::Id(parent),
                kind,
                field: reference.field,
                id,
            };
            let first = entry(from.unwrap_or(Uuid::nil()));
            self.references.range(first..=entry(Uuid::max()))
        });
        entries.into_iter().flatten().map(|(entry, ())| entry.id)
    }

    /// Applies operations that are durable now.
    pub(super) fn apply(&mut self, operations: &Operations) {
        if !self.set_aside.is_empty() {
            for key in operations.rows.keys() {
                self.set_aside.remove(key);
            }
        }
        apply(&mut self.records, &operations.rows);
        apply(&mut self.unique, &operations.unique);
        apply(&mut self.references, &operations.references);
        self.head = operations.head;
    }

    /// As [`Self::apply`], for what another process has committed. Returns the changes of rows:
    /// first the new rows, each after the rows that it refers to; then the deleted rows, in the
    /// reverse order.
    pub(super) fn follow(&mut self, operations: &Operations) -> Vec<Change> {
        self.apply(operations);
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            let rows = operations
                .rows
                .range((kind, Uuid::nil())..=(kind, Uuid::max()));
            for (&(kind, id), record) in rows {
                match record.as_deref().map(record::decode) {
                    Some(Ok(Stored { row, .. })) => put.push(Change::Put { kind, id, row }),
                    Some(Err(reason)) => {
                        self.set_aside(kind, id, format!("it cannot be read ({reason})"));
                        gone.push(Change::Delete { kind, id });
                    }
                    None => gone.push(Change::Delete { kind, id }),
                }
            }
        }
        put.extend(gone.into_iter().rev());
        put
    }

    /// A hash of all rows, in hexadecimal digits. Not a secure one: it tells whether two gateways
    /// have the same.
    pub(super) fn content_hash(&self) -> String {
        let mut hashes = [0, 1].map(XxHash64::with_seed);
        for ((kind, id), record) in &self.records {
            for hash in &mut hashes {
                hash.write(kind.name().as_bytes());
                hash.write(id.as_bytes());
                hash.write(record);
            }
        }
        let [first, second] = hashes.map(|hash| hash.finish());
        format!("{first:016x}{second:016x}")
    }

    /// Sets a row aside: all reads leave it out, and it can only be deleted.
    pub(super) fn set_aside(&mut self, kind: Kind, id: Uuid, reason: String) {
        self.set_aside.insert((kind, id), reason);
    }

    /// The rows that are set aside.
    pub(super) fn all_set_aside(&self) -> Vec<SetAside> {
        let rows = self.set_aside.iter();
        rows.map(|((kind, id), reason)| SetAside {
            kind: *kind,
            id: *id,
            reason: reason.clone(),
        })
        .collect()
    }
}

fn apply<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}
