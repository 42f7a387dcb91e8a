//! Tests that the rules enforce what the entities declare.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn a_row_is_found_by_id_and_by_its_unique_key() {
    let store = store();
    put(&store, insert(Kind::Service, 1, json!({"name": "a"}))).await;
    let stored = store
        .get(Kind::Service, Uuid::from_u128(1))
        .unwrap()
        .unwrap();
    assert_eq!(stored.row["name"], "a");
    let found = store
        .find(Kind::Service, &["name"], &[&json!("a")])
        .unwrap();
    assert_eq!(found, Some(stored));
    assert!(
        store
            .find(Kind::Service, &["name"], &[&json!("b")])
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn all_of_a_write_is_done_or_none() {
    let store = store();
    put(&store, insert(Kind::Service, 1, json!({"name": "a"}))).await;
    let writes = vec![
        insert(Kind::Service, 2, json!({"name": "b"})),
        insert(Kind::Service, 3, json!({"name": "a"})),
    ];
    let refused = store.write(writes).await.unwrap_err();
    assert!(matches!(refused, Error::UniqueKeyTaken { .. }), "{refused}");
    assert!(
        store
            .get(Kind::Service, Uuid::from_u128(2))
            .unwrap()
            .is_none()
    );
    assert!(
        store
            .find(Kind::Service, &["name"], &[&json!("b")])
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn later_steps_of_a_write_see_earlier_ones() {
    let store = store();
    let writes = vec![
        insert(Kind::Service, 1, json!({"name": "a"})),
        insert(Kind::Route, 2, json!({"name": "r", "service": link(1)})),
        delete(Kind::Route, 2),
        delete(Kind::Service, 1),
        insert(Kind::Service, 3, json!({"name": "a"})),
    ];
    store.write(writes).await.unwrap();
    assert_eq!(
        store
            .list(Kind::Service, None, 10, &|_| true)
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn null_is_not_a_value_of_a_unique_key() {
    let store = store();
    put(&store, insert(Kind::Route, 1, json!({"name": null}))).await;
    put(&store, insert(Kind::Route, 2, json!({"name": null}))).await;
    let taken = store.write(vec![insert(Kind::Route, 1, json!({}))]).await;
    assert!(matches!(taken, Err(Error::PrimaryKeyTaken { .. })));
}

#[tokio::test]
async fn references_restrict_and_cascade() {
    let store = store();
    let missing = store
        .write(vec![insert(Kind::Route, 9, json!({"service": link(1)}))])
        .await;
    assert!(matches!(
        missing,
        Err(Error::ReferenceMissing {
            field: "service",
            ..
        })
    ));
    put(&store, insert(Kind::Service, 1, json!({}))).await;
    put(&store, insert(Kind::Route, 2, json!({"service": link(1)}))).await;
    let kept = store.write(vec![delete(Kind::Service, 1)]).await;
    assert!(matches!(
        kept,
        Err(Error::StillReferenced {
            by: Kind::Route,
            ..
        })
    ));

    put(
        &store,
        insert(
            Kind::Upstream,
            3,
            json!({"name": "u", "algorithm": "latency"}),
        ),
    )
    .await;
    for id in 4..7 {
        let target = json!({"target": id.to_string(), "upstream": link(3)});
        put(&store, insert(Kind::Target, id, target)).await;
    }
    let upstream = Uuid::from_u128(3);
    let list = |from, limit| {
        let listed = store.list_referring(Kind::Target, "upstream", upstream, from, limit);
        listed.unwrap().len()
    };
    assert_eq!(list(None, 10), 3);
    assert_eq!(list(Some(Uuid::from_u128(5)), 10), 2);
    assert_eq!(list(None, 1), 1);
    put(&store, delete(Kind::Upstream, 3)).await;
    assert_eq!(list(None, 10), 0);
    assert!(
        store
            .get(Kind::Target, Uuid::from_u128(4))
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_name_that_is_referred_to_stays() {
    let store = store();
    let unknown = json!({"name": "u", "algorithm": "mine"});
    let missing = store
        .write(vec![insert(Kind::Upstream, 1, unknown.clone())])
        .await;
    assert!(matches!(
        missing,
        Err(Error::ReferenceMissing {
            to: Kind::Balancer,
            ..
        })
    ));
    // An algorithm name of Kong needs no balancer row; a row that is added later cannot be deleted
    // while it is referred to.
    put(
        &store,
        insert(
            Kind::Upstream,
            1,
            json!({"name": "u", "algorithm": "latency"}),
        ),
    )
    .await;
    put(
        &store,
        insert(Kind::Balancer, 2, json!({"name": "latency"})),
    )
    .await;
    let kept = store.write(vec![delete(Kind::Balancer, 2)]).await;
    assert!(matches!(
        kept,
        Err(Error::StillReferenced {
            by: Kind::Upstream,
            ..
        })
    ));
    let renamed = Write::Replace {
        kind: Kind::Balancer,
        id: Uuid::from_u128(2),
        row: row(json!({"name": "other"})),
        expected: 2,
        blob: None,
    };
    let kept = store.write(vec![renamed]).await;
    assert!(
        matches!(kept, Err(Error::StillReferenced { .. })),
        "{kept:?}"
    );
}

#[tokio::test]
async fn a_change_based_on_an_old_row_is_refused() {
    let store = store();
    let first = put(&store, insert(Kind::Service, 1, json!({"name": "a"}))).await;
    let replace = |expected, name: &str| Write::Replace {
        kind: Kind::Service,
        id: Uuid::from_u128(1),
        row: row(json!({ "name": name })),
        expected,
        blob: None,
    };
    let second = put(&store, replace(first, "b")).await;
    let stale = store.write(vec![replace(first, "c")]).await;
    assert!(matches!(stale, Err(Error::Changed { .. })));
    put(&store, replace(second, "c")).await;
    // Its former names are free again.
    put(&store, insert(Kind::Service, 2, json!({"name": "a"}))).await;
    put(&store, insert(Kind::Service, 3, json!({"name": "b"}))).await;
}

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_then_every_commit_in_order() {
    let store = store();
    put(&store, insert(Kind::Service, 1, json!({"name": "a"}))).await;
    let mut commits = store.watch().unwrap();
    let first = commits.recv().await.unwrap();
    assert_eq!((first.revision, first.changes.len()), (1, 1));
    let writes = (2..50).map(|id| store.write(vec![insert(Kind::Service, id, json!({}))]));
    for outcome in join_all(writes).await {
        outcome.unwrap();
    }
    for revision in 2..50 {
        assert_eq!(commits.recv().await.unwrap().revision, revision);
    }
}

#[tokio::test]
async fn names_of_hosts_are_unique_however_they_are_spelled() {
    let store = store();
    let named = |id, name| {
        insert(
            Kind::Upstream,
            id,
            json!({"name": name, "algorithm": "latency"}),
        )
    };
    put(&store, named(1, "Orders.test")).await;
    let find = |name: &str| {
        let found = store.find(Kind::Upstream, &["name"], &[&json!(name)]);
        found.unwrap().map(|stored| stored.row["name"].clone())
    };
    for name in ["Orders.test", "orders.TEST", "orders.test."] {
        assert_eq!(find(name), Some(json!("Orders.test")), "{name}");
        let taken = store.write(vec![named(2, name)]).await;
        assert!(matches!(taken, Err(Error::UniqueKeyTaken { .. })), "{name}");
    }
    put(&store, delete(Kind::Upstream, 1)).await;
    assert_eq!(find("orders.test"), None);
    put(&store, named(2, "orders.test.")).await;
}

#[tokio::test]
async fn rows_of_one_exchange_may_swap_names_and_lose_parents_together() {
    let store = store();
    let service = |name: &str| json!({ "name": name });
    put(&store, insert(Kind::Service, 1, service("a"))).await;
    let revision = put(&store, insert(Kind::Service, 2, service("b"))).await;
    let route = json!({ "name": "r", "service": link(3) });
    let third = vec![
        insert(Kind::Service, 3, service("c")),
        insert(Kind::Route, 4, route),
    ];
    store.write(third).await.unwrap();
    let replace = |id: u128, name: &str, expected| Write::Replace {
        kind: Kind::Service,
        id: Uuid::from_u128(id),
        row: row(service(name)),
        expected,
        blob: None,
    };
    let swap = || vec![replace(1, "b", revision - 1), replace(2, "a", revision)];
    assert!(store.write(swap()).await.is_err());
    store.exchange(swap(), None).await.unwrap();
    let named = store.find(Kind::Service, &["name"], &[&json!("b")]);
    assert_eq!(named.unwrap().unwrap().revision, revision + 2);
    let refused = store.exchange(vec![delete(Kind::Service, 3)], None).await;
    assert!(matches!(refused, Err(Error::StillReferenced { .. })));
    // The order of the steps makes no difference.
    let all = vec![
        delete(Kind::Service, 3),
        insert(Kind::Route, 5, json!({ "name": "r", "service": link(6) })),
        insert(Kind::Service, 6, service("c")),
        delete(Kind::Route, 4),
    ];
    store.exchange(all, None).await.unwrap();
    assert_eq!(ids_of(&store, Kind::Service), [1, 2, 6]);
    assert_eq!(ids_of(&store, Kind::Route), [5]);
}

#[tokio::test]
async fn an_exchange_on_a_base_is_refused_after_any_other_commit() {
    let store = store();
    let service = |id: u128| insert(Kind::Service, id, json!({ "name": format!("s{id}") }));
    let base = put(&store, service(1)).await;
    assert_eq!(store.head(), base);
    let made = store.exchange(vec![service(2)], Some(base)).await.unwrap();
    let late = store.exchange(vec![service(3)], Some(base)).await;
    assert!(matches!(late, Err(Error::Changed { .. })));
    // Both may wait for the same commit of the journal.
    let (one, other) = (vec![service(4)], vec![service(5)]);
    let (one, other) = tokio::join!(
        store.exchange(one, Some(made)),
        store.exchange(other, Some(made))
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!(ids_of(&store, Kind::Service).len(), 3);
}
