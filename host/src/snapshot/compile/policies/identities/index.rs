//! What is found by a key, each entry from one row.

use std::collections::HashMap;
use std::hash::Hash;

use uuid::Uuid;

use crate::shared_map::SharedMap;

/// What is found by a key, each entry from one row.
///
/// The store has no two rows with one key. Within a commit, however, a row may take over the key of
/// a row that is changed or deleted later in the same commit.
pub(super) struct Index<K, V> {
    /// The keys of the rows.
    keys: HashMap<Uuid, K>,
    /// The rows of the keys.
    rows: HashMap<K, Uuid>,
    entries: SharedMap<K, V>,
    is_changed: bool,
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            rows: HashMap::new(),
            entries: SharedMap::default(),
            is_changed: false,
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Index<K, V> {
    /// Sets the entry of a row, or removes it.
    pub(super) fn set(&mut self, row: Uuid, entry: Option<(K, V)>) {
        self.is_changed = true;
        if let Some(old) = self.keys.remove(&row)
            && self.rows.get(&old) == Some(&row)
        {
            self.rows.remove(&old);
            self.entries.remove(&old);
        }
        if let Some((key, value)) = entry {
            self.keys.insert(row, key.clone());
            self.rows.insert(key.clone(), row);
            self.entries.insert(key, value);
        }
    }
}

impl<K, V> Index<K, V> {
    /// The entries. Copies share what they have in common.
    pub(super) fn entries(&self) -> &SharedMap<K, V> {
        &self.entries
    }

    /// Whether anything was set since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Rows that exchange their keys in any order end with the entries of the last state.
        #[test]
        fn the_order_of_the_rows_of_a_commit_does_not_matter(
            before in Just((0..5_u8).collect::<Vec<_>>()).prop_shuffle(),
            after in Just((0..8_u8).collect::<Vec<_>>()).prop_shuffle(),
            order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle(),
            deleted in prop::collection::vec(any::<bool>(), 5),
        ) {
            let row = |number: usize| Uuid::from_u128(number as u128);
            let mut index = Index::default();
            for (number, key) in before.iter().enumerate() {
                index.set(row(number), Some((*key, number)));
            }
            let mut expected = BTreeMap::new();
            for number in order {
                let entry = (!deleted[number]).then(|| (after[number], number));
                expected.extend(entry);
                index.set(row(number), entry);
            }
            let entries: BTreeMap<u8, usize> =
                index.entries().iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(entries, expected);
            prop_assert!(index.take_changed());
            prop_assert!(!index.take_changed());
        }
    }
}
