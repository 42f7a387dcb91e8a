#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, SledStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    (folder, store)
}

fn row(value: Value) -> Row {
    value.as_object().unwrap().clone()
}

fn insert(kind: Kind, id: u128, fields: Value) -> Write {
    Write::Insert {
        kind,
        id: Uuid::from_u128(id),
        row: row(fields),
        blob: None,
    }
}

fn delete(kind: Kind, id: u128) -> Write {
    let id = Uuid::from_u128(id);
    Write::Delete { kind, id }
}

fn link(id: u128) -> Value {
    json!({ "id": Uuid::from_u128(id) })
}

async fn put(store: &SledStore, write: Write) -> Revision {
    store.write(vec![write]).await.unwrap()
}

#[tokio::test]
async fn a_row_is_found_by_id_and_by_its_unique_key() {
    let (_folder, store) = store();
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
    let (_folder, store) = store();
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
    let (_folder, store) = store();
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
async fn null_is_no_value_of_a_unique_key() {
    let (_folder, store) = store();
    put(&store, insert(Kind::Route, 1, json!({"name": null}))).await;
    put(&store, insert(Kind::Route, 2, json!({"name": null}))).await;
    let taken = store.write(vec![insert(Kind::Route, 1, json!({}))]).await;
    assert!(matches!(taken, Err(Error::PrimaryKeyTaken { .. })));
}

#[tokio::test]
async fn references_restrict_and_cascade() {
    let (_folder, store) = store();
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
    let (_folder, store) = store();
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
    // A name of Kong's needs no balancer, and holds one that comes later.
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
    let (_folder, store) = store();
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
    // The names it had are free again.
    put(&store, insert(Kind::Service, 2, json!({"name": "a"}))).await;
    put(&store, insert(Kind::Service, 3, json!({"name": "b"}))).await;
}

#[tokio::test]
async fn a_blob_lives_and_dies_with_its_row() {
    let (folder, store) = store();
    let component: Bytes = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    let id = Uuid::from_u128(1);
    let write = Write::Insert {
        kind: Kind::Balancer,
        id,
        row: row(json!({"name": "a"})),
        blob: Some(component.clone()),
    };
    let revision = put(&store, write).await;
    assert_eq!(store.blob(Kind::Balancer, id).unwrap(), Some(component));
    let shorter = Write::Replace {
        kind: Kind::Balancer,
        id,
        row: row(json!({"name": "a"})),
        expected: revision,
        blob: Some(Bytes::from_static(b"short")),
    };
    put(&store, shorter).await;
    drop(store);
    let store = reopen(&folder);
    let blob = store.blob(Kind::Balancer, id).unwrap();
    assert_eq!(blob.as_deref(), Some(&b"short"[..]));
    put(&store, delete(Kind::Balancer, 1)).await;
    assert_eq!(store.blob(Kind::Balancer, id).unwrap(), None);
}

/// The writer ends with the store, and lets go of the folder a moment later.
fn reopen(folder: &TempDir) -> SledStore {
    loop {
        match SledStore::open(folder.path()) {
            Ok(store) => return store,
            Err(error) if error.to_string().contains("in use") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_then_every_commit_in_order() {
    let (_folder, store) = store();
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

/// What a model of the store does with the same writes.
#[derive(Debug, Clone)]
enum Step {
    Service(u128, u8),
    Route(u128, u128),
    DeleteService(u128),
    DeleteRoute(u128),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u128..5, 0_u8..3).prop_map(|(id, name)| Step::Service(id, name)),
        (10_u128..14, 0_u128..5).prop_map(|(id, service)| Step::Route(id, service)),
        (0_u128..5).prop_map(Step::DeleteService),
        (10_u128..14).prop_map(Step::DeleteRoute),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is written, refused and deleted, the store agrees with a plain map, and is found whole
    /// when it is opened again.
    #[test]
    fn the_store_agrees_with_a_map(steps in prop::collection::vec(step(), 1..40)) {
        let (folder, store) = store();
        let mut services: BTreeMap<u128, u8> = BTreeMap::new();
        let mut routes: BTreeMap<u128, u128> = BTreeMap::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for step in steps {
            let (write, allowed) = match step {
                Step::Service(id, name) => (
                    insert(Kind::Service, id, json!({"name": format!("s{name}")})),
                    !services.contains_key(&id) && !services.values().any(|n| *n == name),
                ),
                Step::Route(id, service) => (
                    insert(Kind::Route, id, json!({"name": null, "service": link(service)})),
                    !routes.contains_key(&id) && services.contains_key(&service),
                ),
                Step::DeleteService(id) => (
                    delete(Kind::Service, id),
                    !routes.values().any(|service| *service == id),
                ),
                Step::DeleteRoute(id) => (delete(Kind::Route, id), true),
            };
            let done = runtime.block_on(store.write(vec![write])).is_ok();
            prop_assert_eq!(done, allowed, "{:?}", step);
            if allowed {
                match step {
                    Step::Service(id, name) => { services.insert(id, name); }
                    Step::Route(id, service) => { routes.insert(id, service); }
                    Step::DeleteService(id) => { services.remove(&id); }
                    Step::DeleteRoute(id) => { routes.remove(&id); }
                }
            }
        }
        drop(store);
        let store = reopen(&folder);
        let ids = |kind| -> Vec<u128> {
            let known = (0..20).filter(|id| {
                let stored = store.get(kind, Uuid::from_u128(*id)).unwrap();
                stored.is_some()
            });
            known.collect()
        };
        prop_assert_eq!(ids(Kind::Service), services.into_keys().collect::<Vec<_>>());
        prop_assert_eq!(ids(Kind::Route), routes.into_keys().collect::<Vec<_>>());
    }
}

#[test]
fn a_folder_that_was_not_set_up_to_the_end_can_be() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("FORMAT.tmp"), "point").unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    assert!(folder.path().join("FORMAT").exists());
}

#[tokio::test]
async fn writes_that_wait_together_share_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let (trees, head, _) = folder::open(folder.path()).unwrap();
    let writer = Writer {
        trees,
        head,
        watchers: Vec::new(),
    };
    // All of them are there before the writer looks.
    let (jobs, waiting) = channel();
    let answers: Vec<_> = (1..=50)
        .map(|id| {
            let (answer, answered) = oneshot::channel();
            let write = insert(Kind::Service, id, json!({}));
            jobs.send(Job::Write(vec![write], answer)).unwrap();
            answered
        })
        .collect();
    drop(jobs);
    assert_eq!(writer.run(&waiting), 1);
    for (number, answer) in (1..).zip(join_all(answers).await) {
        assert_eq!(answer.unwrap().unwrap(), number);
    }
}

#[tokio::test]
async fn a_key_that_leads_to_no_row_is_damage() {
    let nobody = Uuid::from_u128(9);
    let unique = keys::unique(Kind::Service, &["name"], &[&json!("ghost")]);
    let parent = keys::parent(Uuid::from_u128(1));
    let reference = keys::referring(Kind::Service, &parent, Kind::Route, "service");
    let reference = [&*reference, nobody.as_bytes()].concat();
    for key in [unique, reference] {
        let (folder, store) = store();
        let named = json!({"name": "a"});
        put(&store, insert(Kind::Service, 1, named)).await;
        let route = json!({"name": "r", "service": link(1)});
        put(&store, insert(Kind::Route, 2, route)).await;
        drop(store);
        let store = reopen(&folder);
        store.trees.rows.insert(key, nobody.as_bytes()).unwrap();
        store.trees.db.flush().unwrap();
        drop(store);
        let refused = loop {
            match SledStore::open(folder.path()) {
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
async fn a_folder_of_format_1_is_converted_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let old = Write::Insert {
        kind: Kind::Balancer,
        id: Uuid::from_u128(1),
        row: row(json!({"name": "a", "digest": "d", "size": 3, "updated_at": 7})),
        blob: Some(Bytes::from_static(b"abc")),
    };
    put(&store, old).await;
    drop(store);
    let marker = folder.path().join("FORMAT");
    let mut versions = Vec::new();
    // The second time as if the first one had ended before it could say that it was done.
    for _ in 0..2 {
        std::fs::write(&marker, "pointsman data, format 1\n").unwrap();
        let store = reopen(&folder);
        let format = std::fs::read_to_string(&marker).unwrap();
        assert_eq!(format, "pointsman data, format 2\n");
        let listed = store
            .list(Kind::BalancerVersion, None, 10, &|_| true)
            .unwrap();
        assert_eq!(listed.len(), 1);
        let version = &listed[0].row;
        assert_eq!(version["balancer"], link(1));
        assert_eq!(version["digest"], "d");
        assert_eq!(version["state"], "ready");
        assert_eq!(version["promoted_at"], 7);
        let id = version["id"].as_str().unwrap().parse().unwrap();
        let component = Some(Bytes::from_static(b"abc"));
        assert_eq!(store.blob(Kind::BalancerVersion, id).unwrap(), component);
        assert_eq!(
            store.blob(Kind::Balancer, Uuid::from_u128(1)).unwrap(),
            None
        );
        versions.push(id);
    }
    assert_eq!(versions[0], versions[1]);
}

#[tokio::test]
async fn names_of_hosts_are_unique_however_they_are_spelled() {
    let (_folder, store) = store();
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
async fn rows_of_an_earlier_version_are_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let kind = Kind::Upstream;
    // As an earlier version wrote them: names as keys in their own spelling, any algorithm with any hash.
    let names = [
        (1, "Mixed.test"),
        (2, "Twin.test"),
        (3, "twin.test"),
        (4, "plain.test"),
    ];
    for (id, name) in names {
        let fields = |name: &str| json!({"name": name, "algorithm": "consistent-hashing", "hash_on": "none"});
        let other = format!("other-{id}");
        let revision = put(&store, insert(kind, id, fields(&other))).await;
        let (rows, id) = (&store.trees.rows, Uuid::from_u128(id));
        let key = keys::unique(kind, &["name"], &[&json!(other)]);
        rows.remove(key).unwrap().unwrap();
        let key = keys::unique_as_written(kind, &["name"], &[&json!(name)]);
        rows.insert(key, id.as_bytes()).unwrap();
        let value = keys::encode(revision, &row(fields(name)));
        rows.insert(keys::row(kind, id), value).unwrap();
    }
    drop(store);
    let store = reopen(&folder);
    let find = |name: &str| {
        let found = store.find(kind, &["name"], &[&json!(name)]).unwrap();
        found.map(|stored| (stored.row["name"].clone(), stored.row["algorithm"].clone()))
    };
    let settled = |name: &str| Some((json!(name), json!("round-robin")));
    assert_eq!(find("mixed.TEST"), settled("Mixed.test"));
    assert_eq!(find("PLAIN.test"), settled("plain.test"));
    // Each of two that differ in their spelling alone is still found in its own, and can be deleted.
    assert_eq!(find("twin.test"), settled("twin.test"));
    assert_eq!(find("Twin.test").unwrap().0, "Twin.test");
    put(&store, delete(kind, 2)).await;
    assert_eq!(find("Twin.test"), settled("twin.test"));
    drop(store);
    let store = reopen(&folder);
    assert_eq!(store.list(kind, None, 10, &|_| true).unwrap().len(), 3);
}
