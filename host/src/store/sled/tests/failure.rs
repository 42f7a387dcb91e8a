//! Tests of writes that fail, and of a folder that has disappeared.

use super::super::super::journal::Journal;
use super::super::super::operations::Operations;
use super::super::super::rules;
use super::super::super::tests::written_at_last;
use super::*;

/// A row that sled puts in a file of its own.
fn large(id: u128) -> Write {
    insert(
        Kind::Service,
        id,
        json!({"name": id.to_string(), "a": "x".repeat(300_000)}),
    )
}

/// Removes the folder in which sled would create files, and restores it when dropped. This works
/// for root too, for which permissions are not checked.
struct NoFiles(std::path::PathBuf);

impl NoFiles {
    fn in_folder(folder: &TempDir) -> Self {
        let blobs = folder.path().join("entities").join("blobs");
        std::fs::rename(&blobs, blobs.with_extension("away")).unwrap();
        std::fs::write(&blobs, "").unwrap();
        Self(blobs)
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
        std::fs::rename(self.0.with_extension("away"), &self.0).unwrap();
    }
}

#[tokio::test]
async fn a_write_that_fails_midway_is_undone_and_the_store_opens_again() {
    let (folder, store) = filled().await;
    let component = Bytes::from(vec![7; 200_000]);
    let blob = |blob: &'static [u8], old| {
        let version = row(json!({"digest": "d", "balancer": link(7)}));
        let id = Uuid::from_u128(8);
        Write::put(
            Kind::BalancerVersion,
            id,
            version,
            Some(Bytes::from_static(blob)),
            old,
        )
    };
    let mut balancer = vec![insert(
        Kind::Balancer,
        7,
        json!({"name": "b", "digest": "d"}),
    )];
    balancer.push(blob(b"old", None));
    let old = store.write(balancer).await.unwrap();
    let mut commits = store.watch().unwrap();
    commits.recv().await.unwrap();

    let no_files = NoFiles::in_folder(&folder);
    // One write with a changed row, a replaced blob, and a row that cannot be written.
    let mut writes = vec![delete(Kind::Route, 2), blob(b"new", Some(old)), large(9)];
    writes.push(Write::Insert {
        kind: Kind::Balancer,
        id: Uuid::from_u128(10),
        row: row(json!({"name": "c", "digest": "d"})),
        blob: Some(component),
    });
    let failed = store.write(writes).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    // The next write is answered too, and so is a read.
    let failed = store.write(vec![delete(Kind::Route, 2)]).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert!(store.condition().failure.is_some());
    assert_eq!(ids_of(&store, Kind::Route), [2]);
    assert_eq!(ids_of(&store, Kind::Service), [1]);

    drop(no_files);
    let newest = written_at_last(&store, insert(Kind::Service, 11, json!({"name": "n"}))).await;
    assert!(store.condition().failure.is_none());
    // Watchers received nothing in between.
    let next = commits.recv().await.unwrap();
    assert_eq!((next.revision, next.changes.len()), (newest, 1));
    let holds = |store: &Opened| {
        assert_eq!(ids_of(store, Kind::Service), [1, 11]);
        assert_eq!(ids_of(store, Kind::Route), [2]);
        assert_eq!(ids_of(store, Kind::Balancer), [7]);
        let blob = store
            .blob(Kind::BalancerVersion, Uuid::from_u128(8))
            .unwrap();
        assert_eq!(blob.as_deref(), Some(&b"old"[..]));
        assert_eq!(
            store.blob(Kind::Balancer, Uuid::from_u128(10)).unwrap(),
            None
        );
    };
    holds(&store);
    put(&store, large(12)).await;
    put(&store, delete(Kind::Service, 12)).await;
    drop(store);
    holds(&reopen(&folder));
}

#[tokio::test]
async fn an_unacknowledged_commit_on_disk_is_taken_back() {
    let (folder, store) = filled().await;
    drop(store);
    let mut journal = SledJournal::new(folder.path());
    // The threads of the dropped store may still hold the folder.
    let rows = loop {
        match journal.load(Schema::DECLARED) {
            Ok(rows) => break rows,
            Err(error) if error.to_string().contains("in use") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let writes = [
        delete(Kind::Route, 2),
        insert(Kind::Service, 9, json!({"name": "n"})),
    ];
    let (operations, commit) = rules::stage(&rows, &Operations::default(), &writes).unwrap();
    // The commit reached the disk, and failed only after that.
    journal.commit_and_fail(rows.head(), &operations);
    // Later revisions are greater than any revision that was on disk.
    assert_eq!(journal.recover(&rows), Ok(commit.revision));
    drop(journal);
    let store = reopen(&folder);
    assert_eq!(ids_of(&store, Kind::Route), [2]);
    assert_eq!(ids_of(&store, Kind::Service), [1]);
    assert!(put(&store, delete(Kind::Route, 2)).await > commit.revision);
}

#[tokio::test]
async fn a_folder_that_holds_something_else_is_refused() {
    let (folder, store) = filled().await;
    let (other, stranger) = filled().await;
    put(&stranger, insert(Kind::Service, 9, json!({"name": "n"}))).await;
    drop(stranger);
    drop(reopen(&other));
    let aside = folder.path().with_extension("aside");
    std::fs::rename(folder.path(), &aside).unwrap();
    let gone = store.write(vec![delete(Kind::Route, 2)]).await.unwrap_err();
    assert!(gone.to_string().contains("deleted or replaced"), "{gone}");
    std::fs::rename(other.path(), folder.path()).unwrap();
    let replaced = store.write(vec![delete(Kind::Route, 2)]).await.unwrap_err();
    assert!(
        replaced.to_string().contains("deleted or replaced"),
        "{replaced}"
    );
    std::fs::rename(folder.path(), other.path()).unwrap();
    std::fs::rename(&aside, folder.path()).unwrap();
    written_at_last(&store, delete(Kind::Route, 2)).await;
    assert_eq!(ids_of(&reopen(&other), Kind::Service), [1, 9]);
}
