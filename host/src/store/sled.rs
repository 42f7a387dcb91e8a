//! The journal on sled, in a folder of its own.
//!
//! A commit is one transaction and one flush, so an acknowledged commit is on disk. A transaction
//! of sled over several trees is recovered whole or not at all: it pins the log while it writes and
//! seals what it wrote as one batch.
//!
//! After an error sled is unusable (`files.rs`). The journal then replaces sled's file, opens sled
//! again, and restores what was acknowledged (`journal.rs`).

mod blobs;
mod convert;
mod files;
mod folder;
mod format;
mod head;
mod journal;
mod load;
mod preflight;

use std::path::Path;

use super::journal::OpenError;
use super::journaled::JournaledStore;
use super::schema::Schema;
use journal::SledJournal;

/// Opens the store in a data folder, and creates the folder if it is missing.
///
/// # Errors
/// A sentence, if the folder cannot be written, is in use, is damaged, or holds something else. The
/// folder is then unchanged.
pub fn open(data_dir: &Path) -> Result<JournaledStore, OpenError> {
    JournaledStore::start(SledJournal::new(data_dir), Schema::DECLARED)
}

#[cfg(test)]
mod tests;
