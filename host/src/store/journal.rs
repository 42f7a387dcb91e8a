//! What rows are kept on, below the rules: a journal of commits.
//!
//! The rules work on rows in memory; a journal only makes what they come to last, as one step that is
//! compared against the head it was made on. So order, uniqueness and references are decided in one
//! place whatever the journal is. Several processes may write to a journal that can be shared: a writer
//! whose head has been replaced gets a conflict, follows what the others committed, and tries again.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::operations::Operations;
use super::rows::Rows;
use super::schema::Schema;
use super::{Error, Revision};
use crate::entity::Kind;

/// Keeps commits. Its methods are called from one thread, and may take as long as they need: the writer
/// answers its callers meanwhile.
pub(super) trait Journal: Send + 'static {
    /// What other threads may call while this one works.
    fn handle(&self) -> Arc<dyn JournalHandle>;

    /// Reads all that is kept. Called once, before anything else.
    ///
    /// # Errors
    /// Why it cannot be used. What is kept is as it was.
    fn load(&mut self, schema: Schema) -> Result<Rows, OpenError>;

    /// Makes all of the operations last, or none, if the head is still `expected`.
    fn commit(&mut self, expected: Revision, operations: &Operations) -> Result<(), CommitError>;

    /// Looks whether a commit would have a chance now.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    fn check(&mut self) -> Result<(), String>;

    /// Makes the journal usable again after an error, and returns its head as far as `acknowledged`
    /// has it. What the failed commit may have left behind is taken back or, where other processes may
    /// have read it already, comes with the next [`Self::follow`].
    ///
    /// # Errors
    /// Why it is still not usable, as the end of a sentence.
    fn recover(&mut self, acknowledged: &Rows) -> Result<Revision, String>;

    /// Has `notify` called after each commit of another process that comes after [`Self::load`].
    fn watch(&mut self, notify: Notify);

    /// What was committed since `rows`, by other processes or unnoticed by this one, in order.
    ///
    /// # Errors
    /// Why it cannot be told, as the end of a sentence. The journal then has to recover.
    fn follow(&mut self, rows: &Rows) -> Result<Vec<Operations>, String>;
}

/// Is called when there is something to follow.
pub(super) type Notify = Box<dyn Fn() + Send + Sync>;

/// What any thread may call at any time.
pub(super) trait JournalHandle: Send + Sync {
    /// What rows are kept on, for messages.
    fn medium(&self) -> &'static str;

    /// Reads the bytes that belong to a row.
    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, BlobError>;

    /// Is called again and again while the journal is waited for, so that it can end a wait of its own
    /// that would not end.
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
    /// The head is another one than expected. Nothing was changed.
    Conflict,
    /// It was not begun, for this reason. Nothing was changed.
    Refused(String),
    /// It has failed midway: the journal has to recover.
    InDoubt {
        /// What failed, as the end of a sentence.
        reason: String,
        /// What will become of the change, as the end of a sentence.
        fate: &'static str,
    },
}

/// Why a store cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub(super) String);
