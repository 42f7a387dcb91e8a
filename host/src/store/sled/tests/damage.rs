//! Tests of rows and keys that cannot be used.

use super::*;

#[tokio::test]
async fn a_key_that_leads_to_no_row_is_damage() {
    let missing = Uuid::from_u128(9);
    let unique = name_key(Kind::Service, "ghost");
    let reference = format::reference(&ReferenceEntry {
        to: Kind::Service,
        parent: Parent::Id(Uuid::from_u128(1)),
        kind: Kind::Route,
        field: "service",
        id: missing,
    });
    for key in [unique, reference] {
        let (folder, store) = store();
        let named = json!({"name": "a"});
        put(&store, insert(Kind::Service, 1, named)).await;
        let route = json!({"name": "r", "service": link(1)});
        put(&store, insert(Kind::Route, 2, route)).await;
        drop(store);
        let store = reopen(&folder);
        tamper(&store, &key, Some(missing.as_bytes()));
        drop(store);
        let refused = loop {
            match open(folder.path()) {
                Err(error) if error.to_string().contains("in use") => std::thread::yield_now(),
                outcome => break outcome.unwrap_err().to_string(),
            }
        };
        assert!(
            refused.contains("some of its keys lead to no row"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_row_that_could_not_be_read_again_is_refused() {
    let (folder, store) = store();
    put(&store, insert(Kind::Service, 1, nested(DEPTH))).await;
    for depth in [DEPTH + 1, 126, 127, 128, 129, 500] {
        let refused = store
            .write(vec![insert(Kind::Service, 2, nested(depth))])
            .await;
        assert!(
            matches!(refused, Err(Error::Unreadable { .. })),
            "{depth}: {refused:?}"
        );
    }
    drop(store);
    let store = reopen(&folder);
    let listed = store.list(Kind::Service, None, 10, &|_| true).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].row, row(nested(DEPTH)));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside_until_it_is_deleted() {
    let deep = serde_json::to_vec(&row(nested(127))).unwrap();
    let deep = [&1_u64.to_be_bytes(), &*deep, b" "].concat();
    // One record for each way in which decoding can fail.
    let deep = [&deep[..8], br#"{"a":"#, &deep[8..], b"}"].concat();
    let bad: [&[u8]; 4] = [&deep, b"", b"\0\0\0\0\0\0\0\x01{", b"\0\0\0\0\0\0\0\x01[1]"];
    for bad in bad {
        let (folder, store) = filled().await;
        tamper(&store, &row_key(Kind::Upstream, 3), Some(bad));
        drop(store);
        let store = reopen(&folder);
        let set_aside = store.condition().set_aside;
        assert_eq!(set_aside.len(), 1);
        assert_eq!(
            (set_aside[0].kind, set_aside[0].id.as_u128()),
            (Kind::Upstream, 3)
        );
        // No other row is missing, neither in lists nor in what watchers receive.
        assert_eq!(ids_of(&store, Kind::Upstream), [4]);
        assert_eq!(ids_of(&store, Kind::Service), [1]);
        let listed = store.list(Kind::Upstream, None, 10, &|_| true).unwrap();
        assert_eq!(listed.len(), 1);
        let first = store.watch().unwrap().recv().await.unwrap();
        let told = first.changes.iter();
        let told = told.filter(|change| {
            matches!(
                change,
                Change::Put {
                    kind: Kind::Upstream,
                    ..
                }
            )
        });
        assert_eq!(told.count(), 1);
        // A read of the row by id or by name says that it is set aside.
        let got = store.get(Kind::Upstream, Uuid::from_u128(3));
        assert!(matches!(got, Err(Error::SetAside { .. })), "{got:?}");
        let found = store.find(Kind::Upstream, &["name"], &[&json!("u")]);
        assert!(matches!(found, Err(Error::SetAside { .. })), "{found:?}");
        // Other rows can be written and deleted, and its name stays taken until it is deleted.
        put(&store, delete(Kind::Upstream, 4)).await;
        let again = insert(
            Kind::Upstream,
            6,
            json!({"name": "u", "algorithm": "latency"}),
        );
        let taken = store.write(vec![again.clone()]).await;
        assert!(matches!(taken, Err(Error::UniqueKeyTaken { .. })));
        put(&store, delete(Kind::Upstream, 3)).await;
        assert!(store.condition().set_aside.is_empty());
        // Its targets were deleted with it.
        assert_eq!(ids_of(&store, Kind::Target), [0_u128; 0]);
        put(&store, again).await;
        drop(store);
        let store = reopen(&folder);
        assert!(store.condition().set_aside.is_empty());
        assert_eq!(ids_of(&store, Kind::Upstream), [6]);
    }
}

#[tokio::test]
async fn a_row_that_has_lost_what_it_needs_is_set_aside() {
    let (folder, store) = filled().await;
    tamper(&store, &row_key(Kind::Service, 1), None);
    let name = name_key(Kind::Service, "a");
    tamper(&store, &name, None);
    drop(store);
    let store = reopen(&folder);
    let set_aside = store.condition().set_aside;
    assert_eq!(set_aside.len(), 1);
    assert_eq!(set_aside[0].kind, Kind::Route);
    assert_eq!(ids_of(&store, Kind::Route), [0_u128; 0]);
    assert_eq!(ids_of(&store, Kind::Target), [5]);
    put(&store, delete(Kind::Route, 2)).await;
    drop(store);
    assert!(reopen(&folder).condition().set_aside.is_empty());
}
