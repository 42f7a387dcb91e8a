//! Reads the tree of rows, and follows every key and reference, so that damage is found at the
//! start and not during a request.

use serde_json::json;
use uuid::Uuid;

use super::super::index::{RowKey, UniqueEntry};
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::super::{Error, record, rules};
use super::blobs;
use super::files::Trees;
use super::format::{self, Entry};
use crate::entity::version::BY_DIGEST;
use crate::entity::{Kind, Row};

/// Reads the tree of rows.
pub(super) fn read(trees: &Trees, schema: Schema) -> Result<Rows, Error> {
    let mut rows = Rows::new(schema);
    for entry in trees.rows.iter() {
        let (key, value) = entry?;
        match format::read(schema, &key, &value) {
            Some(Entry::Head(head)) => rows.set_head(head),
            Some(Entry::Row(row)) => {
                rows.records.insert(row, (&*value).into());
            }
            Some(Entry::Unique(entry, id)) => {
                rows.unique.insert(entry, id);
            }
            Some(Entry::Reference(entry)) => {
                rows.references.insert(entry, ());
            }
            None => {
                return Err(format::broken(match key.first() {
                    Some(b'u' | b'f') => NO_ROW,
                    _ => "it holds something that this version does not know",
                }));
            }
        }
    }
    Ok(rows)
}

const NO_ROW: &str = "some of its keys lead to no row";

/// Follows keys and references. A single row that cannot be used is set aside; keys that lead to no
/// row mean that the whole store is damaged.
pub(super) fn verify(rows: &mut Rows, trees: &Trees) -> Result<(), Error> {
    if trees.rows.get(format::REVISION)?.is_none() {
        return Err(format::broken("its entities are missing"));
    }
    let mut led_to = 0;
    let mut set_aside = Vec::new();
    for (&key, record) in &rows.records {
        match usable(rows, trees, key, record)? {
            Ok(entries) => led_to += entries,
            Err(reason) => {
                led_to += entries_of(rows, key);
                set_aside.push((key, reason));
            }
        }
    }
    // Each row has entries of its own, so there are more only if some belong to no row: such an
    // entry would block a name, or the deletion of a row.
    if rows.unique.len() + rows.references.len() != led_to {
        return Err(format::broken(NO_ROW));
    }
    for ((kind, id), reason) in set_aside {
        rows.set_aside(kind, id, reason);
    }
    Ok(())
}

/// How many index entries lead to a row; or why the row cannot be used, as the end of a sentence.
fn usable(
    rows: &Rows,
    trees: &Trees,
    (kind, id): RowKey,
    record: &[u8],
) -> Result<Result<usize, String>, Error> {
    let row = match record::decode(record) {
        Ok(stored) => stored.row,
        Err(error) => return Ok(Err(format!("it cannot be read ({error})"))),
    };
    let Some(entries) = rules::entries_to(rows, kind, id, &row) else {
        return Ok(Err("it has lost a key, or a row that it refers to".into()));
    };
    let has_blob = || blobs::is_there(&trees.blobs, (kind, id));
    let has_component = match kind {
        // In the earlier layout the component belongs to the balancer.
        Kind::Balancer => has_active_version(rows, id, &row) || has_blob()?,
        Kind::BalancerVersion => has_blob()?,
        _ => true,
    };
    Ok(if has_component {
        Ok(entries)
    } else {
        Err("it has lost its component".into())
    })
}

/// How many index entries lead to a row, even if the row cannot be read.
fn entries_of(rows: &Rows, (kind, id): RowKey) -> usize {
    let unique = rows.unique.iter();
    let unique = unique.filter(|(entry, leads_to)| (entry.kind, **leads_to) == (kind, id));
    let references = rows.references.keys();
    let references = references.filter(|entry| (entry.kind, entry.id) == (kind, id));
    unique.count() + references.count()
}

/// Whether the active version of a balancer exists.
fn has_active_version(rows: &Rows, id: Uuid, row: &Row) -> bool {
    let link = json!({ "id": id });
    let digest = row.get("digest").cloned().unwrap_or_default();
    let entry = UniqueEntry::new(Kind::BalancerVersion, BY_DIGEST, &[&digest, &link]);
    rows.unique.contains_key(&entry)
}
