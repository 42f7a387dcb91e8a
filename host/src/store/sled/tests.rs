#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::Change;
use super::stage::Stage;
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
    let opened = folder::open(folder.path()).unwrap();
    let shared = Arc::new(Shared::new(opened.rows));
    let engine = Engine::new(folder.path(), Arc::clone(&shared), opened.open);
    let writer = Writer::start(shared, engine).unwrap();
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

/// Changes what is on disk, behind the back of the store.
fn tamper(store: &SledStore, key: &[u8], value: Option<&[u8]>) {
    let disk = store.shared.disk.read().clone().unwrap();
    match value {
        Some(value) => disk.rows.insert(key, value).unwrap(),
        None => disk.rows.remove(key).unwrap(),
    };
    disk.db.flush().unwrap();
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
        tamper(&store, &key, Some(nobody.as_bytes()));
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
        let id = Uuid::from_u128(id);
        let key = keys::unique(kind, &["name"], &[&json!(other)]);
        tamper(&store, &key, None);
        let key = keys::unique_as_written(kind, &["name"], &[&json!(name)]);
        tamper(&store, &key, Some(id.as_bytes()));
        let value = keys::encode(revision, &row(fields(name))).unwrap();
        tamper(&store, &keys::row(kind, id), Some(&value));
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

#[tokio::test]
async fn rows_that_cannot_be_brought_up_to_date_cost_no_other() {
    let (folder, store) = store();
    let kind = Kind::Upstream;
    // Deeper than is stored now, cut off, and one in which nothing is wrong: each with a key in the
    // spelling of its name.
    let names = [(1, "Deep.test"), (2, "Broken.test"), (3, "Sound.test")];
    for (id, name) in names {
        let mut fields = json!({"name": format!("other-{id}"), "algorithm": "latency"});
        let revision = put(&store, insert(kind, id, fields.clone())).await;
        let key = keys::unique(kind, &["name"], &[&fields["name"]]);
        tamper(&store, &key, None);
        fields["name"] = json!(name);
        if id == 1 {
            fields["deep"] = nested(keys::DEPTH + 1);
        }
        let mut value = keys::encode(revision, &row(fields)).unwrap();
        if id == 2 {
            value.pop();
        }
        let id = Uuid::from_u128(id);
        let key = keys::unique_as_written(kind, &["name"], &[&json!(name)]);
        tamper(&store, &key, Some(id.as_bytes()));
        tamper(&store, &keys::row(kind, id), Some(&value));
    }
    drop(store);
    // The same again at the next start.
    for _ in 0..2 {
        let store = reopen(&folder);
        let find = |name: &str| store.find(kind, &["name"], &[&json!(name)]);
        assert!(find("sound.test").unwrap().is_some());
        assert!(find("Deep.test").unwrap().is_some());
        let broken = find("Broken.test");
        assert!(matches!(broken, Err(Error::SetAside { .. })), "{broken:?}");
        assert_eq!(ids_of(&store, kind), [1, 3]);
    }
    // All of them can be deleted, and their names be taken again.
    let store = reopen(&folder);
    for (id, name) in names {
        put(&store, delete(kind, id)).await;
        let again = json!({"name": name.to_lowercase(), "algorithm": "latency"});
        put(&store, insert(kind, id, again)).await;
    }
    drop(store);
    let store = reopen(&folder);
    assert!(store.condition().set_aside.is_empty());
    assert_eq!(ids_of(&store, kind), [1, 2, 3]);
}

/// Objects inside each other, this many.
fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }))
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_written() {
    let (folder, store) = store();
    put(&store, insert(Kind::Service, 1, nested(keys::DEPTH))).await;
    for depth in [keys::DEPTH + 1, 126, 127, 128, 129, 500] {
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
    assert_eq!(listed[0].row, row(nested(keys::DEPTH)));
}

/// Rows of a service with a route, and of an upstream with a target.
async fn filled() -> (TempDir, SledStore) {
    let (folder, store) = store();
    let upstream = json!({"id": Uuid::from_u128(3), "name": "u", "algorithm": "latency"});
    let writes = vec![
        insert(Kind::Service, 1, json!({"name": "a"})),
        insert(Kind::Route, 2, json!({"name": "r", "service": link(1)})),
        insert(Kind::Upstream, 3, upstream),
        insert(
            Kind::Upstream,
            4,
            json!({"name": "v", "algorithm": "latency"}),
        ),
        insert(Kind::Target, 5, json!({"target": "t", "upstream": link(3)})),
    ];
    store.write(writes).await.unwrap();
    (folder, store)
}

fn ids_of(store: &SledStore, kind: Kind) -> Vec<u128> {
    let rows = store.shared.rows();
    rows.of_kind(kind, None)
        .map(|(id, _)| id.as_u128())
        .collect()
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside_until_it_is_deleted() {
    let deep = serde_json::to_vec(&row(nested(127))).unwrap();
    let deep = [&1_u64.to_be_bytes(), &*deep, b" "].concat();
    // What the reader cannot take, in every way that it can go wrong.
    let deep = [&deep[..8], br#"{"a":"#, &deep[8..], b"}"].concat();
    let bad: [&[u8]; 4] = [&deep, b"", b"\0\0\0\0\0\0\0\x01{", b"\0\0\0\0\0\0\0\x01[1]"];
    for bad in bad {
        let (folder, store) = filled().await;
        tamper(
            &store,
            &keys::row(Kind::Upstream, Uuid::from_u128(3)),
            Some(bad),
        );
        drop(store);
        let store = reopen(&folder);
        let set_aside = store.condition().set_aside;
        assert_eq!(set_aside.len(), 1);
        assert_eq!(
            (set_aside[0].kind, set_aside[0].id.as_u128()),
            (Kind::Upstream, 3)
        );
        // Nothing else is missing, neither of its kind nor in what watchers are told.
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
        // It is named where it is asked for, by its id and by its name.
        let got = store.get(Kind::Upstream, Uuid::from_u128(3));
        assert!(matches!(got, Err(Error::SetAside { .. })), "{got:?}");
        let found = store.find(Kind::Upstream, &["name"], &[&json!("u")]);
        assert!(matches!(found, Err(Error::SetAside { .. })), "{found:?}");
        // Others can be written and deleted beside it, and its name is taken until it is gone.
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
        // Its targets went with it.
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
    tamper(&store, &keys::row(Kind::Service, Uuid::from_u128(1)), None);
    let name = keys::unique(Kind::Service, &["name"], &[&json!("a")]);
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

/// A row that sled puts in a file of its own.
fn large(id: u128) -> Write {
    insert(
        Kind::Service,
        id,
        json!({"name": id.to_string(), "a": "x".repeat(300_000)}),
    )
}

/// Takes from sled the folder in which it would make files, and gives it back when dropped. Works for root
/// as well, who may do everything.
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

/// Writes until that succeeds again, which is at some time.
async fn written_at_last(store: &SledStore, write: Write) -> Revision {
    loop {
        match store.write(vec![write.clone()]).await {
            Ok(revision) => return revision,
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
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
    // In one write: a row that is changed, a blob that is replaced, and what cannot be written.
    let mut writes = vec![delete(Kind::Route, 2), blob(b"new", Some(old)), large(9)];
    writes.push(Write::Insert {
        kind: Kind::Balancer,
        id: Uuid::from_u128(10),
        row: row(json!({"name": "c", "digest": "d"})),
        blob: Some(component),
    });
    let failed = store.write(writes).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    // The next one is answered as well, and so is a reader.
    let failed = store.write(vec![delete(Kind::Route, 2)]).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert!(store.condition().failure.is_some());
    assert_eq!(ids_of(&store, Kind::Route), [2]);
    assert_eq!(ids_of(&store, Kind::Service), [1]);

    drop(no_files);
    let newest = written_at_last(&store, insert(Kind::Service, 11, json!({"name": "n"}))).await;
    assert!(store.condition().failure.is_none());
    // Watchers were told of nothing between.
    let next = commits.recv().await.unwrap();
    assert_eq!((next.revision, next.changes.len()), (newest, 1));
    let holds = |store: &SledStore| {
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
async fn what_is_on_disk_without_having_been_acknowledged_is_taken_back() {
    let (folder, store) = filled().await;
    drop(store);
    // The threads of the store that was dropped may still hold it.
    let opened = loop {
        match folder::open(folder.path()) {
            Ok(opened) => break opened,
            Err(error) if error.to_string().contains("in use") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let shared = Arc::new(Shared::new(opened.rows));
    let mut engine = Engine::new(folder.path(), Arc::clone(&shared), opened.open);
    let (rows, ahead) = (shared.rows(), stage::Round::default());
    let mut stage = Stage::new(&rows, &ahead);
    stage.write(delete(Kind::Route, 2)).unwrap();
    stage
        .write(insert(Kind::Service, 9, json!({"name": "n"})))
        .unwrap();
    let (round, commit) = stage.finish();
    // It came to the disk, and only then something failed.
    engine.commit_and_fail(&round);
    assert!(matches!(engine.reopen(), engine::Outcome::Done));
    // Later revisions are greater than those that were seen on disk.
    assert_eq!(shared.rows().revision(), commit.revision);
    drop(engine);
    drop(shared);
    let store = reopen(&folder);
    assert_eq!(ids_of(&store, Kind::Route), [2]);
    assert_eq!(ids_of(&store, Kind::Service), [1]);
    assert!(put(&store, delete(Kind::Route, 2)).await > commit.revision);
}

#[tokio::test]
async fn a_folder_that_holds_something_else_is_not_taken_for_ours() {
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
