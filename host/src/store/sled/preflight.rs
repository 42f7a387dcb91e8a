//! Checks whether a write can succeed, before sled tries it.
//!
//! sled does not recover from an error in the middle of a write: it has to be opened again. So
//! causes that can be seen in advance are checked first. Then nothing was tried, and the next write
//! may succeed.

use std::io;
use std::path::Path;

use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;

use super::head::Head;

/// Room on the disk that a write must leave, in bytes: enough to open sled again, and for the other
/// files of the gateway in the folder.
const RESERVE: u64 = 2 << 20;

/// Checks whether `bytes` can be written in a data folder.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(super) fn check(folder: &Path, head: &Head, bytes: u64) -> Result<(), String> {
    let unreadable = |error: io::Error| format!("its folder cannot be read: {}", plain(&error));
    if !head.is_in_place(folder).map_err(unreadable)? {
        return Err(format!(
            "the data folder {} was deleted or replaced while the gateway was running; put it back, or \
             restart the gateway",
            folder.display()
        ));
    }
    surroundings(folder, bytes)
}

/// As [`check`], for a folder of which no file is open.
pub(super) fn surroundings(folder: &Path, bytes: u64) -> Result<(), String> {
    // sled writes large values to files of their own in this folder.
    let files = folder.join("entities").join("blobs");
    let files = if files.is_dir() { &*files } else { folder };
    rustix::fs::access(files, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| refused(files, error))?;
    has_room(folder, bytes)?;
    // A file without a name, so that nothing is left behind. Not every file system supports such
    // files.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(files, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(()),
        Err(error) => Err(refused(files, error)),
    }
}

fn refused(folder: &Path, error: Errno) -> String {
    let error = io::Error::from(error);
    format!("{} cannot be written: {}", folder.display(), plain(&error))
}

fn has_room(folder: &Path, bytes: u64) -> Result<(), String> {
    let Ok(disk) = rustix::fs::statvfs(folder) else {
        // If the free room is unknown, the write is tried.
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Twice, because sled also rewrites neighbouring data.
    let needed = bytes.saturating_mul(2).saturating_add(RESERVE);
    if disk.f_blocks > 0 && free < needed {
        return Err(format!(
            "the disk of {} is full: {} KiB are free, and {} KiB are needed",
            folder.display(),
            free >> 10,
            needed >> 10
        ));
    }
    Ok(())
}

/// The text of a system error, without details that are for programmers only.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    // sled formats the error for debugging; only its message is meant for users.
    if text.starts_with("Os {")
        && let Some((_, rest)) = text.split_once("message: \"")
        && let Some((message, _)) = rest.split_once('"')
    {
        return message.to_owned();
    }
    match text.split_once(" (os error") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}
