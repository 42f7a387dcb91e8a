//! The bytes that belong to rows, in chunks.

use std::collections::BTreeMap;

use ::sled::{Batch, IVec, Tree};
use bytes::Bytes;

use super::super::Error;
use super::super::index::RowKey;
use super::super::operations::Operations;
use super::format;

/// The chunks before a commit; none for a chunk that did not exist.
pub(super) type Before = BTreeMap<Vec<u8>, Option<IVec>>;

/// The bytes that belong to a row.
pub(super) fn read(blobs: &Tree, key: RowKey) -> Result<Option<Bytes>, Error> {
    let mut blob: Option<Vec<u8>> = None;
    for chunk in blobs.scan_prefix(format::row(key)) {
        blob.get_or_insert_default().extend_from_slice(&chunk?.1);
    }
    Ok(blob.map(Bytes::from))
}

/// Whether a row has bytes of its own.
pub(super) fn is_there(blobs: &Tree, key: RowKey) -> Result<bool, Error> {
    let mut chunks = blobs.scan_prefix(format::row(key));
    Ok(chunks.next().transpose()?.is_some())
}

/// The changes of blobs. The present chunks are added to `before`.
pub(super) fn changes(
    blobs: &Tree,
    operations: &Operations,
    before: &mut Before,
) -> Result<Batch, Error> {
    let mut batch = Batch::default();
    for (key, blob) in &operations.blobs {
        let row = format::row(*key);
        for chunk in blobs.scan_prefix(&row) {
            let (key, value) = chunk?;
            batch.remove(&key);
            before.insert(key.to_vec(), Some(value));
        }
        for (number, chunk) in (0..).zip(blob.chunks(format::CHUNK)) {
            let key = format::chunk(&row, number);
            batch.insert(&*key, chunk);
            before.entry(key).or_insert(None);
        }
    }
    Ok(batch)
}

/// The changes that restore the chunks of `before`.
pub(super) fn restore(before: &Before) -> Batch {
    let mut batch = Batch::default();
    for (key, old) in before {
        match old {
            Some(old) => batch.insert(&**key, old),
            None => batch.remove(&**key),
        }
    }
    batch
}
