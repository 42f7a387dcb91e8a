//! What the thread of the journal does for the writer.

use std::sync::Arc;

use super::super::Revision;
use super::super::journal::{CommitError, Journal};
use super::super::operations::Operations;
use super::super::rows::Rows;

/// A request to the thread of the journal.
pub(super) enum Task {
    Commit(Revision, Arc<Operations>),
    Check,
    Recover(Arc<Rows>),
    Follow(Arc<Rows>),
    Release,
}

/// The result of a task.
pub(super) enum TaskResult {
    Done,
    Recovered(Revision),
    Followed(Vec<Operations>),
    NotDone(CommitError),
    /// The journal has to recover, for this reason.
    Failed(String),
}

/// Has the journal do a task.
pub(super) fn perform(journal: &mut impl Journal, task: Task) -> TaskResult {
    match task {
        Task::Commit(expected, operations) => match journal.commit(expected, &operations) {
            Ok(()) => TaskResult::Done,
            Err(error) => TaskResult::NotDone(error),
        },
        Task::Check => match journal.check() {
            Ok(()) => TaskResult::Done,
            Err(reason) => TaskResult::NotDone(CommitError::Refused(reason)),
        },
        Task::Recover(rows) => match journal.recover(&rows) {
            Ok(head) => TaskResult::Recovered(head),
            Err(reason) => TaskResult::Failed(reason),
        },
        Task::Release => match journal.release() {
            Ok(()) => TaskResult::Done,
            Err(reason) => TaskResult::Failed(reason),
        },
        Task::Follow(rows) => match journal.follow(&rows) {
            Ok(commits) => TaskResult::Followed(commits),
            Err(reason) => TaskResult::Failed(reason),
        },
    }
}
