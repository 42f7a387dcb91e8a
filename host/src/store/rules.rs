//! The rules of rows: revisions, unique keys, references, and what a delete does to the rows that
//! refer to the deleted row.
//!
//! A write is staged before it is committed: each of its steps sees the steps before it, and all of
//! them must keep the rules.

mod entries;
mod stage;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::index::{Parent, RowKey, UniqueEntry};
use super::operations::Operations;
use super::rows::Rows;
use super::{Change, Commit, Error, Revision, Write};
use crate::entity::{Kind, OnDelete, ReferenceBy, Row};
pub(super) use entries::entries_to;
use stage::Stage;

/// Turns writes into operations, and into the commit that watchers receive. `ahead` has the changes
/// of earlier writes that are in the same commit of the journal.
pub(super) fn stage(
    rows: &Rows,
    ahead: &Operations,
    writes: &[Write],
) -> Result<(Operations, Commit), Error> {
    let mut stage = Stage::new(rows, ahead);
    for write in writes {
        stage.write(write)?;
    }
    Ok((stage.own, stage.commit))
}

/// The steps of an atomic write.
pub(super) enum Steps {
    /// Each step sees the steps before it.
    InOrder(Vec<Write>),
    /// There is no order: only the result must keep the rules. With a revision, no commit may have
    /// been made after it.
    AtOnce(Vec<Write>, Option<Revision>),
}

/// As [`stage`], for steps of either kind.
pub(super) fn stage_steps(
    rows: &Rows,
    ahead: &Operations,
    steps: &Steps,
) -> Result<(Operations, Commit), Error> {
    match steps {
        Steps::InOrder(writes) => stage(rows, ahead, writes),
        Steps::AtOnce(writes, base) => {
            let is_first = ahead.rows.is_empty();
            if let (Some(base), Some(first)) = (base, writes.first())
                && (*base != rows.head() || !is_first)
            {
                let (kind, id) = (first.kind(), first.id());
                return Err(Error::Changed { kind, id });
            }
            let mut stage = Stage::new(rows, ahead);
            stage.exchange(writes)?;
            Ok((stage.own, stage.commit))
        }
    }
}

/// Turns rows that another process has committed into operations: their records, or none for rows
/// that it has deleted. It has checked the rules.
pub(super) fn follow(
    rows: &Rows,
    changed: BTreeMap<RowKey, Option<Arc<[u8]>>>,
    head: Revision,
) -> Operations {
    let nothing = Operations::default();
    let mut stage = Stage::new(rows, &nothing);
    for key in changed.keys().filter(|key| rows.records.contains_key(key)) {
        stage.leave(*key);
    }
    let mut added: Vec<RowKey> = Vec::new();
    for (key, record) in changed {
        if record.is_some() {
            added.push(key);
        }
        stage.own.rows.insert(key, record);
    }
    added.sort_by_key(|(kind, id)| (order(*kind), *id));
    for (kind, id) in added {
        let indexed = match stage.stored(kind, id) {
            Ok(Some(stored)) => stage.index(kind, id, &stored.row),
            // It is set aside when it takes effect.
            _ => Ok(()),
        };
        if let Err(error) = indexed {
            tracing::error!(
                entity = kind.name(),
                %id,
                "a row of another gateway breaks the rules of this version: {error}"
            );
        }
    }
    stage.own.head = head;
    stage.own
}

impl Stage<'_> {
    /// Stages all writes as one step. Watchers get the new rows first, each after those that it
    /// refers to, and then the deleted ones in the reverse order.
    fn exchange(&mut self, writes: &[Write]) -> Result<(), Error> {
        // A row that is replaced and deleted is deleted, if it is unchanged.
        let deleted = writes.iter().filter_map(|write| match write {
            Write::Delete { kind, id } => Some((*kind, *id)),
            _ => None,
        });
        let deleted: HashSet<RowKey> = deleted.collect();
        // What is replaced or deleted gives up its keys first.
        let mut parents = Vec::new();
        for write in writes {
            let (kind, id) = (write.kind(), write.id());
            let old = match write {
                Write::Insert { .. } if self.has_row((kind, id)) => {
                    return Err(Error::PrimaryKeyTaken { kind, id });
                }
                Write::Insert { .. } => continue,
                Write::Replace { expected, .. } => {
                    let old = self.stored(kind, id)?;
                    let old = old.filter(|old| old.revision == *expected);
                    let old = old.ok_or(Error::Changed { kind, id })?;
                    if deleted.contains(&(kind, id)) {
                        continue;
                    }
                    old.row
                }
                Write::Delete { .. } => match self.readable(kind, id)? {
                    Some(old) => old,
                    None => {
                        self.remove((kind, id));
                        continue;
                    }
                },
            };
            self.unindex(kind, id, &old);
            if let Write::Delete { .. } = write {
                self.own.rows.insert((kind, id), None);
                self.own.blobs.insert((kind, id), Bytes::new());
            }
            parents.push((kind, id, old));
        }
        let mut puts: Vec<(usize, &Write)> = writes
            .iter()
            .filter(|write| match write {
                Write::Insert { .. } => true,
                Write::Replace { kind, id, .. } => !deleted.contains(&(*kind, *id)),
                Write::Delete { .. } => false,
            })
            .map(|write| (order(write.kind()), write))
            .collect();
        puts.sort_by_key(|(order, _)| *order);
        for (_, write) in puts {
            if let Write::Insert {
                kind,
                id,
                row,
                blob,
            }
            | Write::Replace {
                kind,
                id,
                row,
                blob,
                ..
            } = write
            {
                self.index(*kind, *id, row)?;
                self.put(*kind, *id, row, blob.as_ref())?;
            }
        }
        parents.sort_by_key(|(kind, ..)| std::cmp::Reverse(order(*kind)));
        for (kind, id, old) in parents {
            self.no_referrers(kind, id, &old)?;
            if !self.has_row((kind, id)) {
                self.commit.changes.push(Change::Delete { kind, id });
            }
        }
        Ok(())
    }

    /// Refuses a result in which rows refer to a row by what it no longer is.
    fn no_referrers(&self, kind: Kind, id: Uuid, old: &Row) -> Result<(), Error> {
        for (by, reference) in self.schema().references_to(kind) {
            let parent = match reference.by {
                ReferenceBy::Id | ReferenceBy::PlainId if self.has_row((kind, id)) => continue,
                ReferenceBy::Id | ReferenceBy::PlainId => Parent::Id(id),
                ReferenceBy::Field { name, .. } => {
                    let value = old.get(name).cloned().unwrap_or_default();
                    let key = self.schema().unique_key(kind, &[name]);
                    let entry = key.map(|key| UniqueEntry::new(kind, key, &[&value]));
                    if entry.is_some_and(|entry| self.unique(&entry).is_some()) {
                        continue;
                    }
                    Parent::value(kind, name, &value)
                }
            };
            if let Some(referrer) = self.referring(reference, &parent, by).first() {
                return Err(Error::StillReferenced {
                    kind,
                    id,
                    by,
                    referrer: *referrer,
                });
            }
        }
        Ok(())
    }

    fn write(&mut self, write: &Write) -> Result<(), Error> {
        match write {
            Write::Insert {
                kind,
                id,
                row,
                blob,
            } => {
                let (kind, id) = (*kind, *id);
                if self.has_row((kind, id)) {
                    return Err(Error::PrimaryKeyTaken { kind, id });
                }
                self.index(kind, id, row)?;
                self.put(kind, id, row, blob.as_ref())
            }
            Write::Replace {
                kind,
                id,
                row,
                expected,
                blob,
            } => {
                let (kind, id) = (*kind, *id);
                let old = self
                    .stored(kind, id)?
                    .filter(|old| old.revision == *expected)
                    .ok_or(Error::Changed { kind, id })?;
                self.keep_referred((kind, id), &old.row, row)?;
                self.unindex(kind, id, &old.row);
                self.index(kind, id, row)?;
                self.put(kind, id, row, blob.as_ref())
            }
            Write::Delete { kind, id } => {
                let mut order = Vec::new();
                self.collect((*kind, *id), &mut BTreeSet::new(), &mut order)?;
                for key in order {
                    self.remove(key);
                }
                Ok(())
            }
        }
    }

    /// Collects a row that is to be deleted and the rows that are deleted with it; a row that
    /// refers to another comes before it.
    fn collect(
        &self,
        key: RowKey,
        seen: &mut BTreeSet<RowKey>,
        order: &mut Vec<RowKey>,
    ) -> Result<(), Error> {
        if !self.has_row(key) || !seen.insert(key) {
            return Ok(());
        }
        for (by, reference) in self.schema().references_to(key.0) {
            for referrer in self.referrers(key, by, reference)? {
                match reference.on_delete {
                    OnDelete::Cascade => self.collect((by, referrer), seen, order)?,
                    // A row's reference to itself does not prevent its deletion.
                    OnDelete::Restrict if (by, referrer) == key => {}
                    OnDelete::Restrict => {
                        let (kind, id) = key;
                        return Err(Error::StillReferenced {
                            kind,
                            id,
                            by,
                            referrer,
                        });
                    }
                }
            }
        }
        order.push(key);
        Ok(())
    }

    /// Refuses to change a value by which other rows refer to this row.
    fn keep_referred(&self, (kind, id): RowKey, old: &Row, new: &Row) -> Result<(), Error> {
        for (by, reference) in self.schema().references_to(kind) {
            let ReferenceBy::Field { name, .. } = reference.by else {
                continue;
            };
            let parent = |row: &Row| row.get(name).map(|value| Parent::value(kind, name, value));
            if let Some(old) = parent(old)
                && parent(new).as_ref() != Some(&old)
                && let Some(referrer) = self.referring(reference, &old, by).into_iter().next()
            {
                return Err(Error::StillReferenced {
                    kind,
                    id,
                    by,
                    referrer,
                });
            }
        }
        Ok(())
    }
}

/// The place of a kind: after those that it refers to.
fn order(kind: Kind) -> usize {
    let place = Kind::ALL.iter().position(|other| *other == kind);
    place.unwrap_or(Kind::ALL.len())
}
