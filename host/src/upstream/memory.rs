//! The addresses that were unhealthy, kept across restarts.
//!
//! Only what still holds is restored. What an operator has set stays. What checks have found is
//! restored for as long as a removed address is remembered, and checks go on from there. That time
//! begins when the address was last known to be unhealthy, not when it failed: an outage may be
//! long.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::unix_millis;
use crate::endpoint::health::Source;

/// How long the health of an address that was removed is remembered. Source: Kong.
pub(super) const REMEMBERED: Duration = Duration::from_secs(300);

/// Longest time between two writes while an address is unhealthy. If the process is killed, its
/// entries look older than they are by this much at most.
const STAMP: Duration = Duration::from_secs(60);

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
    /// When the address was last known to be unhealthy, in seconds since 1970.
    #[serde(alias = "since")]
    seen: f64,
    by: Source,
    /// Whether the address was removed or its upstream deleted: then an operator's setting expires
    /// as well.
    #[serde(default)]
    gone: bool,
    /// Whether an upstream has the address now, so that the entry is always up to date.
    #[serde(skip)]
    held: bool,
}

impl Entry {
    fn key(&self) -> Key {
        (self.upstream.clone(), self.endpoint)
    }

    /// Whether it still holds.
    fn lasts(&self, now: f64) -> bool {
        let manual = self.by == Source::Manual && !self.gone;
        self.held || manual || now - self.seen < REMEMBERED.as_secs_f64()
    }
}

impl Memory {
    /// Reads what was kept in `folder`. What cannot be read is dropped, each entry by itself, since
    /// it is not configuration.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("health.json");
        let kept: Vec<serde_json::Value> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{} is invalid and is ignored: {error}", path.display());
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        let now = unix_millis();
        let read = |entry| match serde_json::from_value::<Entry>(entry) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::warn!("{}: an entry is left out: {error}", path.display());
                None
            }
        };
        let kept = kept.into_iter().filter_map(read);
        let kept: Vec<Entry> = kept.filter(|entry| entry.lasts(now)).collect();
        Self {
            path,
            entries: Mutex::new(kept.into_iter().map(|e| (e.key(), e)).collect()),
            changed: Notify::new(),
        }
    }

    /// The source that made an address unhealthy, if an entry still holds when the address joins an
    /// upstream.
    pub(super) fn recall(&self, upstream: &str, endpoint: u64) -> Option<Source> {
        let key = (upstream.to_owned(), endpoint);
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&key)?;
        if !entry.lasts(unix_millis()) {
            entries.remove(&key);
            return None;
        }
        entry.gone = false;
        entry.held = true;
        Some(entry.by)
    }

    /// Records that an address is unhealthy.
    pub(super) fn keep(&self, upstream: &str, endpoint: u64, by: Source) {
        let entry = Entry {
            upstream: upstream.to_owned(),
            endpoint,
            seen: unix_millis(),
            by,
            gone: false,
            held: true,
        };
        self.entries.lock().insert(entry.key(), entry);
        self.changed.notify_one();
    }

    /// Records that an address was removed or its upstream deleted: its entry is remembered for a
    /// while.
    pub(super) fn release(&self, upstream: &str, endpoint: u64) {
        let key = (upstream.to_owned(), endpoint);
        if let Some(entry) = self.entries.lock().get_mut(&key) {
            entry.seen = unix_millis();
            entry.gone = true;
            entry.held = false;
            self.changed.notify_one();
        }
    }

    /// Drops the entry of an address that is healthy again, or that nothing is known of any longer.
    pub(super) fn forget(&self, upstream: &str, endpoint: u64) {
        let key = (upstream.to_owned(), endpoint);
        if self.entries.lock().remove(&key).is_some() {
            self.changed.notify_one();
        }
    }

    /// Moves the entries of an upstream to its new name.
    pub(super) fn rename(&self, from: &str, to: &str) {
        let mut entries = self.entries.lock();
        // Entries of an earlier upstream of that name say nothing about this one.
        entries.retain(|(upstream, _), _| upstream != to);
        let all = std::mem::take(&mut *entries).into_values();
        *entries = all
            .map(|mut entry| {
                if entry.upstream == from {
                    entry.upstream = to.to_owned();
                }
                (entry.key(), entry)
            })
            .collect();
        self.changed.notify_one();
    }

    /// Writes changes to the file as they come, and the current time now and then if nothing has
    /// changed, for as long as it is polled.
    pub async fn write_down(&self) {
        loop {
            let change = tokio::time::timeout(STAMP, self.changed.notified()).await;
            if change.is_err() && self.entries.lock().is_empty() {
                continue;
            }
            if let Err(error) = self.save() {
                tracing::warn!("cannot write {}: {error}", self.path.display());
            }
            // Changes come in bursts: one write serves many.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Writes the entries to the file, as of now.
    ///
    /// # Errors
    /// The system's error.
    pub fn save(&self) -> io::Result<()> {
        let now = unix_millis();
        let entries: Vec<Entry> = {
            let mut entries = self.entries.lock();
            entries.retain(|_, entry| entry.lasts(now));
            for entry in entries.values_mut().filter(|entry| entry.held) {
                entry.seen = now;
            }
            entries.values().cloned().collect()
        };
        let text = serde_json::to_vec(&entries)?;
        // The file is replaced whole or not at all.
        let draft = self.path.with_extension("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    const HOUR: f64 = 3600.0;

    /// Makes what is known of an address look an hour older.
    fn age(memory: &Memory, endpoint: u64) {
        let mut entries = memory.entries.lock();
        entries.get_mut(&("u".into(), endpoint)).unwrap().seen -= HOUR;
    }

    #[test]
    fn unhealthy_addresses_are_restored_and_healthy_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path());
        memory.keep("u", 1, Source::Active);
        memory.keep("u", 2, Source::Manual);
        memory.keep("u", 3, Source::Passive);
        memory.forget("u", 3);
        memory.save().unwrap();
        let memory = Memory::open(folder.path());
        assert_eq!(memory.recall("u", 1), Some(Source::Active));
        assert_eq!(memory.recall("u", 2), Some(Source::Manual));
        assert_eq!(memory.recall("u", 3), None);
        assert_eq!(memory.recall("v", 1), None);
    }

    #[test]
    fn a_long_outage_is_restored_but_not_after_a_long_stop_of_the_gateway() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path());
        memory.keep("u", 1, Source::Passive);
        memory.keep("u", 2, Source::Manual);
        // They failed an hour ago and are still unhealthy.
        age(&memory, 1);
        age(&memory, 2);
        memory.save().unwrap();
        let memory = Memory::open(folder.path());
        assert_eq!(memory.recall("u", 1), Some(Source::Passive));
        // The gateway was stopped for an hour.
        memory.save().unwrap();
        let text = std::fs::read_to_string(&memory.path).unwrap();
        let mut rows: Vec<Entry> = serde_json::from_str(&text).unwrap();
        rows.iter_mut().for_each(|entry| entry.seen -= HOUR);
        std::fs::write(&memory.path, serde_json::to_vec(&rows).unwrap()).unwrap();
        let memory = Memory::open(folder.path());
        assert_eq!(memory.recall("u", 1), None);
        assert_eq!(memory.recall("u", 2), Some(Source::Manual));
    }

    #[test]
    fn a_removed_address_is_remembered_for_a_limited_time() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path());
        for endpoint in 1..=3 {
            memory.keep("u", endpoint, Source::Manual);
            memory.release("u", endpoint);
        }
        age(&memory, 2);
        age(&memory, 3);
        assert_eq!(memory.recall("u", 1), Some(Source::Manual));
        assert_eq!(memory.recall("u", 2), None);
        memory.save().unwrap();
        assert_eq!(memory.entries.lock().len(), 1);
    }

    #[test]
    fn a_rename_keeps_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path());
        memory.keep("u", 1, Source::Active);
        memory.keep("v", 2, Source::Active);
        memory.rename("u", "v");
        assert_eq!(memory.recall("v", 1), Some(Source::Active));
        assert_eq!(memory.recall("u", 1), None);
        assert_eq!(memory.recall("v", 2), None);
    }

    #[test]
    fn an_unreadable_entry_costs_no_other_entry() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path());
        memory.keep("u", 1, Source::Active);
        memory.save().unwrap();
        let text = std::fs::read_to_string(&memory.path).unwrap();
        let spoilt = text.replacen('[', r#"[{"upstream": 5}, 7, "#, 1);
        std::fs::write(&memory.path, spoilt).unwrap();
        let memory = Memory::open(folder.path());
        assert_eq!(memory.recall("u", 1), Some(Source::Active));
    }

    #[test]
    fn an_invalid_file_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("health.json"), "{").unwrap();
        assert_eq!(Memory::open(folder.path()).recall("u", 1), None);
    }
}
