//! sled's files, and how sled is stopped after an error.
//!
//! sled 0.34 notes the first error of a buffer and refuses everything after it (its "global
//! error"). It has to be opened again. Some errors it does not even note: a value that could not be
//! put in a file of its own leaves a buffer that is never written. Every flush then waits for that
//! buffer for ever, and dropping the database does too. So after any failure the store makes no
//! further call of sled that could wait. It replaces sled's file descriptor with a read-only one,
//! which makes sled note an error; then it drops the database.

use std::fs;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use ::sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use ::sled::{Batch, Db, Tree};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rustix::io::DupFlags;
use uuid::Uuid;

use super::super::journal::{BlobError, JournalHandle};
use super::super::{Error, Revision};
use super::format::{self, Changes};
use super::head::{self, Head};
use super::{blobs, preflight};
use crate::allocator;
use crate::entity::Kind;

/// Reads for each row of a large commit that have sled free what it has replaced. It keeps some ten
/// kilobytes for each row in its memory, and frees a little of that with each later operation, of
/// which there may be none.
const READS: usize = 4;

/// sled's database and its trees.
#[derive(Debug, Clone)]
pub(super) struct Trees {
    pub(super) db: Db,
    /// Rows with their indexes.
    pub(super) rows: Tree,
    /// In a tree of their own, because rows are small and are read often.
    pub(super) blobs: Tree,
}

impl Trees {
    /// Opens the database and the trees, and creates what is missing.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let db = ::sled::Config::new()
            .path(folder.join("entities"))
            // Every write is flushed before it is acknowledged.
            .flush_every_ms(None)
            .open()?;
        Ok(Self {
            rows: db.open_tree("rows")?,
            blobs: db.open_tree("blobs")?,
            db,
        })
    }
}

/// All files of a store, open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) trees: Trees,
    pub(super) head: Head,
    /// The descriptor of sled's log; none if it could not be found.
    descriptor: Option<RawFd>,
}

/// Why a transaction was not made.
pub(super) enum WriteError {
    /// The revision on disk is not the expected one.
    Conflict,
    Failed(Error),
}

impl WriteError {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Conflict => format::broken("its newest revision is not the one that was read"),
            Self::Failed(error) => error,
        }
    }
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Open {
    /// Opens the files besides sled's own.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub(super) fn new(folder: &Path, trees: Trees) -> Result<Self, String> {
        // Searched for before the log is opened a second time.
        let descriptor = descriptor(&head::log(folder));
        let head = Head::open(folder);
        let head = head.map_err(|error| format!("HEAD: {}", preflight::plain(&error)))?;
        Ok(Self {
            trees,
            head,
            descriptor,
        })
    }

    /// Writes durably, if the revision on disk is `expected`.
    pub(super) fn write(
        &self,
        expected: Revision,
        rows: &Changes,
        blobs: &Batch,
        newest: Revision,
    ) -> Result<(), WriteError> {
        let count = rows.len();
        let rows = batch(rows);
        let expected = expected.to_be_bytes();
        (&self.trees.rows, &self.trees.blobs)
            .transaction(|(row_tree, blob_tree)| {
                if row_tree.get(format::REVISION)?.as_deref() != Some(&expected[..]) {
                    return Err(ConflictableTransactionError::Abort(()));
                }
                row_tree.apply_batch(&rows)?;
                blob_tree.apply_batch(blobs)?;
                Ok(())
            })
            .map_err(|error| match error {
                TransactionError::Storage(error) => WriteError::Failed(error.into()),
                TransactionError::Abort(()) => WriteError::Conflict,
            })?;
        self.trees.db.flush().map_err(Error::from)?;
        let advanced = self.head.advance(newest);
        advanced.map_err(|error| format::broken(preflight::plain(&error)))?;
        if count >= allocator::LARGE_CHANGE {
            self.free_replaced(count);
        }
        Ok(())
    }

    /// Has sled free what a commit of so many rows has replaced in its memory.
    fn free_replaced(&self, rows: usize) {
        for _ in 0..rows.saturating_mul(READS) {
            // An error is found by the next commit.
            let _ = self.trees.rows.get(format::REVISION);
        }
        allocator::return_freed();
    }

    /// Closes the files, without any call of sled that could wait.
    pub(super) fn close(self) {
        let knows = self.trees.db.context.global_error().is_err();
        if !knows && !self.take_file() {
            tracing::warn!(
                "the store's files stay open until the gateway ends: they are still in use"
            );
            // Dropping it would wait for a buffer that is never written.
            let _kept = ManuallyDrop::new(self);
        }
    }

    /// Replaces sled's file, so that sled can write nothing any longer and notes an error. Returns
    /// whether it has noted one.
    #[expect(
        unsafe_code,
        reason = "sled has no way to be stopped, and does not give its file away"
    )]
    fn take_file(&self) -> bool {
        let Some(descriptor) = self.descriptor else {
            return false;
        };
        // SAFETY: the descriptor is sled's, which keeps it open for as long as `self.trees` lives.
        // It is open before and after, and stays sled's: the file that it refers to is replaced in
        // one step. To sled this looks like an error of the disk.
        let own = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let mut own = ManuallyDrop::new(own);
        if rustix::io::dup3(self.head.log(), &mut own, DupFlags::CLOEXEC).is_err() {
            return false;
        }
        give_up(&self.trees.db)
    }
}

/// Makes sled try to write until it notes that it cannot. A stuck buffer is skipped: the next one
/// is tried.
fn give_up(db: &Db) -> bool {
    const TRIES: u32 = 400;
    const PAUSE: Duration = Duration::from_millis(5);
    for number in 0..TRIES {
        if db.context.global_error().is_err() {
            return true;
        }
        // In the default tree, which holds nothing else. An error is the purpose.
        let _ = db.insert(b"closing", &number.to_be_bytes());
        // On a thread of its own, because the first of these calls wait for the stuck buffer until
        // one of them gets the error. Not `flush`, which would block transactions of all stores of
        // the process meanwhile.
        let pages = db.context.pagecache.clone();
        let flush = move || drop(pages.log.make_stable(i64::MAX));
        let _ = std::thread::Builder::new().spawn(flush);
        std::thread::sleep(PAUSE);
    }
    false
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

/// The descriptor with which this process has a file open for writing.
fn descriptor(path: &Path) -> Option<RawFd> {
    let file = fs::metadata(path).ok()?;
    let own = |number: RawFd| {
        let open = fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
        let is_same = (open.dev(), open.ino()) == (file.dev(), file.ino());
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
        (is_same && flags & READ_WRITE != 0).then_some(number)
    };
    let numbers = fs::read_dir("/proc/self/fd").ok()?;
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found = numbers.filter_map(own);
    // If there are several, it is not known which is sled's.
    found.next().filter(|_| found.next().is_none())
}

/// `O_RDWR`, among the flags of an open file.
const READ_WRITE: u32 = 0o2;

/// The part of the files that threads other than the journal's may use.
#[derive(Debug, Default)]
pub(super) struct Handle {
    /// Where blobs are read; none while the journal is closed.
    blobs: RwLock<Option<Tree>>,
    /// The database that the journal works on, so that its waits can be woken up.
    pub(super) working: Mutex<Option<Db>>,
}

impl Handle {
    /// Lets readers read blobs from these trees.
    pub(super) fn serve(&self, trees: &Trees) {
        *self.blobs.write() = Some(trees.blobs.clone());
    }

    /// Has [`JournalHandle::nudge`] wake up the threads that wait in this database.
    pub(super) fn work_on(&self, trees: &Trees) {
        *self.working.lock() = Some(trees.db.clone());
    }

    /// Drops the handles of the files.
    pub(super) fn close(&self) {
        *self.blobs.write() = None;
        *self.working.lock() = None;
    }
}

impl JournalHandle for Handle {
    fn medium(&self) -> &'static str {
        "disk"
    }

    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, BlobError> {
        let blobs = self.blobs.read().clone();
        let blobs = blobs.ok_or(BlobError::Closed)?;
        blobs::read(&blobs, (kind, id)).map_err(BlobError::Failed)
    }

    /// Wakes up threads that wait in sled although it has noted an error: sled notes a buffer that
    /// could not be written, but does not wake all threads that wait for it.
    fn nudge(&self) {
        let db = self.working.lock().clone();
        if let Some(db) = db
            && db.context.global_error().is_err()
        {
            // Returns that error at once, and wakes up all waiting threads.
            let _ = db.context.pagecache.log.make_stable(i64::MAX);
        }
    }
}

impl From<::sled::Error> for Error {
    fn from(error: ::sled::Error) -> Self {
        Self::Backend(match error {
            ::sled::Error::Io(error) => preflight::plain(&error),
            error => error.to_string(),
        })
    }
}
