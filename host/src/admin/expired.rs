//! Rows that have come to their end: no request sees them, and they are removed.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::{Admin, changes};
use crate::entity::Kind;
use crate::store::{Change, Commit, Error, Stored, Write};

/// Pause after a removal that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Removes rows when they expire, for as long as the store runs.
pub async fn remove_expired(admin: Admin, mut commits: UnboundedReceiver<Commit>) {
    // The ends of rows as they were written: of an end that is not that of its row any longer,
    // nothing comes.
    let mut ends: BTreeSet<(SystemTime, Kind, Uuid)> = BTreeSet::new();
    loop {
        let next = async {
            match ends.first() {
                Some((end, ..)) => sleep_until(*end).await,
                None => pending().await,
            }
        };
        tokio::select! {
            commit = commits.recv() => {
                let Some(commit) = commit else { return };
                for change in commit.changes {
                    if let Change::Put { kind, id, row } = change
                        && let Some(end) = kind.declaration().expires_at(&row)
                    {
                        ends.insert((end, kind, id));
                    }
                }
            }
            () = next => {
                let Some(&(end, kind, id)) = ends.first() else { continue };
                match remove(&admin, kind, id).await {
                    Ok(()) => {
                        ends.remove(&(end, kind, id));
                    }
                    Err(error) => {
                        tracing::warn!("an expired {} cannot be removed: {error}", kind.name());
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }
}

/// Sleeps until a time, which may be set anew meanwhile.
async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(Duration::from_secs(60))).await;
    }
}

async fn remove(admin: &Admin, kind: Kind, id: Uuid) -> Result<(), Error> {
    match admin.store.get(kind, id) {
        Ok(Some(stored)) => remove_row(admin, kind, id, stored).await,
        // What cannot be read is for the operator to delete.
        Ok(None) | Err(Error::SetAside { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a row if it has expired, and is still as it was read.
async fn remove_row(admin: &Admin, kind: Kind, id: Uuid, stored: Stored) -> Result<(), Error> {
    let row = stored.row.clone();
    if !kind.declaration().is_expired(&row) {
        return Ok(());
    }
    let writes = Write::delete_unchanged(kind, id, stored);
    match admin.store.write(writes.into()).await {
        Ok(_) => {
            changes::log(admin, kind, &row, "expired");
            Ok(())
        }
        Err(Error::Changed { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a write was refused because of a row that has expired: then that row is removed, and the
/// write can be made.
pub(super) async fn gives_way(admin: &Admin, refused: &Error) -> Result<bool, Error> {
    let (kind, found) = match refused {
        Error::PrimaryKeyTaken { kind, id } => (*kind, admin.store.get(*kind, *id)?),
        Error::UniqueKeyTaken { kind, key, values } => {
            let values = key.fields.iter().filter_map(|field| values.get(*field));
            let values: Vec<_> = values.collect();
            (*kind, admin.store.find(*kind, key.fields, &values)?)
        }
        _ => return Ok(false),
    };
    let Some(found) = found.filter(|found| kind.declaration().is_expired(&found.row)) else {
        return Ok(false);
    };
    let id = super::rows::id_of(&found.row);
    remove_row(admin, kind, id, found).await?;
    Ok(true)
}
