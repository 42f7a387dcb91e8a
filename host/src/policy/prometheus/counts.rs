//! Counters that one thread adds to, and others may read at any time, without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one list node. Most series need no second one: a route answers with few statuses.
const SLOTS: usize = 4;

/// Adds to a counter that no other thread adds to: cheaper than an atomic addition, which would
/// lock the cache line.
pub(super) fn add(counter: &AtomicU64, number: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(number);
    counter.store(sum, Ordering::Relaxed);
}

/// Counters by key. There are few keys, so they are searched; a key is never removed.
#[derive(Debug)]
pub(super) struct Counts<K> {
    slots: [(OnceLock<K>, AtomicU64); SLOTS],
    more: OnceLock<Box<Self>>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| Default::default()),
            more: OnceLock::new(),
        }
    }
}

impl<K: Copy + PartialEq> Counts<K> {
    /// Counts one more of this key. Only one thread may call this.
    pub(super) fn count(&self, key: K) {
        let mut node = self;
        loop {
            for (known, counter) in &node.slots {
                if *known.get_or_init(|| key) == key {
                    return add(counter, 1);
                }
            }
            node = node.more.get_or_init(Box::default);
        }
    }

    /// The number of each key.
    pub(super) fn all(&self) -> Vec<(K, u64)> {
        let mut all = Vec::new();
        let mut node = Some(self);
        while let Some(Self { slots, more }) = node {
            all.extend(slots.iter().filter_map(|(key, counter)| {
                let key = key.get()?;
                Some((*key, counter.load(Ordering::Relaxed)))
            }));
            node = more.get().map(|more| &**more);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_key_has_as_many_as_were_counted(keys in proptest::collection::vec(0_u16..40, 0..200)) {
            let counts = Counts::default();
            let mut expected = BTreeMap::new();
            for key in keys {
                counts.count(key);
                *expected.entry(key).or_insert(0) += 1;
            }
            let all = counts.all();
            prop_assert_eq!(all.len(), expected.len());
            prop_assert_eq!(all.into_iter().collect::<BTreeMap<u16, u64>>(), expected);
        }
    }
}
