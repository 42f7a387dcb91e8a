//! The revision that was last acknowledged, in a file of its own.
//!
//! If the end of sled's log is damaged, sled opens as if that end had never been written, so
//! acknowledged commits would be lost without an error. So the newest revision is written to this
//! file after every flush, and compared at the next start. The log is synced here as well, because
//! sled's own flush does not wait for the disk itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::super::Revision;

/// The file in the data folder.
pub(super) const NAME: &str = "HEAD";

/// Digits of a revision. The width is fixed, so that each revision overwrites the one before.
const WIDTH: usize = 20;

/// The files are kept open, so that a commit does not have to open one.
#[derive(Debug)]
pub(super) struct Head {
    file: File,
    /// sled's log, to be read only.
    log: File,
}

impl Head {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(NAME))?;
        let log = File::open(log(folder))?;
        Ok(Self { file, log })
    }

    /// Syncs what was flushed, so that it survives a loss of power, and writes the revision down.
    pub(super) fn advance(&self, revision: Revision) -> io::Result<()> {
        self.log.sync_data()?;
        self.file
            .write_all_at(format!("{revision:0WIDTH$}\n").as_bytes(), 0)?;
        self.file.sync_data()
    }

    /// Whether the open files are still the files in the folder.
    pub(super) fn is_in_place(&self, folder: &Path) -> io::Result<bool> {
        let is_same = |open: &File, path: &Path| {
            let (open, there) = (open.metadata()?, std::fs::metadata(path));
            match there {
                Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        };
        Ok(is_same(&self.log, &log(folder))? && is_same(&self.file, &folder.join(NAME))?)
    }

    /// sled's log, to be read only.
    pub(super) fn log(&self) -> &File {
        &self.log
    }
}

/// Where sled keeps its log.
pub(super) fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("entities").join("db")
}

/// The revision that was last acknowledged; none if the file is missing or has no revision.
pub(super) fn read(folder: &Path) -> Option<Revision> {
    let text = std::fs::read_to_string(folder.join(NAME)).ok()?;
    text.trim_end().parse().ok()
}
