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
pub(super) enum Outcome {
    Done,
    Recovered(Revision),
    Followed(Vec<Operations>),
    NotDone(CommitError),
    /// The journal has to recover, for this reason.
    Failed(String),
}

/// Has the journal do a task.
pub(super) fn perform(journal: &mut impl Journal, task: Task) -> Outcome {
    match task {
        Task::Commit(expected, operations) => match journal.commit(expected, &operations) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::NotDone(error),
        },
        Task::Check => match journal.check() {
            Ok(()) => Outcome::Done,
            Err(reason) => Outcome::NotDone(CommitError::Refused(reason)),
        },
        Task::Recover(rows) => match journal.recover(&rows) {
            Ok(head) => Outcome::Recovered(head),
            Err(reason) => Outcome::Failed(reason),
        },
        Task::Release => match journal.release() {
            Ok(()) => Outcome::Done,
            Err(reason) => Outcome::Failed(reason),
        },
        Task::Follow(rows) => match journal.follow(&rows) {
            Ok(commits) => Outcome::Followed(commits),
            Err(reason) => Outcome::Failed(reason),
        },
    }
}
