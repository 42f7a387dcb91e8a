//! The revision that was last acknowledged, in a file of its own.
//!
//! sled takes a log whose end is damaged for one whose end was never written, and opens with what is
//! before it: what was acknowledged would be gone without a word. So the newest revision is written down
//! beside it, after every flush, and compared at the next start. The log is synced here as well, since
//! sled's own flush does not wait for the disk itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::Revision;

/// The file in the data folder.
const NAME: &str = "HEAD";

/// Digits of a revision, so that each overwrites the one before.
const WIDTH: usize = 20;

#[derive(Debug)]
pub(super) struct Head {
    file: File,
    /// sled's log.
    log: File,
}

impl Head {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(NAME))?;
        let log = File::open(folder.join("entities").join("db"))?;
        Ok(Self { file, log })
    }

    /// Makes what was flushed last through a loss of power, and notes that it did.
    pub(super) fn advance(&self, revision: Revision) -> io::Result<()> {
        self.log.sync_data()?;
        self.file
            .write_all_at(format!("{revision:0WIDTH$}\n").as_bytes(), 0)?;
        self.file.sync_data()
    }
}

/// The revision that was last acknowledged; none if the file is missing or says nothing.
pub(super) fn read(folder: &Path) -> Option<Revision> {
    let text = std::fs::read_to_string(folder.join(NAME)).ok()?;
    text.trim_end().parse().ok()
}
