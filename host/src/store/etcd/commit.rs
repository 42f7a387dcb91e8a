//! Commits of this gateway, and what is done if their outcome is not known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::super::Revision;
use super::super::journal::CommitError;
use super::super::operations::Operations;
use super::format::{Entry, Head, Key, json, write_row};
use super::grpc::CallError;
use super::journal::{EtcdJournal, KnownState, WATCH_TIMEOUT};
use super::messages::{Compare, Step};
use super::remote::{Committed, StoredHead, read_json};
use super::{blobs, large};

/// Longest time in which a commit is tried: a change of etcd's leader takes one second or two. The
/// writer gives up after ten.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time in which a commit is looked for that was not answered.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two tries of a commit.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Blobs with their digests.
type NamedBlobs = Vec<(String, Bytes)>;

impl EtcdJournal {
    /// The changes of keys that a commit makes.
    fn entries(
        &self,
        known: &KnownState,
        operations: &Operations,
    ) -> Result<(Vec<Entry>, NamedBlobs), String> {
        let mut blobs = Vec::new();
        let mut entries = Vec::new();
        for (key, record) in &operations.rows {
            let digest = match operations.blobs.get(key) {
                Some(blob) if blob.is_empty() => None,
                Some(blob) => {
                    let digest = blobs::digest(blob);
                    blobs.push((digest.clone(), blob.clone()));
                    Some(digest)
                }
                None => known.blobs.get(key).cloned(),
            };
            let (row, unknown) = (self.remote.keys.row(*key), known.unknown_fields.get(key));
            let value = record.as_ref().map(|record| {
                let value = write_row(record, digest.as_deref(), unknown);
                let value = self.remote.keyring.seal(&row, value)?;
                Ok::<_, String>(String::from_utf8_lossy(&value).into_owned())
            });
            entries.push((row, value.transpose()?));
        }
        Ok((entries, blobs))
    }

    /// Makes a commit in etcd, and returns its head.
    pub(super) fn commit_remotely(
        &mut self,
        expected: Revision,
        operations: &Operations,
    ) -> Result<StoredHead, CommitError> {
        let refused = |error: &CallError| CommitError::Refused(format!("etcd: {error}"));
        let settling = self.settling.take();
        let Some(state) = &self.known else {
            return Err(CommitError::Refused("etcd was not read yet".into()));
        };
        if let Some(reason) = self.feed.down() {
            return Err(CommitError::Refused(reason));
        }
        let mut known = state.head.clone();
        if known.head.revision != expected {
            return Err(CommitError::Conflict);
        }
        if known.head.parts.is_some() {
            if let Some(settling) = settling {
                // Otherwise both would copy all of its rows.
                let settled = async { tokio::time::timeout(COMMIT_TIMEOUT, settling).await };
                drop(self.runtime.block_on(settled));
            }
            let settling = large::settle(&self.remote, &known, COMMIT_TIMEOUT);
            let settled = self
                .runtime
                .block_on(settling)
                .map_err(|error| refused(&error))?;
            match settled {
                Some(settled) if is_settled(&settled, &known) => known = settled,
                settled => return Err(self.overtaken(settled.as_ref())),
            }
        }
        let entries = self.entries(state, operations);
        let (entries, blobs) = entries.map_err(CommitError::Refused)?;
        for (digest, blob) in &blobs {
            let writing = blobs::write(&self.remote, digest, blob, COMMIT_TIMEOUT);
            self.runtime
                .block_on(writing)
                .map_err(|error| refused(&error))?;
        }
        let mut head = Head {
            revision: operations.head,
            after: expected,
            commit: Uuid::new_v4(),
            parts: None,
        };
        let mut steps = match large::fits(&entries) {
            true => large::steps(&entries),
            false => {
                let writing = large::write_parts(&self.remote, &head, &entries);
                let written = self.runtime.block_on(writing);
                let written = written.inspect_err(|_| self.remove_parts(head.commit));
                head.parts = Some(written.map_err(|error| refused(&error))?);
                Vec::new()
            }
        };
        steps.push(Step::Put(self.remote.keys.head(), json(&head)));
        let written = blobs.iter().take(large::STEPS);
        let written =
            written.map(|(digest, _)| Compare::Exists(self.remote.keys.blob_size(digest)));
        let written: Vec<Compare> = written.collect();
        self.transact(&mut known, &head, &written, &steps)
    }

    /// Removes the parts of a commit that was not made. If that fails, they are removed later
    /// ([`large::sweep`]).
    fn remove_parts(&self, commit: Uuid) {
        let remote = Arc::clone(&self.remote);
        self.runtime.spawn(async move {
            if let Err(error) = large::remove(&remote, commit).await {
                tracing::debug!("the parts of a commit are not removed yet: {error}");
            }
        });
    }

    /// Makes the transaction of a commit. If it is not known whether it was made, it is tried
    /// again: it can only be made once, since it replaces the head.
    fn transact(
        &self,
        known: &mut StoredHead,
        head: &Head,
        also: &[Compare],
        steps: &[Step],
    ) -> Result<StoredHead, CommitError> {
        let done = |mod_revision| StoredHead {
            head: head.clone(),
            mod_revision,
        };
        let began = Instant::now();
        let mut in_doubt = false;
        loop {
            let mut compared = also.to_vec();
            compared.push(Compare::ModRevision(
                self.remote.keys.head(),
                known.mod_revision,
            ));
            let transaction = self.remote.transaction(&compared, steps);
            let reason = match self.runtime.block_on(transaction) {
                Ok(Committed::Done(mod_revision)) => return Ok(done(mod_revision)),
                Ok(Committed::Other(Some(other))) if other.head.commit == head.commit => {
                    return Ok(done(other.mod_revision));
                }
                Ok(Committed::Other(Some(other))) if is_settled(&other, known) => {
                    *known = other;
                    continue;
                }
                Ok(Committed::Other(Some(other))) if other == *known => {
                    return Err(CommitError::Refused("etcd has lost a component".into()));
                }
                // Other commits may have been made on this one already.
                Ok(Committed::Other(other)) => {
                    if in_doubt
                        && let Some(made) = self.look_for(head.commit, known, other.as_ref())?
                    {
                        return Ok(made);
                    }
                    if head.parts.is_some() {
                        self.remove_parts(head.commit);
                    }
                    return Err(self.overtaken(other.as_ref()));
                }
                Err(error) if error.is_refusal() && !in_doubt => {
                    if head.parts.is_some() {
                        self.remove_parts(head.commit);
                    }
                    return Err(CommitError::Refused(format!("etcd: {error}")));
                }
                Err(error) => {
                    in_doubt = true;
                    error
                }
            };
            if began.elapsed() + RETRY_PAUSE >= COMMIT_TIMEOUT {
                return Err(CommitError::InDoubt {
                    reason: format!("etcd has not answered: {reason}"),
                    fate: "takes effect if and when etcd has it, which is not known yet",
                });
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    /// Finds out whether a commit that was not answered was made before other commits replaced its
    /// head. The watch may be as silent as the answer was, so etcd is asked.
    fn look_for(
        &self,
        commit: Uuid,
        known: &StoredHead,
        newest: Option<&StoredHead>,
    ) -> Result<Option<StoredHead>, CommitError> {
        let in_doubt = |reason: String| CommitError::InDoubt {
            reason: format!("etcd has not told whether it has the change: {reason}"),
            fate: "may be in effect at the other gateways",
        };
        let Some(newest) = newest else {
            return Err(in_doubt("its head is missing".into()));
        };
        let deadline = tokio::time::Instant::now() + LOOKUP_TIMEOUT;
        let finding = self.remote.find_commit(commit, known, newest, deadline);
        let found = self.runtime.block_on(finding);
        found.map_err(|error| in_doubt(error.to_string()))
    }

    /// Another gateway has replaced the head: waits until the watch has told how.
    fn overtaken(&self, other: Option<&StoredHead>) -> CommitError {
        let reached =
            other.is_some_and(|other| self.feed.wait_for(other.mod_revision, WATCH_TIMEOUT));
        if !reached {
            self.feed.lose("the watch has not told of a commit");
        }
        CommitError::Conflict
    }

    /// Where a commit is among those that the watch has received.
    pub(super) fn revision_of(&self, head: &Head) -> Option<i64> {
        self.feed.find(|batch| {
            let mut events = batch.events.iter();
            let is_it = events.any(|event| {
                let value = event.value.as_deref().unwrap_or_default();
                self.remote.keys.read(&event.key) == Key::Head
                    && read_json::<Head>(value).is_ok_and(|found| found.commit == head.commit)
            });
            is_it.then_some(batch.revision)
        })
    }
}

/// Whether a head is another one only in that the rows of its commit are at their keys now.
fn is_settled(head: &StoredHead, before: &StoredHead) -> bool {
    head.head.commit == before.head.commit && head.mod_revision != before.mod_revision
}
