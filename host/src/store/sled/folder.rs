//! The data folder: ours or not, whole or not, free or in use.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use super::head::{self, Head};
use super::{Trees, keys, stage};
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

pub(super) fn open(folder: &Path) -> Result<(Trees, Head, Layout), OpenError> {
    let refuse = |reason: String| OpenError::new(folder, reason);
    let layout = claim(folder).map_err(refuse)?;
    let is_new = layout == Layout::New;
    let entities = folder.join("entities");
    if !is_new && !entities.is_dir() {
        return Err(refuse("is damaged: its folder entities is missing".into()));
    }
    // sled would make a missing file anew, and so lose what it held.
    for file in ["conf", "db"] {
        let length = fs::metadata(entities.join(file)).map_or(0, |file| file.len());
        if !is_new && length == 0 {
            return Err(refuse(format!(
                "is damaged: entities/{file} is missing or empty"
            )));
        }
    }
    // sled panics on some kinds of damage, after it has printed what it found.
    let opened = quietly(|| -> Result<Trees, Error> {
        let trees = open_trees(&entities)?;
        if !is_new {
            verify(&trees)?;
            let revision = keys::revision(&trees.rows)?;
            if head::read(folder).is_none_or(|head| revision < head) {
                return Err(Error::Backend("its newest changes are lost".to_owned()));
            }
        } else if trees.rows.get(keys::REVISION)?.is_none() {
            trees.rows.insert(keys::REVISION, &0_u64.to_be_bytes())?;
            trees.db.flush()?;
        }
        Ok(trees)
    });
    let trees = match opened {
        Ok(Ok(trees)) => trees,
        Ok(Err(Error::Backend(reason))) if reason.contains("could not acquire lock") => {
            return Err(refuse("is in use by another process".into()));
        }
        Ok(Err(error)) => return Err(refuse(format!("is damaged: {error}"))),
        Err(reason) => return Err(refuse(format!("is damaged: {reason}"))),
    };
    let head = Head::open(folder).map_err(|error| refuse(format!("cannot be written: {error}")))?;
    if is_new {
        let begun = keys::revision(&trees.rows).unwrap_or(0);
        head.advance(begun)
            .map_err(|error| refuse(format!("cannot be written: {error}")))?;
        mark(folder)?;
    }
    Ok((trees, head, layout))
}

/// Says that the folder is in the layout of this version.
pub(super) fn mark(folder: &Path) -> Result<(), OpenError> {
    write_marker(folder, FORMAT)
        .map_err(|error| OpenError::new(folder, format!("cannot be written: {error}")))
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
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    fs::create_dir_all(folder).map_err(|error| format!("cannot be made: {error}"))?;
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot be read: {error}"))?;
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
    write_marker(folder, NEW).map_err(|error| format!("cannot be written: {error}"))?;
    Ok(Layout::New)
}

fn write_marker(folder: &Path, content: &str) -> io::Result<()> {
    let temporary = folder.join(UNFINISHED);
    fs::write(&temporary, content)?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, folder.join(MARKER))?;
    fs::File::open(folder)?.sync_all()
}

fn open_trees(folder: &Path) -> Result<Trees, Error> {
    let db = ::sled::Config::new()
        .path(folder)
        // Every write is flushed before it is acknowledged.
        .flush_every_ms(None)
        .open()?;
    Ok(Trees {
        rows: db.open_tree("rows")?,
        blobs: db.open_tree("blobs")?,
        db,
    })
}

/// Reads every row, follows every reference and counts the keys, so that damage is found now and not by
/// a request.
fn verify(trees: &Trees) -> Result<(), Error> {
    keys::revision(&trees.rows)
        .map_err(|_| Error::Backend("its entities are missing".to_owned()))?;
    let mut led_to = 0;
    for kind in Kind::ALL {
        let (first, last) = (keys::row(kind, Uuid::nil()), keys::row(kind, Uuid::max()));
        for entry in trees.rows.range(first..=last) {
            let (key, value) = entry?;
            let id = keys::last_id(&key)?;
            let broken =
                |what: &str| Error::Backend(format!("the row {id} of {} {what}", kind.name()));
            let row = keys::decode(&value)
                .map_err(|_| broken("cannot be read"))?
                .row;
            led_to += stage::keys_of(&trees.rows, kind, id, &row)?
                .ok_or_else(|| broken("has lost a key, or a row that it refers to"))?;
            let component_is_there = match kind {
                // In the earlier layout the component is the balancer's own.
                Kind::Balancer => has_active_version(trees, id, &row)? || has_blob(trees, &key),
                Kind::BalancerVersion => has_blob(trees, &key),
                _ => true,
            };
            if !component_is_there {
                return Err(broken("has lost its component"));
            }
        }
    }
    // Each row has its own, so there are more only if some are of no row: a name that cannot be taken
    // again, or a row that cannot be deleted.
    let mut keys = 0;
    for prefix in keys::INDEXES {
        for entry in trees.rows.scan_prefix(prefix) {
            entry?;
            keys += 1;
        }
    }
    if keys != led_to {
        return Err(Error::Backend("some of its keys lead to no row".to_owned()));
    }
    Ok(())
}

fn has_blob(trees: &Trees, row: &[u8]) -> bool {
    trees.blobs.scan_prefix(row).next().is_some()
}

/// Whether the version that a balancer calls active is there.
fn has_active_version(trees: &Trees, id: Uuid, row: &Row) -> Result<bool, Error> {
    let link = json!({ "id": id });
    let digest = row.get("digest").cloned().unwrap_or_default();
    let key = keys::unique(Kind::BalancerVersion, BY_DIGEST, &[&digest, &link]);
    Ok(trees.rows.contains_key(key)?)
}

/// Runs what may panic. The panic's words come back in place of the report on standard error.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(hook);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("it cannot be read").to_owned()
    })
}
