//! What a commit changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::Revision;
use super::index::{ReferenceEntry, RowKey, UniqueEntry};

/// What a commit changes: new values, or none for what is removed.
///
/// It includes the entries of the indexes, because a journal may store them: the journal on sled
/// does. Commits that a journal hands to its followers have to include them too.
#[derive(Debug, Clone, Default)]
pub(super) struct Operations {
    /// Rows as `record.rs` writes them.
    pub(super) rows: BTreeMap<RowKey, Option<Arc<[u8]>>>,
    /// Which row has these values of a unique key.
    pub(super) unique: BTreeMap<UniqueEntry, Option<Uuid>>,
    /// Which row refers to which row.
    pub(super) references: BTreeMap<ReferenceEntry, Option<()>>,
    /// New blobs; an empty one removes the blob.
    pub(super) blobs: BTreeMap<RowKey, Bytes>,
    /// The head of the journal after the commit. The rules count revisions, and not the journal,
    /// because each row has the revision that wrote it.
    pub(super) head: Revision,
}

impl Operations {
    /// Adds the changes of a later write.
    pub(super) fn add(&mut self, later: Self) {
        self.rows.extend(later.rows);
        self.unique.extend(later.unique);
        self.references.extend(later.references);
        self.blobs.extend(later.blobs);
        self.head = later.head;
    }
}
