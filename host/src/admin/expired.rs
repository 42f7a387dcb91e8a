//! Rows that have come to their end: no request sees them, and they are removed.

use std::collections::{BTreeSet, HashMap};
use std::future::pending;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::{Admin, changes};
use crate::entity::Kind;
use crate::store::{Change, Commit, Error, Stored, Write};

/// Pause after a removal that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Removes rows when they expire, for as long as the store runs.
pub async fn remove_expired(admin: Admin, mut commits: UnboundedReceiver<Commit>) {
    let mut ends = Ends::default();
    loop {
        let next = async {
            match ends.first() {
                Some((end, ..)) => sleep_until(end).await,
                None => pending().await,
            }
        };
        tokio::select! {
            commit = commits.recv() => {
                let Some(commit) = commit else { return };
                for change in commit.changes {
                    ends.follow(&change);
                }
            }
            () = next => {
                let Some((_, kind, id)) = ends.first() else { continue };
                match remove(&admin, kind, id).await {
                    Ok(()) => ends.set(kind, id, None),
                    Err(error) => {
                        tracing::warn!("an expired {} cannot be removed: {error}", kind.name());
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
    }
}

/// The ends of all rows that have one, each row's once.
#[derive(Debug, Default)]
struct Ends {
    in_order: BTreeSet<(SystemTime, Kind, Uuid)>,
    of_rows: HashMap<(Kind, Uuid), SystemTime>,
}

impl Ends {
    fn first(&self) -> Option<(SystemTime, Kind, Uuid)> {
        self.in_order.first().copied()
    }

    /// Takes over what a commit did to a row.
    fn follow(&mut self, change: &Change) {
        match change {
            Change::Put { kind, id, row } => {
                self.set(*kind, *id, kind.declaration().expires_at(row));
            }
            Change::Delete { kind, id } => self.set(*kind, *id, None),
        }
    }

    /// Replaces the end of a row.
    fn set(&mut self, kind: Kind, id: Uuid, end: Option<SystemTime>) {
        let old = match end {
            Some(end) => self.of_rows.insert((kind, id), end),
            None => self.of_rows.remove(&(kind, id)),
        };
        if let Some(old) = old {
            self.in_order.remove(&(old, kind, id));
        }
        if let Some(end) = end {
            self.in_order.insert((end, kind, id));
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
        Error::PrimaryKeyTaken { kind, id } => (*kind, admin.store.get(*kind, *id)),
        Error::UniqueKeyTaken { kind, key, values } => {
            let values = key.fields.iter().filter_map(|field| values.get(*field));
            let values: Vec<_> = values.collect();
            (*kind, admin.store.find(*kind, key.fields, &values))
        }
        _ => return Ok(false),
    };
    // A row that is set aside cannot be read, and so does not expire.
    let found = found.ok().flatten();
    let Some(found) = found.filter(|found| kind.declaration().is_expired(&found.row)) else {
        return Ok(false);
    };
    let id = super::rows::id_of(&found.row);
    remove_row(admin, kind, id, found).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entity::Row;

    #[test]
    fn a_row_has_its_latest_end_alone() {
        let (kind, id) = (Kind::KeyAuthCredential, Uuid::from_u128(1));
        let put = |ttl| Change::Put {
            kind,
            id,
            row: Row::from_iter([("ttl".to_owned(), ttl)]),
        };
        let at = |seconds| {
            Some((
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
                kind,
                id,
            ))
        };
        let mut ends = Ends::default();
        for (change, first) in [
            (put(json!({ "expires_at": 10.0 })), at(10)),
            (put(json!({ "expires_at": 20.0 })), at(20)),
            (put(json!({ "expires_at": 15.0 })), at(15)),
            (put(json!(null)), None),
            (put(json!({ "expires_at": 30.0 })), at(30)),
            (Change::Delete { kind, id }, None),
        ] {
            ends.follow(&change);
            assert_eq!(ends.first(), first, "{change:?}");
            let number = usize::from(first.is_some());
            assert_eq!((ends.in_order.len(), ends.of_rows.len()), (number, number));
        }
    }
}
