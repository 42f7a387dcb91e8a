//! Whether a write has any chance, before sled tries it.
//!
//! sled does not come back from an error in the middle of a write: it has to be opened anew. What can be
//! seen beforehand is: then nothing was tried, and the next write may succeed.

use std::io;
use std::path::Path;

use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;

use super::head::Head;

/// Room on the disk that a write leaves, in bytes: enough for sled to be opened again, and for what else
/// the gateway keeps beside it.
const RESERVE: u64 = 2 << 20;

/// Looks whether `bytes` can be written in a data folder.
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

/// As [`check`], of a folder of which nothing is open.
pub(super) fn surroundings(folder: &Path, bytes: u64) -> Result<(), String> {
    // What does not fit into sled's log goes into files of their own here.
    let files = folder.join("entities").join("blobs");
    let files = if files.is_dir() { &*files } else { folder };
    rustix::fs::access(files, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| refused(files, error))?;
    has_room(folder, bytes)?;
    // Without a name, so that it leaves nothing behind. Not every file system has such files.
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
        // What does not tell its room is tried.
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Twice, since sled rewrites what stands beside it.
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

/// An error of the system without what only programmers want to know of it.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    // sled makes a text of an error, from which only this is for people.
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
