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
mod hand_over;
mod head;
mod journal;
mod load;
mod preflight;

use std::path::Path;

use super::journal::OpenError;
use super::journaled::JournaledStore;
use super::lock::FolderLock;
use super::schema::Schema;
pub(super) use journal::SledJournal;

/// The file that marks a data folder and names the layout of its content.
const MARKER: &str = "FORMAT";

/// Opens the store in a data folder, and creates the folder if it is missing. The caller has to
/// have the folder's lock.
///
/// # Errors
/// A sentence, if the folder cannot be written, is in use, is damaged, or holds something else. The
/// folder is then unchanged.
pub fn open(data_dir: &Path, _lock: &FolderLock) -> Result<JournaledStore, OpenError> {
    JournaledStore::start(SledJournal::new(data_dir), Schema::DECLARED)
}

/// Puts a store back, if a crash has interrupted that. Only for the process that has the lock of
/// the data folder, and has not got it from another one, which may be putting it back.
pub(super) fn finish_hand_over(folder: &Path) -> Result<(), OpenError> {
    hand_over::finish(folder).map_err(|error| folder::unusable(folder, &preflight::plain(&error)))
}

/// Removes the copy that was made for a hand-over, if there is one.
pub(super) fn end_hand_over(data_dir: &Path) {
    if let Err(error) = hand_over::discard(data_dir) {
        tracing::warn!("the copy of the store that is no longer needed stays: {error}");
    }
}

#[cfg(test)]
mod tests;
