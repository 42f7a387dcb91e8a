//! One atomic write before it is done: each step sees the ones before it, and all must be right.

use std::collections::BTreeMap;

use ::sled::{Batch, Tree};
use serde_json::Value;
use uuid::Uuid;

use super::super::{Change, Commit, Error, Revision, Stored, Write};
use super::keys;
use crate::entity::{Kind, OnDelete, Reference, ReferenceBy, Row, UniqueKey};

type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a write is going to change, over what is there.
pub(super) struct Stage<'a> {
    rows: &'a Tree,
    blobs: &'a Tree,
    /// New values of `rows` by key; none deletes.
    changed: Changes,
    /// New values of `blobs`.
    changed_blobs: Changes,
    commit: Commit,
}

impl<'a> Stage<'a> {
    pub(super) fn new(rows: &'a Tree, blobs: &'a Tree) -> Result<Self, Error> {
        let revision = keys::revision(rows)? + 1;
        Ok(Self {
            rows,
            blobs,
            changed: Changes::new(),
            changed_blobs: Changes::new(),
            commit: Commit {
                revision,
                changes: Vec::new(),
            },
        })
    }

    /// What is to be done to rows and to blobs, and what watchers are told of it.
    pub(super) fn finish(mut self) -> (Batch, Batch, Commit) {
        let revision: Revision = self.commit.revision;
        self.put(keys::REVISION.to_vec(), revision.to_be_bytes().to_vec());
        (batch(self.changed), batch(self.changed_blobs), self.commit)
    }

    pub(super) fn write(&mut self, write: Write) -> Result<(), Error> {
        match write {
            Write::Insert {
                kind,
                id,
                row,
                blob,
            } => {
                if self.get(&keys::row(kind, id))?.is_some() {
                    return Err(Error::PrimaryKeyTaken { kind, id });
                }
                self.index(kind, id, &row)?;
                self.store(kind, id, row, blob.as_deref())
            }
            Write::Replace {
                kind,
                id,
                row,
                expected,
                blob,
            } => {
                let old = self
                    .stored(kind, id)?
                    .filter(|old| old.revision == expected)
                    .ok_or(Error::Changed { kind, id })?;
                self.keep_referred(kind, &old.row, &row)?;
                self.unindex(kind, id, &old.row)?;
                self.index(kind, id, &row)?;
                self.store(kind, id, row, blob.as_deref())
            }
            Write::Delete { kind, id } => self.delete(kind, id),
        }
    }

    fn store(&mut self, kind: Kind, id: Uuid, row: Row, blob: Option<&[u8]>) -> Result<(), Error> {
        let value = keys::encode(self.commit.revision, &row);
        self.put(keys::row(kind, id), value);
        if let Some(blob) = blob {
            self.delete_blob(kind, id)?;
            for (number, chunk) in (0..).zip(blob.chunks(keys::CHUNK)) {
                let key = keys::chunk(kind, id, number);
                self.changed_blobs.insert(key, Some(chunk.to_vec()));
            }
        }
        self.commit.changes.push(Change::Put { kind, id, row });
        Ok(())
    }

    fn delete(&mut self, kind: Kind, id: Uuid) -> Result<(), Error> {
        let Some(Stored { row, .. }) = self.stored(kind, id)? else {
            return Ok(());
        };
        let mut cascade = Vec::new();
        for parent in parents(kind, id, &row) {
            for (by, referrer) in self.referrers(kind, &parent)? {
                let reference = by.references().iter().find(|r| r.to == kind);
                match reference.map(|reference| reference.on_delete) {
                    Some(OnDelete::Cascade) => cascade.push((by, referrer)),
                    _ => return Err(Error::StillReferenced { kind, by }),
                }
            }
        }
        for (by, referrer) in cascade {
            self.delete(by, referrer)?;
        }
        self.unindex(kind, id, &row)?;
        self.changed.insert(keys::row(kind, id), None);
        self.delete_blob(kind, id)?;
        self.commit.changes.push(Change::Delete { kind, id });
        Ok(())
    }

    /// Refuses to change a value that other rows refer to this one by.
    fn keep_referred(&self, kind: Kind, old: &Row, new: &Row) -> Result<(), Error> {
        for field in referred_fields(kind) {
            if let Some(value) = old.get(field)
                && new.get(field) != Some(value)
            {
                let mut referrers = self.referrers(kind, &keys::parent_value(value))?;
                if let Some((by, _)) = referrers.pop() {
                    return Err(Error::StillReferenced { kind, by });
                }
            }
        }
        Ok(())
    }

    fn index(&mut self, kind: Kind, id: Uuid, row: &Row) -> Result<(), Error> {
        for &key in kind.unique_keys() {
            let Some(values) = unique_values(key, row) else {
                continue;
            };
            let index = keys::unique(kind, key, &values);
            if self.get(&index)?.is_some() {
                let values = key.iter().zip(values);
                let values = values.map(|(f, v)| ((*f).to_owned(), v.clone())).collect();
                return Err(Error::UniqueKeyTaken { kind, key, values });
            }
            self.put(index, id.as_bytes().to_vec());
        }
        for reference in kind.references() {
            let Some(value) = row.get(reference.field).filter(|value| !value.is_null()) else {
                continue;
            };
            let missing = || Error::ReferenceMissing {
                kind,
                field: reference.field,
                to: reference.to,
                value: value.clone(),
            };
            let parent = parent_of(reference, value).ok_or_else(missing)?;
            if !refers_to_a_row(reference, value, |key| Ok(self.get(key)?.is_some()))? {
                return Err(missing());
            }
            self.put(reference_key(kind, id, reference, &parent), Vec::new());
        }
        Ok(())
    }

    fn unindex(&mut self, kind: Kind, id: Uuid, row: &Row) -> Result<(), Error> {
        for &key in kind.unique_keys() {
            let Some(values) = unique_values(key, row) else {
                continue;
            };
            for index in [
                keys::unique(kind, key, &values),
                keys::unique_as_written(kind, key, &values),
            ] {
                if self.get(&index)?.as_deref() == Some(id.as_bytes()) {
                    self.changed.insert(index, None);
                }
            }
        }
        for reference in kind.references() {
            let value = row.get(reference.field);
            if let Some(parent) = value.and_then(|value| parent_of(reference, value)) {
                self.changed
                    .insert(reference_key(kind, id, reference, &parent), None);
            }
        }
        Ok(())
    }

    /// The rows that refer to a parent.
    fn referrers(&self, to: Kind, parent: &str) -> Result<Vec<(Kind, Uuid)>, Error> {
        let prefix = keys::referred(to, parent);
        let mut found = Vec::new();
        for entry in self.rows.scan_prefix(&prefix) {
            let (key, _) = entry?;
            if !self.changed.contains_key(&*key) {
                found.push(keys::referrer(&key[prefix.len()..])?);
            }
        }
        let staged = self.changed.range(prefix.clone()..);
        for (key, value) in staged.take_while(|(key, _)| key.starts_with(&prefix)) {
            if value.is_some() {
                found.push(keys::referrer(&key[prefix.len()..])?);
            }
        }
        Ok(found)
    }

    fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        let value = self.get(&keys::row(kind, id))?;
        value.map(|value| keys::decode(&value)).transpose()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.changed.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.rows.get(key)?.map(|value| value.to_vec())),
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changed.insert(key, Some(value));
    }

    fn delete_blob(&mut self, kind: Kind, id: Uuid) -> Result<(), Error> {
        let prefix = keys::row(kind, id);
        for chunk in self.blobs.scan_prefix(&prefix) {
            self.changed_blobs.insert(chunk?.0.to_vec(), None);
        }
        let staged = self.changed_blobs.range_mut(prefix.clone()..);
        for (_, chunk) in staged.take_while(|(key, _)| key.starts_with(&prefix)) {
            *chunk = None;
        }
        Ok(())
    }
}

/// How many keys lead to a stored row; none if one is missing, or a row that it refers to.
pub(super) fn keys_of(
    rows: &Tree,
    kind: Kind,
    id: Uuid,
    row: &Row,
) -> Result<Option<usize>, Error> {
    let mut keys = 0;
    for &key in kind.unique_keys() {
        let Some(values) = unique_values(key, row) else {
            continue;
        };
        let leads_here = |index: Vec<u8>| -> Result<bool, Error> {
            Ok(rows.get(index)?.as_deref() == Some(id.as_bytes()))
        };
        if !leads_here(keys::unique(kind, key, &values))?
            && !leads_here(keys::unique_as_written(kind, key, &values))?
        {
            return Ok(None);
        }
        keys += 1;
    }
    for reference in kind.references() {
        let Some(value) = row.get(reference.field).filter(|value| !value.is_null()) else {
            continue;
        };
        let Some(parent) = parent_of(reference, value) else {
            return Ok(None);
        };
        let indexed = rows.contains_key(reference_key(kind, id, reference, &parent))?;
        if !indexed || !refers_to_a_row(reference, value, |key| Ok(rows.contains_key(key)?))? {
            return Ok(None);
        }
        keys += 1;
    }
    Ok(Some(keys))
}

/// Whether the row that a reference names is there, or need not be.
fn refers_to_a_row(
    reference: &Reference,
    value: &Value,
    is_there: impl Fn(&[u8]) -> Result<bool, Error>,
) -> Result<bool, Error> {
    let key = match reference.by {
        ReferenceBy::Id => match id_of(value) {
            Some(id) => keys::row(reference.to, id),
            None => return Ok(false),
        },
        ReferenceBy::Field { name, reserved } => {
            if value
                .as_str()
                .is_some_and(|value| reserved.contains(&value))
            {
                return Ok(true);
            }
            let mut unique = reference.to.unique_keys().iter();
            match unique.find(|key| **key == [name]) {
                Some(key) => keys::unique(reference.to, key, &[value]),
                None => return Ok(false),
            }
        }
    };
    is_there(&key)
}

fn batch(changes: Changes) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    batch
}

/// The values of a unique key, unless one of them is null.
pub(super) fn unique_values(key: UniqueKey, row: &Row) -> Option<Vec<&Value>> {
    key.iter()
        .map(|field| row.get(*field).filter(|value| !value.is_null()))
        .collect()
}

fn id_of(value: &Value) -> Option<Uuid> {
    Uuid::parse_str(value.get("id")?.as_str()?).ok()
}

fn parent_of(reference: &Reference, value: &Value) -> Option<String> {
    match reference.by {
        ReferenceBy::Id => id_of(value).map(keys::parent),
        ReferenceBy::Field { .. } => Some(keys::parent_value(value)),
    }
}

fn reference_key(kind: Kind, id: Uuid, reference: &Reference, parent: &str) -> Vec<u8> {
    let prefix = keys::referring(reference.to, parent, kind, reference.field);
    [&*prefix, id.as_bytes()].concat()
}

/// The fields that rows of other kinds refer to this kind by.
fn referred_fields(kind: Kind) -> impl Iterator<Item = &'static str> {
    Kind::ALL
        .into_iter()
        .flat_map(Kind::references)
        .filter(move |reference| reference.to == kind)
        .filter_map(|reference| match reference.by {
            ReferenceBy::Field { name, .. } => Some(name),
            ReferenceBy::Id => None,
        })
}

/// All that a row can be referred to as.
fn parents(kind: Kind, id: Uuid, row: &Row) -> Vec<String> {
    let values = referred_fields(kind).filter_map(|field| row.get(field));
    std::iter::once(keys::parent(id))
        .chain(values.map(keys::parent_value))
        .collect()
}
