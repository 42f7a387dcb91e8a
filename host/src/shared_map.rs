//! A hash map for snapshots: copies share their common entries.
//!
//! The entries are divided by their hashes into shards. A copy shares all shards, and a change to
//! the copy replaces one of them. So to copy a map of 10,000 entries and add one entry, some forty
//! entries and some hundred pointers are copied. A look-up costs one pointer and one hash more than
//! in a plain map.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

// The keys come from the Admin API, so a slower hash that resists attackers would gain nothing.
use foldhash::HashMap;
use foldhash::quality::RandomState;

/// Largest average number of entries of a shard. With more, the number of shards is doubled.
const MAX_SHARD_MEAN: usize = 64;

/// Smallest average number of entries of a shard. With fewer, the number of shards is halved.
const MIN_SHARD_MEAN: usize = 16;

/// A hash map whose copies share their common entries.
///
/// When a shard is copied, its keys and values are cloned, so they should be cheap to clone, such
/// as `Arc`.
#[derive(Debug)]
pub(crate) struct SharedMap<K, V> {
    /// The shards; their number is a power of two.
    shards: Arc<Vec<Shard<K, V>>>,
    len: usize,
    /// Assigns keys to shards, keys that differ little to all of them alike. The map in each shard has
    /// its own, faster hasher.
    hasher: RandomState,
}

type Shard<K, V> = Arc<HashMap<K, V>>;

// A derived `Clone` would require `K: Clone` and `V: Clone`.
impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            len: self.len,
            hasher: self.hasher.clone(),
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self {
            shards: Arc::new(vec![Arc::default()]),
            len: 0,
            hasher: RandomState::default(),
        }
    }
}

impl<K, V> SharedMap<K, V> {
    /// Whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

impl<K: Hash + Eq, V> SharedMap<K, V> {
    /// The value of a key.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards.get(self.shard_of(key))?.get(key)
    }

    fn shard_of<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        match self.shards.len() {
            1 => 0,
            count => shard_of(&self.hasher, key, count),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SharedMap<K, V> {
    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let shard = self.shard_of(&key);
        if self.shard_mut(shard).insert(key, value).is_none() {
            self.len += 1;
            if self.len > MAX_SHARD_MEAN * self.shards.len() {
                self.divide(2 * self.shards.len());
            }
        }
    }

    /// A mutable reference to the value of a key.
    pub(crate) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // If there is no such key, no shard must be copied.
        self.get(key)?;
        self.shard_mut(self.shard_of(key)).get_mut(key)
    }

    /// Removes a key with its value.
    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // If there is no such key, no shard must be copied.
        self.get(key)?;
        let old = self.shard_mut(self.shard_of(key)).remove(key)?;
        self.len -= 1;
        if self.len < MIN_SHARD_MEAN * self.shards.len() && self.shards.len() > 1 {
            self.divide(self.shards.len() / 2);
        }
        Some(old)
    }

    fn shard_mut(&mut self, shard: usize) -> &mut HashMap<K, V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard])
    }

    /// Distributes all entries among `count` shards.
    fn divide(&mut self, count: usize) {
        let mut shards = vec![HashMap::default(); count];
        for (key, value) in self.iter() {
            shards[shard_of(&self.hasher, key, count)].insert(key.clone(), value.clone());
        }
        self.shards = Arc::new(shards.into_iter().map(Arc::new).collect());
    }
}

/// The index of the shard of a key. `count`, the number of shards, is a power of two.
fn shard_of<Q: Hash + ?Sized>(hasher: &RandomState, key: &Q, count: usize) -> usize {
    // Truncation is fine: only the low bits are used.
    hasher.hash_one(key) as usize & (count - 1)
}

#[cfg(test)]
impl<K, V> SharedMap<K, V> {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of entries that were copied or added since this map was cloned from `old`.
    pub(crate) fn copied_since(&self, old: &Self) -> usize {
        let is_shared = |shard| old.shards.iter().any(|known| Arc::ptr_eq(known, shard));
        let own = self.shards.iter().filter(|shard| !is_shared(shard));
        own.map(|shard| shard.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It behaves like a plain map under any sequence of changes, and its copies do not change.
        #[test]
        fn it_agrees_with_a_plain_map(steps in prop::collection::vec((0_u16..2000, 0..4), 0..2000)) {
            let mut map = SharedMap::default();
            let mut plain = HashMap::new();
            let mut copies = Vec::new();
            for (number, (key, step)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        prop_assert_eq!(map.remove(&key), plain.remove(&key));
                    }
                    1 => {
                        let value = map.get_mut(&key);
                        prop_assert_eq!(&value, &plain.get_mut(&key));
                        if let Some(value) = value {
                            *value = 0;
                            plain.insert(key, 0);
                        }
                    }
                    _ => {
                        map.insert(key, number);
                        plain.insert(key, number);
                    }
                }
                prop_assert_eq!(map.get(&key), plain.get(&key));
                if number % 500 == 0 {
                    copies.push((map.clone(), plain.clone()));
                }
            }
            copies.push((map, plain));
            for (map, plain) in copies {
                let entries: HashMap<u16, usize> = map.iter().map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(map.len(), entries.len());
                prop_assert_eq!(entries, plain);
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut map = SharedMap::default();
        for key in 0..10_000_u32 {
            map.insert(key, key);
        }
        for key in 0..200 {
            let old = map.clone();
            map.insert(key, 0);
            let copied = map.copied_since(&old);
            assert!(
                (1..=3 * MAX_SHARD_MEAN).contains(&copied),
                "{copied} entries copied"
            );
            let old = map.clone();
            map.remove(&key);
            assert!(map.copied_since(&old) <= 3 * MAX_SHARD_MEAN);
        }
        let same = map.clone();
        assert_eq!(map.remove(&0), None);
        assert_eq!(map.get_mut(&0), None);
        assert_eq!(map.copied_since(&same), 0);
    }

    #[test]
    fn an_emptied_map_has_one_shard() {
        let mut map = SharedMap::default();
        for key in 0..10_000_u32 {
            map.insert(key, ());
        }
        assert!(map.shards.len() > 100);
        for key in 0..10_000 {
            map.remove(&key);
        }
        assert_eq!((map.len(), map.shards.len()), (0, 1));
    }
}
