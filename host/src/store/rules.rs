//! The rules of rows: revisions, unique keys, references, and what a delete does to the rows that
//! refer to the deleted row.
//!
//! A write is staged before it is committed: each of its steps sees the steps before it, and all of
//! them must keep the rules.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use uuid::Uuid;

use super::index::{Link, Needs, Parent, ReferenceEntry, RowKey, UniqueEntry};
use super::operations::Operations;
use super::rows::Rows;
use super::schema::Schema;
use super::{Change, Commit, Error, Stored, Write, record};
use crate::entity::{Kind, OnDelete, Reference, ReferenceBy, Row};

/// Turns writes into operations, and into the commit that watchers receive. `ahead` has the changes
/// of earlier writes that are in the same commit of the journal.
pub(super) fn stage(
    rows: &Rows,
    ahead: &Operations,
    writes: &[Write],
) -> Result<(Operations, Commit), Error> {
    let revision = rows.head().max(ahead.head) + 1;
    let mut stage = Stage {
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
    };
    for write in writes {
        stage.write(write)?;
    }
    Ok((stage.own, stage.commit))
}

/// The changes of a write so far, on top of the rows and of earlier writes.
struct Stage<'a> {
    rows: &'a Rows,
    ahead: &'a Operations,
    own: Operations,
    commit: Commit,
}

impl Stage<'_> {
    fn write(&mut self, write: &Write) -> Result<(), Error> {
        match write {
            Write::Insert {
                kind,
                id,
                row,
                blob,
            } => {
                let (kind, id) = (*kind, *id);
                if self.has_row((kind, id)) {
                    return Err(Error::PrimaryKeyTaken { kind, id });
                }
                self.index(kind, id, row)?;
                self.put(kind, id, row, blob.as_ref())
            }
            Write::Replace {
                kind,
                id,
                row,
                expected,
                blob,
            } => {
                let (kind, id) = (*kind, *id);
                let old = self
                    .stored(kind, id)?
                    .filter(|old| old.revision == *expected)
                    .ok_or(Error::Changed { kind, id })?;
                self.keep_referred((kind, id), &old.row, row)?;
                self.unindex(kind, id, &old.row);
                self.index(kind, id, row)?;
                self.put(kind, id, row, blob.as_ref())
            }
            Write::Delete { kind, id } => {
                let mut order = Vec::new();
                self.collect((*kind, *id), &mut BTreeSet::new(), &mut order)?;
                for key in order {
                    self.remove(key)?;
                }
                Ok(())
            }
        }
    }

    fn put(&mut self, kind: Kind, id: Uuid, row: &Row, blob: Option<&Bytes>) -> Result<(), Error> {
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

    /// Collects a row that is to be deleted and the rows that are deleted with it; a row that
    /// refers to another comes before it.
    fn collect(
        &self,
        key: RowKey,
        seen: &mut BTreeSet<RowKey>,
        order: &mut Vec<RowKey>,
    ) -> Result<(), Error> {
        if !self.has_row(key) || !seen.insert(key) {
            return Ok(());
        }
        for (by, reference) in self.schema().references_to(key.0) {
            for referrer in self.referrers(key, by, reference)? {
                match reference.on_delete {
                    OnDelete::Cascade => self.collect((by, referrer), seen, order)?,
                    // A row's reference to itself does not prevent its deletion.
                    OnDelete::Restrict if (by, referrer) == key => {}
                    OnDelete::Restrict => {
                        let (kind, id) = key;
                        return Err(Error::StillReferenced {
                            kind,
                            id,
                            by,
                            referrer,
                        });
                    }
                }
            }
        }
        order.push(key);
        Ok(())
    }

    fn remove(&mut self, (kind, id): RowKey) -> Result<(), Error> {
        match self.readable(kind, id)? {
            Some(row) => self.unindex(kind, id, &row),
            // The row cannot be read, so its entries are found by the row that they lead to.
            None => {
                for entry in self.unique_of(kind, id) {
                    self.own.unique.insert(entry, None);
                }
                for entry in self.references_of(kind, id) {
                    self.own.references.insert(entry, None);
                }
            }
        }
        self.own.rows.insert((kind, id), None);
        self.own.blobs.insert((kind, id), Bytes::new());
        self.commit.changes.push(Change::Delete { kind, id });
        Ok(())
    }

    /// Refuses to change a value by which other rows refer to this row.
    fn keep_referred(&self, (kind, id): RowKey, old: &Row, new: &Row) -> Result<(), Error> {
        for (by, reference) in self.schema().references_to(kind) {
            let ReferenceBy::Field { name, .. } = reference.by else {
                continue;
            };
            let parent = |row: &Row| row.get(name).map(|value| Parent::value(kind, name, value));
            if let Some(old) = parent(old)
                && parent(new).as_ref() != Some(&old)
                && let Some(referrer) = self.referring(reference, &old, by).into_iter().next()
            {
                return Err(Error::StillReferenced {
                    kind,
                    id,
                    by,
                    referrer,
                });
            }
        }
        Ok(())
    }

    /// Enters a row in the indexes.
    fn index(&mut self, kind: Kind, id: Uuid, row: &Row) -> Result<(), Error> {
        let schema = self.schema();
        for &key in schema.unique_keys(kind) {
            let Some(values) = key.values(row) else {
                continue;
            };
            let entry = UniqueEntry::new(kind, key, &values);
            if self.unique(&entry).is_some() {
                let values = key.fields.iter().zip(values);
                let values = values.map(|(f, v)| ((*f).to_owned(), v.clone())).collect();
                return Err(Error::UniqueKeyTaken { kind, key, values });
            }
            self.own.unique.insert(entry, Some(id));
        }
        for reference in schema.references(kind) {
            for value in reference.values(row) {
                let missing = || Error::ReferenceMissing {
                    kind,
                    field: reference.field,
                    to: reference.to,
                    value: value.clone(),
                };
                let link = Link::read(schema, reference, value).ok_or_else(missing)?;
                if !self.holds(&link.needs, (kind, id)) {
                    return Err(missing());
                }
                let entry = link.entry(kind, id, reference);
                self.own.references.insert(entry, Some(()));
            }
        }
        Ok(())
    }

    /// Takes a row out of the indexes.
    fn unindex(&mut self, kind: Kind, id: Uuid, row: &Row) {
        let schema = self.schema();
        for &key in schema.unique_keys(kind) {
            let Some(values) = key.values(row) else {
                continue;
            };
            for entry in [
                UniqueEntry::new(kind, key, &values),
                UniqueEntry::as_written(kind, key, &values),
            ] {
                if self.unique(&entry) == Some(id) {
                    self.own.unique.insert(entry, None);
                }
            }
        }
        for entry in reference_entries(schema, kind, id, row) {
            self.own.references.insert(entry, None);
        }
    }

    /// The rows of the kind `by` that refer to a row.
    fn referrers(&self, key: RowKey, by: Kind, reference: &Reference) -> Result<Vec<Uuid>, Error> {
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
    fn referring(&self, reference: &Reference, parent: &Parent, by: Kind) -> Vec<Uuid> {
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
    fn unique_of(&self, kind: Kind, id: Uuid) -> Vec<UniqueEntry> {
        let kept = self.rows.unique.keys();
        let all = kept
            .chain(self.ahead.unique.keys())
            .chain(self.own.unique.keys());
        let own = all.filter(|entry| entry.kind == kind && self.unique(entry) == Some(id));
        own.cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// All entries of references that a row has.
    fn references_of(&self, kind: Kind, id: Uuid) -> Vec<ReferenceEntry> {
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

    /// Whether what a reference of the row `own` needs exists.
    fn holds(&self, needs: &Needs, own: RowKey) -> bool {
        match needs {
            // A row may refer to itself: the write adds it.
            Needs::Row(key) => *key == own || self.has_row(*key),
            Needs::Unique(entry) => self.unique(entry).is_some(),
            Needs::Nothing => true,
        }
    }

    fn schema(&self) -> Schema {
        self.rows.schema()
    }

    /// The row, unless it is set aside.
    fn readable(&self, kind: Kind, id: Uuid) -> Result<Option<Row>, Error> {
        match self.stored(kind, id) {
            Ok(stored) => Ok(stored.map(|stored| stored.row)),
            Err(Error::SetAside { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
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

    fn has_row(&self, key: RowKey) -> bool {
        latest([&self.own.rows, &self.ahead.rows], &self.rows.records, &key).is_some()
    }

    /// The row that has these values of a unique key.
    fn unique(&self, entry: &UniqueEntry) -> Option<Uuid> {
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

/// The index entries of the references of a row, each once.
fn reference_entries(schema: Schema, kind: Kind, id: Uuid, row: &Row) -> BTreeSet<ReferenceEntry> {
    let references = schema.references(kind).iter();
    let values = references.flat_map(|reference| {
        let values = reference.values(row).into_iter();
        values.map(move |value| (reference, value))
    });
    values
        .filter_map(|(reference, value)| {
            let link = Link::read(schema, reference, value)?;
            Some(link.entry(kind, id, reference))
        })
        .collect()
}

/// How many index entries lead to a stored row; none if an entry is missing, or a row that it
/// refers to.
pub(super) fn entries_to(rows: &Rows, kind: Kind, id: Uuid, row: &Row) -> Option<usize> {
    let schema = rows.schema();
    let mut entries = 0;
    for &key in schema.unique_keys(kind) {
        let Some(values) = key.values(row) else {
            continue;
        };
        let leads_here = |entry| rows.unique.get(&entry) == Some(&id);
        if !leads_here(UniqueEntry::new(kind, key, &values))
            && !leads_here(UniqueEntry::as_written(kind, key, &values))
        {
            return None;
        }
        entries += 1;
    }
    for reference in schema.references(kind) {
        for value in reference.values(row) {
            let is_there = match Link::read(schema, reference, value)?.needs {
                Needs::Row(key) => rows.records.contains_key(&key),
                Needs::Unique(entry) => rows.unique.contains_key(&entry),
                Needs::Nothing => true,
            };
            if !is_there {
                return None;
            }
        }
    }
    let references = reference_entries(schema, kind, id, row);
    for entry in &references {
        rows.references.get(entry)?;
    }
    Some(entries + references.len())
}
