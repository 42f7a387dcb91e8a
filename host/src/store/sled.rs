//! The store on sled, in a folder of its own.
//!
//! One thread writes. It takes all writes that are waiting, does each in a transaction, flushes once
//! for all of them, tells the watchers, and answers: so writes in flight together share a flush, an
//! acknowledged write is on disk, and watchers see commits in order and only once they will last.
//! A transaction of sled over several trees is recovered whole or not at all: it pins the log while
//! it writes and seals what it wrote as one batch.

mod convert;
mod folder;
mod head;
mod keys;
mod stage;

use std::ops::Bound;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use ::sled::{Db, Tree};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sled::transaction::Transactional;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{Change, Commit, Error, Revision, Store, Stored, Write};
use crate::entity::{Kind, Row, UniqueKey};
use folder::Layout;
use head::Head;
use stage::Stage;

pub use folder::OpenError;

/// The store on sled.
#[derive(Debug)]
pub struct SledStore {
    trees: Trees,
    jobs: Sender<Job>,
}

/// Rows with their indexes, and blobs.
#[derive(Debug, Clone)]
struct Trees {
    db: Db,
    rows: Tree,
    /// Apart from the rows, which are small and read often.
    blobs: Tree,
}

impl Trees {
    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error> {
        let mut blob: Option<Vec<u8>> = None;
        for chunk in self.blobs.scan_prefix(keys::row(kind, id)) {
            blob.get_or_insert_default().extend_from_slice(&chunk?.1);
        }
        Ok(blob.map(Bytes::from))
    }
}

enum Job {
    Write(Vec<Write>, oneshot::Sender<Result<Revision, Error>>),
    Watch(mpsc::UnboundedSender<Commit>),
}

impl From<::sled::Error> for Error {
    fn from(error: ::sled::Error) -> Self {
        Self::Backend(error.to_string())
    }
}

impl SledStore {
    /// Opens the store in a data folder, which is made if it is missing.
    ///
    /// # Errors
    /// A sentence, if the folder is in use, damaged or something else; it is then left as it was.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let (trees, head, layout) = folder::open(data_dir)?;
        let (jobs, waiting) = channel();
        let writer = Writer {
            trees: trees.clone(),
            head,
            watchers: Vec::new(),
        };
        if layout == Layout::Earlier {
            let refuse = |reason: String| OpenError::new(data_dir, reason);
            writer
                .convert()
                .map_err(|error| refuse(format!("cannot be brought to format 2: {error}")))?;
            folder::mark(data_dir)?;
        }
        writer.renew().map_err(|error| {
            OpenError::new(data_dir, format!("cannot be brought up to date: {error}"))
        })?;
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let flushes = writer.run(&waiting);
                tracing::debug!(flushes, "the writer of the store ends");
            })
            .map_err(|error| OpenError::new(data_dir, format!("cannot be used: {error}")))?;
        Ok(Self { trees, jobs })
    }

    fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        let value = self.trees.rows.get(keys::row(kind, id))?;
        value.map(|value| keys::decode(&value)).transpose()
    }
}

impl Store for SledStore {
    fn get(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        self.stored(kind, id)
    }

    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error> {
        self.trees.blob(kind, id)
    }

    fn find(
        &self,
        kind: Kind,
        key: UniqueKey,
        values: &[&serde_json::Value],
    ) -> Result<Option<Stored>, Error> {
        // In this spelling first: an earlier version may have left two rows that differ in theirs alone.
        for index in [
            keys::unique_as_written(kind, key, values),
            keys::unique(kind, key, values),
        ] {
            if let Some(id) = self.trees.rows.get(index)? {
                return self.stored(kind, keys::id(&id)?);
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
        let first = keys::row(kind, from.unwrap_or(Uuid::nil()));
        let last = keys::row(kind, Uuid::max());
        let mut listed = Vec::new();
        for entry in self.trees.rows.range(first..=last) {
            if listed.len() == limit {
                break;
            }
            let stored = keys::decode(&entry?.1)?;
            if filter(&stored.row) {
                listed.push(stored);
            }
        }
        Ok(listed)
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
        let range = (Bound::Included(first), Bound::Included(last));
        let mut listed = Vec::new();
        for entry in self.trees.rows.range(range).take(limit) {
            // A row that went between the two reads was deleted after the list was asked for.
            if let Some(stored) = self.stored(kind, keys::last_id(&entry?.0)?)? {
                listed.push(stored);
            }
        }
        Ok(listed)
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
    Error::Backend("the writer of the store has stopped".into())
}

/// The one thread that writes.
struct Writer {
    trees: Trees,
    head: Head,
    watchers: Vec<mpsc::UnboundedSender<Commit>>,
}

impl Writer {
    /// Serves until the last asker has gone. Returns how often it had something to flush.
    fn run(mut self, jobs: &Receiver<Job>) -> u64 {
        let mut flushes = 0;
        while let Ok(first) = jobs.recv() {
            let mut committed = Vec::new();
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Write(writes, answer) => match self.commit(writes) {
                        Ok(commit) => committed.push((commit, answer)),
                        // Nobody to tell if the asker has gone; nothing was written either.
                        Err(error) => drop(answer.send(Err(error))),
                    },
                    Job::Watch(watcher) => {
                        // What this round wrote so far must reach earlier watchers first, and this
                        // one as rows.
                        flushes += u64::from(self.finish(&mut committed));
                        if let Err(error) = self.add_watcher(watcher) {
                            tracing::error!("a watch of the store cannot begin: {error}");
                        }
                    }
                }
            }
            flushes += u64::from(self.finish(&mut committed));
        }
        flushes
    }

    fn commit(&self, writes: Vec<Write>) -> Result<Commit, Error> {
        let mut stage = Stage::new(&self.trees.rows, &self.trees.blobs)?;
        for write in writes {
            stage.write(write)?;
        }
        let (rows, blobs, commit) = stage.finish();
        (&self.trees.rows, &self.trees.blobs)
            .transaction(|(row_tree, blob_tree)| {
                row_tree.apply_batch(&rows)?;
                blob_tree.apply_batch(&blobs)?;
                Ok::<(), ::sled::transaction::ConflictableTransactionError<Error>>(())
            })
            .map_err(|error| Error::Backend(format!("{error:?}")))?;
        Ok(commit)
    }

    /// Makes what was committed last, then tells watchers and askers. Returns whether there was any.
    fn finish(
        &mut self,
        committed: &mut Vec<(Commit, oneshot::Sender<Result<Revision, Error>>)>,
    ) -> bool {
        if committed.is_empty() {
            return false;
        }
        let newest = committed.last().map_or(0, |(commit, _)| commit.revision);
        let flushed = self.flush(newest);
        for (commit, answer) in committed.drain(..) {
            let revision = commit.revision;
            // The rows are in the store even if they are not on disk, so watchers must know.
            self.watchers
                .retain(|watcher| watcher.send(commit.clone()).is_ok());
            let outcome = match &flushed {
                Ok(_) => Ok(revision),
                Err(error) => Err(Error::Backend(error.to_string())),
            };
            drop(answer.send(outcome));
        }
        true
    }

    /// Brings an earlier layout to the present one.
    fn convert(&self) -> Result<(), Error> {
        let commit = self.commit(convert::writes(&self.trees)?)?;
        self.flush(commit.revision)
    }

    /// Brings rows that an earlier version wrote into the form in which this one stores them.
    fn renew(&self) -> Result<(), Error> {
        let writes = convert::renewals(&self.trees)?;
        if writes.is_empty() {
            return Ok(());
        }
        tracing::info!(rows = writes.len(), "bringing stored rows up to date");
        let commit = self.commit(writes)?;
        self.flush(commit.revision)
    }

    fn flush(&self, newest: Revision) -> Result<(), Error> {
        self.trees.db.flush()?;
        let advanced = self.head.advance(newest);
        advanced.map_err(|error| Error::Backend(error.to_string()))
    }

    fn add_watcher(&mut self, watcher: mpsc::UnboundedSender<Commit>) -> Result<(), Error> {
        let mut changes = Vec::new();
        for kind in Kind::ALL {
            let (first, last) = (keys::row(kind, Uuid::nil()), keys::row(kind, Uuid::max()));
            for entry in self.trees.rows.range(first..=last) {
                let (key, value) = entry?;
                let id = keys::last_id(&key)?;
                let row = keys::decode(&value)?.row;
                changes.push(Change::Put { kind, id, row });
            }
        }
        let revision = keys::revision(&self.trees.rows)?;
        if watcher.send(Commit { revision, changes }).is_ok() {
            self.watchers.push(watcher);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
