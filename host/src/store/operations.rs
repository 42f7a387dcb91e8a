//! What a commit changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::Revision;
use super::index::{ReferenceEntry, RowKey, UniqueEntry};

/// What a commit changes: new values, none where something is removed.
///
/// The entries of the indexes are in it, because a journal may keep them: the one on sled does. For one
/// that does not, the rows alone say what is stored.
#[derive(Debug, Clone, Default)]
pub(super) struct Operations {
    /// Rows as `record.rs` writes them.
    pub(super) rows: BTreeMap<RowKey, Option<Arc<[u8]>>>,
    /// Which row has these values of a unique key.
    pub(super) unique: BTreeMap<UniqueEntry, Option<Uuid>>,
    /// Which row refers to which.
    pub(super) references: BTreeMap<ReferenceEntry, Option<()>>,
    /// New blobs; an empty one removes.
    pub(super) blobs: BTreeMap<RowKey, Bytes>,
    /// The head that the journal has after it. The rules count, because rows carry the revision that
    /// wrote them.
    pub(super) head: Revision,
}

impl Operations {
    /// Adds what a later write changes.
    pub(super) fn add(&mut self, later: Self) {
        self.rows.extend(later.rows);
        self.unique.extend(later.unique);
        self.references.extend(later.references);
        self.blobs.extend(later.blobs);
        self.head = later.head;
    }
}
