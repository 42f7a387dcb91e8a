//! One atomic write before it is done: each step sees the ones before it, and all must be right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

use super::rows::Rows;
use super::sled::format as keys;
use super::{Change, Commit, Error, Revision, Stored, Write};
use crate::entity::{Kind, OnDelete, Reference, ReferenceBy, Row};

/// New values by key; none deletes.
pub(in crate::store) type Changes = BTreeMap<Vec<u8>, Option<Arc<[u8]>>>;

/// What the writes that share a flush change, over what is stored.
#[derive(Debug, Default, Clone)]
pub(in crate::store) struct Round {
    /// Rows and their indexes.
    pub(in crate::store) rows: Changes,
    /// New blobs by the key of their row; an empty one deletes.
    pub(in crate::store) blobs: BTreeMap<Vec<u8>, Bytes>,
    /// The revision of the last of them; 0 if there is none.
    pub(in crate::store) newest: Revision,
}

impl Round {
    /// Adds what a write changes that comes after.
    pub(in crate::store) fn add(&mut self, later: Self) {
        self.rows.extend(later.rows);
        self.blobs.extend(later.blobs);
        self.newest = later.newest;
    }

    /// How many bytes there are to write, about.
    pub(in crate::store) fn size(&self) -> u64 {
        let value = |value: &Option<Arc<[u8]>>| value.as_ref().map_or(0, |value| value.len());
        let rows = self.rows.iter().map(|(k, v)| k.len() + value(v));
        let blobs = self.blobs.values().map(Bytes::len);
        rows.chain(blobs).sum::<usize>() as u64
    }
}

/// What a write is going to change, over what is there.
pub(in crate::store) struct Stage<'a> {
    rows: &'a Rows,
    /// What the writes before it in the same round change.
    ahead: &'a Round,
    changed: Changes,
    blobs: BTreeMap<Vec<u8>, Bytes>,
    commit: Commit,
}

impl<'a> Stage<'a> {
    pub(in crate::store) fn new(rows: &'a Rows, ahead: &'a Round) -> Self {
        Self {
            rows,
            ahead,
            changed: Changes::new(),
            blobs: BTreeMap::new(),
            commit: Commit {
                revision: rows.revision().max(ahead.newest) + 1,
                changes: Vec::new(),
            },
        }
    }

    /// What is to be done, and what watchers are told of it.
    pub(in crate::store) fn finish(mut self) -> (Round, Commit) {
        let newest = self.commit.revision;
        self.put(keys::REVISION.to_vec(), newest.to_be_bytes().to_vec());
        let round = Round {
            rows: self.changed,
            blobs: self.blobs,
            newest,
        };
        (round, self.commit)
    }

    pub(in crate::store) fn write(&mut self, write: Write) -> Result<(), Error> {
        match write {
            Write::Insert {
                kind,
                id,
                row,
                blob,
            } => {
                if self.get(&keys::row(kind, id)).is_some() {
                    return Err(Error::PrimaryKeyTaken { kind, id });
                }
                self.index(kind, id, &row)?;
                self.store(kind, id, row, blob)
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
                self.unindex(kind, id, &old.row);
                self.index(kind, id, &row)?;
                self.store(kind, id, row, blob)
            }
            Write::Delete { kind, id } => self.delete(kind, id),
        }
    }

    fn store(&mut self, kind: Kind, id: Uuid, row: Row, blob: Option<Bytes>) -> Result<(), Error> {
        // What is acknowledged has to be readable, whatever it is.
        let value = keys::encode_checked(self.commit.revision, &row)
            .map_err(|reason| Error::Unreadable { kind, reason })?;
        self.put(keys::row(kind, id), value);
        if let Some(blob) = blob {
            self.blobs.insert(keys::row(kind, id), blob);
        }
        self.commit.changes.push(Change::Put { kind, id, row });
        Ok(())
    }

    fn delete(&mut self, kind: Kind, id: Uuid) -> Result<(), Error> {
        let row = match self.stored(kind, id) {
            Ok(Some(stored)) => Some(stored.row),
            Ok(None) => return Ok(()),
            Err(Error::SetAside { .. }) => None,
            Err(error) => return Err(error),
        };
        // The keys of a row that cannot be read are told by where they lead.
        let entries = match row {
            Some(_) => Vec::new(),
            None => self.entries_of(kind, id),
        };
        let parents = match &row {
            Some(row) => parents(kind, id, row),
            None => parents_by_entries(kind, id, &entries),
        };
        let mut cascade = Vec::new();
        for parent in parents {
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
        if let Some(row) = &row {
            self.unindex(kind, id, row);
        }
        let entries = entries.into_iter().map(|key| (key, None));
        self.changed.extend(entries);
        self.changed.insert(keys::row(kind, id), None);
        self.blobs.insert(keys::row(kind, id), Bytes::new());
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
            let Some(values) = key.values(row) else {
                continue;
            };
            let index = keys::unique(kind, key.fields, &values);
            if self.get(&index).is_some() {
                let values = key.fields.iter().zip(values);
                let values = values.map(|(f, v)| ((*f).to_owned(), v.clone())).collect();
                return Err(Error::UniqueKeyTaken { kind, key, values });
            }
            self.put(index, id.as_bytes().to_vec());
        }
        for reference in kind.references() {
            for value in reference.values(row) {
                let missing = || Error::ReferenceMissing {
                    kind,
                    field: reference.field,
                    to: reference.to,
                    value: value.clone(),
                };
                let parent = parent_of(reference, value).ok_or_else(missing)?;
                if !refers_to_a_row(reference, value, |key| self.get(key).is_some()) {
                    return Err(missing());
                }
                self.put(reference_key(kind, id, reference, &parent), Vec::new());
            }
        }
        Ok(())
    }

    fn unindex(&mut self, kind: Kind, id: Uuid, row: &Row) {
        for &key in kind.unique_keys() {
            let Some(values) = key.values(row) else {
                continue;
            };
            for index in [
                keys::unique(kind, key.fields, &values),
                keys::unique_as_written(kind, key.fields, &values),
            ] {
                if self.get(&index).as_deref() == Some(id.as_bytes()) {
                    self.changed.insert(index, None);
                }
            }
        }
        for reference in kind.references() {
            for value in reference.values(row) {
                if let Some(parent) = parent_of(reference, value) {
                    self.changed
                        .insert(reference_key(kind, id, reference, &parent), None);
                }
            }
        }
    }

    /// The rows that refer to a parent.
    fn referrers(&self, to: Kind, parent: &str) -> Result<Vec<(Kind, Uuid)>, Error> {
        let prefix = keys::referred(to, parent);
        let found = self.scan(&prefix);
        let found = found.iter().map(|(key, _)| &key[prefix.len()..]);
        found.map(keys::referrer).collect()
    }

    /// The keys of all index entries that lead to a row.
    fn entries_of(&self, kind: Kind, id: Uuid) -> Vec<Vec<u8>> {
        let entries = keys::INDEXES.into_iter().flat_map(|index| self.scan(index));
        let own = entries.filter(|(key, value)| keys::leads_to(key, value, kind, id));
        own.map(|(key, _)| key).collect()
    }

    /// Everything whose key begins so, as the steps before leave it.
    fn scan(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Arc<[u8]>)> {
        let mut found: Changes = self
            .rows
            .scan(prefix)
            .map(|(key, value)| (key.to_vec(), Some(Arc::clone(value))))
            .collect();
        for changes in [&self.ahead.rows, &self.changed] {
            let changed = changes.range(prefix.to_vec()..);
            let changed = changed.take_while(|(key, _)| key.starts_with(prefix));
            found.extend(changed.map(|(key, value)| (key.clone(), value.clone())));
        }
        let found = found.into_iter();
        found
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }

    fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        let key = keys::row(kind, id);
        let changed = self.changed.get(&key).or(self.ahead.rows.get(&key));
        match changed {
            Some(changed) => {
                let stored = changed.as_ref().map(|value| keys::decode(value));
                let unreadable = |reason| Error::SetAside { kind, id, reason };
                stored.transpose().map_err(unreadable)
            }
            None => self.rows.stored(kind, id),
        }
    }

    fn get(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        match self.changed.get(key).or(self.ahead.rows.get(key)) {
            Some(changed) => changed.clone(),
            None => self.rows.get(key).cloned(),
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changed.insert(key, Some(value.into()));
    }
}

/// How many keys lead to a stored row; none if one is missing, or a row that it refers to.
pub(in crate::store) fn keys_of(rows: &Rows, kind: Kind, id: Uuid, row: &Row) -> Option<usize> {
    let mut keys = 0;
    for &key in kind.unique_keys() {
        let Some(values) = key.values(row) else {
            continue;
        };
        let leads_here = |index: Vec<u8>| {
            rows.get(&index)
                .is_some_and(|found| **found == *id.as_bytes())
        };
        if !leads_here(keys::unique(kind, key.fields, &values))
            && !leads_here(keys::unique_as_written(kind, key.fields, &values))
        {
            return None;
        }
        keys += 1;
    }
    for reference in kind.references() {
        let mut parents = BTreeSet::new();
        for value in reference.values(row) {
            let parent = parent_of(reference, value)?;
            rows.get(&reference_key(kind, id, reference, &parent))?;
            if !refers_to_a_row(reference, value, |key| rows.get(key).is_some()) {
                return None;
            }
            parents.insert(parent);
        }
        keys += parents.len();
    }
    Some(keys)
}

/// Whether the row that a reference names is there, or need not be.
fn refers_to_a_row(reference: &Reference, value: &Value, is_there: impl Fn(&[u8]) -> bool) -> bool {
    match reference.by {
        ReferenceBy::Id | ReferenceBy::PlainId => {
            let id = referred_id(reference, value);
            id.is_some_and(|id| is_there(&keys::row(reference.to, id)))
        }
        ReferenceBy::Field { name, reserved } => {
            let is_reserved = value.as_str().is_some_and(|text| reserved.contains(&text));
            is_reserved || is_there(&keys::unique(reference.to, &[name], &[value]))
        }
    }
}

/// The id that a value refers to, if it refers by id.
fn referred_id(reference: &Reference, value: &Value) -> Option<Uuid> {
    let id = match reference.by {
        ReferenceBy::Id => value.get("id")?,
        ReferenceBy::PlainId => value,
        ReferenceBy::Field { .. } => return None,
    };
    Uuid::parse_str(id.as_str()?).ok()
}

fn parent_of(reference: &Reference, value: &Value) -> Option<String> {
    match reference.by {
        ReferenceBy::Id | ReferenceBy::PlainId => referred_id(reference, value).map(keys::parent),
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
            ReferenceBy::Id | ReferenceBy::PlainId => None,
        })
}

/// All that a row can be referred to as.
fn parents(kind: Kind, id: Uuid, row: &Row) -> Vec<String> {
    let values = referred_fields(kind).filter_map(|field| row.get(field));
    std::iter::once(keys::parent(id))
        .chain(values.map(keys::parent_value))
        .collect()
}

/// As [`parents`], of a row that cannot be read, from the index entries that lead to it.
fn parents_by_entries(kind: Kind, id: Uuid, entries: &[Vec<u8>]) -> Vec<String> {
    let values = referred_fields(kind).flat_map(|field| {
        let of_field = [b"u", kind.name().as_bytes(), b"\0", field.as_bytes(), b"\0"].concat();
        let own = entries.iter().filter(move |key| key.starts_with(&of_field));
        own.filter_map(|key| keys::values_of(key))
    });
    let values = values.map(str::to_owned);
    std::iter::once(keys::parent(id)).chain(values).collect()
}
