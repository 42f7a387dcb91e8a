//! A journal in memory that several stores can share, for tests of the rules and of the writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use super::Revision;
use super::index::RowKey;
use super::journal::{BlobError, CommitError, Journal, JournalHandle, Notify, OpenError};
use super::operations::Operations;
use super::rows::Rows;
use super::schema::Schema;
use crate::entity::Kind;

/// The shared content. Clones share the same content.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    log: Vec<Operations>,
    blobs: BTreeMap<RowKey, Bytes>,
    /// Called after commits, by the number of the journal that is to be notified.
    watchers: BTreeMap<usize, Notify>,
    journals: usize,
}

impl Kept {
    fn head(&self) -> Revision {
        self.log.last().map_or(0, |operations| operations.head)
    }

    /// Adds a commit, if the head is still `expected`, and notifies all journals except `author`.
    fn add(
        &mut self,
        author: usize,
        expected: Revision,
        operations: &Operations,
    ) -> Result<(), CommitError> {
        if self.head() != expected {
            return Err(CommitError::Conflict);
        }
        self.log.push(operations.clone());
        for (row, blob) in &operations.blobs {
            self.blobs.insert(*row, blob.clone());
        }
        let others = self
            .watchers
            .iter()
            .filter(|(number, _)| **number != author);
        others.for_each(|(_, notify)| notify());
        Ok(())
    }
}

impl Memory {
    /// A new journal on the shared content. Each of its commits takes the next of the faults.
    pub(super) fn journal(&self, faults: impl IntoIterator<Item = Fault>) -> MemoryJournal {
        let mut kept = self.0.lock();
        kept.journals += 1;
        MemoryJournal {
            number: kept.journals,
            memory: self.clone(),
            faults: faults.into_iter().collect(),
            before_recovery: Box::new(|| {}),
        }
    }

    /// What was committed, oldest first.
    pub(super) fn log(&self) -> Vec<Operations> {
        self.0.lock().log.clone()
    }
}

/// What happens to a commit.
pub(super) enum Fault {
    /// Nothing.
    None,
    /// This is called first, for example to make a commit of another writer.
    Overtaken(Box<dyn FnOnce() + Send>),
    /// The commit is not started.
    Refused,
    /// The commit fails midway; it was stored if `is_kept`.
    InDoubt { is_kept: bool },
}

/// The journal of one writer.
pub(super) struct MemoryJournal {
    number: usize,
    memory: Memory,
    faults: VecDeque<Fault>,
    before_recovery: Box<dyn FnMut() + Send>,
}

impl MemoryJournal {
    /// Calls this before it recovers.
    pub(super) fn before_recovery(mut self, call: impl FnMut() + Send + 'static) -> Self {
        self.before_recovery = Box::new(call);
        self
    }
}

impl Journal for MemoryJournal {
    fn handle(&self) -> Arc<dyn JournalHandle> {
        Arc::new(self.memory.clone())
    }

    fn load(&mut self, schema: Schema) -> Result<Rows, OpenError> {
        let mut rows = Rows::new(schema);
        for operations in self.memory.log() {
            rows.follow(&operations);
        }
        Ok(rows)
    }

    fn commit(&mut self, expected: Revision, operations: &Operations) -> Result<(), CommitError> {
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        let in_doubt = || CommitError::InDoubt {
            reason: "it was told to".into(),
            fate: "it is not known whether it will be",
        };
        match fault {
            Fault::None => {}
            Fault::Overtaken(first) => first(),
            Fault::Refused => return Err(CommitError::Refused("it was told to".into())),
            Fault::InDoubt { is_kept: false } => return Err(in_doubt()),
            Fault::InDoubt { is_kept: true } => {
                self.memory
                    .0
                    .lock()
                    .add(self.number, expected, operations)?;
                return Err(in_doubt());
            }
        }
        self.memory.0.lock().add(self.number, expected, operations)
    }

    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn recover(&mut self, acknowledged: &Rows) -> Result<Revision, String> {
        (self.before_recovery)();
        Ok(acknowledged.head())
    }

    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn watch(&mut self, notify: Notify) {
        self.memory.0.lock().watchers.insert(self.number, notify);
    }

    fn follow(&mut self, rows: &Rows) -> Result<Vec<Operations>, String> {
        let mut log = self.memory.log();
        log.retain(|operations| operations.head > rows.head());
        Ok(log)
    }
}

impl JournalHandle for Memory {
    fn medium(&self) -> &'static str {
        "memory"
    }

    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, BlobError> {
        let blob = self.0.lock().blobs.get(&(kind, id)).cloned();
        Ok(blob.filter(|blob| !blob.is_empty()))
    }
}
