//! A copy of the store's files, made before another process gets them. If that process does not
//! take over, the copy is put back, so that this one goes on with what it has acknowledged,
//! whatever the other one has written.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{MARKER, head, preflight};

/// The copy, in the data folder.
const COPY: &str = "handed-over";

/// Says that the copy is being put back: a start after a crash goes on with that.
const BEGUN: &str = "PUT-BACK";

/// What the other process has left of sled's folder, until it is removed.
const DISCARDED: &str = "discarded";

/// sled's folder, in which it has a folder of its own for large values.
const ENTITIES: &str = "entities";
const BLOBS: &str = "blobs";

/// All that a store consists of.
const PARTS: [&str; 3] = [ENTITIES, head::NAME, MARKER];

/// Copies the files of a store that is closed.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(super) fn copy(data: &Path) -> Result<(), String> {
    let copied = discard(data).and_then(|()| {
        let (from, to) = (data.join(ENTITIES), data.join(COPY).join(ENTITIES));
        fs::create_dir_all(to.join(BLOBS))?;
        for file in files(&from)? {
            fs::copy(from.join(&file), to.join(&file))?;
        }
        // sled makes a new file for each large value and never changes one, so that a second name
        // for it is as good as a copy. Not every file system has second names.
        let (from, to) = (from.join(BLOBS), to.join(BLOBS));
        for file in files(&from)? {
            let (from, to) = (from.join(&file), to.join(&file));
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop))?;
        }
        for file in [head::NAME, MARKER] {
            fs::copy(data.join(file), data.join(COPY).join(file))?;
        }
        Ok(())
    });
    let copied = copied.map_err(|error| {
        format!(
            "its files cannot be copied to {}: {}",
            data.join(COPY).display(),
            preflight::plain(&error)
        )
    });
    // The other process needs room to start.
    let copied = copied.and_then(|()| preflight::surroundings(data, 0));
    if copied.is_err() {
        // What there is of the copy may take the room that the store needs. The next copy removes
        // it if this does not.
        let _ = discard(data);
    }
    copied
}

/// Puts the copy back, if there is one.
pub(super) fn put_back(data: &Path) -> io::Result<()> {
    let copy = data.join(COPY);
    if !copy.exists() {
        return Ok(());
    }
    for folder in [
        copy.join(ENTITIES).join(BLOBS),
        copy.join(ENTITIES),
        copy.clone(),
    ] {
        if folder.is_dir() {
            sync(&folder)?;
        }
    }
    File::create(copy.join(BEGUN))?;
    File::open(&copy)?.sync_all()?;
    finish(data)
}

/// Goes on with a [`put_back`] that was begun. Each step can be repeated.
pub(super) fn finish(data: &Path) -> io::Result<()> {
    let copy = data.join(COPY);
    if !copy.join(BEGUN).exists() {
        return Ok(());
    }
    for part in PARTS {
        let (from, to) = (copy.join(part), data.join(part));
        if !from.exists() {
            continue;
        }
        if to.is_dir() {
            let discarded = copy.join(DISCARDED);
            remove(&discarded)?;
            fs::rename(&to, &discarded)?;
        }
        fs::rename(&from, &to)?;
    }
    File::open(data)?.sync_all()?;
    discard(data)
}

/// Removes the copy, which is not needed any longer.
pub(super) fn discard(data: &Path) -> io::Result<()> {
    remove(&data.join(COPY))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names of the files in a folder; none if there is no such folder.
fn files(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.file_name());
        }
    }
    Ok(files)
}

/// Has the files of a folder written to the disk.
fn sync(folder: &Path) -> io::Result<()> {
    for file in files(folder)? {
        File::open(folder.join(file))?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}
