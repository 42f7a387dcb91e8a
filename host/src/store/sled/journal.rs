//! The journal on sled: commits, and recovery after a failed commit.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::journal::{CommitError, Journal, JournalHandle, Notify, OpenError};
use super::super::operations::Operations;
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::super::{Error, Revision, upgrade};
use super::blobs::{self, Before};
use super::files::{Handle, Open, WriteError};
use super::folder::{self, Layout};
use super::{convert, format, hand_over, preflight};

/// The journal in a data folder.
#[derive(Debug)]
pub(in super::super) struct SledJournal {
    folder: PathBuf,
    pub(super) handle: Arc<Handle>,
    /// None while the journal is closed.
    open: Option<Open>,
    suspect: Suspect,
    /// The newest revision that may be on disk.
    attempted: Revision,
    /// Whether another process may have written to the files, so that their copy has to be put
    /// back.
    is_handed_over: bool,
    /// Whether these are copies of rows, which stay as they were copied.
    is_copy: bool,
}

/// What may be on disk although it was not acknowledged.
#[derive(Debug, Default)]
struct Suspect {
    /// Keys of the tree of rows.
    rows: BTreeSet<Vec<u8>>,
    chunks: Before,
}

impl SledJournal {
    pub(in super::super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            handle: Arc::default(),
            open: None,
            suspect: Suspect::default(),
            attempted: 0,
            is_handed_over: false,
            is_copy: false,
        }
    }

    /// A journal that has a copy of what is in another one.
    pub(in super::super) fn of_copy(folder: &Path) -> Self {
        Self {
            is_copy: true,
            ..Self::new(folder)
        }
    }

    fn work_on(&mut self, open: Open) {
        self.handle.work_on(&open.trees);
        self.open = Some(open);
    }

    /// Lets readers read from the open files.
    fn serve(&self) {
        if let Some(open) = &self.open {
            self.handle.serve(&open.trees);
        }
    }

    /// Converts rows of earlier versions to the form of this version.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    fn upgrade(&mut self, rows: &mut Rows, layout: Layout) -> Result<(), String> {
        if layout == Layout::Earlier
            && let Some(open) = &self.open
        {
            convert::writes(rows, &open.trees.blobs)
                .map_err(sentence)
                .and_then(|writes| upgrade::apply(self, rows, &writes))
                .map_err(|reason| format!("cannot be brought to format 2: {reason}"))?;
            folder::mark(&self.folder)?;
        }
        if self.is_copy {
            return Ok(());
        }
        upgrade::renew(self, rows)
            .map_err(|reason| format!("cannot be brought up to date: {reason}"))
    }

    /// Makes a commit that is on disk, but counts as failed.
    #[cfg(test)]
    pub(super) fn commit_and_fail(&mut self, expected: Revision, operations: &Operations) {
        assert!(self.commit(expected, operations).is_ok());
        let changes = format::changes(operations).into_iter();
        self.suspect.rows.extend(changes.map(|(key, _)| key));
        self.close();
    }

    /// Opens the files again, and restores what was acknowledged. Returns the head.
    fn restore(&mut self, acknowledged: &Rows) -> Result<Revision, Error> {
        let open = folder::reopen(&self.folder).map_err(format::broken)?;
        let tree = open.trees.rows.clone();
        self.work_on(open);
        let mut found = BTreeMap::new();
        for entry in tree.iter() {
            let (key, value) = entry?;
            found.insert(key.to_vec(), value);
        }
        let revision = found.remove(format::REVISION);
        let has = revision
            .and_then(|value| format::revision(&value))
            .unwrap_or(0);
        let had = acknowledged.head();
        if has < had {
            return Err(format::broken(format!(
                "its newest changes are lost from the disk (it has revision {has}, and {had} was \
                 acknowledged); put the data folder back, or restart the gateway"
            )));
        }
        let mut rows = Vec::new();
        for (key, value) in format::entries(acknowledged) {
            if found.remove(&key).is_none_or(|found| *found != *value) {
                rows.push((key, Some(value)));
            }
        }
        rows.extend(found.into_keys().map(|key| (key, None)));
        if rows.iter().any(|(key, _)| !self.suspect.rows.contains(key)) {
            return Err(format::broken(
                "its folder holds something else than what was acknowledged; put the data folder \
                 back, or restart the gateway",
            ));
        }
        // Written in any case, to find out whether the files can be written.
        let newest = self.attempted.max(has);
        rows.push((format::REVISION.to_vec(), Some(format::of_revision(newest))));
        self.attempted = newest;
        let keys = rows.iter().map(|(key, _)| key.clone());
        self.suspect.rows.extend(keys);
        let chunks = blobs::restore(&self.suspect.chunks);
        if let Some(open) = &self.open {
            preflight::check(&self.folder, &open.head, 0).map_err(format::broken)?;
            open.write(has, &rows, &chunks, newest)
                .map_err(WriteError::into_error)?;
        }
        self.suspect = Suspect::default();
        self.serve();
        Ok(newest)
    }

    /// Closes the files.
    fn close(&mut self) {
        self.handle.close();
        if let Some(open) = self.open.take() {
            open.close();
        }
    }
}

impl Journal for SledJournal {
    fn handle(&self) -> Arc<dyn JournalHandle> {
        Arc::clone(&self.handle) as Arc<dyn JournalHandle>
    }

    fn load(&mut self, schema: Schema) -> Result<Rows, OpenError> {
        let opened = folder::open(&self.folder, schema)?;
        let mut rows = opened.rows;
        self.attempted = rows.head();
        self.work_on(opened.open);
        self.serve();
        self.upgrade(&mut rows, opened.layout)
            .map_err(|reason| folder::refuse(&self.folder, &reason))?;
        Ok(rows)
    }

    fn commit(&mut self, expected: Revision, operations: &Operations) -> Result<(), CommitError> {
        let in_doubt = |reason| CommitError::InDoubt {
            reason,
            fate: "will be taken back unless the gateway is restarted before the store is open again",
        };
        let Some(open) = &self.open else {
            return Err(in_doubt("it is closed".into()));
        };
        let rows = format::changes(operations);
        let blobs = operations.blobs.values().map(|blob| blob.len());
        let size = rows.iter().map(|(key, value)| {
            let value = value.as_ref().map_or(0, |value| value.len());
            key.len() + value
        });
        let size = size.chain(blobs).sum::<usize>() as u64;
        preflight::check(&self.folder, &open.head, size).map_err(CommitError::Refused)?;
        self.attempted = self.attempted.max(operations.head);
        let keys = rows.iter().map(|(key, _)| key.clone());
        self.suspect.rows.extend(keys);
        let suspect = &mut self.suspect;
        let written = guarded(|| {
            let chunks = blobs::changes(&open.trees.blobs, operations, &mut suspect.chunks)?;
            open.write(expected, &rows, &chunks, operations.head)
        });
        match written {
            Ok(Ok(())) => {
                self.suspect = Suspect::default();
                Ok(())
            }
            Ok(Err(WriteError::Conflict)) => {
                self.suspect = Suspect::default();
                Err(CommitError::Conflict)
            }
            Ok(Err(WriteError::Failed(error))) => {
                self.close();
                Err(in_doubt(sentence(error)))
            }
            Err(reason) => {
                self.close();
                Err(in_doubt(reason))
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        match &self.open {
            Some(open) => preflight::check(&self.folder, &open.head, 0),
            None => Err("it is closed".into()),
        }
    }

    fn recover(&mut self, acknowledged: &Rows) -> Result<Revision, String> {
        self.close();
        if self.is_handed_over {
            hand_over::put_back(&self.folder).map_err(|error| {
                let error = preflight::plain(&error);
                format!("the copy of its files cannot be put back: {error}")
            })?;
            self.is_handed_over = false;
        }
        let restored = guarded(|| self.restore(acknowledged));
        restored
            .and_then(|restored| restored.map_err(sentence))
            .inspect_err(|_| self.close())
    }

    fn release(&mut self) -> Result<(), String> {
        self.close();
        hand_over::copy(&self.folder)?;
        self.is_handed_over = true;
        Ok(())
    }

    /// sled locks its folder, so no other process makes commits.
    fn watch(&mut self, _: Notify) {}

    fn follow(&mut self, _: &Rows) -> Result<Vec<Operations>, String> {
        Ok(Vec::new())
    }
}

/// Runs code that calls sled, which panics on some errors.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let words = folder::words(&*panic);
        format!("its engine has panicked: {words}")
    })
}

/// The text of an error, as the end of a sentence.
fn sentence(error: Error) -> String {
    match error {
        Error::Backend(reason) => reason,
        error => error.to_string(),
    }
}
