//! Tests of a store that another process gets, and that comes back.

use super::super::super::tests::written_at_last;
use super::super::hand_over;
use super::*;

fn blob_of(store: &JournaledStore, id: u128) -> Option<Bytes> {
    store.blob(Kind::Balancer, Uuid::from_u128(id)).unwrap()
}

fn balancer(id: u128, blob: &[u8]) -> Write {
    Write::Insert {
        kind: Kind::Balancer,
        id: Uuid::from_u128(id),
        row: row(json!({"name": id.to_string()})),
        blob: Some(Bytes::copy_from_slice(blob)),
    }
}

#[tokio::test]
async fn what_another_process_writes_is_lost_if_it_does_not_take_over() {
    let (folder, store) = filled().await;
    let component = [7; 200_000];
    put(&store, balancer(7, &component)).await;
    let mut commits = store.watch().unwrap();
    commits.recv().await.unwrap();
    store.release("another process starts").await.unwrap();
    let refused = store.write(vec![delete(Kind::Route, 2)]).await.unwrap_err();
    assert!(
        refused.to_string().contains("another process starts"),
        "{refused}"
    );

    let other = reopen(&folder);
    put(&other, delete(Kind::Route, 2)).await;
    put(&other, delete(Kind::Balancer, 7)).await;
    for id in 20..30 {
        put(&other, balancer(id, &[id as u8; 200_000])).await;
    }
    // It may still hold its files.
    store.resume();
    let newest = written_at_last(&store, insert(Kind::Service, 11, json!({"name": "n"}))).await;
    let next = commits.recv().await.unwrap();
    assert_eq!((next.revision, next.changes.len()), (newest, 1));
    drop(other);
    let holds = |store: &Opened| {
        assert_eq!(ids_of(store, Kind::Service), [1, 11]);
        assert_eq!(ids_of(store, Kind::Route), [2]);
        assert_eq!(ids_of(store, Kind::Balancer), [7]);
        assert_eq!(blob_of(store, 7).as_deref(), Some(&component[..]));
    };
    holds(&store);
    assert!(!folder.path().join("handed-over").exists());
    drop(store);
    holds(&reopen(&folder));
}

#[tokio::test]
async fn a_store_that_is_not_opened_by_another_process_is_as_it_was() {
    let (folder, store) = filled().await;
    for number in 20..23 {
        // Another one may follow at once.
        for _ in 0..2 {
            store.release("another process starts").await.unwrap();
            store.resume();
        }
        let write = insert(Kind::Service, number, json!({"name": number.to_string()}));
        written_at_last(&store, write).await;
    }
    drop(store);
    assert_eq!(ids_of(&reopen(&folder), Kind::Service), [1, 20, 21, 22]);
}

#[tokio::test]
async fn a_store_that_cannot_be_copied_is_not_released() {
    let (folder, store) = filled().await;
    // No folder can be made where a file is.
    std::fs::write(folder.path().join("handed-over"), "").unwrap();
    let refused = store.release("another process starts").await.unwrap_err();
    assert!(
        refused.to_string().contains("cannot be copied"),
        "{refused}"
    );
    written_at_last(&store, insert(Kind::Service, 11, json!({"name": "n"}))).await;
}

#[tokio::test]
async fn a_start_ends_what_a_crash_has_interrupted() {
    let (folder, store) = filled().await;
    store.release("another process starts").await.unwrap();
    drop(store);
    let other = reopen(&folder);
    put(&other, delete(Kind::Route, 2)).await;
    drop(other);
    drop(reopen(&folder));
    // The crash came between two of the steps.
    let copy = folder.path().join("handed-over");
    std::fs::write(copy.join("PUT-BACK"), "").unwrap();
    std::fs::rename(folder.path().join("entities"), copy.join("discarded")).unwrap();
    std::fs::rename(copy.join("entities"), folder.path().join("entities")).unwrap();
    let _lock = crate::store::lock(folder.path()).unwrap();
    assert!(!copy.exists());
    assert_eq!(ids_of(&reopen(&folder), Kind::Route), [2]);
    hand_over::put_back(folder.path()).unwrap();
}

#[tokio::test]
async fn the_copy_of_a_process_that_was_replaced_is_removed() {
    let (folder, store) = filled().await;
    store.release("another process starts").await.unwrap();
    drop(store);
    let other = reopen(&folder);
    put(&other, delete(Kind::Route, 2)).await;
    end_hand_over(folder.path());
    drop(other);
    assert_eq!(ids_of(&reopen(&folder), Kind::Route), [0_u128; 0]);
    assert!(!folder.path().join("handed-over").exists());
}
