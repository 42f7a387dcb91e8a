//! The journal in etcd: what is known of it, and what it does for the store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::index::RowKey;
use super::super::journal::{BlobError, CommitError, Journal, JournalHandle, Notify, OpenError};
use super::super::operations::Operations;
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::super::{Revision, rules, upgrade};
use super::client::Client;
use super::copy::Copy;
use super::feed::Feed;
use super::format::{Keys, RowValue, UnknownFields};
use super::messages::{KeyRange, PUT, put};
use super::remote::{Remote, StoredHead};
use super::seal::Keyring;
use super::{blobs, large, watch};
use crate::config::Etcd;
use crate::dns::Resolver;
use crate::entity::Kind;

/// Longest wait for etcd at the start of a gateway that has no copy.
const FIRST_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest wait for etcd at the start of a gateway with a copy, and at each later attempt.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for the watch to tell what is known to have happened.
pub(super) const WATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest time for a blob to be read or written, and for a large commit to be settled.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// Time after which the head is read and compared, although the watch says nothing.
const VERIFY: Duration = Duration::from_secs(60);

/// The journal.
#[derive(Debug)]
pub(super) struct EtcdJournal {
    pub(super) runtime: Runtime,
    pub(super) remote: Arc<Remote>,
    pub(super) feed: Arc<Feed>,
    copy: Copy,
    /// None while it is not known what etcd has.
    pub(super) known: Option<KnownState>,
    /// What was found when the journal recovered, for the next call that follows.
    found: Option<Operations>,
    /// When the head was last read.
    verified: Instant,
    /// Whether etcd has refused a commit, or has not answered it, and was not written since.
    has_refused: bool,
    /// The task that settles the last large commit of this gateway.
    pub(super) settling: Option<JoinHandle<()>>,
}

/// What is known of etcd.
#[derive(Debug)]
pub(super) struct KnownState {
    pub(super) head: StoredHead,
    /// The digests of the blobs of rows.
    pub(super) blobs: BTreeMap<RowKey, String>,
    pub(super) unknown_fields: UnknownFields,
    /// The rows that are not sealed as this gateway would seal them.
    unsealed: Vec<RowKey>,
    watching: JoinHandle<()>,
}

impl Drop for KnownState {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Rows as another gateway has written them, or none for those that it has deleted.
pub(super) type Changed = BTreeMap<RowKey, Option<RowValue>>;

impl EtcdJournal {
    /// # Errors
    /// The settings cannot be used.
    pub(super) fn new(
        settings: &Etcd,
        resolver: &Arc<Resolver>,
        keyring: Keyring,
        data_dir: &Path,
    ) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-etcd")
            .enable_all()
            .build();
        let runtime = runtime
            .map_err(|error| OpenError::Unusable(format!("cannot start a thread: {error}")))?;
        let remote = Remote {
            client: Arc::new(Client::new(settings, resolver)?),
            keys: Keys::new(&settings.prefix),
            keyring,
        };
        Ok(Self {
            runtime,
            remote: Arc::new(remote),
            feed: Arc::default(),
            copy: Copy::new(data_dir),
            known: None,
            found: None,
            verified: Instant::now(),
            has_refused: false,
            settling: None,
        })
    }

    /// Reads all that etcd has, watches it from there on, and returns what differs from `rows`.
    ///
    /// # Errors
    /// Why that is not possible, or not done, as the end of a sentence.
    pub(super) fn synchronize(
        &mut self,
        rows: &Rows,
        patience: Duration,
    ) -> Result<Operations, String> {
        self.known = None;
        let listing = self.remote.list(self.copy.is_new(), patience);
        let listed = self.runtime.block_on(listing);
        let listed = listed.map_err(|error| format!("etcd cannot be read: {error}"))?;
        let listed = listed.ok_or(
            "etcd has no configuration below etcd_prefix any longer: what this gateway has stays in \
             effect; restore etcd, or write the configuration to a file with `pointsman config export`, \
             start one gateway with a new data_dir, give the consent that the others then ask for, and \
             import the file",
        )?;
        if let Some(doubt) = self.copy.doubt(&listed, rows) {
            if listed.consent != doubt.consent {
                return Err(format!(
                    "{}: what this gateway has stays in effect; to have what is in etcd applied, \
                     write {} to the key {}",
                    doubt.reason,
                    doubt.consent,
                    self.remote.keys.consent()
                ));
            }
            tracing::warn!(
                "what etcd has is applied, as its consent says: {}",
                doubt.reason
            );
            let replacing = self.remote.replace(&listed, doubt.copied);
            let replaced = self.runtime.block_on(replacing);
            replaced.map_err(|error| format!("the consent cannot be used up: {error}"))?;
            // The new identity is read, whichever gateway has made it.
            return self.synchronize(rows, patience);
        }
        if listed.unknown_keys > 0 {
            tracing::warn!(
                keys = listed.unknown_keys,
                "etcd has keys of a later version of Pointsman; this version leaves them as they are"
            );
        }
        for ((kind, id), fields) in &listed.unknown_fields {
            tracing::warn!(
                entity = kind.name(),
                %id,
                "fields of a later version have no effect here, and are kept: {}",
                fields.keys().cloned().collect::<Vec<_>>().join(", ")
            );
        }
        self.feed.restart(listed.revision);
        let keys = KeyRange::prefix(&self.remote.keys.config());
        let (client, feed) = (Arc::clone(&self.remote.client), Arc::clone(&self.feed));
        let watching = watch::run(client, feed, keys, listed.revision + 1);
        let gone = rows.records.keys();
        let gone = gone.filter(|key| !listed.rows.contains_key(key));
        let mut changed: Changed = gone.map(|key| (*key, None)).collect();
        let set_aside = rows.all_set_aside();
        let is_set_aside = |key: RowKey| set_aside.iter().any(|row| (row.kind, row.id) == key);
        let mut digests = BTreeMap::new();
        for (key, value) in listed.rows {
            digests.extend(value.blob.clone().map(|digest| (key, digest)));
            let record = rows.records.get(&key);
            if record.is_none_or(|record| **record != *value.record) || is_set_aside(key) {
                changed.insert(key, Some(value));
            }
        }
        let (head, id) = (listed.head.head.revision, listed.identity.identity.id);
        let known = KnownState {
            head: listed.head,
            blobs: digests,
            unknown_fields: listed.unknown_fields,
            unsealed: listed.unsealed,
            watching: self.runtime.spawn(watching),
        };
        self.known = Some(known);
        self.verified = Instant::now();
        let operations = self.copy_changes(rows, changed, head)?;
        // Nothing may fail from here on: the copy has rows now that take effect only if they are
        // returned.
        self.copy.note_origin(id);
        let remote = Arc::clone(&self.remote);
        self.runtime.spawn(async move { sweep(&remote).await });
        Ok(operations)
    }

    /// Converts rows of earlier versions to the form of this version, for all gateways.
    fn renew(&mut self, rows: &mut Rows) {
        if let Err(reason) = upgrade::renew(self, rows) {
            // Another gateway may have done so at the same time. If not, the next start does.
            tracing::info!("rows stay as an earlier version wrote them: {reason}");
            self.known = None;
        }
    }

    /// Seals the rows with the first key of the keyring that are not, for all gateways.
    fn seal_again(&mut self, rows: &mut Rows) {
        let unsealed = self.known.as_mut().map(|known| &mut known.unsealed);
        let unsealed = unsealed.map(std::mem::take).unwrap_or_default();
        let unsealed = unsealed.into_iter().filter_map(|key| {
            let record = rows.records.get(&key)?;
            Some((key, Some(Arc::clone(record))))
        });
        let operations = Operations {
            rows: unsealed.collect(),
            head: rows.head() + 1,
            ..Operations::default()
        };
        let count = operations.rows.len();
        if count == 0 {
            return;
        }
        match self.commit(rows.head(), &operations) {
            Ok(()) => {
                rows.apply(&operations);
                tracing::info!(rows = count, "sealed with the first key of keyring_file");
            }
            Err(error) => {
                // As in `renew`.
                tracing::info!("rows stay sealed as they were: {error:?}");
                self.known = None;
            }
        }
    }

    /// Makes operations of what other gateways have changed, and puts them into the copy. After an
    /// error, what they have changed is lost, so everything has to be read.
    pub(super) fn copy_changes(
        &mut self,
        rows: &Rows,
        changed: Changed,
        head: Revision,
    ) -> Result<Operations, String> {
        self.try_copy_changes(rows, changed, head)
            .inspect_err(|_| self.known = None)
    }

    fn try_copy_changes(
        &mut self,
        rows: &Rows,
        changed: Changed,
        head: Revision,
    ) -> Result<Operations, String> {
        let mut blobs: BTreeMap<RowKey, Bytes> = BTreeMap::new();
        let mut records = BTreeMap::new();
        for (key, value) in changed {
            let digest = value.as_ref().and_then(|value| value.blob.as_deref());
            match digest {
                Some(digest) => {
                    let present = self.copy.blob(key);
                    if present.is_none_or(|present| blobs::digest(&present) != digest)
                        && let Some(blob) = self.fetch(key, digest)?
                    {
                        blobs.insert(key, blob);
                    }
                }
                None if rows.records.contains_key(&key) => drop(blobs.insert(key, Bytes::new())),
                None => {}
            }
            records.insert(key, value.map(|value| value.record.into()));
        }
        let mut operations = rules::follow(rows, records, head);
        operations.blobs = blobs;
        self.copy.commit(&operations)?;
        Ok(operations)
    }

    /// Reads a blob. None if etcd does not have it: the row is then of no use here.
    fn fetch(&self, (kind, id): RowKey, digest: &str) -> Result<Option<Bytes>, String> {
        let reading = blobs::read(&self.remote, digest, LONG);
        let blob = self.runtime.block_on(reading);
        let blob = blob.map_err(|error| format!("a component cannot be read: {error}"))?;
        if blob.is_none() {
            tracing::error!(
                entity = kind.name(),
                %id,
                "etcd does not have the component {digest}: upload it again"
            );
        }
        Ok(blob)
    }

    /// After a commit that was refused or not answered, finds out whether etcd can be written. The
    /// watch may not have noticed yet that it cannot.
    fn prove(&mut self) -> Result<(), String> {
        if !self.has_refused {
            return Ok(());
        }
        let message = put(&self.remote.keys.probe(), b"");
        let written = self.remote.client.call(PUT, message.as_bytes());
        let written = self.runtime.block_on(written);
        written.map_err(|error| format!("etcd cannot be written: {error}"))?;
        self.has_refused = false;
        Ok(())
    }

    /// Asks at most once a minute whether the watch has told of all commits.
    fn verify(&mut self) {
        if self.verified.elapsed() < VERIFY {
            return;
        }
        self.verified = Instant::now();
        if self.known.is_some() && self.is_same_history() == Ok(false) {
            self.feed.lose("the watch has not told of a commit");
        }
    }
}

/// Removes what commits that were not made have left in etcd.
async fn sweep(remote: &Remote) {
    if let Err(error) = large::sweep(remote, LONG).await {
        tracing::debug!("what is left of commits that were not made stays: {error}");
    }
}

impl Journal for EtcdJournal {
    fn handle(&self) -> Arc<dyn JournalHandle> {
        Arc::new(Handle(self.copy.handle()))
    }

    fn load(&mut self, schema: Schema) -> Result<Rows, OpenError> {
        let mut rows = self.copy.load(schema)?;
        let is_new = self.copy.is_new();
        let patience = match is_new {
            true => FIRST_TIMEOUT,
            false => READ_TIMEOUT,
        };
        match self.synchronize(&rows, patience) {
            Ok(operations) => {
                rows.follow(&operations);
                self.renew(&mut rows);
                self.seal_again(&mut rows);
            }
            Err(reason) if is_new => {
                return Err(OpenError::Unusable(format!(
                    "{reason}; without it, this gateway has no configuration yet"
                )));
            }
            Err(reason) => tracing::warn!(
                revision = rows.head(),
                "starting with the copy of the configuration in the data folder: {reason}"
            ),
        }
        Ok(rows)
    }

    fn commit(&mut self, expected: Revision, operations: &Operations) -> Result<(), CommitError> {
        self.copy.check().map_err(CommitError::Refused)?;
        let head = self.commit_remotely(expected, operations);
        let head = head.inspect_err(|error| {
            self.has_refused |= !matches!(error, CommitError::Conflict);
        })?;
        if head.head.parts.is_some() {
            let (remote, head) = (Arc::clone(&self.remote), head.clone());
            self.settling = Some(self.runtime.spawn(async move {
                if let Err(error) = large::settle(&remote, &head, LONG).await {
                    tracing::debug!("a large commit is not settled yet: {error}");
                }
                tokio::spawn(async move { sweep(&remote).await });
            }));
        }
        if let Some(known) = &mut self.known {
            known.head = head;
            for (key, record) in &operations.rows {
                if record.is_none() {
                    known.unknown_fields.remove(key);
                }
            }
            for (key, blob) in &operations.blobs {
                match blob.is_empty() {
                    true => known.blobs.remove(key),
                    false => known.blobs.insert(*key, blobs::digest(blob)),
                };
            }
        }
        self.copy.commit(operations).map_err(|reason| {
            self.known = None;
            CommitError::InDoubt {
                reason,
                fate: "is in effect at the other gateways; it will be here once the copy can be written",
            }
        })
    }

    fn check(&mut self) -> Result<(), String> {
        self.copy.check()?;
        if let Some(reason) = self.feed.down() {
            return Err(reason);
        }
        self.verify();
        self.prove()
    }

    fn recover(&mut self, acknowledged: &Rows) -> Result<Revision, String> {
        self.copy.recover(acknowledged)?;
        self.prove()?;
        // Last, because what it finds is in the copy from then on, and in effect only if this
        // succeeds.
        if self.known.is_none() || self.feed.is_lost() {
            self.found = Some(self.synchronize(acknowledged, READ_TIMEOUT)?);
        } else if let Some(reason) = self.feed.down() {
            return Err(reason);
        }
        Ok(acknowledged.head())
    }

    fn release(&mut self) -> Result<(), String> {
        self.known = None;
        self.copy.release()
    }

    fn watch(&mut self, notify: Notify) {
        self.feed.notify_by(notify);
    }

    fn follow(&mut self, rows: &Rows) -> Result<Vec<Operations>, String> {
        if let Some(found) = self.found.take() {
            return Ok(vec![found]);
        }
        Ok(self.try_follow(rows)?.into_iter().collect())
    }
}

/// The blobs are in the copy.
struct Handle(Arc<dyn JournalHandle>);

impl JournalHandle for Handle {
    fn medium(&self) -> &'static str {
        "etcd"
    }

    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, BlobError> {
        self.0.blob(kind, id)
    }

    fn nudge(&self) {
        self.0.nudge();
    }
}
