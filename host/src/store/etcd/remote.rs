//! The configuration in etcd: read as a whole, and changed by transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::index::RowKey;
use super::client::{Client, malformed};
use super::format::{
    FORMAT, Head, Identity, Key, Keys, RowValue, UnknownFields, json, read_part, read_row,
};
use super::grpc::{CallError, OUT_OF_RANGE};
use super::messages::{
    self, Compare, EtcdRevision, KeyRange, KeyValue, RANGE, Range, RangeResponse, Step, TXN,
    TransactionResponse,
};
use super::seal::Keyring;

/// Keys that are read at a time.
const PAGE: u64 = 500;

/// Most configurations of which it is kept that they were replaced.
const REPLACED: usize = 32;

/// Pause before everything is read again.
const AGAIN: Duration = Duration::from_millis(50);

/// The head with the revision of etcd at which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredHead {
    pub(super) head: Head,
    pub(super) mod_revision: EtcdRevision,
}

/// The identity with the revision of etcd at which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredIdentity {
    pub(super) identity: Identity,
    pub(super) mod_revision: EtcdRevision,
}

/// All that is stored, at one revision of etcd.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) revision: EtcdRevision,
    pub(super) identity: StoredIdentity,
    /// What an operator has written to have another configuration applied than the one before.
    pub(super) consent: String,
    pub(super) head: StoredHead,
    pub(super) rows: BTreeMap<RowKey, RowValue>,
    pub(super) unknown_fields: UnknownFields,
    /// The rows that are not sealed with the first key of the keyring.
    pub(super) unsealed: Vec<RowKey>,
    /// The number of keys that this version does not know.
    pub(super) unknown_keys: usize,
}

/// The outcome of a transaction that was compared with the head.
#[derive(Debug)]
pub(super) enum Committed {
    /// It was made, at this revision of etcd.
    Done(EtcdRevision),
    /// The head is another one; none if it is missing.
    Other(Option<StoredHead>),
}

/// Access to the configuration in etcd.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) client: Arc<Client>,
    pub(super) keys: Keys,
    pub(super) keyring: Keyring,
}

impl Remote {
    /// Reads everything, and makes an empty configuration where there is none and `may_create`.
    /// None if there is none.
    pub(super) async fn list(
        &self,
        may_create: bool,
        patience: Duration,
    ) -> Result<Option<Listed>, CallError> {
        let deadline = Instant::now() + patience;
        loop {
            let is_late = Instant::now() >= deadline;
            match self.try_list(deadline).await {
                Ok(None) if may_create && is_late => {
                    return Err(CallError::Broken(
                        "a part of what makes a configuration is there and a part is missing; \
                         restore etcd, or remove what is below etcd_prefix"
                            .into(),
                    ));
                }
                Ok(None) if may_create => self.create().await?,
                // Between two pages, etcd has compacted the revision.
                Err(CallError::Status(OUT_OF_RANGE, _)) if !is_late => {}
                listed => return listed,
            }
            sleep(AGAIN).await;
        }
    }

    async fn try_list(&self, deadline: Instant) -> Result<Option<Listed>, CallError> {
        let (revision, entries) = self
            .pages(KeyRange::prefix(&self.keys.config()), deadline)
            .await?;
        let (mut identity, mut head) = (None, None);
        let mut rows = BTreeMap::new();
        let mut unknown_fields = UnknownFields::new();
        let (mut consent, mut unknown_keys) = (String::new(), 0);
        let mut unsealed = Vec::new();
        for entry in entries {
            match self.keys.read(&entry.key) {
                Key::Store => {
                    identity = Some(StoredIdentity {
                        identity: read_json(&entry.value)?,
                        mod_revision: entry.mod_revision,
                    });
                }
                Key::Consent => {
                    consent = String::from_utf8_lossy(&entry.value).trim().to_owned();
                }
                Key::Head => head = Some(stored_head(&entry)?),
                Key::Row(key) => {
                    if !self.keyring.is_current(&entry.value) {
                        unsealed.push(key);
                    }
                    let value = self.read_row(key, &entry.value, &mut unknown_fields)?;
                    rows.insert(key, value);
                }
                Key::Unknown => unknown_keys += 1,
            }
        }
        let (Some(identity), Some(head)) = (identity, head) else {
            return Ok(None);
        };
        let format = identity.identity.format;
        if format != FORMAT {
            return Err(CallError::Broken(format!(
                "the configuration is of format {format}, and this version knows format {FORMAT}"
            )));
        }
        if head.head.parts.is_some() {
            let parts = self
                .parts(&head.head, revision, &mut unknown_fields, deadline)
                .await?;
            for (key, value) in parts {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        }
        Ok(Some(Listed {
            revision,
            identity,
            consent,
            head,
            rows,
            unknown_fields,
            unsealed,
            unknown_keys,
        }))
    }

    /// Reads the value of a row. The fields that this version does not know are put into `unknown`.
    pub(super) fn read_row(
        &self,
        key: RowKey,
        stored: &[u8],
        unknown: &mut UnknownFields,
    ) -> Result<RowValue, CallError> {
        let opened = self.keyring.open(&self.keys.row(key), stored);
        let opened = opened.map_err(CallError::Broken)?;
        Ok(read_row(key, &opened, unknown))
    }

    /// The rows of a commit that was written in parts, as they were at a revision at which it was
    /// the head: they may be gone by now, because a later one is.
    pub(super) async fn parts(
        &self,
        head: &Head,
        revision: EtcdRevision,
        unknown: &mut UnknownFields,
        deadline: Instant,
    ) -> Result<BTreeMap<RowKey, Option<RowValue>>, CallError> {
        let range = KeyRange::prefix(&self.keys.parts(head.commit));
        let (_, entries) = self.all_pages(range, revision, false, deadline).await?;
        if Some(entries.len()) != head.parts {
            return Err(CallError::Broken("parts of a commit are missing".into()));
        }
        let mut rows = BTreeMap::new();
        for entry in entries {
            for (key, value) in read_part(&entry.value) {
                let Key::Row(row) = self.keys.read(key.as_bytes()) else {
                    continue;
                };
                let value = value.map(|value| self.read_row(row, value.as_bytes(), unknown));
                rows.insert(row, value.transpose()?);
            }
        }
        Ok(rows)
    }

    /// Reads a range in pages, all at one revision.
    pub(super) async fn pages(
        &self,
        keys: KeyRange,
        deadline: Instant,
    ) -> Result<(EtcdRevision, Vec<KeyValue>), CallError> {
        self.all_pages(keys, 0, false, deadline).await
    }

    /// The keys of a range, without their values.
    pub(super) async fn keys(
        &self,
        keys: KeyRange,
        deadline: Instant,
    ) -> Result<Vec<KeyValue>, CallError> {
        let (_, entries) = self.all_pages(keys, 0, true, deadline).await?;
        Ok(entries)
    }

    /// Reads a range as of a revision; 0 is now.
    async fn all_pages(
        &self,
        keys: KeyRange,
        mut revision: EtcdRevision,
        keys_only: bool,
        deadline: Instant,
    ) -> Result<(EtcdRevision, Vec<KeyValue>), CallError> {
        let mut entries = Vec::new();
        let mut range = keys.clone();
        loop {
            let request = Range {
                keys: &range,
                limit: PAGE,
                revision,
                keys_only,
            };
            let page = self.range(&request, deadline).await?;
            if revision == 0 {
                revision = page.revision;
            }
            entries.extend(page.entries);
            match entries.last() {
                Some(last) if page.more => range = keys.after(&last.key),
                _ => return Ok((revision, entries)),
            }
        }
    }

    async fn range(
        &self,
        request: &Range<'_>,
        deadline: Instant,
    ) -> Result<RangeResponse, CallError> {
        let answer = self
            .client
            .read(RANGE, &request.message(), deadline)
            .await?;
        RangeResponse::read(&answer).map_err(malformed)
    }

    /// One key, as of now.
    pub(super) async fn get(
        &self,
        key: &str,
        deadline: Instant,
    ) -> Result<Option<KeyValue>, CallError> {
        self.get_at(key, 0, deadline).await
    }

    /// One key, as of a revision; 0 is now.
    async fn get_at(
        &self,
        key: &str,
        revision: EtcdRevision,
        deadline: Instant,
    ) -> Result<Option<KeyValue>, CallError> {
        let request = Range {
            keys: &KeyRange::key(key),
            limit: 1,
            revision,
            keys_only: false,
        };
        let range = self.range(&request, deadline).await?;
        Ok(range.entries.into_iter().next())
    }

    /// The present head, if there is one.
    pub(super) async fn head(&self, deadline: Instant) -> Result<Option<StoredHead>, CallError> {
        let entry = self.get(&self.keys.head(), deadline).await?;
        entry.as_ref().map(stored_head).transpose()
    }

    /// Finds a commit among those that have replaced the head after `known`, up to `newest`. Each
    /// has written the head, so the earlier values of that key are all commits, which are read from
    /// the newest on. None if the commit was not made.
    ///
    /// # Errors
    /// Among others if etcd has compacted the commits in between, or has another history.
    pub(super) async fn find_commit(
        &self,
        commit: Uuid,
        known: &StoredHead,
        newest: &StoredHead,
        deadline: Instant,
    ) -> Result<Option<StoredHead>, CallError> {
        let mut found = newest.clone();
        while found.head.commit != commit {
            if found == *known {
                return Ok(None);
            }
            let before = found.mod_revision - 1;
            if before < known.mod_revision || Instant::now() >= deadline {
                return Err(CallError::Broken("its commits do not join up".into()));
            }
            let entry = self.get_at(&self.keys.head(), before, deadline).await?;
            let entry = entry.as_ref().map(stored_head).transpose()?;
            found = entry.ok_or_else(|| CallError::Broken("its head was deleted".into()))?;
        }
        Ok(Some(found))
    }

    /// Makes an empty configuration, unless another gateway does.
    async fn create(&self) -> Result<(), CallError> {
        let identity = Identity {
            format: FORMAT,
            id: Uuid::new_v4(),
            replaces: Vec::new(),
        };
        let head = Head {
            revision: 0,
            after: 0,
            commit: Uuid::new_v4(),
            parts: None,
        };
        let compared = [
            Compare::Missing(self.keys.store()),
            Compare::Missing(self.keys.head()),
        ];
        let steps = [
            Step::Put(self.keys.store(), json(&identity)),
            Step::Put(self.keys.head(), json(&head)),
        ];
        self.transaction(&compared, &steps).await.map(drop)
    }

    /// Uses up the consent that was listed: what etcd has gets a new identity, which says that it
    /// replaces the configuration `given_up`. Does nothing if another gateway has done so.
    pub(super) async fn replace(&self, listed: &Listed, given_up: Uuid) -> Result<(), CallError> {
        let StoredIdentity {
            identity,
            mod_revision,
        } = &listed.identity;
        let mut replaces = identity.replaces.clone();
        replaces.extend([identity.id, given_up]);
        replaces.dedup();
        let oldest = replaces.len().saturating_sub(REPLACED);
        replaces.drain(..oldest);
        let new = Identity {
            format: FORMAT,
            id: Uuid::new_v4(),
            replaces,
        };
        let compared = [Compare::ModRevision(self.keys.store(), *mod_revision)];
        let steps = [
            Step::Put(self.keys.store(), json(&new)),
            Step::Delete(KeyRange::key(&self.keys.consent())),
        ];
        self.transaction(&compared, &steps).await.map(drop)
    }

    /// Does `steps` if the comparisons hold. Otherwise the head is returned.
    pub(super) async fn transaction(
        &self,
        compared: &[Compare],
        steps: &[Step],
    ) -> Result<Committed, CallError> {
        let head = KeyRange::key(&self.keys.head());
        let message = messages::transaction(compared, steps, &head).into_bytes();
        let answer = self.client.call(TXN, &message).await?;
        let answer = TransactionResponse::read(&answer).map_err(malformed)?;
        if answer.succeeded {
            return Ok(Committed::Done(answer.revision));
        }
        let head = answer.read.first().map(stored_head).transpose()?;
        Ok(Committed::Other(head))
    }
}

/// Reads the entry of the head.
pub(super) fn stored_head(entry: &KeyValue) -> Result<StoredHead, CallError> {
    Ok(StoredHead {
        head: read_json(&entry.value)?,
        mod_revision: entry.mod_revision,
    })
}

/// Reads a value that is JSON.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(value)
        .map_err(|error| CallError::Broken(format!("it holds something else: {error}")))
}
