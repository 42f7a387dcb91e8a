//! The state that the threads of a store and its readers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use uuid::Uuid;

use super::journal::{BlobError, JournalHandle};
use super::rows::Rows;
use super::{Condition, Error, Failure};
use crate::entity::Kind;

/// The rows that are in effect, and the condition of the store.
pub(super) struct State {
    /// The acknowledged rows. Readers clone the `Arc` and read without the lock.
    rows: RwLock<Arc<Rows>>,
    journal: Arc<dyn JournalHandle>,
    /// Why the store cannot be written.
    failure: RwLock<Option<Failure>>,
    failures: AtomicU64,
    /// When the log last said so.
    told: Mutex<Option<Instant>>,
    /// Changed after the rows or the condition.
    moved: watch::Sender<()>,
}

/// Time after which the log says again that the store cannot be written.
const REMINDER: Duration = Duration::from_secs(60);

impl State {
    pub(super) fn new(rows: Rows, journal: Arc<dyn JournalHandle>) -> Self {
        Self {
            rows: RwLock::new(Arc::new(rows)),
            journal,
            failure: RwLock::new(None),
            failures: 0.into(),
            told: Mutex::default(),
            moved: watch::Sender::new(()),
        }
    }

    /// Tells when the rows or the condition have changed.
    pub(super) fn moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// The present rows.
    pub(super) fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read())
    }

    /// Changes the rows. Readers that took them before keep the old ones.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> T {
        // The rows are copied only if a reader holds them.
        let changed = change(Arc::make_mut(&mut self.rows.write()));
        self.moved.send_replace(());
        changed
    }

    /// The part of the journal that any thread may call.
    pub(super) fn journal(&self) -> &dyn JournalHandle {
        &*self.journal
    }

    /// Reads the bytes that belong to a row.
    pub(super) fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error> {
        self.journal.blob(kind, id).map_err(|error| match error {
            BlobError::Closed => self.unavailable(),
            BlobError::Failed(error) => error,
        })
    }

    /// The present condition of the store.
    pub(super) fn condition(&self) -> Condition {
        Condition {
            failure: self.failure.read().clone(),
            failures: self.failures.load(Ordering::Relaxed),
            set_aside: self.rows().all_set_aside(),
        }
    }

    /// Whether the store cannot be written.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.read().is_some()
    }

    /// The error for a write while the store cannot be written.
    pub(super) fn unavailable(&self) -> Error {
        let failure = self.failure.read();
        let reason = failure.as_ref().map(|failure| &*failure.reason);
        let reason = reason.unwrap_or("it is being opened");
        Error::Unavailable(format!(
            "the store cannot be written: {reason}; nothing was changed"
        ))
    }

    /// Notes why the store cannot be written.
    pub(super) fn fail(&self, reason: String) {
        let mut failure = self.failure.write();
        // The reason may be another one with each try.
        let mut told = self.told.lock();
        if failure.is_none() || told.is_none_or(|told| told.elapsed() >= REMINDER) {
            *told = Some(Instant::now());
            tracing::error!(
                "the store cannot be written: {reason}; changes are refused, and what is in effect \
                 stays so"
            );
        }
        let since = failure.as_ref().map(|failure| failure.since);
        if since.is_none() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        *failure = Some(Failure {
            reason,
            since: since.unwrap_or_else(SystemTime::now),
        });
        drop(failure);
        self.moved.send_replace(());
    }

    /// Notes that another process may write to the storage, and this one may not.
    pub(super) fn release(&self, reason: String) {
        tracing::info!("the store is released: {reason}; changes are refused");
        let since = SystemTime::now();
        *self.failure.write() = Some(Failure { reason, since });
        self.moved.send_replace(());
    }

    /// Notes that the store can be written.
    pub(super) fn succeed(&self) {
        if let Some(failure) = self.failure.write().take() {
            let seconds = failure.since.elapsed().unwrap_or_default().as_secs_f64();
            tracing::info!("the store can be written again, after {seconds:.1} s");
        }
    }
}
