//! Commits that are larger than a transaction of etcd may be: see `etcd.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::time::Instant;
use uuid::Uuid;

use super::format::{Entry, Head, json, read_part};
use super::grpc::CallError;
use super::messages::{Compare, DELETE_RANGE, EtcdRevision, KeyRange, PUT, Step, delete, put};
use super::remote::{Committed, Remote, StoredHead};

/// Most steps of a transaction besides that of the head. etcd's own limit is 128 by default
/// (`--max-txn-ops`).
pub(super) const STEPS: usize = 120;

/// Most bytes of a transaction or of a part. etcd's own limit is 1.5 MiB by default
/// (`--max-request-bytes`).
pub(super) const BYTES: usize = 1 << 20;

/// How many transactions copy rows from parts at a time. One after the other, 10,000 rows take 84
/// times as long as an answer, which on a busy machine is longer than a writer waits.
const AT_ONCE: usize = 8;

/// Whether entries fit into one transaction.
pub(super) fn fits(entries: &[Entry]) -> bool {
    entries.len() <= STEPS && entries.iter().map(size).sum::<usize>() <= BYTES
}

fn size((key, value): &Entry) -> usize {
    // What the encoding adds is less than this.
    key.len() + value.as_ref().map_or(0, String::len) + 64
}

/// The steps that make entries.
pub(super) fn steps(entries: &[Entry]) -> Vec<Step> {
    let steps = entries.iter().map(|(key, value)| match value {
        Some(value) => Step::Put(key.clone(), value.clone().into_bytes()),
        None => Step::Delete(KeyRange::key(key)),
    });
    steps.collect()
}

/// Divides entries so that each group fits into a transaction, with at most `most` entries.
pub(super) fn groups(entries: &[Entry], most: usize) -> Vec<&[Entry]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (position, entry) in entries.iter().enumerate() {
        let size = size(entry);
        if position > start && (position - start == most || bytes + size > BYTES) {
            groups.extend(entries.get(start..position));
            (start, bytes) = (position, 0);
        }
        bytes += size;
    }
    groups.extend(entries.get(start..).filter(|group| !group.is_empty()));
    groups
}

/// Writes entries as the parts of a commit. Returns their number.
pub(super) async fn write_parts(
    remote: &Remote,
    head: &Head,
    entries: &[Entry],
) -> Result<usize, CallError> {
    // JSON in JSON takes up to twice the bytes in quotes and backslashes.
    let parts = groups(entries, usize::MAX);
    let mut number = 0;
    for part in parts {
        for half in halves(part) {
            let key = remote.keys.part(head.commit, number);
            remote.client.call(PUT, put(&key, &half).as_bytes()).await?;
            number += 1;
        }
    }
    Ok(number)
}

/// A part as JSON; in two or more pieces if it would be too large.
fn halves(part: &[Entry]) -> Vec<Vec<u8>> {
    let whole = json(&part);
    if whole.len() <= BYTES + BYTES / 4 || part.len() == 1 {
        return vec![whole];
    }
    let (first, second) = part.split_at(part.len() / 2);
    let mut pieces = halves(first);
    pieces.extend(halves(second));
    pieces
}

/// Copies the rows of a commit from its parts to their keys, and removes the parts. Several
/// gateways may do so at the same time. Returns the head afterwards.
pub(super) async fn settle(
    remote: &Remote,
    stored: &StoredHead,
    patience: Duration,
) -> Result<Option<StoredHead>, CallError> {
    let deadline = Instant::now() + patience;
    let present = remote.head(deadline).await?;
    let Some(stored) = present.filter(|present| present.head == stored.head) else {
        // Another gateway has done so.
        return remote.head(deadline).await;
    };
    let range = KeyRange::prefix(&remote.keys.parts(stored.head.commit));
    let (_, parts) = remote.pages(range.clone(), deadline).await?;
    let entries: Vec<Entry> = parts
        .iter()
        .flat_map(|part| read_part(&part.value))
        .collect();
    let same = [Compare::ModRevision(
        remote.keys.head(),
        stored.mod_revision,
    )];
    let all: Vec<Vec<Step>> = groups(&entries, STEPS).into_iter().map(steps).collect();
    let copying = iter(all).map(|steps: Vec<Step>| {
        let same = &same;
        async move { remote.transaction(same, &steps).await }
    });
    let mut copying = std::pin::pin!(copying.buffer_unordered(AT_ONCE));
    while let Some(copied) = copying.next().await {
        match copied? {
            Committed::Done(_) => {}
            Committed::Other(head) => return Ok(head),
        }
    }
    let head = Head {
        parts: None,
        ..stored.head
    };
    let last = [
        Step::Put(remote.keys.head(), json(&head)),
        Step::Delete(range),
    ];
    match remote.transaction(&same, &last).await? {
        Committed::Done(mod_revision) => Ok(Some(StoredHead { head, mod_revision })),
        Committed::Other(head) => Ok(head),
    }
}

/// Removes the parts of a commit that was not made and will not be made.
pub(super) async fn remove(remote: &Remote, commit: Uuid) -> Result<(), CallError> {
    let range = KeyRange::prefix(&remote.keys.parts(commit));
    let message = delete(&range);
    let removed = remote.client.call(DELETE_RANGE, message.as_bytes()).await;
    removed.map(drop)
}

/// Removes the parts of commits that can no longer be made, such as those of a gateway that has
/// ended before it could replace the head.
///
/// A commit is made on the head that there is before its first part is written. So it cannot be
/// made any longer once another commit has replaced the head after its last part was written. One
/// that was made, and replaced as the head, has its rows at their keys.
pub(super) async fn sweep(remote: &Remote, patience: Duration) -> Result<(), CallError> {
    let deadline = Instant::now() + patience;
    let range = KeyRange::prefix(&remote.keys.all_parts());
    let parts = remote.keys(range, deadline).await?;
    // Read afterwards, so that it is not older than any of the parts.
    let Some(head) = remote.head(deadline).await? else {
        return Ok(());
    };
    let mut newest: BTreeMap<Uuid, EtcdRevision> = BTreeMap::new();
    for part in parts {
        if let Some(commit) = remote.keys.commit_of(&part.key) {
            let newest = newest.entry(commit).or_default();
            *newest = part.mod_revision.max(*newest);
        }
    }
    for commit in outdated(&newest, &head) {
        tracing::debug!(%commit, "the parts of a commit that was not made are removed");
        remove(remote, commit).await?;
    }
    Ok(())
}

/// The commits that can no longer be made, of those whose newest parts were written at these
/// revisions.
fn outdated(
    newest: &BTreeMap<Uuid, EtcdRevision>,
    head: &StoredHead,
) -> impl Iterator<Item = Uuid> {
    let outdated = newest
        .iter()
        .filter(|(commit, written)| **commit != head.head.commit && **written < head.mod_revision);
    outdated.map(|(commit, _)| *commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_all_entries_in_order_and_fit() {
        let value = "x".repeat(BYTES / 5);
        for (count, value) in [(0, ""), (1, ""), (400, ""), (17, &*value)] {
            let entries: Vec<Entry> = (0..count)
                .map(|number| (format!("{number}"), Some(value.to_owned())))
                .collect();
            let groups = groups(&entries, STEPS);
            assert!(groups.iter().all(|group| fits(group)), "{count}");
            assert_eq!(groups.concat(), entries);
        }
    }

    #[test]
    fn parts_are_kept_while_their_commit_may_still_be_made_or_is_the_head() {
        let [made, beaten, waiting] = [1, 2, 3].map(Uuid::from_u128);
        let head = StoredHead {
            head: Head {
                revision: 9,
                after: 8,
                commit: made,
                parts: Some(2),
            },
            mod_revision: 50,
        };
        let newest = BTreeMap::from([(made, 49), (beaten, 48), (waiting, 51)]);
        assert_eq!(outdated(&newest, &head).collect::<Vec<_>>(), [beaten]);
    }

    #[test]
    fn a_part_is_read_as_it_was_written() {
        let entries: Vec<Entry> = (0..50)
            .map(|number| (format!("{number}"), Some("\"".repeat(BYTES / 40))))
            .chain([("gone".to_owned(), None)])
            .collect();
        let pieces = halves(&entries);
        assert!(pieces.iter().all(|piece| piece.len() <= BYTES + BYTES / 4));
        let read: Vec<Entry> = pieces.iter().flat_map(|piece| read_part(piece)).collect();
        assert_eq!(read, entries);
    }
}
