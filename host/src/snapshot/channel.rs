//! What a gateway of the channel `canary` has in place of what is stored: the changes of the
//! rollout, over the rows of the commits.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::entity::Kind;
use crate::entity::Row;
use crate::entity::rollout::RolloutChange;
use crate::store::{Change, Commit};

type RowKey = (Kind, Uuid);

/// The rows of the present rollout; none for those that it deletes.
type Rows = HashMap<RowKey, Option<Row>>;

/// Puts the changes of the rollout over commits.
#[derive(Default)]
pub(super) struct CanaryChannel {
    rows: Rows,
}

impl CanaryChannel {
    /// The commit as it takes effect here. A rollout begins and ends with the commit that writes
    /// its row, as one step. `stored` reads a row, as of this commit or of a later one.
    pub(super) fn over(
        &mut self,
        commit: Commit,
        stored: impl Fn(RowKey) -> Option<Row>,
    ) -> Commit {
        let rows = rollout_in(&commit);
        let is_other = rows.is_some();
        let before = match rows {
            Some(rows) => std::mem::replace(&mut self.rows, rows),
            None => Rows::new(),
        };
        let mut changes = Vec::new();
        let mut told: HashSet<RowKey> = HashSet::new();
        for change in commit.changes {
            let key = key(&change);
            if !self.rows.contains_key(&key) {
                told.insert(key);
                changes.push(change);
            }
        }
        if is_other {
            let gone = before.into_keys();
            let gone = gone.filter(|key| !self.rows.contains_key(key) && !told.contains(key));
            for key in gone {
                // As it is stored now: a commit that is still to come may have written it.
                changes.push(put(key, stored(key)));
            }
            let own = self.rows.iter();
            changes.extend(own.map(|(key, row)| put(*key, row.clone())));
            in_order(&mut changes);
        }
        Commit {
            revision: commit.revision,
            changes,
        }
    }
}

fn key(change: &Change) -> RowKey {
    match change {
        Change::Put { kind, id, .. } | Change::Delete { kind, id } => (*kind, *id),
    }
}

fn put((kind, id): RowKey, row: Option<Row>) -> Change {
    match row {
        Some(row) => Change::Put { kind, id, row },
        None => Change::Delete { kind, id },
    }
}

/// Puts changes in the order of commits: the new rows, each after those that it refers to, and then
/// the deleted ones the other way round.
fn in_order(changes: &mut [Change]) {
    let kinds = Kind::ALL.len();
    changes.sort_by_key(|change| {
        let kind = key(change).0;
        let place = Kind::ALL.iter().position(|other| *other == kind);
        let place = place.unwrap_or(kinds);
        match change {
            Change::Put { .. } => place,
            Change::Delete { .. } => 2 * kinds - place,
        }
    });
}

/// The rows of the rollout that a commit writes, if it writes one.
fn rollout_in(commit: &Commit) -> Option<Rows> {
    let mut changes = commit.changes.iter().rev();
    changes.find_map(|change| match change {
        Change::Put {
            kind: Kind::Rollout,
            row,
            ..
        } => {
            let changes = RolloutChange::of(row).into_iter();
            Some(changes.map(|own| ((own.kind, own.id), own.row)).collect())
        }
        Change::Delete {
            kind: Kind::Rollout,
            ..
        } => Some(Rows::new()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Rows of services by their numbers, with one field.
    type Services = BTreeMap<u8, u8>;

    /// What a rollout says of them.
    type Own = BTreeMap<u8, Option<u8>>;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        Begin(Own),
        Drop,
        Promote,
    }

    fn step() -> impl Strategy<Value = Step> {
        let own = prop::collection::btree_map(0..4_u8, prop::option::of(0..9_u8), 1..4);
        prop_oneof![
            3 => (0..4_u8, 0..9_u8).prop_map(|(number, value)| Step::Put(number, value)),
            2 => (0..4_u8).prop_map(Step::Delete),
            3 => own.prop_map(Step::Begin),
            1 => Just(Step::Drop),
            1 => Just(Step::Promote),
        ]
    }

    fn key_of(number: u8) -> RowKey {
        (Kind::Service, Uuid::from_u128(number.into()))
    }

    fn row_of(value: u8) -> Row {
        Row::from_iter([("port".to_owned(), value.into())])
    }

    fn change(number: u8, value: Option<u8>) -> Change {
        put(key_of(number), value.map(row_of))
    }

    fn rollout(own: &Own) -> Change {
        let changes = own.iter().map(|(number, value)| RolloutChange {
            kind: Kind::Service,
            id: key_of(*number).1,
            row: value.map(row_of),
            replaces: None,
        });
        let changes = RolloutChange::written(&changes.collect::<Vec<_>>());
        let row = Row::from_iter([
            ("name".to_owned(), json!("canary")),
            ("changes".to_owned(), changes),
        ]);
        put((Kind::Rollout, Uuid::from_u128(99)), Some(row))
    }

    /// Does a step to what is stored and to the rollout. Returns the changes of its commit.
    fn done(step: Step, services: &mut Services, own: &mut Own) -> Vec<Change> {
        match step {
            Step::Put(number, value) => {
                services.insert(number, value);
                vec![change(number, Some(value))]
            }
            Step::Delete(number) => match services.remove(&number) {
                Some(_) => vec![change(number, None)],
                None => Vec::new(),
            },
            Step::Begin(other) => {
                *own = other;
                vec![rollout(own)]
            }
            Step::Drop => {
                own.clear();
                vec![rollout(own)]
            }
            Step::Promote => {
                let promoted = std::mem::take(own);
                let mut changes = Vec::new();
                for (number, value) in promoted {
                    match value {
                        Some(value) => services.insert(number, value),
                        None => services.remove(&number),
                    };
                    changes.push(change(number, value));
                }
                changes.push(rollout(own));
                changes
            }
        }
    }

    fn apply(changes: Vec<Change>, effective: &mut HashMap<RowKey, Row>) {
        for change in changes {
            match change {
                Change::Put { kind, id, row } => effective.insert((kind, id), row),
                Change::Delete { kind, id } => effective.remove(&(kind, id)),
            };
        }
        effective.retain(|(kind, _), _| *kind == Kind::Service);
    }

    proptest! {
        /// Whatever is written, and however far the store is ahead of what is followed, the gateway
        /// has the stored rows with those of the rollout over them, once it has followed all.
        #[test]
        fn a_canary_has_what_is_stored_with_the_rollout_over_it(
            steps in prop::collection::vec(step(), 1..20), ahead in 0..4_usize,
        ) {
            let (mut services, mut own) = (Services::new(), Own::new());
            let mut commits = Vec::new();
            let mut states = Vec::new();
            for (revision, step) in (1..).zip(steps) {
                let changes = done(step, &mut services, &mut own);
                commits.push(Commit { revision, changes });
                states.push((services.clone(), own.clone()));
            }
            let mut channel = CanaryChannel::default();
            let mut effective = HashMap::new();
            let last = states.len() - 1;
            for (place, commit) in commits.into_iter().enumerate() {
                let (stored, _) = &states[(place + ahead).min(last)];
                let followed = channel.over(commit, |(_, id)| {
                    let number = u8::try_from(id.as_u128()).ok()?;
                    stored.get(&number).copied().map(row_of)
                });
                apply(followed.changes, &mut effective);
                if ahead > 0 && place < last {
                    continue;
                }
                let (stored, own) = &states[place];
                let mut expected: BTreeMap<u8, Option<u8>> =
                    stored.iter().map(|(number, value)| (*number, Some(*value))).collect();
                expected.extend(own);
                let expected: HashMap<RowKey, Row> = expected
                    .into_iter()
                    .filter_map(|(number, value)| Some((key_of(number), row_of(value?))))
                    .collect();
                prop_assert_eq!(&effective, &expected);
            }
        }
    }
}
