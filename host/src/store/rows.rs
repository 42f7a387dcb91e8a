//! The rows as they were last acknowledged, in memory, with their indexes.
//!
//! Everything that is read is read here. So no reader sees what is not on disk yet, none waits for the
//! disk, and all of it can still be read when the disk cannot be written any longer.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use super::rules::Changes;
use super::sled::format as keys;
use super::{Error, Revision, SetAside, Stored};
use crate::entity::Kind;

/// Keys and values as they are on disk.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Rows {
    entries: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    /// Why a row is not shown, and put into effect nowhere.
    set_aside: BTreeMap<(Kind, Uuid), String>,
}

impl Rows {
    /// Reads a tree.
    pub(in crate::store) fn read(tree: &::sled::Tree) -> Result<Self, Error> {
        let mut entries = BTreeMap::new();
        for entry in tree.iter() {
            let (key, value) = entry?;
            entries.insert(Arc::from(&*key), Arc::from(&*value));
        }
        Ok(Self {
            entries,
            set_aside: BTreeMap::new(),
        })
    }

    /// The newest revision; 0 for a tree in which nothing was ever written.
    pub(in crate::store) fn revision(&self) -> Revision {
        let value = self.get(keys::REVISION);
        value.and_then(|value| keys::revision(value)).unwrap_or(0)
    }

    pub(in crate::store) fn get(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.entries.get(key)
    }

    /// All entries in the order of their keys.
    pub(in crate::store) fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<[u8]>)> {
        self.entries.iter()
    }

    pub(in crate::store) fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a Arc<[u8]>)> {
        self.range(prefix, None)
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The entries from `first` to `last`, both included.
    pub(in crate::store) fn range<'a>(
        &'a self,
        first: &[u8],
        last: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Arc<[u8]>)> + use<'a> {
        let last = last.map_or(Bound::Unbounded, Bound::Included);
        let entries = self
            .entries
            .range::<[u8], _>((Bound::Included(first), last));
        entries.map(|(key, value)| (&**key, value))
    }

    pub(in crate::store) fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        let Some(value) = self.get(&keys::row(kind, id)) else {
            return Ok(None);
        };
        let set_aside = |reason| Error::SetAside { kind, id, reason };
        if let Some(reason) = self.set_aside.get(&(kind, id)) {
            return Err(set_aside(reason.clone()));
        }
        keys::decode(value).map(Some).map_err(set_aside)
    }

    /// The rows of a kind from an id on, without those that are set aside.
    pub(in crate::store) fn of_kind(
        &self,
        kind: Kind,
        from: Option<Uuid>,
    ) -> impl Iterator<Item = (Uuid, Stored)> {
        let first = keys::row(kind, from.unwrap_or(Uuid::nil()));
        let last = keys::row(kind, Uuid::max());
        self.range(&first, Some(&last))
            .filter_map(move |(key, value)| {
                let id = keys::last_id(key).ok()?;
                if self.set_aside.contains_key(&(kind, id)) {
                    return None;
                }
                Some((id, keys::decode(value).ok()?))
            })
    }

    /// Puts into effect what is on disk now.
    pub(in crate::store) fn apply(&mut self, changes: &Changes) {
        for (key, value) in changes {
            if !self.set_aside.is_empty()
                && let Some(row) = keys::row_of(key)
            {
                self.set_aside.remove(&row);
            }
            match value {
                Some(value) => self.entries.insert(Arc::from(&**key), Arc::clone(value)),
                None => self.entries.remove(&**key),
            };
        }
    }

    /// Leaves a row out of all that is read, but for its deletion.
    pub(in crate::store) fn set_aside(&mut self, kind: Kind, id: Uuid, reason: String) {
        self.set_aside.insert((kind, id), reason);
    }

    /// The rows that are left out.
    pub(in crate::store) fn all_set_aside(&self) -> Vec<SetAside> {
        let rows = self.set_aside.iter();
        rows.map(|((kind, id), reason)| SetAside {
            kind: *kind,
            id: *id,
            reason: reason.clone(),
        })
        .collect()
    }
}
