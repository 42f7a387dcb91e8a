//! Which configuration was loaded last.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::super::import::Imported;

/// The hash of a configuration without entities. Source: Kong.
const EMPTY: &str = "00000000000000000000000000000000";

/// The file with the hash of the configuration, in the data folder.
const FILE: &str = "configuration.hash";

/// The configuration that was loaded last, by the hash of its text.
#[derive(Debug)]
pub struct Loaded {
    file: PathBuf,
    hash: Mutex<Option<String>>,
    /// What is wrong with the file of the settings, which therefore is not what is in effect.
    wrong: Mutex<Option<String>>,
    /// One load at a time.
    pub(super) turn: Semaphore,
    /// One trial of a load at a time.
    pub(super) dry_run_turn: Semaphore,
}

impl Loaded {
    /// What was loaded before this start.
    pub fn open(data_dir: &Path) -> Self {
        let file = data_dir.join(FILE);
        let hash = std::fs::read_to_string(&file).ok();
        let is_hash = |text: &String| {
            text.len() == EMPTY.len() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        Self {
            file,
            hash: Mutex::new(hash.filter(is_hash)),
            wrong: Mutex::new(None),
            turn: Semaphore::new(1),
            dry_run_turn: Semaphore::new(1),
        }
    }

    /// The hash; before the first load that of a configuration without entities, by which Kong's
    /// ingress controller knows that it has to load its own again.
    pub(in crate::admin) fn hash(&self) -> String {
        let hash = self.hash.lock();
        hash.as_deref().unwrap_or(EMPTY).to_owned()
    }

    /// Whether a configuration with entities was loaded.
    pub(in crate::admin) fn has_entities(&self) -> bool {
        self.hash.lock().as_ref().is_some_and(|hash| hash != EMPTY)
    }

    /// What is wrong with the file of the settings, which therefore is not what is in effect.
    pub(in crate::admin) fn wrong(&self) -> Option<String> {
        self.wrong.lock().clone()
    }

    /// Notes what is wrong with the file of the settings; none if it was loaded.
    pub(crate) fn set_wrong(&self, wrong: Option<String>) {
        *self.wrong.lock() = wrong;
    }

    /// Notes what was loaded, and the hash of its text.
    pub(super) fn set(&self, imported: &Imported, hash: String) {
        let hash = match imported.configuration.entities.is_empty() {
            true => EMPTY.to_owned(),
            false => hash,
        };
        if let Err(error) = std::fs::write(&self.file, &hash) {
            let shown = self.file.display();
            tracing::warn!("cannot write {shown}: {error}; the next start does not know the hash");
        }
        *self.hash.lock() = Some(hash);
    }
}
