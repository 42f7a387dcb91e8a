//! The storage below the rules: a journal of commits.
//!
//! The rules work on rows in memory; a journal only makes the result durable. A commit is one step:
//! it takes effect only if the head is still the one that the commit was made on. So order,
//! uniqueness and references are decided in one place, for every journal. Several processes may
//! write to a journal that can be shared: a writer whose head has been replaced gets a conflict,
//! follows what the others committed, and retries.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::operations::Operations;
use super::rows::Rows;
use super::schema::Schema;
use super::{Error, Revision};
use crate::entity::Kind;

/// Stores commits. Its methods are called from one thread, and may take as long as they need,
/// because the writer still answers its callers meanwhile.
pub(super) trait Journal: Send + 'static {
    /// The methods that other threads may call while the journal works.
    fn handle(&self) -> Arc<dyn JournalHandle>;

    /// Reads all that is stored. Called once, before anything else.
    ///
    /// # Errors
    /// Why the journal cannot be used. What is stored is unchanged.
    fn load(&mut self, schema: Schema) -> Result<Rows, OpenError>;

    /// Makes all of the operations durable, or none, if the head is still `expected`.
    fn commit(&mut self, expected: Revision, operations: &Operations) -> Result<(), CommitError>;

    /// Checks whether a commit could succeed now.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    fn check(&mut self) -> Result<(), String>;

    /// Makes the journal usable again after an error, and returns the head that the `acknowledged`
    /// rows have from then on. What the failed commit may have written is taken back. Where other
    /// processes may have read it already, the next [`Self::follow`] returns it instead.
    ///
    /// # Errors
    /// Why it is still not usable, as the end of a sentence.
    fn recover(&mut self, acknowledged: &Rows) -> Result<Revision, String>;

    /// Closes the storage, so that another process can open it. [`Self::recover`] opens it again as
    /// it was, whatever that process has written.
    ///
    /// # Errors
    /// Why not, as the end of a sentence. The journal then has to recover.
    fn release(&mut self) -> Result<(), String>;

    /// Has `notify` called after each commit that another process makes after [`Self::load`].
    fn watch(&mut self, notify: Notify);

    /// What was committed after the head of `rows`, in order: by other processes, or by this one in
    /// a commit that seemed to fail.
    ///
    /// # Errors
    /// Why that cannot be read, as the end of a sentence. The journal then has to recover.
    fn follow(&mut self, rows: &Rows) -> Result<Vec<Operations>, String>;
}

/// Called when there is something to follow.
pub(super) type Notify = Box<dyn Fn() + Send + Sync>;

/// The methods that any thread may call at any time.
pub(super) trait JournalHandle: Send + Sync {
    /// The name of the storage, for messages.
    fn medium(&self) -> &'static str;

    /// Reads the bytes that belong to a row.
    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, BlobError>;

    /// Called repeatedly while the writer waits for the journal, so that the journal can end an
    /// internal wait that would never end.
    fn nudge(&self) {}
}

/// Why a blob could not be read.
#[derive(Debug)]
pub(super) enum BlobError {
    /// The journal has failed, and has not recovered yet.
    Closed,
    /// Reading it has failed.
    Failed(Error),
}

/// Why a commit was not made.
#[derive(Debug)]
pub(super) enum CommitError {
    /// The head is not the expected one. Nothing was changed.
    Conflict,
    /// The commit was not started, for this reason. Nothing was changed.
    Refused(String),
    /// The commit failed midway: the journal has to recover.
    InDoubt {
        /// What failed, as the end of a sentence.
        reason: String,
        /// What will happen to the change, as the end of a sentence.
        fate: &'static str,
    },
}

/// Why a store cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works in this data folder.
    #[error("the data folder {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Any other reason, as a sentence.
    #[error("{0}")]
    Unusable(String),
}
