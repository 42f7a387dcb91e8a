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

use std::fmt::Display;

use serde_json::Value;
use uuid::Uuid;

use super::super::{Error, Revision, Stored};
use crate::entity::{Kind, Row};

/// Key of the newest revision.
pub(in crate::store) const REVISION: &[u8] = b"mrevision";

/// Starts of the keys that lead to rows.
pub(in crate::store) const INDEXES: [&[u8]; 2] = [b"u", b"f"];

/// Bytes of a blob in one value: beyond 128 KiB sled puts a value in a file of its own.
pub(in crate::store) const CHUNK: usize = 64 << 10;

pub(in crate::store) fn row(kind: Kind, id: Uuid) -> Vec<u8> {
    [b"r", kind.name().as_bytes(), b"\0", id.as_bytes()].concat()
}

/// The key of values of a unique key, however they are spelled.
pub(in crate::store) fn unique(kind: Kind, key: &[&str], values: &[&Value]) -> Vec<u8> {
    let compared = key.iter().zip(values);
    let compared: Vec<Value> = compared
        .map(|(field, value)| kind.declaration().compared(field, value))
        .collect();
    unique_as_written(kind, key, &compared.iter().collect::<Vec<_>>())
}

/// The same of values in this spelling alone, as earlier versions had it for all.
pub(in crate::store) fn unique_as_written(kind: Kind, key: &[&str], values: &[&Value]) -> Vec<u8> {
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
pub(in crate::store) fn parent(id: Uuid) -> String {
    id.to_string()
}

/// The parent as reference keys have it, by the value of a field.
pub(in crate::store) fn parent_value(value: &Value) -> String {
    value.to_string()
}

/// Start of the keys of all rows that refer to a parent.
pub(in crate::store) fn referred(to: Kind, parent: &str) -> Vec<u8> {
    [b"f", to.name().as_bytes(), b"\0", parent.as_bytes(), b"\0"].concat()
}

/// Start of the keys of the rows of a kind that refer to a parent by a field.
pub(in crate::store) fn referring(to: Kind, parent: &str, kind: Kind, field: &str) -> Vec<u8> {
    let referring = [kind.name().as_bytes(), b"\0", field.as_bytes(), b"\0"].concat();
    [referred(to, parent), referring].concat()
}

/// The kind and id of the row that a reference key is of; `rest` is the key without its
/// [`referred`] part.
pub(in crate::store) fn referrer(rest: &[u8]) -> Result<(Kind, Uuid), Error> {
    let kind = rest
        .split(|&byte| byte == 0)
        .next()
        .and_then(|name| Kind::ALL.into_iter().find(|k| k.name().as_bytes() == name));
    Ok((kind.ok_or_else(damaged)?, last_id(rest)?))
}

/// The key of a part of the blob of the row with the key `row`.
pub(in crate::store) fn chunk(row: &[u8], number: u32) -> Vec<u8> {
    [row, &number.to_be_bytes()].concat()
}

pub(in crate::store) fn id(bytes: &[u8]) -> Result<Uuid, Error> {
    Uuid::from_slice(bytes).map_err(|_| damaged())
}

/// The id at the end of a key.
pub(in crate::store) fn last_id(key: &[u8]) -> Result<Uuid, Error> {
    id(key.last_chunk::<16>().ok_or_else(damaged)?)
}

/// The kind and id of the row that a key is of; none for other keys.
pub(in crate::store) fn row_of(key: &[u8]) -> Option<(Kind, Uuid)> {
    let (name, id) = key.strip_prefix(b"r")?.split_last_chunk::<16>()?;
    let name = name.strip_suffix(b"\0")?;
    let mut kinds = Kind::ALL.into_iter();
    let kind = kinds.find(|kind| kind.name().as_bytes() == name)?;
    Some((kind, Uuid::from_bytes(*id)))
}

/// Whether an index entry leads to this row.
pub(in crate::store) fn leads_to(key: &[u8], value: &[u8], kind: Kind, id: Uuid) -> bool {
    let Some((mark, rest)) = key.split_first() else {
        return false;
    };
    let name = kind.name().as_bytes();
    match mark {
        b'u' => {
            let own = rest
                .strip_prefix(name)
                .is_some_and(|r| r.first() == Some(&0));
            own && value == id.as_bytes()
        }
        b'f' => {
            let path = rest.strip_suffix(id.as_bytes()).unwrap_or_default();
            // to 0 parent 0 kind 0 field 0
            path.split(|byte| *byte == 0).nth(2) == Some(name)
        }
        _ => false,
    }
}

/// The values of a unique key as JSON text, from the key of its entry.
pub(in crate::store) fn values_of(entry: &[u8]) -> Option<&str> {
    let values = entry.splitn(3, |byte| *byte == 0).nth(2)?;
    std::str::from_utf8(values).ok()
}

pub(in crate::store) fn encode(revision: Revision, row: &Row) -> Result<Vec<u8>, String> {
    let mut value = revision.to_be_bytes().to_vec();
    serde_json::to_writer(&mut value, row).map_err(|error| error.to_string())?;
    Ok(value)
}

/// Reads what [`encode`] has written.
///
/// # Errors
/// Why it cannot be read, as the end of a sentence.
pub(in crate::store) fn decode(value: &[u8]) -> Result<Stored, String> {
    let (revision, json) = value.split_first_chunk::<8>().ok_or("it is cut off")?;
    let row = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok(Stored {
        row,
        revision: u64::from_be_bytes(*revision),
    })
}

/// Deepest nesting of objects and arrays in a row. The reader of stored rows ends at 128, and so do
/// most clients; lists and what is shown around a row add some of their own.
pub(in crate::store) const DEPTH: usize = 112;

/// Writes a row down, if it can be read again by what will read it.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(in crate::store) fn encode_checked(revision: Revision, row: &Row) -> Result<Vec<u8>, String> {
    if row.values().any(|value| is_deeper(value, DEPTH - 1)) {
        return Err(format!(
            "it is nested deeper than {DEPTH} objects and arrays"
        ));
    }
    let value = encode(revision, row)?;
    decode(&value)?;
    Ok(value)
}

/// Whether a value has more than so many objects and arrays inside each other.
fn is_deeper(value: &Value, most: usize) -> bool {
    let mut left = vec![(value, most)];
    while let Some((value, most)) = left.pop() {
        let (array, object) = match value {
            Value::Array(array) => (Some(array), None),
            Value::Object(object) => (None, Some(object)),
            _ => continue,
        };
        let Some(inside) = most.checked_sub(1) else {
            return true;
        };
        left.extend(array.into_iter().flatten().map(|value| (value, inside)));
        let values = object.into_iter().flat_map(|object| object.values());
        left.extend(values.map(|value| (value, inside)));
    }
    false
}

/// A revision as it is stored.
pub(in crate::store) fn revision(value: &[u8]) -> Option<Revision> {
    value.try_into().map(u64::from_be_bytes).ok()
}

pub(in crate::store) fn damaged() -> Error {
    broken("a stored value cannot be read")
}

/// What is stored is not what was written.
pub(in crate::store) fn broken(what: impl Display) -> Error {
    Error::Backend(what.to_string())
}
