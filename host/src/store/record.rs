//! The encoding of a row in journals and in memory: the revision that wrote it as 8 bytes, then the
//! row as JSON text. Memory holds this encoding because parsed rows take several times the space.

use serde_json::Value;

use super::{Revision, Stored};
use crate::entity::Row;

/// Deepest nesting of objects and arrays in a row. The reader of stored rows has a limit of 128,
/// and so have most clients; lists, and what a response adds around a row, take some of these
/// levels.
pub(super) const DEPTH: usize = 112;

/// Encodes a row, if it can be decoded again.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(super) fn encode_checked(revision: Revision, row: &Row) -> Result<Vec<u8>, String> {
    if row.values().any(|value| is_deeper(value, DEPTH - 1)) {
        return Err(format!(
            "it is nested deeper than {DEPTH} objects and arrays"
        ));
    }
    let record = encode(revision, row)?;
    decode(&record)?;
    Ok(record)
}

pub(super) fn encode(revision: Revision, row: &Row) -> Result<Vec<u8>, String> {
    let mut record = revision.to_be_bytes().to_vec();
    serde_json::to_writer(&mut record, row).map_err(|error| error.to_string())?;
    Ok(record)
}

/// Decodes what [`encode`] has written.
///
/// # Errors
/// Why it cannot be read, as the end of a sentence.
pub(super) fn decode(record: &[u8]) -> Result<Stored, String> {
    let (revision, json) = record.split_first_chunk::<8>().ok_or("it is cut off")?;
    let row = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok(Stored {
        row,
        revision: u64::from_be_bytes(*revision),
    })
}

/// Whether objects and arrays in a value are nested deeper than `most`.
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
