//! Tests of what survives a restart.

use crate::store::rules::Steps;
use std::collections::BTreeMap;
use std::sync::mpsc::channel;

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::super::super::journal::Journal;
use super::super::super::state::State;
use super::super::super::tests::references::SEVERAL;
use super::super::super::writer::{Job, Writer};
use super::*;

#[tokio::test]
async fn a_blob_is_kept_and_deleted_with_its_row() {
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

/// A step of the store, and of its model.
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

    /// Whatever is written, refused and deleted, the store agrees with a plain map, and opens again
    /// without damage.
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
fn an_interrupted_set_up_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("FORMAT.tmp"), "point").unwrap();
    drop(open(folder.path()).unwrap());
    assert!(folder.path().join("FORMAT").exists());
}

#[tokio::test]
async fn writes_that_wait_together_share_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = SledJournal::new(folder.path());
    let rows = journal.load(Schema::DECLARED).unwrap();
    let state = Arc::new(State::new(rows, journal.handle()));
    let writer = Writer::start(state, journal).unwrap();
    // All of them are sent before the writer starts.
    let (jobs, waiting) = channel();
    let answers: Vec<_> = (1..=50)
        .map(|id| {
            let (answer, answered) = oneshot::channel();
            let write = insert(Kind::Service, id, json!({}));
            jobs.send(Job::Write(Steps::InOrder(vec![write]), answer))
                .unwrap();
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
async fn references_in_arrays_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || loop {
        match JournaledStore::start(SledJournal::new(folder.path()), SEVERAL) {
            Ok(store) => return store,
            Err(error) if error.to_string().contains("in use") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let store = open();
    let mirrors = json!([link(1), link(2), link(1)]);
    let writes = vec![
        insert(Kind::Service, 1, json!({"name": "a"})),
        insert(Kind::Service, 2, json!({"name": "b"})),
        insert(Kind::Route, 3, json!({"name": "r", "mirrors": mirrors})),
    ];
    store.write(writes).await.unwrap();
    drop(store);
    let store = open();
    assert!(store.condition().set_aside.is_empty());
    assert_eq!(ids_of(&store, Kind::Route), [3]);
    for id in [1, 2] {
        let refused = store.write(vec![delete(Kind::Service, id)]).await;
        assert!(
            matches!(refused, Err(Error::StillReferenced { .. })),
            "{refused:?}"
        );
    }
    put(&store, delete(Kind::Route, 3)).await;
    put(&store, delete(Kind::Service, 1)).await;
    drop(store);
    assert_eq!(ids_of(&open(), Kind::Service), [2]);
}
