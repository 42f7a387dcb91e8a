//! What outlives a restart: the addresses that were unhealthy.
//!
//! Only what is still true is taken over. What a person has set stays; what checks have found is taken
//! over for as long as an address that is gone would be remembered, and checks go on from there.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::health::{Source, now};
use super::members::REMEMBERED;

/// The unhealthy addresses of all upstreams, as they are kept in a file.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    entries: Mutex<HashMap<Key, Entry>>,
    changed: Notify,
}

/// The name of the upstream and the id of the endpoint.
type Key = (String, u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    upstream: String,
    endpoint: u64,
    /// Since when, in seconds since 1970.
    since: f64,
    by: Source,
}

impl Memory {
    /// Reads what was kept in `folder`. What cannot be read is forgotten: it is no configuration.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("health.json");
        let kept: Vec<Entry> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{} is not right, and is left out: {error}", path.display());
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        let oldest = now() - REMEMBERED.as_secs_f64();
        let entries = kept
            .into_iter()
            .filter(|entry| entry.by == Source::Manual || entry.since >= oldest)
            .map(|entry| ((entry.upstream.clone(), entry.endpoint), entry))
            .collect();
        Self {
            path,
            entries: Mutex::new(entries),
            changed: Notify::new(),
        }
    }

    /// Who made an address unhealthy that has not been seen since the start, if it was.
    pub(super) fn recall(&self, upstream: &str, endpoint: u64) -> Option<Source> {
        let entries = self.entries.lock();
        let entry = entries.get(&(upstream.to_owned(), endpoint))?;
        Some(entry.by)
    }

    /// An address has become unhealthy.
    pub(super) fn keep(&self, upstream: &str, endpoint: u64, by: Source) {
        let entry = Entry {
            upstream: upstream.to_owned(),
            endpoint,
            since: now(),
            by,
        };
        let key = (upstream.to_owned(), endpoint);
        self.entries.lock().insert(key, entry);
        self.changed.notify_one();
    }

    /// An address is healthy again, or nothing is known of it any longer.
    pub(super) fn forget(&self, upstream: &str, endpoint: u64) {
        let key = (upstream.to_owned(), endpoint);
        if self.entries.lock().remove(&key).is_some() {
            self.changed.notify_one();
        }
    }

    /// Writes changes down as they come, for as long as it is polled.
    pub async fn write_down(&self) {
        loop {
            self.changed.notified().await;
            if let Err(error) = self.save() {
                tracing::warn!("cannot write {}: {error}", self.path.display());
            }
            // Many changes come together.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }

    /// Writes down what there is.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self) -> io::Result<()> {
        let entries: Vec<Entry> = self.entries.lock().values().cloned().collect();
        let text = serde_json::to_vec(&entries)?;
        // Whole or not at all.
        let draft = self.path.with_extension("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_recalled_and_what_is_old_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path());
        memory.keep("u", 1, Source::Active);
        memory.keep("u", 2, Source::Manual);
        memory.keep("u", 3, Source::Passive);
        memory.forget("u", 3);
        for entry in memory.entries.lock().values_mut() {
            if entry.endpoint != 1 {
                entry.since -= 3600.0;
            }
        }
        memory.keep("u", 4, Source::Passive);
        memory
            .entries
            .lock()
            .get_mut(&("u".into(), 4))
            .unwrap()
            .since -= 3600.0;
        memory.save().unwrap();
        let memory = Memory::open(folder.path());
        assert_eq!(memory.recall("u", 1), Some(Source::Active));
        assert_eq!(memory.recall("u", 2), Some(Source::Manual));
        assert_eq!(memory.recall("u", 3), None);
        assert_eq!(memory.recall("u", 4), None);
        assert_eq!(memory.recall("v", 1), None);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("health.json"), "{").unwrap();
        assert_eq!(Memory::open(folder.path()).recall("u", 1), None);
    }
}
