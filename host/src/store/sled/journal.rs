//! sled, and what to do when it fails.
//!
//! sled 0.34 notes the first error of a buffer and refuses everything after it (its "global error"). It
//! has to be opened anew, and some errors are not even noted: a value that could not be put in a file of
//! its own leaves a buffer that is never written, and everyone who flushes waits for it for ever, also
//! who only drops the database. So after any failure nothing is asked of sled any longer. Its file is
//! taken away, by putting a read-only one in its place, which makes it note an error; then it is dropped,
//! opened again from what is on disk, and brought back to what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use ::sled::{Batch, Db, IVec, Tree};
use bytes::Bytes;
use rustix::io::DupFlags;
use uuid::Uuid;

use super::super::rows::Rows;
use super::super::rules::{Changes, Round};
use super::super::{Error, Revision};
use super::head::Head;
use super::{Disk, Shared, folder, format as keys, preflight};
use crate::entity::Kind;

/// What has come of something.
pub(in crate::store) enum Outcome {
    /// It is done, and will last.
    Done,
    /// It was not begun, for this reason.
    Refused(String),
    /// It has failed, and the store is closed.
    Failed(String),
}

/// sled's files, open.
#[derive(Debug)]
pub(in crate::store) struct Open {
    pub(in crate::store) disk: Disk,
    pub(super) head: Head,
    /// Of sled's log; none if it could not be found.
    pub(in crate::store) descriptor: Option<RawFd>,
}

/// What may be on disk without having been acknowledged.
#[derive(Debug, Default)]
struct Suspect {
    rows: BTreeSet<Vec<u8>>,
    /// Parts of blobs, as they were before.
    chunks: BTreeMap<Vec<u8>, Option<IVec>>,
}

/// The store's files, and the thread that works on them.
#[derive(Debug)]
pub(in crate::store) struct Engine {
    folder: PathBuf,
    shared: Arc<Shared>,
    /// None while it is closed.
    open: Option<Open>,
    suspect: Suspect,
    /// The newest revision that may be on disk.
    attempted: Revision,
}

impl Engine {
    pub(in crate::store) fn new(folder: &Path, shared: Arc<Shared>, open: Open) -> Self {
        let attempted = shared.rows().revision();
        let mut engine = Self {
            folder: folder.to_owned(),
            shared,
            open: None,
            suspect: Suspect::default(),
            attempted,
        };
        engine.work_on(open);
        engine.serve();
        engine
    }

    fn work_on(&mut self, open: Open) {
        *self.shared.working.lock() = Some(open.disk.db.clone());
        self.open = Some(open);
    }

    /// Lets readers have what is open.
    fn serve(&self) {
        *self.shared.disk.write() = self.open.as_ref().map(|open| open.disk.clone());
    }

    /// Writes a round, so that it lasts.
    pub(in crate::store) fn commit(&mut self, round: &Round) -> Outcome {
        let Some(open) = &self.open else {
            return Outcome::Failed("it is closed".into());
        };
        if let Err(reason) = preflight::check(&self.folder, &open.head, round.size()) {
            return Outcome::Refused(reason);
        }
        self.attempted = self.attempted.max(round.newest);
        self.suspect.rows.extend(round.rows.keys().cloned());
        let suspect = &mut self.suspect;
        let written = guarded(|| {
            let chunks = chunks(&open.disk.blobs, round, &mut suspect.chunks)?;
            open.write(&batch(&round.rows), &chunks, round.newest)
        });
        match written {
            Ok(()) => {
                self.suspect = Suspect::default();
                Outcome::Done
            }
            Err(reason) => {
                self.close();
                Outcome::Failed(reason)
            }
        }
    }

    /// As [`Self::commit`], of which only the disk hears.
    #[cfg(test)]
    pub(in crate::store) fn commit_and_fail(&mut self, round: &Round) {
        assert!(matches!(self.commit(round), Outcome::Done));
        self.suspect.rows.extend(round.rows.keys().cloned());
        self.close();
    }

    /// Looks whether a write would have a chance.
    pub(in crate::store) fn look(&mut self) -> Outcome {
        let Some(open) = &self.open else {
            return Outcome::Failed("it is closed".into());
        };
        match preflight::check(&self.folder, &open.head, 0) {
            Ok(()) => Outcome::Done,
            Err(reason) => Outcome::Refused(reason),
        }
    }

    /// Opens the store again, as it was acknowledged.
    pub(in crate::store) fn reopen(&mut self) -> Outcome {
        self.close();
        let opened = guarded(|| self.restore());
        match opened {
            Ok(()) => Outcome::Done,
            Err(reason) => {
                self.close();
                Outcome::Failed(reason)
            }
        }
    }

    fn restore(&mut self) -> Result<(), Error> {
        let open = folder::reopen(&self.folder).map_err(keys::broken)?;
        let disk = open.disk.clone();
        self.work_on(open);
        let acknowledged = self.shared.rows();
        let found = Rows::read(&disk.rows)?;
        let (has, had) = (found.revision(), acknowledged.revision());
        if has < had {
            return Err(keys::broken(format!(
                "its newest changes are lost from the disk (it has revision {has}, and {had} was \
                 acknowledged); put the data folder back, or restart the gateway"
            )));
        }
        let mut rows = Changes::new();
        for key in differing(&acknowledged, &found) {
            if !self.suspect.rows.contains(key) {
                return Err(keys::broken(
                    "its folder holds something else than what was acknowledged; put the data folder \
                     back, or restart the gateway",
                ));
            }
            rows.insert(key.to_vec(), acknowledged.get(key).cloned());
        }
        let mut chunks = Batch::default();
        for (key, old) in &self.suspect.chunks {
            match old {
                Some(old) => chunks.insert(&**key, old),
                None => chunks.remove(&**key),
            }
        }
        // Written in any case, so that it is known that it can be.
        let newest = self.attempted.max(has);
        let revision: Arc<[u8]> = Arc::from(newest.to_be_bytes());
        rows.insert(keys::REVISION.to_vec(), Some(revision));
        self.attempted = newest;
        self.suspect.rows.extend(rows.keys().cloned());
        if let Some(open) = &self.open {
            preflight::check(&self.folder, &open.head, 0).map_err(keys::broken)?;
            open.write(&batch(&rows), &chunks, newest)?;
        }
        rows.retain(|key, _| key == keys::REVISION);
        Arc::make_mut(&mut self.shared.rows.write()).apply(&rows);
        self.suspect = Suspect::default();
        self.serve();
        Ok(())
    }

    /// Lets go of what is open, without asking anything of it that could wait.
    fn close(&mut self) {
        *self.shared.disk.write() = None;
        *self.shared.working.lock() = None;
        let Some(open) = self.open.take() else {
            return;
        };
        let knows = || open.disk.db.context.global_error().is_err();
        if !knows() && !open.take_file() {
            tracing::warn!(
                "the store's files stay open until the gateway ends: they are still in use"
            );
            // It would wait for what is never written.
            let _kept = ManuallyDrop::new(open);
        }
    }
}

impl Open {
    fn write(&self, rows: &Batch, blobs: &Batch, newest: Revision) -> Result<(), Error> {
        (&self.disk.rows, &self.disk.blobs)
            .transaction(|(row_tree, blob_tree)| {
                row_tree.apply_batch(rows)?;
                blob_tree.apply_batch(blobs)?;
                Ok::<(), ConflictableTransactionError<()>>(())
            })
            .map_err(|error| match error {
                TransactionError::Storage(error) => Error::from(error),
                TransactionError::Abort(()) => keys::broken("a transaction was aborted"),
            })?;
        self.disk.db.flush()?;
        let advanced = self.head.advance(newest);
        advanced.map_err(|error| keys::broken(preflight::plain(&error)))
    }

    /// Takes its file away from sled, so that it can change nothing any longer and knows of an error.
    /// Returns whether it does.
    #[expect(
        unsafe_code,
        reason = "sled has no way to be stopped, and does not give its file away"
    )]
    fn take_file(&self) -> bool {
        let Some(descriptor) = self.descriptor else {
            return false;
        };
        // SAFETY: the descriptor is sled's, which keeps it open for as long as `self.disk` lives. It is
        // open before and after, and stays sled's: what it stands for is replaced in one step, as sled
        // would find it after an error of the disk.
        let own = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let mut own = ManuallyDrop::new(own);
        if rustix::io::dup3(self.head.log(), &mut own, DupFlags::CLOEXEC).is_err() {
            return false;
        }
        give_up(&self.disk.db)
    }
}

/// Makes sled try to write until it notes that it cannot. A buffer that is stuck is passed by: the next
/// one is tried.
fn give_up(db: &Db) -> bool {
    const TRIES: u32 = 400;
    const PAUSE: Duration = Duration::from_millis(5);
    for number in 0..TRIES {
        if db.context.global_error().is_err() {
            return true;
        }
        // In a tree that nothing else is kept in. An error is what is wanted.
        let _ = db.insert(b"closing", &number.to_be_bytes());
        // On a thread of its own: the first ones wait for what is stuck, until one of them meets the
        // error. Not `flush`, which keeps transactions of all stores of the process waiting meanwhile.
        let pages = db.context.pagecache.clone();
        let flush = move || drop(pages.log.make_stable(i64::MAX));
        let _ = std::thread::Builder::new().spawn(flush);
        std::thread::sleep(PAUSE);
    }
    false
}

/// The bytes that belong to a row.
pub(in crate::store) fn blob(blobs: &Tree, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error> {
    let mut blob: Option<Vec<u8>> = None;
    for chunk in blobs.scan_prefix(keys::row(kind, id)) {
        blob.get_or_insert_default().extend_from_slice(&chunk?.1);
    }
    Ok(blob.map(Bytes::from))
}

/// What is to be done to blobs. `before` takes what is there now.
fn chunks(
    blobs: &Tree,
    round: &Round,
    before: &mut BTreeMap<Vec<u8>, Option<IVec>>,
) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    for (row, blob) in &round.blobs {
        for chunk in blobs.scan_prefix(row) {
            let (key, value) = chunk?;
            batch.remove(&key);
            before.insert(key.to_vec(), Some(value));
        }
        for (number, chunk) in (0..).zip(blob.chunks(keys::CHUNK)) {
            let key = keys::chunk(row, number);
            batch.insert(&*key, chunk);
            before.entry(key).or_insert(None);
        }
    }
    Ok(batch)
}

fn batch(changes: &Changes) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(&**key, &**value),
            None => batch.remove(&**key),
        }
    }
    batch
}

/// The keys under which two do not hold the same, but for the revision.
fn differing<'a>(one: &'a Rows, other: &'a Rows) -> impl Iterator<Item = &'a [u8]> {
    let changed = one
        .iter()
        .filter(|(key, value)| other.get(key) != Some(*value));
    let added = other.iter().filter(|(key, _)| one.get(key).is_none());
    let keys = changed.chain(added).map(|(key, _)| &**key);
    keys.filter(|key| *key != keys::REVISION)
}

/// Runs what works on sled, which panics on some errors.
fn guarded<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Error::Backend(reason))) => Err(reason),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!(
            "its engine has panicked: {}",
            folder::words(&*panic)
        )),
    }
}

/// An error of sled for people, as the end of a sentence.
pub(in crate::store) fn sentence(error: &::sled::Error) -> String {
    match error {
        ::sled::Error::Io(error) => preflight::plain(error),
        error => error.to_string(),
    }
}
