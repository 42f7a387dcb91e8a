//! What the commits of other gateways change, as the watch tells it.

use super::super::Revision;
use super::super::operations::Operations;
use super::super::rows::Rows;
use super::feed::Batch;
use super::format::{Head, Key};
use super::journal::{Changed, EtcdJournal, LONG, READ_TIMEOUT, WATCH_TIMEOUT};
use super::remote::{StoredHead, read_json};

impl EtcdJournal {
    /// What other gateways have changed since `rows`; none if nothing.
    ///
    /// # Errors
    /// Why that is not known, as the end of a sentence.
    pub(super) fn try_follow(&mut self, rows: &Rows) -> Result<Option<Operations>, String> {
        if self.known.is_none() || self.feed.is_lost() {
            return self.synchronize(rows, READ_TIMEOUT).map(Some);
        }
        if let Some(reason) = self.feed.down() {
            return Err(reason);
        }
        if self.feed.take_unverified() {
            let is_same_history = self.is_same_history();
            if !is_same_history.inspect_err(|_| self.feed.doubt())? {
                return self.synchronize(rows, READ_TIMEOUT).map(Some);
            }
        }
        let batches = self.feed.take();
        match self.join(batches) {
            Some((_, head)) if head == rows.head() => Ok(None),
            Some((changed, head)) => self.copy_changes(rows, changed, head).map(Some),
            None => self.synchronize(rows, READ_TIMEOUT).map(Some),
        }
    }

    /// Whether what etcd has continues what this gateway has. A watch does not tell: if etcd was
    /// restored from an older snapshot and has reached the revision of the watch again meanwhile,
    /// it goes on as if nothing had happened.
    pub(super) fn is_same_history(&self) -> Result<bool, String> {
        let Some(known) = &self.known else {
            return Ok(false);
        };
        let deadline = tokio::time::Instant::now() + READ_TIMEOUT;
        let head = self.runtime.block_on(self.remote.head(deadline));
        let head = head.map_err(|error| format!("etcd cannot be read: {error}"))?;
        Ok(head.is_some_and(|found| {
            found.head.commit == known.head.head.commit
                || (self.feed.wait_for(found.mod_revision, WATCH_TIMEOUT)
                    && self.revision_of(&found.head).is_some())
        }))
    }

    /// Joins what the watch has received. None if it does not continue what is known, for the
    /// reason that is logged.
    fn join(&mut self, batches: Vec<Batch>) -> Option<(Changed, Revision)> {
        let state = self.known.as_mut()?;
        let mut changed = Changed::new();
        let lost = |reason: &str| {
            tracing::warn!("all of etcd is read again: {reason}");
            None
        };
        for batch in batches {
            let mut head = None;
            let mut rows = Vec::new();
            for event in batch.events {
                match self.remote.keys.read(&event.key) {
                    Key::Head => match event.value.as_deref().map(read_json::<Head>) {
                        Some(Ok(new)) => head = Some(new),
                        _ => return lost("its head was deleted or replaced"),
                    },
                    Key::Store => return lost("its identity was replaced"),
                    Key::Row(key) => rows.push((key, event.value)),
                    Key::Consent | Key::Unknown => {}
                }
            }
            // Rows without a head are copied from the parts of a commit that is known already.
            let Some(head) = head else {
                continue;
            };
            let known = &mut state.head;
            if head.revision == known.head.revision && head.commit == known.head.commit {
                *known = StoredHead {
                    head,
                    mod_revision: batch.revision,
                };
                continue;
            }
            if head.revision <= known.head.revision && batch.revision <= known.mod_revision {
                continue;
            }
            if head.after != known.head.revision {
                return lost("its commits do not join up");
            }
            if head.parts.is_some() {
                let deadline = tokio::time::Instant::now() + LONG;
                let unknown = &mut state.unknown_fields;
                let parts = self.remote.parts(&head, batch.revision, unknown, deadline);
                match self.runtime.block_on(parts) {
                    Ok(parts) => changed.extend(parts),
                    // Etcd may have compacted the revision.
                    Err(error) => return lost(&error.to_string()),
                }
            } else {
                for (key, value) in rows {
                    let unknown = &mut state.unknown_fields;
                    let value = match value {
                        Some(value) => match self.remote.read_row(key, &value, unknown) {
                            Ok(value) => Some(value),
                            Err(error) => return lost(&error.to_string()),
                        },
                        None => {
                            unknown.remove(&key);
                            None
                        }
                    };
                    changed.insert(key, value);
                }
            }
            *known = StoredHead {
                head,
                mod_revision: batch.revision,
            };
        }
        for (key, value) in &changed {
            match value.as_ref().and_then(|value| value.blob.clone()) {
                Some(digest) => state.blobs.insert(*key, digest),
                None => state.blobs.remove(key),
            };
        }
        Some((changed, state.head.head.revision))
    }
}
