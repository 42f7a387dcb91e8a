//! Converts rows that an earlier version stored to the form of this version, before there are any
//! watchers.

use std::collections::HashSet;

use super::index::UniqueEntry;
use super::journal::{CommitError, Journal};
use super::operations::Operations;
use super::rows::Rows;
use super::{Stored, Write, rules};
use crate::entity::Kind;

/// Does `writes` in one commit.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(super) fn apply(
    journal: &mut dyn Journal,
    rows: &mut Rows,
    writes: &[Write],
) -> Result<(), String> {
    let staged = rules::stage(rows, &Operations::default(), writes);
    let (operations, _) = staged.map_err(|error| error.to_string())?;
    commit(journal, rows, &operations)
}

/// Converts each row to the form in which this version would store it.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(super) fn renew(journal: &mut dyn Journal, rows: &mut Rows) -> Result<(), String> {
    let mut operations = Operations::default();
    let mut renewed = 0_usize;
    for write in renewals(rows) {
        let (kind, id) = (write.kind(), write.id());
        // Each row by itself: a row that this version would refuse must not prevent the conversion
        // of another.
        match rules::stage(rows, &operations, &[write]) {
            Ok((one, _)) => {
                operations.add(one);
                renewed += 1;
            }
            Err(error) => tracing::warn!(
                entity = kind.name(),
                %id,
                "a stored row stays as an earlier version wrote it: {error}"
            ),
        }
    }
    if renewed == 0 {
        return Ok(());
    }
    tracing::info!(rows = renewed, "bringing stored rows up to date");
    commit(journal, rows, &operations)
}

fn commit(
    journal: &mut dyn Journal,
    rows: &mut Rows,
    operations: &Operations,
) -> Result<(), String> {
    match journal.commit(rows.head(), operations) {
        Ok(()) => {
            rows.apply(operations);
            Ok(())
        }
        Err(CommitError::Conflict) => Err("another process has changed it meanwhile".into()),
        Err(CommitError::Refused(reason) | CommitError::InDoubt { reason, .. }) => Err(reason),
    }
}

/// The writes after which each row has the form in which this version would store it, and is found
/// in any spelling of its name. Two rows whose names differ in spelling only stay unchanged: each
/// is found in its own spelling.
fn renewals(rows: &Rows) -> Vec<Write> {
    let schema = rows.schema();
    let mut writes = Vec::new();
    for kind in Kind::ALL {
        let mut planned = HashSet::new();
        // A row that is set aside stays unchanged, and so do the entries that lead to it.
        for (id, stored) in rows.of_kind(kind, None) {
            let Stored { row: old, revision } = stored;
            let mut row = old.clone();
            (kind.declaration().normalize)(&mut row);
            let (mut stale, mut taken) = (row != old, false);
            for &key in schema.unique_keys(kind) {
                let Some(values) = key.values(&row) else {
                    continue;
                };
                let entry = UniqueEntry::new(kind, key, &values);
                match rows.unique.get(&entry) {
                    Some(found) => taken |= *found != id,
                    None => {
                        stale = true;
                        taken |= !planned.insert(entry);
                    }
                }
            }
            if taken {
                tracing::warn!(
                    entity = kind.name(),
                    %id,
                    "another one has the same name in another spelling: give one of them another name"
                );
            } else if stale {
                writes.push(Write::Replace {
                    kind,
                    id,
                    row,
                    expected: revision,
                    blob: None,
                });
            }
        }
    }
    writes
}
