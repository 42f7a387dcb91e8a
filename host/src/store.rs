//! Where entities are kept: read, write atomically, watch.
//!
//! Nothing here assumes that this process is the only writer: a reader that needs to know what is
//! stored follows [`Store::watch`], and a write that replaces a row names the revision that it is
//! based on.

mod etcd;
mod index;
mod journal;
mod journaled;
mod lock;
#[cfg(test)]
mod memory;
mod operations;
mod record;
mod rows;
mod rules;
mod schema;
mod sled;
mod state;
#[cfg(test)]
mod tests;
mod upgrade;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

pub use self::etcd::{check_shared, open_shared};
pub use self::journal::OpenError;
pub use self::journaled::JournaledStore;
pub use self::lock::FolderLock;
pub use self::sled::open;
use crate::entity::{Kind, Row, UniqueKey};

/// The store in a folder that nothing else uses.
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
pub(crate) fn open_test(folder: &Path) -> JournaledStore {
    open(folder, &lock(folder).unwrap()).unwrap()
}

/// Locks a data folder, which is made if it is missing. If a crash has interrupted a process that
/// put its store back after a take-over that failed, this goes on with that.
///
/// # Errors
/// Another process works in the folder, or the store cannot be put back: a sentence.
pub fn lock(data_dir: &Path) -> Result<FolderLock, OpenError> {
    let lock = FolderLock::take(data_dir)?;
    sled::finish_hand_over(data_dir)?;
    sled::finish_hand_over(&etcd::copy_folder(data_dir))?;
    Ok(lock)
}

/// Removes the copy of the store that a replaced process has made before it handed over. The
/// process that has taken over calls this, or one that was started as usual.
pub fn end_hand_over(data_dir: &Path) {
    sled::end_hand_over(data_dir);
    sled::end_hand_over(&etcd::copy_folder(data_dir));
}

/// Counts the commits of a store: each commit has a greater revision than all commits before it.
pub type Revision = u64;

/// A row with the revision of the commit that wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The entity.
    pub row: Row,
    /// The commit that wrote it last.
    pub revision: Revision,
}

/// One step of an atomic write.
#[derive(Debug, Clone)]
pub enum Write {
    /// Adds a row; an error if a row of this id exists.
    Insert {
        /// Which entity.
        kind: Kind,
        /// Primary key.
        id: Uuid,
        /// The entity.
        row: Row,
        /// Bytes that belong to the row and are deleted with it.
        blob: Option<Bytes>,
    },
    /// Replaces the row, if its revision is still `expected`.
    Replace {
        /// Which entity.
        kind: Kind,
        /// Primary key.
        id: Uuid,
        /// The entity.
        row: Row,
        /// The revision that the change is based on.
        expected: Revision,
        /// Replaces the bytes that belong to the row; none leaves them as they are.
        blob: Option<Bytes>,
    },
    /// Removes the row and, according to `on_delete`, the rows that refer to it. Does nothing if
    /// there is no such row.
    Delete {
        /// Which entity.
        kind: Kind,
        /// Primary key.
        id: Uuid,
    },
}

impl Write {
    /// Primary key of the row that the write changes.
    pub fn id(&self) -> Uuid {
        match self {
            Self::Insert { id, .. } | Self::Replace { id, .. } | Self::Delete { id, .. } => *id,
        }
    }

    /// The kind of the row.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Insert { kind, .. } | Self::Replace { kind, .. } | Self::Delete { kind, .. } => {
                *kind
            }
        }
    }

    /// Removes a row, if it is still as it was read.
    pub fn delete_unchanged(kind: Kind, id: Uuid, read: Stored) -> [Self; 2] {
        let Stored { row, revision } = read;
        let unchanged = Self::put(kind, id, row, None, Some(revision));
        [unchanged, Self::Delete { kind, id }]
    }

    /// Replaces the row that was read at the revision `old`, or adds it where there was none.
    pub fn put(kind: Kind, id: Uuid, row: Row, blob: Option<Bytes>, old: Option<Revision>) -> Self {
        match old {
            Some(expected) => Self::Replace {
                kind,
                id,
                row,
                expected,
                blob,
            },
            None => Self::Insert {
                kind,
                id,
                row,
                blob,
            },
        }
    }
}

/// What a commit did to one row.
#[derive(Debug, Clone)]
pub enum Change {
    /// The row is now this.
    Put {
        /// Which entity.
        kind: Kind,
        /// Primary key.
        id: Uuid,
        /// The entity.
        row: Row,
    },
    /// The row was deleted.
    Delete {
        /// Which entity.
        kind: Kind,
        /// Primary key.
        id: Uuid,
    },
}

/// All that one write did.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The revision that the store had after it.
    pub revision: Revision,
    /// What it did, in order.
    pub changes: Vec<Change>,
}

/// Why a read or a write was refused.
#[derive(Debug, Error)]
pub enum Error {
    /// A row of this id exists.
    #[error("primary key {id} is taken in {}", kind.name())]
    PrimaryKeyTaken {
        /// Which entity.
        kind: Kind,
        /// The id.
        id: Uuid,
    },
    /// Another row has the same values of a unique key.
    #[error("unique key {:?} is taken in {}", key.fields, kind.name())]
    UniqueKeyTaken {
        /// Which entity.
        kind: Kind,
        /// The fields of the key.
        key: UniqueKey,
        /// The fields of the key with their values.
        values: Row,
    },
    /// A field refers to a row that does not exist.
    #[error("{}.{field} refers to no row of {}", kind.name(), to.name())]
    ReferenceMissing {
        /// The entity that refers.
        kind: Kind,
        /// The field that refers.
        field: &'static str,
        /// The entity referred to.
        to: Kind,
        /// What the field holds.
        value: serde_json::Value,
    },
    /// The row to delete is referred to.
    #[error("a row of {} refers to this row of {}", by.name(), kind.name())]
    StillReferenced {
        /// The entity to delete.
        kind: Kind,
        /// Its primary key.
        id: Uuid,
        /// The entity that refers to it.
        by: Kind,
        /// Primary key of the row that refers to it: of one of them.
        referrer: Uuid,
    },
    /// The row is not at the expected revision, or was deleted: read it again.
    #[error("the row {id} of {} has changed meanwhile", kind.name())]
    Changed {
        /// Which entity.
        kind: Kind,
        /// The id.
        id: Uuid,
    },
    /// If the row were stored, it could not be read again. Nothing was changed.
    #[error("the entity cannot be stored: {reason}")]
    Unreadable {
        /// Which entity.
        kind: Kind,
        /// What is wrong with it, as the end of a sentence.
        reason: String,
    },
    /// The row was found unusable at the start. Until it is deleted, it is left out of lists and
    /// has no effect.
    #[error("the row {id} of {} is set aside: {reason}", kind.name())]
    SetAside {
        /// Which entity.
        kind: Kind,
        /// The id.
        id: Uuid,
        /// What is wrong with it, as the end of a sentence.
        reason: String,
    },
    /// The store cannot be written now. Unless the reason says otherwise, nothing has changed.
    #[error("{0}")]
    Unavailable(String),
    /// The storage below the store has failed.
    #[error("the store failed: {0}")]
    Backend(String),
}

/// The condition of the store.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Why the store cannot be written; none while it can be written.
    pub failure: Option<Failure>,
    /// How often it has become unwritable since the start.
    pub failures: u64,
    /// The rows that are set aside.
    pub set_aside: Vec<SetAside>,
}

/// Why the store cannot be written.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The reason, as a sentence without its full stop.
    pub reason: String,
    /// When it became so.
    pub since: SystemTime,
}

/// A row that cannot be used.
#[derive(Debug, Clone)]
pub struct SetAside {
    /// Which entity.
    pub kind: Kind,
    /// Primary key, with which it can be deleted.
    pub id: Uuid,
    /// What is wrong with it, as the end of a sentence.
    pub reason: String,
}

/// A gateway that shares the store with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Identifies the gateway, also after a restart.
    pub id: Uuid,
    /// The version of Pointsman.
    pub version: String,
    /// The name of its machine.
    pub hostname: String,
    /// An address of its proxy, if it is known.
    pub ip: Option<String>,
    /// The newest commit that is in effect at it.
    pub revision: Revision,
    /// See [`Store::content_hash`].
    pub config_hash: String,
    /// The channel that it follows; none for a gateway of an earlier version.
    #[serde(default)]
    pub channel: Option<String>,
    /// When the commit `revision` took effect, in seconds since 1970 by the clock of its machine.
    pub updated_at: u64,
    /// What has happened at it since the present rollout began; none if it is not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Box<NodeFigures>>,
}

/// The requests of a gateway since a rollout began, or since the gateway learnt of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFigures {
    /// The rollout, by the id of its trial.
    pub rollout: Uuid,
    /// Made anew when the gateway begins to count.
    pub count: Uuid,
    /// For how many seconds it has counted.
    pub seconds: u64,
    /// Requests answered.
    pub requests: u64,
    /// Those of them that were answered with a status of 500 or more.
    pub errors: u64,
    /// Times until the heads of the responses: classes, and how many there are of each.
    pub times: Vec<(u16, u64)>,
}

/// What probes have found out about an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The upstream.
    pub upstream: Uuid,
    /// The ids of its endpoints that are unhealthy; none if the upstream is gone.
    pub unhealthy: Option<Vec<u64>>,
}

/// The gateways that share a store.
pub trait Nodes: Send + Sync {
    /// Tells the others of this gateway, for as long as the future is polled.
    fn announce(&self, node: watch::Receiver<Node>) -> BoxFuture<'_, ()>;

    /// The gateways that are alive.
    ///
    /// # Errors
    /// The store cannot be read: why, as the end of a sentence.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Node>, String>>;

    /// The ids of the gateways that are alive, in ascending order. Costs less than [`Nodes::list`].
    ///
    /// # Errors
    /// As there.
    fn ids(&self) -> BoxFuture<'_, Result<Vec<Uuid>, String>>;

    /// The newest commit of all gateways, which this one may not have yet.
    ///
    /// # Errors
    /// As above.
    fn newest(&self) -> BoxFuture<'_, Result<Revision, String>>;

    /// Gives this gateway a task that only one of them does, unless another one has it that is
    /// alive. Returns whether this gateway has it. As a gateway may lose a task without knowing,
    /// what it writes must not depend on that it is the only one.
    ///
    /// # Errors
    /// As above.
    fn claim<'a>(&'a self, task: &'a str, id: Uuid) -> BoxFuture<'a, Result<bool, String>>;

    /// Tells the other gateways of a channel what probes have found out.
    ///
    /// # Errors
    /// The store cannot be written: why, as the end of a sentence.
    fn publish<'a>(
        &'a self,
        channel: &'a str,
        findings: Vec<Finding>,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// What was published in a channel since the number that the last call returned; all of it with
    /// 0.
    ///
    /// # Errors
    /// As in [`Nodes::list`].
    fn findings<'a>(
        &'a self,
        channel: &'a str,
        since: u64,
    ) -> BoxFuture<'a, Result<(u64, Vec<Finding>), String>>;

    /// Tells the others that this gateway ends.
    fn leave(&self) -> BoxFuture<'_, ()>;
}

/// Keeps entities.
pub trait Store: Send + Sync + 'static {
    /// Reads a row.
    fn get(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error>;

    /// Reads the bytes that belong to a row.
    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error>;

    /// Finds the row that has these values of a unique key, given in the order of the key's fields.
    fn find(
        &self,
        kind: Kind,
        key: &[&str],
        values: &[&serde_json::Value],
    ) -> Result<Option<Stored>, Error>;

    /// Reads up to `limit` rows in ascending order of id, the first one at or after `from`, and
    /// only rows for which `filter` returns true.
    fn list(
        &self,
        kind: Kind,
        from: Option<Uuid>,
        limit: usize,
        filter: &dyn Fn(&Row) -> bool,
    ) -> Result<Vec<Stored>, Error>;

    /// As [`Store::list`] for the rows whose reference `field` names the row `parent`.
    fn list_referring(
        &self,
        kind: Kind,
        field: &'static str,
        parent: Uuid,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Stored>, Error>;

    /// The newest commit that is in effect.
    fn head(&self) -> Revision;

    /// Waits until a commit is in effect. It may be that of another gateway.
    ///
    /// # Errors
    /// The store cannot be written, and the commit is not in effect.
    fn reach(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>>;

    /// The present condition of the store.
    fn condition(&self) -> Condition;

    /// A hash of all that is stored, in hexadecimal digits.
    fn content_hash(&self) -> String;

    /// The gateways that share the store, if several can.
    fn nodes(&self) -> Option<Arc<dyn Nodes>>;

    /// Does all of `writes` or none. The future completes when they are on disk, or when it is
    /// known that the store cannot be written. It never waits until the store can be written again.
    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, Error>>;

    /// As [`Store::write`], but as one step without an order: rows may exchange the values of
    /// unique keys. A delete is refused if a row still refers to the deleted row afterwards. With a
    /// `base`, the step is refused as [`Error::Changed`] if there was a commit after that one.
    fn exchange(
        &self,
        writes: Vec<Write>,
        base: Option<Revision>,
    ) -> BoxFuture<'_, Result<Revision, Error>>;

    /// Checks whether [`Store::exchange`] would take these writes now.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, writes: &[Write]) -> Result<(), Error>;

    /// Closes the storage for another process that takes over, and keeps a copy of it; writes are
    /// refused from then on, with `reason`, and what was written before can still be read. The
    /// future completes when the storage is closed.
    fn release(&self, reason: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// Opens the storage again as it was before [`Store::release`]. What another process has
    /// written in the meantime is lost, so that process must not acknowledge it to its clients.
    fn resume(&self);

    /// Follows the store: the first commit has every row, in the order of [`Kind::ALL`]. Each
    /// further commit has what one write did, in order and without gaps.
    fn watch(&self) -> Result<mpsc::UnboundedReceiver<Commit>, Error>;
}
