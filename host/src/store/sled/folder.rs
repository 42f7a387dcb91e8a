//! The data folder: whether it is Pointsman's, complete, and not in use.

use std::any::Any;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::super::Error;
use super::super::journal::OpenError;
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::files::{Open, Trees};
use super::{MARKER, format, head, load, preflight};

/// The marker while it is written.
const UNFINISHED: &str = "FORMAT.tmp";

/// The layout of this version.
const FORMAT: &str = "pointsman data, format 2\n";

/// The layout before it, which [`super::convert`] converts to this one.
const EARLIER: &str = "pointsman data, format 1\n";

/// Stands in place of [`FORMAT`] until the first start is complete: until then the content may be
/// incomplete.
const NEW: &str = "pointsman data, format 2, not yet set up\n";

/// As [`NEW`], for the earlier layout. Nothing was stored there yet.
const EARLIER_NEW: &str = "pointsman data, format 1, not yet set up\n";

/// The layout of the content of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// None: the folder is not set up yet.
    New,
    /// The layout of an earlier version.
    Earlier,
    /// The layout of this version.
    Current,
}

/// A folder that is open.
pub(super) struct Opened {
    pub(super) open: Open,
    pub(super) rows: Rows,
    pub(super) layout: Layout,
}

/// Opens the store, and creates it if the folder is empty or missing.
pub(super) fn open(folder: &Path, schema: Schema) -> Result<Opened, OpenError> {
    let refuse = |reason: String| refuse(folder, &reason);
    let layout = claim(folder).map_err(refuse)?;
    let is_new = layout == Layout::New;
    if is_new {
        // sled would wait for ever if it could not write.
        preflight::surroundings(folder, 0).map_err(|reason| unusable(folder, &reason))?;
    } else {
        is_whole(folder).map_err(|reason| refuse(format!("is damaged: {reason}")))?;
    }
    // sled panics on some kinds of damage, after it has printed what it found.
    let opened = quietly(|| -> Result<(Open, Rows), Error> {
        let trees = Trees::open(folder)?;
        if is_new && trees.rows.get(format::REVISION)?.is_none() {
            trees.rows.insert(format::REVISION, &0_u64.to_be_bytes())?;
            trees.db.flush()?;
        }
        let mut rows = load::read(&trees, schema)?;
        if !is_new {
            load::verify(&mut rows, &trees)?;
            if head::read(folder).is_none_or(|head| rows.head() < head) {
                return Err(format::broken("its newest changes are lost"));
            }
        }
        let open = Open::new(folder, trees).map_err(Error::Unavailable)?;
        Ok((open, rows))
    });
    let (open, rows) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(Error::Unavailable(reason))) => return Err(unusable(folder, &reason)),
        Ok(Err(Error::Backend(reason))) | Err(reason) => {
            if reason.contains("could not acquire lock") {
                return Err(OpenError::InUse(folder.to_owned()));
            }
            // A folder that cannot be written is not damaged.
            return Err(match preflight::surroundings(folder, 0) {
                Ok(()) => refuse(format!("is damaged: {reason}")),
                Err(reason) => unusable(folder, &reason),
            });
        }
        Ok(Err(error)) => return Err(refuse(format!("is damaged: {error}"))),
    };
    if is_new {
        let advanced = open.head.advance(rows.head());
        advanced.map_err(|error| unusable(folder, &preflight::plain(&error)))?;
        mark(folder).map_err(refuse)?;
    }
    Ok(Opened { open, rows, layout })
}

/// Opens a store that was open before. Missing files are not created.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(super) fn reopen(folder: &Path) -> Result<Open, String> {
    let gone = || {
        format!(
            "the data folder {} was deleted or replaced while the gateway was running; put it back, or \
             restart the gateway",
            folder.display()
        )
    };
    let is_ours = match fs::read_to_string(folder.join(MARKER)) {
        Ok(marker) => marker == FORMAT || marker == EARLIER,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            return Err(format!(
                "its folder cannot be read: {}",
                preflight::plain(&error)
            ));
        }
    };
    if !is_ours || is_whole(folder).is_err() {
        return Err(gone());
    }
    preflight::surroundings(folder, 0)?;
    let trees = Trees::open(folder).map_err(|error| match error {
        Error::Backend(reason) if reason.contains("could not acquire lock") => {
            "its files are still in use after an error; restart the gateway if that lasts"
                .to_owned()
        }
        Error::Backend(reason) => reason,
        error => error.to_string(),
    })?;
    Open::new(folder, trees)
}

/// Says why a data folder cannot be used.
pub(super) fn refuse(folder: &Path, reason: &str) -> OpenError {
    OpenError::Unusable(format!("the data folder {} {reason}", folder.display()))
}

/// Says why a data folder cannot be worked in.
pub(super) fn unusable(folder: &Path, reason: &str) -> OpenError {
    refuse(folder, &format!("cannot be used: {reason}"))
}

/// Whether all files exist that sled would otherwise create empty, so that the data would be lost.
fn is_whole(folder: &Path) -> Result<(), String> {
    let entities = folder.join("entities");
    if !entities.is_dir() {
        return Err("its folder entities is missing".into());
    }
    for file in ["conf", "db"] {
        let length = fs::metadata(entities.join(file)).map_or(0, |file| file.len());
        if length == 0 {
            return Err(format!("entities/{file} is missing or empty"));
        }
    }
    Ok(())
}

/// Marks the folder as being in the layout of this version.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(super) fn mark(folder: &Path) -> Result<(), String> {
    write_marker(folder, FORMAT)
        .map_err(|error| format!("cannot be written: {}", preflight::plain(&error)))
}

/// Marks the folder as Pointsman's, or finds the mark.
fn claim(folder: &Path) -> Result<Layout, String> {
    match fs::read_to_string(folder.join(MARKER)) {
        Ok(marker) if marker == FORMAT => return Ok(Layout::Current),
        Ok(marker) if marker == EARLIER => return Ok(Layout::Earlier),
        Ok(marker) if marker == NEW || marker == EARLIER_NEW => return Ok(Layout::New),
        Ok(marker) => {
            let said = marker.lines().next().unwrap_or_default();
            return Err(format!(
                "is of another version of Pointsman: it says {said:?}"
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot be read: {}", preflight::plain(&error))),
    }
    // The rows have private keys and other secrets, so the folder is for this user only.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| format!("cannot be made: {}", preflight::plain(&error)))?;
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot be read: {}", preflight::plain(&error)))?;
    // A first start may have ended while it wrote the marker.
    let mut others = entries.filter(|entry| {
        entry
            .as_ref()
            .map_or(true, |entry| entry.file_name() != UNFINISHED)
    });
    if others.next().is_some() {
        // The copy of what is in etcd.
        if folder.join("etcd").is_dir() && folder.join("node.id").is_file() {
            return Err(
                "was used with the setting store = etcd, which is missing now: set it again, \
                 or choose a new folder for a configuration of its own"
                    .into(),
            );
        }
        return Err(
            "holds something else than Pointsman's data: choose an empty or a new folder".into(),
        );
    }
    write_marker(folder, NEW)
        .map_err(|error| format!("cannot be written: {}", preflight::plain(&error)))?;
    Ok(Layout::New)
}

fn write_marker(folder: &Path, content: &str) -> io::Result<()> {
    let temporary = folder.join(UNFINISHED);
    fs::write(&temporary, content)?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, folder.join(MARKER))?;
    fs::File::open(folder)?.sync_all()
}

/// Runs code that may panic. The message of the panic is returned, and not printed to standard
/// error.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(hook);
    outcome.map_err(|panic| words(&*panic))
}

/// The message of a panic.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it cannot be read").to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_is_made_is_for_its_user_only() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        assert_eq!(claim(&folder), Ok(Layout::New));
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
