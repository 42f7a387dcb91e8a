//! Tests of several writers on one journal, and of commits that fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::channel;

use futures_util::future::{join, join_all};
use proptest::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::store::journal::Journal;
use crate::store::memory::Fault;
use crate::store::operations::Operations;
use crate::store::record;
use crate::store::rows::Rows;
use crate::store::rules as law;
use crate::store::rules::Steps;
use crate::store::state::State;
use crate::store::writer::{Job, Writer};
use crate::store::{Change, Commit};

/// Makes a commit as another process would.
fn commit(memory: &Memory, writes: &[Write]) {
    let mut journal = memory.journal([]);
    let rows = journal.load(Schema::DECLARED).unwrap();
    let (operations, _) = law::stage(&rows, &Operations::default(), writes).unwrap();
    journal.commit(rows.head(), &operations).unwrap();
}

/// Another process commits between the staging of a write and its commit.
fn overtaken(memory: &Memory, writes: Vec<Write>) -> Fault {
    let memory = memory.clone();
    Fault::Overtaken(Box::new(move || commit(&memory, &writes)))
}

/// A store on a journal in memory, with the service 1, named "a", at revision 1.
fn started(memory: &Memory, faults: impl IntoIterator<Item = Fault>) -> JournaledStore {
    commit(memory, &[service(1, "a")]);
    JournaledStore::start(memory.journal(faults), Schema::DECLARED).unwrap()
}

fn service(id: u128, name: &str) -> Write {
    insert(Kind::Service, id, json!({ "name": name }))
}

fn renamed(id: u128, name: &str, expected: Revision) -> Write {
    Write::Replace {
        kind: Kind::Service,
        id: Uuid::from_u128(id),
        row: row(json!({ "name": name })),
        expected,
        blob: None,
    }
}

/// A watch whose first commit was received; the revision of that commit is returned.
async fn watched(store: &JournaledStore) -> (Revision, mpsc::UnboundedReceiver<Commit>) {
    let mut commits = store.watch().unwrap();
    (commits.recv().await.unwrap().revision, commits)
}

/// The ids of the rows that a commit put (true) or deleted (false).
fn ids(commit: &Commit) -> Vec<(bool, u128)> {
    let changes = commit.changes.iter();
    let changes = changes.map(|change| match change {
        Change::Put { id, .. } => (true, id.as_u128()),
        Change::Delete { id, .. } => (false, id.as_u128()),
    });
    changes.collect()
}

#[tokio::test]
async fn a_commit_of_another_process_is_waited_for() {
    let memory = Memory::default();
    let store = started(&memory, []);
    assert!(store.reach(1).await.is_ok());
    let ((), reached) = join(
        async {
            // The other future waits by now.
            tokio::task::yield_now().await;
            commit(&memory, &[service(2, "b")]);
        },
        store.reach(2),
    )
    .await;
    assert!(reached.is_ok());
    assert_eq!(ids_of(&store, Kind::Service), [1, 2]);
    // One that has not come when the store fails is not waited for.
    let (released, reached) = join(store.release("it is taken over"), store.reach(3)).await;
    released.unwrap();
    assert!(matches!(reached, Err(Error::Unavailable(_))));
    assert!(store.reach(2).await.is_ok());
}

#[tokio::test]
async fn an_overtaken_write_is_made_again() {
    let memory = Memory::default();
    let twice = [2, 3].map(|id| overtaken(&memory, vec![service(id, &format!("s{id}"))]));
    let store = started(&memory, twice);
    let (first, mut commits) = watched(&store).await;
    assert_eq!(first, 1);
    assert_eq!(put(&store, service(4, "b")).await, 4);
    assert_eq!(ids_of(&store, Kind::Service), [1, 2, 3, 4]);
    // Watchers received all commits, in order.
    for id in 2..=4 {
        let commit = commits.recv().await.unwrap();
        assert_eq!(
            (u128::from(commit.revision), ids(&commit)),
            (id, vec![(true, id)])
        );
    }
    // Another store on the same journal has them too.
    let other = JournaledStore::start(memory.journal([]), Schema::DECLARED).unwrap();
    assert_eq!(ids_of(&other, Kind::Service), [1, 2, 3, 4]);
}

#[tokio::test]
async fn an_overtaken_write_is_refused_if_it_breaks_a_rule() {
    let route = || insert(Kind::Route, 9, json!({"service": link(1)}));
    type Expected = fn(&Error) -> bool;
    let cases: [(Vec<Write>, Write, Expected); 6] = [
        (vec![service(2, "b")], service(3, "b"), |error| {
            matches!(error, Error::UniqueKeyTaken { .. })
        }),
        (vec![service(2, "b")], service(2, "c"), |error| {
            matches!(error, Error::PrimaryKeyTaken { .. })
        }),
        (vec![delete(Kind::Service, 1)], route(), |error| {
            matches!(error, Error::ReferenceMissing { .. })
        }),
        (vec![route()], delete(Kind::Service, 1), |error| {
            matches!(error, Error::StillReferenced { .. })
        }),
        (vec![renamed(1, "b", 1)], renamed(1, "c", 1), |error| {
            matches!(error, Error::Changed { .. })
        }),
        (
            vec![delete(Kind::Service, 1)],
            renamed(1, "c", 1),
            |error| matches!(error, Error::Changed { .. }),
        ),
    ];
    for (others, own, expected) in cases {
        let memory = Memory::default();
        let store = started(&memory, [overtaken(&memory, others.clone())]);
        let refused = store.write(vec![own]).await.unwrap_err();
        assert!(expected(&refused), "{refused} after {others:?}");
        // What the other writer did is in effect, and nothing else was written.
        assert_eq!(store.state().rows().head(), 2);
        assert_eq!(memory.log().len(), 2);
    }
}

#[tokio::test]
async fn all_writes_of_an_overtaken_commit_are_made_again() {
    let memory = Memory::default();
    commit(&memory, &[service(1, "a")]);
    let mut journal = memory.journal([overtaken(&memory, vec![service(2, "b")])]);
    let rows = journal.load(Schema::DECLARED).unwrap();
    let state = Arc::new(State::new(rows, journal.handle()));
    let writer = Writer::start(Arc::clone(&state), journal).unwrap();
    // Of the writes that wait together, 11 finds its name taken by the other process, 12 finds it
    // taken by 10, and 13 takes the name that `renamed` frees.
    let (jobs, waiting) = channel();
    let writes = [
        service(10, "c"),
        service(11, "b"),
        service(12, "c"),
        renamed(1, "z", 1),
        service(13, "a"),
    ];
    let answers: Vec<_> = writes
        .into_iter()
        .map(|write| {
            let (answer, answered) = oneshot::channel();
            jobs.send(Job::Write(Steps::InOrder(vec![write]), answer))
                .unwrap();
            answered
        })
        .collect();
    drop(jobs);
    assert_eq!(writer.run(&waiting), 2);
    let answers = join_all(answers).await.into_iter();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().ok()).collect();
    assert_eq!(answers, [Some(3), None, None, Some(4), Some(5)]);
    assert_eq!(state.rows().head(), 5);
    assert_eq!(memory.log().len(), 3);
}

#[tokio::test]
async fn a_commit_of_another_process_takes_effect() {
    let memory = Memory::default();
    let store = started(&memory, []);
    let (_, mut commits) = watched(&store).await;
    let route = insert(Kind::Route, 9, json!({"service": link(1)}));
    commit(&memory, &[route, service(2, "b")]);
    let told = commits.recv().await.unwrap();
    // The service comes before the route, in whatever order they were written.
    assert_eq!(ids(&told), [(true, 2), (true, 9)]);
    assert_eq!(ids_of(&store, Kind::Route), [9]);
    commit(&memory, &[delete(Kind::Route, 9), delete(Kind::Service, 1)]);
    let told = commits.recv().await.unwrap();
    assert_eq!(ids(&told), [(false, 9), (false, 1)]);
    let got = store.get(Kind::Service, Uuid::from_u128(1)).unwrap();
    assert_eq!(got, None);
}

#[tokio::test]
async fn a_row_of_another_process_that_cannot_be_read_is_set_aside() {
    let memory = Memory::default();
    let store = started(&memory, []);
    let (_, mut commits) = watched(&store).await;
    let key = (Kind::Service, Uuid::from_u128(1));
    let unreadable = Operations {
        rows: [(key, Some(Arc::from(*b"\0\0\0\0\0\0\0\x02{")))].into(),
        head: 2,
        ..Operations::default()
    };
    memory.journal([]).commit(1, &unreadable).unwrap();
    assert_eq!(ids(&commits.recv().await.unwrap()), [(false, 1)]);
    let got = store.get(key.0, key.1);
    assert!(matches!(got, Err(Error::SetAside { .. })), "{got:?}");
    assert_eq!(store.condition().set_aside.len(), 1);
    // Its name stays taken until the row is deleted.
    let taken = store.write(vec![service(2, "a")]).await.unwrap_err();
    assert!(matches!(taken, Error::UniqueKeyTaken { .. }), "{taken}");
    put(&store, delete(Kind::Service, 1)).await;
    assert!(store.condition().set_aside.is_empty());
    put(&store, service(2, "a")).await;
}

#[tokio::test]
async fn a_commit_that_was_refused_has_changed_nothing() {
    let memory = Memory::default();
    let store = started(&memory, [Fault::Refused]);
    let refused = store.write(vec![service(2, "b")]).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    assert!(store.condition().failure.is_some());
    assert_eq!(ids_of(&store, Kind::Service), [1]);
    assert_eq!(put(&store, service(2, "b")).await, 2);
    assert!(store.condition().failure.is_none());
}

#[tokio::test]
async fn a_commit_in_doubt_is_not_in_effect_until_the_journal_recovers() {
    for is_kept in [false, true] {
        let memory = Memory::default();
        let store = started(&memory, [Fault::InDoubt { is_kept }]);
        let (_, mut commits) = watched(&store).await;
        let refused = store.write(vec![service(2, "b")]).await.unwrap_err();
        let reason = "it is not known whether it will be";
        assert!(refused.to_string().ends_with(reason), "{refused}");
        assert!(store.condition().failure.is_some());
        assert_eq!(ids_of(&store, Kind::Service), [1]);

        let newest = written_at_last(&store, service(3, "c")).await;
        assert_eq!(store.condition().failures, 1);
        assert!(store.condition().failure.is_none());
        // A commit that was stored took effect before the next write, and watchers received it.
        let (there, told): (&[u128], &[u128]) = match is_kept {
            true => (&[1, 2, 3], &[2, 3]),
            false => (&[1, 3], &[3]),
        };
        assert_eq!(ids_of(&store, Kind::Service), there);
        for id in told {
            let commit = commits.recv().await.unwrap();
            assert_eq!(ids(&commit), [(true, *id)]);
            assert!(commit.revision <= newest);
        }
    }
}

/// A write of one of the two writers.
#[derive(Debug, Clone)]
enum Step {
    Service(u128, u8),
    Route(u128, u128),
    Delete(Kind, u128),
}

impl Step {
    fn write(&self) -> Write {
        match self {
            Self::Service(id, name) => service(*id, &format!("s{name}")),
            Self::Route(id, to) => insert(Kind::Route, *id, json!({"service": link(*to)})),
            Self::Delete(kind, id) => delete(*kind, *id),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u128..5, 0_u8..3).prop_map(|(id, name)| Step::Service(id, name)),
        (10_u128..14, 0_u128..5).prop_map(|(id, to)| Step::Route(id, to)),
        (0_u128..5).prop_map(|id| Step::Delete(Kind::Service, id)),
        (10_u128..14).prop_map(|id| Step::Delete(Kind::Route, id)),
    ];
    prop::collection::vec(step, 1..30)
}

/// All rows. Checks that exactly the index entries and references of these rows exist.
fn whole(rows: &Rows) -> Vec<(Kind, Uuid, Row)> {
    let mut all = Vec::new();
    let mut entries = 0;
    for (&(kind, id), record) in &rows.records {
        let row = record::decode(record).unwrap().row;
        entries += law::entries_to(rows, kind, id, &row).unwrap();
        all.push((kind, id, row));
    }
    assert_eq!(rows.unique.len() + rows.references.len(), entries);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever two processes write at the same time: the result keeps the rules, both see the same
    /// rows, and each acknowledged write has a revision of its own.
    #[test]
    fn two_writers_on_one_journal_keep_the_rules(one in steps(), other in steps()) {
        let memory = Memory::default();
        let stores = [(), ()].map(|()| {
            JournaledStore::start(memory.journal([]), Schema::DECLARED).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let write = async |store: &JournaledStore, steps: &[Step]| {
                let writes = steps.iter().map(|step| store.write(vec![step.write()]));
                let answers = join_all(writes).await.into_iter();
                answers.filter_map(Result::ok).collect::<Vec<_>>()
            };
            let (ones, others) = join(write(&stores[0], &one), write(&stores[1], &other)).await;
            let acknowledged = ones.len() + others.len();
            let distinct: BTreeSet<_> = ones.into_iter().chain(others).collect();
            assert_eq!(distinct.len(), acknowledged);

            let head = memory.log().last().map_or(0, |operations| operations.head);
            assert_eq!(head, distinct.last().copied().unwrap_or(0));
            let rows = memory.journal([]).load(Schema::DECLARED).unwrap();
            for store in &stores {
                let mut commits = store.watch().unwrap();
                while commits.recv().await.unwrap().revision != head {}
                assert_eq!(whole(&store.state().rows()), whole(&rows));
            }
        });
    }
}
