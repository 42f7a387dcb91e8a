//! The changes of a write so far, and what its next step sees: the rows with these changes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use uuid::Uuid;

use super::super::index::{Parent, ReferenceEntry, RowKey, UniqueEntry};
use super::super::operations::Operations;
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::super::{Change, Commit, Error, Stored, record};
use crate::entity::{Kind, Reference, ReferenceBy, Row};

/// The changes of a write so far, on top of the rows and of earlier writes.
pub(super) struct Stage<'a> {
    rows: &'a Rows,
    ahead: &'a Operations,
    pub(super) own: Operations,
    pub(super) commit: Commit,
}

impl<'a> Stage<'a> {
    pub(super) fn new(rows: &'a Rows, ahead: &'a Operations) -> Self {
        let revision = rows.head().max(ahead.head) + 1;
        Self {
            rows,
            ahead,
            own: Operations {
                head: revision,
                ..Operations::default()
            },
            commit: Commit {
                revision,
                changes: Vec::new(),
            },
        }
    }

    pub(super) fn put(
        &mut self,
        kind: Kind,
        id: Uuid,
        row: &Row,
        blob: Option<&Bytes>,
    ) -> Result<(), Error> {
        // Every row that is acknowledged must be readable later.
        let record = record::encode_checked(self.commit.revision, row)
            .map_err(|reason| Error::Unreadable { kind, reason })?;
        self.own.rows.insert((kind, id), Some(record.into()));
        if let Some(blob) = blob {
            self.own.blobs.insert((kind, id), blob.clone());
        }
        let row = row.clone();
        self.commit.changes.push(Change::Put { kind, id, row });
        Ok(())
    }

    pub(super) fn remove(&mut self, (kind, id): RowKey) {
        self.leave((kind, id));
        self.own.rows.insert((kind, id), None);
        self.own.blobs.insert((kind, id), Bytes::new());
        self.commit.changes.push(Change::Delete { kind, id });
    }

    /// The rows of the kind `by` that refer to a row.
    pub(super) fn referrers(
        &self,
        key: RowKey,
        by: Kind,
        reference: &Reference,
    ) -> Result<Vec<Uuid>, Error> {
        let (kind, id) = key;
        let parents = match reference.by {
            ReferenceBy::Id | ReferenceBy::PlainId => vec![Parent::Id(id)],
            ReferenceBy::Field { name, .. } => match self.readable(kind, id)? {
                Some(row) => {
                    let value = row.get(name).into_iter();
                    value
                        .map(|value| Parent::value(kind, name, value))
                        .collect()
                }
                None => {
                    let entries = self.unique_of(kind, id).into_iter();
                    let of_field = entries.filter(|entry| *entry.fields == [name]);
                    of_field.map(|entry| Parent::Value(entry.values)).collect()
                }
            },
        };
        let parents = parents.iter();
        Ok(parents
            .flat_map(|parent| self.referring(reference, parent, by))
            .collect())
    }

    /// The rows of the kind `by` that have an entry for a reference.
    pub(super) fn referring(&self, reference: &Reference, parent: &Parent, by: Kind) -> Vec<Uuid> {
        let entry = |id| ReferenceEntry {
            to: reference.to,
            parent: parent.clone(),
            kind: by,
            field: reference.field,
            id,
        };
        let (first, last) = (entry(Uuid::nil()), entry(Uuid::max()));
        let mut found: BTreeMap<Uuid, bool> = BTreeMap::new();
        let kept = self.rows.references.range(&first..=&last);
        found.extend(kept.map(|(entry, ())| (entry.id, true)));
        for changes in [&self.ahead.references, &self.own.references] {
            let changed = changes.range(&first..=&last);
            found.extend(changed.map(|(entry, is_there)| (entry.id, is_there.is_some())));
        }
        let found = found.into_iter();
        found
            .filter_map(|(id, is_there)| is_there.then_some(id))
            .collect()
    }

    /// All entries of unique keys that lead to a row.
    pub(super) fn unique_of(&self, kind: Kind, id: Uuid) -> Vec<UniqueEntry> {
        let kept = self.rows.unique.keys();
        let all = kept
            .chain(self.ahead.unique.keys())
            .chain(self.own.unique.keys());
        let own = all.filter(|entry| entry.kind == kind && self.unique(entry) == Some(id));
        own.cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// All entries of references that a row has.
    pub(super) fn references_of(&self, kind: Kind, id: Uuid) -> Vec<ReferenceEntry> {
        let kept = self.rows.references.keys();
        let made = self
            .ahead
            .references
            .keys()
            .chain(self.own.references.keys());
        let own = kept
            .chain(made)
            .filter(|entry| (entry.kind, entry.id) == (kind, id));
        own.cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn schema(&self) -> Schema {
        self.rows.schema()
    }

    /// The row, unless it is set aside.
    pub(super) fn readable(&self, kind: Kind, id: Uuid) -> Result<Option<Row>, Error> {
        match self.stored(kind, id) {
            Ok(stored) => Ok(stored.map(|stored| stored.row)),
            Err(Error::SetAside { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        let key = (kind, id);
        match self.own.rows.get(&key).or(self.ahead.rows.get(&key)) {
            Some(changed) => {
                let stored = changed.as_ref().map(|record| record::decode(record));
                let unreadable = |reason| Error::SetAside { kind, id, reason };
                stored.transpose().map_err(unreadable)
            }
            None => self.rows.stored(kind, id),
        }
    }

    pub(super) fn has_row(&self, key: RowKey) -> bool {
        latest([&self.own.rows, &self.ahead.rows], &self.rows.records, &key).is_some()
    }

    /// The row that has these values of a unique key.
    pub(super) fn unique(&self, entry: &UniqueEntry) -> Option<Uuid> {
        let changes = [&self.own.unique, &self.ahead.unique];
        latest(changes, &self.rows.unique, entry).copied()
    }
}

/// The value of a key after changes, of which the later ones come first.
fn latest<'a, K: Ord, V>(
    changes: [&'a BTreeMap<K, Option<V>>; 2],
    kept: &'a BTreeMap<K, V>,
    key: &K,
) -> Option<&'a V> {
    let mut changed = changes.into_iter().filter_map(|changes| changes.get(key));
    match changed.next() {
        Some(value) => value.as_ref(),
        None => kept.get(key),
    }
}
