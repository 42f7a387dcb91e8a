//! The keys and values of the tree of rows.
//!
//! | key | value |
//! |---|---|
//! | `r` kind 0 id | revision and row, as `record.rs` writes them |
//! | `u` kind 0 fields 0 values | id of the row with these values of a unique key, in the form in which they are compared |
//! | `f` kind 0 parent 0 kind 0 field 0 id | nothing: this row refers to the parent |
//! | `m` `revision` | revision of the newest commit |
//!
//! Names of kinds and fields are our own and contain no byte 0; values and parents are JSON text,
//! which contains no byte 0 either. Ids come last, as 16 bytes; a parent that is named by its id is
//! written with the id as text. The key of a chunk of a blob is the key of its row followed by the
//! number of the chunk.

use std::fmt::Display;
use std::sync::Arc;

use uuid::Uuid;

use super::super::index::{Parent, ReferenceEntry, RowKey, UniqueEntry};
use super::super::operations::Operations;
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::super::{Error, Revision};
use crate::entity::{Kind, ReferenceBy};

/// Key of the newest revision.
pub(super) const REVISION: &[u8] = b"mrevision";

/// Bytes of a blob in one value. sled puts a value above 128 KiB in a file of its own.
pub(super) const CHUNK: usize = 64 << 10;

pub(super) fn row((kind, id): RowKey) -> Vec<u8> {
    [b"r", kind.name().as_bytes(), b"\0", id.as_bytes()].concat()
}

pub(super) fn unique(entry: &UniqueEntry) -> Vec<u8> {
    let fields = entry.fields.join(",");
    [
        b"u",
        entry.kind.name().as_bytes(),
        b"\0",
        fields.as_bytes(),
        b"\0",
        entry.values.as_bytes(),
    ]
    .concat()
}

pub(super) fn reference(entry: &ReferenceEntry) -> Vec<u8> {
    let parent = match &entry.parent {
        Parent::Id(id) => id.to_string(),
        Parent::Value(value) => value.clone(),
    };
    [
        b"f",
        entry.to.name().as_bytes(),
        b"\0",
        parent.as_bytes(),
        b"\0",
        entry.kind.name().as_bytes(),
        b"\0",
        entry.field.as_bytes(),
        b"\0",
        entry.id.as_bytes(),
    ]
    .concat()
}

/// The key of a part of the blob of the row with the key `row`.
pub(super) fn chunk(row: &[u8], number: u32) -> Vec<u8> {
    [row, &number.to_be_bytes()].concat()
}

/// An entry of the tree of rows.
pub(super) enum Entry {
    Head(Revision),
    Row(RowKey),
    Unique(UniqueEntry, Uuid),
    Reference(ReferenceEntry),
}

/// Reads a key and its value; none if this version does not write such a key.
pub(super) fn read(schema: Schema, key: &[u8], value: &[u8]) -> Option<Entry> {
    if key == REVISION {
        return revision(value).map(Entry::Head);
    }
    let (mark, rest) = key.split_first()?;
    match mark {
        b'r' => {
            let (name, id) = rest.split_last_chunk::<16>()?;
            let kind = kind(name.strip_suffix(b"\0")?)?;
            Some(Entry::Row((kind, Uuid::from_bytes(*id))))
        }
        b'u' => {
            let mut parts = rest.splitn(3, |byte| *byte == 0);
            let kind = kind(parts.next()?)?;
            let fields = parts.next()?;
            let mut keys = schema.unique_keys(kind).iter();
            let key = keys.find(|key| key.fields.join(",").as_bytes() == fields)?;
            let values = String::from_utf8(parts.next()?.to_vec()).ok()?;
            let fields = key.fields;
            let entry = UniqueEntry {
                kind,
                fields,
                values,
            };
            Some(Entry::Unique(entry, Uuid::from_slice(value).ok()?))
        }
        b'f' => {
            let (path, id) = rest.split_last_chunk::<16>()?;
            let mut parts = path.strip_suffix(b"\0")?.split(|byte| *byte == 0);
            let to = kind(parts.next()?)?;
            let parent = std::str::from_utf8(parts.next()?).ok()?;
            let by = kind(parts.next()?)?;
            let field = std::str::from_utf8(parts.next()?).ok()?;
            let reference = schema.reference(by, field)?;
            let parent = match reference.by {
                ReferenceBy::Id | ReferenceBy::PlainId => Parent::Id(parent.parse().ok()?),
                ReferenceBy::Field { .. } => Parent::Value(parent.to_owned()),
            };
            let entry = ReferenceEntry {
                to,
                parent,
                kind: by,
                field: reference.field,
                id: Uuid::from_bytes(*id),
            };
            Some(Entry::Reference(entry))
        }
        _ => None,
    }
}

fn kind(name: &[u8]) -> Option<Kind> {
    let mut kinds = Kind::ALL.into_iter();
    kinds.find(|kind| kind.name().as_bytes() == name)
}

/// A revision as it is stored.
pub(super) fn revision(value: &[u8]) -> Option<Revision> {
    value.try_into().map(u64::from_be_bytes).ok()
}

/// Keys with their new values, or none for a key that is removed, in no particular order.
pub(super) type Changes = Vec<(Vec<u8>, Option<Arc<[u8]>>)>;

/// The changes that operations make in the tree of rows.
pub(super) fn changes(operations: &Operations) -> Changes {
    let rows = operations.rows.iter();
    let rows = rows.map(|(key, record)| (row(*key), record.clone()));
    let unique = operations.unique.iter();
    let unique = unique.map(|(entry, id)| (self::unique(entry), id.map(|id| of_id(&id))));
    let references = operations.references.iter();
    let references = references.map(|(entry, is_there)| {
        let nothing = is_there.map(|()| Arc::from([]));
        (reference(entry), nothing)
    });
    let head = (REVISION.to_vec(), Some(of_revision(operations.head)));
    rows.chain(unique).chain(references).chain([head]).collect()
}

/// All entries of the tree of rows that holds these rows, except the revision.
pub(super) fn entries(rows: &Rows) -> impl Iterator<Item = (Vec<u8>, Arc<[u8]>)> {
    let records = rows.records.iter();
    let records = records.map(|(key, record)| (row(*key), Arc::clone(record)));
    let unique = rows.unique.iter();
    let unique = unique.map(|(entry, id)| (self::unique(entry), of_id(id)));
    let references = rows.references.keys();
    let references = references.map(|entry| (reference(entry), Arc::from([])));
    records.chain(unique).chain(references)
}

/// A revision as a value.
pub(super) fn of_revision(revision: Revision) -> Arc<[u8]> {
    Arc::from(revision.to_be_bytes())
}

fn of_id(id: &Uuid) -> Arc<[u8]> {
    Arc::from(id.as_bytes().as_slice())
}

/// The error if the stored data is not what was written.
pub(super) fn broken(what: impl Display) -> Error {
    Error::Backend(what.to_string())
}
