//! The store on sled, in a folder of its own.
//!
//! What is read is in memory (`rows.rs`), and follows the disk: a write is put into effect once it will
//! last. One thread writes (`writer.rs`). It takes all writes that are waiting, does them in one
//! transaction, flushes once for all of them, puts them into effect, tells the watchers, and answers: so
//! writes in flight together share a flush, an acknowledged write is on disk, and neither readers nor
//! watchers see one that is not. A transaction of sled over several trees is recovered whole or not at
//! all: it pins the log while it writes and seals what it wrote as one batch.
//!
//! What touches the disk is done by a second thread (`engine.rs`), since sled can wait for ever after an
//! error. When a write fails, that thread takes the file away from sled, opens it anew, and brings it
//! back to what was acknowledged; until that has worked, writes are refused with the reason.

pub(super) mod convert;
mod folder;
pub(super) mod format;
mod head;
pub(super) mod journal;
mod preflight;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use ::sled::{Db, Tree};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::rows::Rows;
use super::writer::{self, Job, Writer};
use super::{Commit, Condition, Error, Failure, Revision, Store, Stored, Write};
use crate::entity::{Kind, Row};
use format as keys;
use journal as engine;
use journal::Engine;

pub use folder::OpenError;

/// The store on sled.
#[derive(Debug)]
pub struct SledStore {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

/// What the threads of the store and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What is acknowledged. Readers take the whole of it and look at it without the lock.
    pub(super) rows: RwLock<Arc<Rows>>,
    /// Where blobs are read; none while the store has no file.
    pub(super) disk: RwLock<Option<Disk>>,
    /// What the engine works on, so that it can be woken up.
    pub(super) working: Mutex<Option<Db>>,
    /// Why the store cannot be written.
    pub(super) failure: RwLock<Option<Failure>>,
    pub(super) failures: AtomicU64,
}

/// What is open.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) db: Db,
    /// Rows with their indexes.
    pub(super) rows: Tree,
    /// Apart from the rows, which are small and read often.
    pub(super) blobs: Tree,
}

impl Shared {
    fn new(rows: Rows) -> Self {
        Self {
            rows: RwLock::new(Arc::new(rows)),
            disk: RwLock::new(None),
            working: Mutex::new(None),
            failure: RwLock::new(None),
            failures: 0.into(),
        }
    }

    pub(super) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read())
    }

    /// Why nothing can be written now.
    pub(super) fn unavailable(&self) -> Error {
        let failure = self.failure.read();
        let reason = failure.as_ref().map(|failure| &*failure.reason);
        let reason = reason.unwrap_or("it is being opened");
        Error::Unavailable(format!(
            "the store cannot be written: {reason}; nothing was changed"
        ))
    }

    /// Wakes up what waits in sled for an error that it was not told of: a buffer that could not be
    /// written is noted by sled, but some of those who wait for it are not woken.
    pub(super) fn nudge(&self) {
        let db = self.working.lock().clone();
        if let Some(db) = db
            && db.context.global_error().is_err()
        {
            // Returns that error at once, and wakes up all who wait.
            let _ = db.context.pagecache.log.make_stable(i64::MAX);
        }
    }
}

impl From<::sled::Error> for Error {
    fn from(error: ::sled::Error) -> Self {
        Self::Backend(engine::sentence(&error))
    }
}

impl SledStore {
    /// Opens the store in a data folder, which is made if it is missing.
    ///
    /// # Errors
    /// A sentence, if the folder cannot be written, is in use, damaged or something else; it is then left
    /// as it was.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let opened = folder::open(data_dir)?;
        let refuse = |reason: String| OpenError::new(data_dir, reason);
        let set_aside = opened.rows.all_set_aside();
        for row in &set_aside {
            tracing::error!(
                entity = row.kind.name(),
                id = %row.id,
                "a stored row is set aside: {}; DELETE removes it",
                row.reason
            );
        }
        let shared = Arc::new(Shared::new(opened.rows));
        let mut engine = Engine::new(data_dir, Arc::clone(&shared), opened.open);
        if opened.layout == folder::Layout::Earlier {
            writer::convert(&shared, &mut engine)
                .map_err(|reason| refuse(format!("cannot be brought to format 2: {reason}")))?;
            folder::mark(data_dir)?;
        }
        writer::renew(&shared, &mut engine)
            .map_err(|reason| refuse(format!("cannot be brought up to date: {reason}")))?;
        let (jobs, waiting) = channel();
        let writer = Writer::start(Arc::clone(&shared), engine)
            .map_err(|error| refuse(format!("cannot be used: {error}")))?;
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let rounds = writer.run(&waiting);
                tracing::debug!(rounds, "the writer of the store ends");
            })
            .map_err(|error| refuse(format!("cannot be used: {error}")))?;
        Ok(Self { shared, jobs })
    }
}

impl Store for SledStore {
    fn get(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        self.shared.rows().stored(kind, id)
    }

    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error> {
        let disk = self.shared.disk.read().clone();
        match disk {
            Some(disk) => engine::blob(&disk.blobs, kind, id),
            None => Err(self.shared.unavailable()),
        }
    }

    fn find(
        &self,
        kind: Kind,
        key: &[&str],
        values: &[&serde_json::Value],
    ) -> Result<Option<Stored>, Error> {
        let rows = self.shared.rows();
        // In this spelling first: an earlier version may have left two rows that differ in theirs alone.
        for index in [
            keys::unique_as_written(kind, key, values),
            keys::unique(kind, key, values),
        ] {
            if let Some(id) = rows.get(&index) {
                return rows.stored(kind, keys::id(id)?);
            }
        }
        Ok(None)
    }

    fn list(
        &self,
        kind: Kind,
        from: Option<Uuid>,
        limit: usize,
        filter: &dyn Fn(&Row) -> bool,
    ) -> Result<Vec<Stored>, Error> {
        let rows = self.shared.rows();
        let stored = rows.of_kind(kind, from).map(|(_, stored)| stored);
        Ok(stored
            .filter(|stored| filter(&stored.row))
            .take(limit)
            .collect())
    }

    fn list_referring(
        &self,
        kind: Kind,
        field: &'static str,
        parent: Uuid,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Stored>, Error> {
        let Some(reference) = kind.references().iter().find(|r| r.field == field) else {
            return Ok(Vec::new());
        };
        let prefix = keys::referring(reference.to, &keys::parent(parent), kind, field);
        let first = [&*prefix, from.unwrap_or(Uuid::nil()).as_bytes()].concat();
        let last = [&*prefix, Uuid::max().as_bytes()].concat();
        let rows = self.shared.rows();
        let mut listed = Vec::new();
        for (key, _) in rows.range(&first, Some(&last)) {
            if listed.len() == limit {
                break;
            }
            match rows.stored(kind, keys::last_id(key)?) {
                Ok(stored) => listed.extend(stored),
                Err(Error::SetAside { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    fn condition(&self) -> Condition {
        Condition {
            failure: self.shared.failure.read().clone(),
            failures: self.shared.failures.load(Ordering::Relaxed),
            set_aside: self.shared.rows().all_set_aside(),
        }
    }

    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, Error>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.jobs.send(Job::Write(writes, answer));
        async move {
            sent.map_err(|_| stopped())?;
            answered.await.map_err(|_| stopped())?
        }
        .boxed()
    }

    fn watch(&self) -> Result<mpsc::UnboundedReceiver<Commit>, Error> {
        let (sender, commits) = mpsc::unbounded_channel();
        self.jobs.send(Job::Watch(sender)).map_err(|_| stopped())?;
        Ok(commits)
    }
}

fn stopped() -> Error {
    Error::Unavailable(
        "the writer of the store has stopped: what is in effect stays so; restart the gateway"
            .into(),
    )
}

#[cfg(test)]
mod tests;
