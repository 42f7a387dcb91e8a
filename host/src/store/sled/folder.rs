//! The data folder: ours or not, whole or not, free or in use.

use std::any::Any;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use super::super::rows::Rows;
use super::super::rules as stage;
use super::head::{self, Head};
use super::journal::Open;
use super::{Disk, format as keys, preflight};
use crate::entity::version::BY_DIGEST;
use crate::entity::{Kind, Row};
use crate::store::Error;

/// Marks a data folder, and says how its content is laid out.
const MARKER: &str = "FORMAT";

/// The marker while it is written.
const UNFINISHED: &str = "FORMAT.tmp";

/// The layout of this version.
const FORMAT: &str = "pointsman data, format 2\n";

/// The layout before it, which [`super::convert`] brings to this one.
const EARLIER: &str = "pointsman data, format 1\n";

/// As [`FORMAT`] until the first start has come to its end: what is there may be incomplete.
const NEW: &str = "pointsman data, format 2, not yet set up\n";

/// As [`NEW`], of the layout before. Nothing was stored there yet.
const EARLIER_NEW: &str = "pointsman data, format 1, not yet set up\n";

/// How what is in the folder is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Not at all: it has yet to be set up.
    New,
    /// As an earlier version did it.
    Earlier,
    /// As this version does it.
    Current,
}

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[error("the data folder {folder} {reason}")]
pub struct OpenError {
    folder: String,
    reason: String,
}

impl OpenError {
    pub(super) fn new(folder: &Path, reason: String) -> Self {
        Self {
            folder: folder.display().to_string(),
            reason,
        }
    }
}

/// A folder that is open.
pub(super) struct Opened {
    pub(super) open: Open,
    pub(super) rows: Rows,
    pub(super) layout: Layout,
}

/// Opens the store, and makes it if the folder is empty or missing.
pub(super) fn open(folder: &Path) -> Result<Opened, OpenError> {
    let refuse = |reason: String| OpenError::new(folder, reason);
    let layout = claim(folder).map_err(refuse)?;
    let is_new = layout == Layout::New;
    if is_new {
        // sled waits for ever for what it cannot write.
        preflight::surroundings(folder, 0).map_err(|reason| unusable(folder, &reason))?;
    } else {
        is_whole(folder).map_err(|reason| refuse(format!("is damaged: {reason}")))?;
    }
    // sled panics on some kinds of damage, after it has printed what it found.
    let opened = quietly(|| -> Result<(Open, Rows), Error> {
        let disk = open_trees(folder)?;
        if is_new && disk.rows.get(keys::REVISION)?.is_none() {
            disk.rows.insert(keys::REVISION, &0_u64.to_be_bytes())?;
            disk.db.flush()?;
        }
        let mut rows = Rows::read(&disk.rows)?;
        if !is_new {
            verify(&mut rows, &disk)?;
            if head::read(folder).is_none_or(|head| rows.revision() < head) {
                return Err(keys::broken("its newest changes are lost"));
            }
        }
        let open = with_head(folder, disk).map_err(Error::Unavailable)?;
        Ok((open, rows))
    });
    let (open, rows) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(Error::Unavailable(reason))) => return Err(unusable(folder, &reason)),
        Ok(Err(Error::Backend(reason))) | Err(reason) => {
            if reason.contains("could not acquire lock") {
                return Err(refuse("is in use by another process".into()));
            }
            // What cannot be written is not damaged for that.
            return Err(match preflight::surroundings(folder, 0) {
                Ok(()) => refuse(format!("is damaged: {reason}")),
                Err(reason) => unusable(folder, &reason),
            });
        }
        Ok(Err(error)) => return Err(refuse(format!("is damaged: {error}"))),
    };
    if is_new {
        let advanced = open.head.advance(rows.revision());
        advanced.map_err(|error| unusable(folder, &preflight::plain(&error)))?;
        mark(folder)?;
    }
    Ok(Opened { open, rows, layout })
}

/// Opens a store that was open before. Nothing is made that is missing.
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
    let disk = open_trees(folder).map_err(|error| match error {
        Error::Backend(reason) if reason.contains("could not acquire lock") => {
            "its files are still in use after an error; restart the gateway if that lasts"
                .to_owned()
        }
        Error::Backend(reason) => reason,
        error => error.to_string(),
    })?;
    with_head(folder, disk)
}

fn with_head(folder: &Path, disk: Disk) -> Result<Open, String> {
    // Looked for before the log is opened a second time.
    let descriptor = descriptor(&head::log(folder));
    let head = Head::open(folder);
    let head = head.map_err(|error| format!("HEAD: {}", preflight::plain(&error)))?;
    Ok(Open {
        disk,
        head,
        descriptor,
    })
}

/// The descriptor under which this process has a file open to be written.
fn descriptor(path: &Path) -> Option<RawFd> {
    let file = fs::metadata(path).ok()?;
    let own = |number: RawFd| {
        let open = fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
        let is_same = (open.dev(), open.ino()) == (file.dev(), file.ino());
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
        (is_same && flags & READ_WRITE != 0).then_some(number)
    };
    let numbers = fs::read_dir("/proc/self/fd").ok()?;
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found = numbers.filter_map(own);
    // One alone can be told.
    found.next().filter(|_| found.next().is_none())
}

/// `O_RDWR`, among the flags of an open file.
const READ_WRITE: u32 = 0o2;

fn unusable(folder: &Path, reason: &str) -> OpenError {
    OpenError::new(folder, format!("cannot be used: {reason}"))
}

/// Whether all files are there that sled would make anew, and so lose what they held.
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

/// Says that the folder is in the layout of this version.
pub(super) fn mark(folder: &Path) -> Result<(), OpenError> {
    write_marker(folder, FORMAT).map_err(|error| {
        OpenError::new(
            folder,
            format!("cannot be written: {}", preflight::plain(&error)),
        )
    })
}

/// Makes the folder ours, or finds that it is.
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
    fs::create_dir_all(folder)
        .map_err(|error| format!("cannot be made: {}", preflight::plain(&error)))?;
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot be read: {}", preflight::plain(&error)))?;
    // A first start may have ended in the middle of the marker.
    let mut others = entries.filter(|entry| {
        entry
            .as_ref()
            .map_or(true, |entry| entry.file_name() != UNFINISHED)
    });
    if others.next().is_some() {
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

fn open_trees(folder: &Path) -> Result<Disk, Error> {
    let db = ::sled::Config::new()
        .path(folder.join("entities"))
        // Every write is flushed before it is acknowledged.
        .flush_every_ms(None)
        .open()?;
    Ok(Disk {
        rows: db.open_tree("rows")?,
        blobs: db.open_tree("blobs")?,
        db,
    })
}

/// Follows every reference and counts the keys, so that damage is found now and not by a request. A
/// single row that cannot be used is set aside; keys that lead nowhere are damage of the whole.
fn verify(rows: &mut Rows, disk: &Disk) -> Result<(), Error> {
    if rows.get(keys::REVISION).is_none() {
        return Err(keys::broken("its entities are missing"));
    }
    let mut led_to = 0;
    let mut set_aside = Vec::new();
    for kind in Kind::ALL {
        let (first, last) = (keys::row(kind, Uuid::nil()), keys::row(kind, Uuid::max()));
        for (key, value) in rows.range(&first, Some(&last)) {
            let id = keys::last_id(key)?;
            match usable(rows, disk, kind, id, value)? {
                Ok(keys) => led_to += keys,
                Err(reason) => {
                    led_to += keys_to(rows, kind, id);
                    set_aside.push((kind, id, reason));
                }
            }
        }
    }
    // Each row has its own, so there are more only if some are of no row: a name that cannot be taken
    // again, or a row that cannot be deleted.
    let indexes = keys::INDEXES.into_iter();
    if indexes.map(|index| rows.scan(index).count()).sum::<usize>() != led_to {
        return Err(keys::broken("some of its keys lead to no row"));
    }
    for (kind, id, reason) in set_aside {
        rows.set_aside(kind, id, reason);
    }
    Ok(())
}

/// How many keys lead to a row; or why it cannot be used, as the end of a sentence.
fn usable(
    rows: &Rows,
    disk: &Disk,
    kind: Kind,
    id: Uuid,
    value: &[u8],
) -> Result<Result<usize, String>, Error> {
    let row = match keys::decode(value) {
        Ok(stored) => stored.row,
        Err(error) => return Ok(Err(format!("it cannot be read ({error})"))),
    };
    let Some(keys) = stage::keys_of(rows, kind, id, &row) else {
        return Ok(Err("it has lost a key, or a row that it refers to".into()));
    };
    let key = keys::row(kind, id);
    let has_component = match kind {
        // In the earlier layout the component is the balancer's own.
        Kind::Balancer => has_active_version(rows, id, &row) || has_blob(disk, &key)?,
        Kind::BalancerVersion => has_blob(disk, &key)?,
        _ => true,
    };
    Ok(if has_component {
        Ok(keys)
    } else {
        Err("it has lost its component".into())
    })
}

/// How many keys lead to a row, whatever it holds.
fn keys_to(rows: &Rows, kind: Kind, id: Uuid) -> usize {
    let indexes = keys::INDEXES.into_iter();
    let entries = indexes.flat_map(|index| rows.scan(index));
    entries
        .filter(|(key, value)| keys::leads_to(key, value, kind, id))
        .count()
}

fn has_blob(disk: &Disk, row: &[u8]) -> Result<bool, Error> {
    Ok(disk.blobs.scan_prefix(row).next().transpose()?.is_some())
}

/// Whether the version that a balancer calls active is there.
fn has_active_version(rows: &Rows, id: Uuid, row: &Row) -> bool {
    let link = json!({ "id": id });
    let digest = row.get("digest").cloned().unwrap_or_default();
    let key = keys::unique(Kind::BalancerVersion, BY_DIGEST.fields, &[&digest, &link]);
    rows.get(&key).is_some()
}

/// Runs what may panic. The panic's words come back in place of the report on standard error.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(hook);
    outcome.map_err(|panic| words(&*panic))
}

/// What a panic says.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it cannot be read").to_owned()
}
