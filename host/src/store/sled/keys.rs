//! What stands under which key.
//!
//! | key | value |
//! |---|---|
//! | `r` kind 0 id | revision and row |
//! | `u` kind 0 fields 0 values | id of the row with these values of a unique key, in the form in which they are compared |
//! | `f` kind 0 parent 0 kind 0 field 0 id | nothing: this row refers to the parent |
//! | `m` `revision` | revision of the newest commit |
//!
//! Kinds and fields are our own words; values and parents are JSON text, in which no byte is 0. Ids
//! come last, as 16 bytes. A chunk of a blob has the key of its row with the number of the chunk.

use ::sled::Tree;
use serde_json::Value;
use uuid::Uuid;

use super::super::{Error, Revision, Stored};
use crate::entity::{Kind, Row, UniqueKey};

/// Key of the newest revision.
pub(super) const REVISION: &[u8] = b"mrevision";

/// Starts of the keys that lead to rows.
pub(super) const INDEXES: [&[u8]; 2] = [b"u", b"f"];

/// Bytes of a blob in one value: beyond 128 KiB sled puts a value in a file of its own.
pub(super) const CHUNK: usize = 64 << 10;

pub(super) fn row(kind: Kind, id: Uuid) -> Vec<u8> {
    [b"r", kind.name().as_bytes(), b"\0", id.as_bytes()].concat()
}

/// The key of values of a unique key, however they are spelled.
pub(super) fn unique(kind: Kind, key: UniqueKey, values: &[&Value]) -> Vec<u8> {
    let compared = key.iter().zip(values);
    let compared: Vec<Value> = compared
        .map(|(field, value)| kind.declaration().compared(field, value))
        .collect();
    unique_as_written(kind, key, &compared.iter().collect::<Vec<_>>())
}

/// The same of values in this spelling alone, as earlier versions had it for all.
pub(super) fn unique_as_written(kind: Kind, key: UniqueKey, values: &[&Value]) -> Vec<u8> {
    let values: Vec<String> = values.iter().map(|value| value.to_string()).collect();
    let (fields, values) = (key.join(","), values.join(","));
    [
        b"u",
        kind.name().as_bytes(),
        b"\0",
        fields.as_bytes(),
        b"\0",
        values.as_bytes(),
    ]
    .concat()
}

/// The parent as reference keys have it, by id.
pub(super) fn parent(id: Uuid) -> String {
    id.to_string()
}

/// The parent as reference keys have it, by the value of a field.
pub(super) fn parent_value(value: &Value) -> String {
    value.to_string()
}

/// Start of the keys of all rows that refer to a parent.
pub(super) fn referred(to: Kind, parent: &str) -> Vec<u8> {
    [b"f", to.name().as_bytes(), b"\0", parent.as_bytes(), b"\0"].concat()
}

/// Start of the keys of the rows of a kind that refer to a parent by a field.
pub(super) fn referring(to: Kind, parent: &str, kind: Kind, field: &str) -> Vec<u8> {
    let referring = [kind.name().as_bytes(), b"\0", field.as_bytes(), b"\0"].concat();
    [referred(to, parent), referring].concat()
}

/// The kind and id of the row that a reference key is of; `rest` is the key without its
/// [`referred`] part.
pub(super) fn referrer(rest: &[u8]) -> Result<(Kind, Uuid), Error> {
    let kind = rest
        .split(|&byte| byte == 0)
        .next()
        .and_then(|name| Kind::ALL.into_iter().find(|k| k.name().as_bytes() == name));
    Ok((kind.ok_or_else(damaged)?, last_id(rest)?))
}

pub(super) fn chunk(kind: Kind, id: Uuid, number: u32) -> Vec<u8> {
    [&*row(kind, id), &number.to_be_bytes()].concat()
}

pub(super) fn id(bytes: &[u8]) -> Result<Uuid, Error> {
    Uuid::from_slice(bytes).map_err(|_| damaged())
}

/// The id at the end of a key.
pub(super) fn last_id(key: &[u8]) -> Result<Uuid, Error> {
    id(key.last_chunk::<16>().ok_or_else(damaged)?)
}

pub(super) fn encode(revision: Revision, row: &Row) -> Vec<u8> {
    let json = serde_json::to_vec(row).unwrap_or_default();
    [&revision.to_be_bytes(), &*json].concat()
}

pub(super) fn decode(value: &[u8]) -> Result<Stored, Error> {
    let (revision, json) = value.split_first_chunk::<8>().ok_or_else(damaged)?;
    let row = serde_json::from_slice(json).map_err(|_| damaged())?;
    Ok(Stored {
        row,
        revision: u64::from_be_bytes(*revision),
    })
}

pub(super) fn revision(rows: &Tree) -> Result<Revision, Error> {
    match rows.get(REVISION)? {
        Some(value) => Ok(u64::from_be_bytes(
            value.as_ref().try_into().map_err(|_| damaged())?,
        )),
        None => Err(damaged()),
    }
}

pub(super) fn damaged() -> Error {
    Error::Backend("a stored value cannot be read".into())
}
