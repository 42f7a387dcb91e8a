//! Blobs: named by their digests, and stored in chunks, because etcd limits the size of a request.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::grpc::CallError;
use super::messages::{PUT, put};
use super::remote::Remote;
use crate::key_file::hex;

/// Bytes of a chunk.
const CHUNK: usize = 512 << 10;

/// The name of a blob.
pub(super) fn digest(blob: &[u8]) -> String {
    hex(&Sha256::digest(blob).into())
}

/// Writes a blob, unless it is there. A row may refer to it afterwards.
pub(super) async fn write(
    remote: &Remote,
    digest: &str,
    blob: &[u8],
    patience: Duration,
) -> Result<(), CallError> {
    let deadline = Instant::now() + patience;
    let size = remote.keys.blob_size(digest);
    if remote.get(&size, deadline).await?.is_some() {
        return Ok(());
    }
    for (number, chunk) in blob.chunks(CHUNK).enumerate() {
        let message = put(&remote.keys.chunk(digest, number), chunk);
        remote.client.call(PUT, message.as_bytes()).await?;
    }
    let message = put(&size, blob.len().to_string().as_bytes());
    remote.client.call(PUT, message.as_bytes()).await?;
    Ok(())
}

/// Reads a blob; none if it is missing or not what its name says.
pub(super) async fn read(
    remote: &Remote,
    digest: &str,
    patience: Duration,
) -> Result<Option<Bytes>, CallError> {
    let deadline = Instant::now() + patience;
    let size = remote.get(&remote.keys.blob_size(digest), deadline).await?;
    let size = size.and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
    let Some(size) = size else {
        return Ok(None);
    };
    let mut blob: Vec<u8> = Vec::new();
    for number in 0..usize::div_ceil(size, CHUNK) {
        match remote
            .get(&remote.keys.chunk(digest, number), deadline)
            .await?
        {
            Some(chunk) => blob.extend_from_slice(&chunk.value),
            None => return Ok(None),
        }
    }
    Ok((self::digest(&blob) == digest).then(|| blob.into()))
}
