//! Writes that are staged for one commit of the journal.

use super::super::operations::Operations;
use super::super::rows::Rows;
use super::super::rules::{self, Steps};
use super::super::{Commit, Error, Revision};
use super::CommitSender;

/// A write whose caller waits for its answer.
pub(super) struct PendingWrite {
    pub(super) steps: Steps,
    pub(super) answer: CommitSender,
}

/// Writes that are staged for one commit of the journal.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) operations: Operations,
    pub(super) commits: Vec<Commit>,
    /// The answer to each caller, sent once the commit is durable. A refusal waits for that too,
    /// because its cause may be another write of the same commit, which readers must see by then.
    pub(super) answers: Vec<(PendingWrite, Result<Revision, Error>)>,
}

impl Staged {
    pub(super) fn new(rows: &Rows, asked: Vec<PendingWrite>) -> Self {
        let mut staged = Self::default();
        for asked in asked {
            match rules::stage_steps(rows, &staged.operations, &asked.steps) {
                Ok((operations, commit)) => {
                    staged.operations.add(operations);
                    staged.answers.push((asked, Ok(commit.revision)));
                    staged.commits.push(commit);
                }
                // If the caller no longer waits, the answer is dropped.
                Err(error) if staged.commits.is_empty() => drop(asked.answer.send(Err(error))),
                Err(error) => staged.answers.push((asked, Err(error))),
            }
        }
        staged
    }
}
