//! A hash map for snapshots: copies share their common entries.
//!
//! The entries are divided by their hashes into shards. A copy shares all shards, and a change to
//! the copy replaces one of them. So to copy a map of 10,000 entries and add one entry, some forty
//! entries and some hundred pointers are copied.
//!
//! A shard is a table with open addressing, so a look-up of a key that is stored in its slot, such
//! as an id, reads two places in memory: where the shard is, and that slot. With a hundred thousand
//! entries, hardly any of them is in a cache of the processor, and each further place would cost a
//! request about 0.3 µs.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

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
    /// Keys that differ little have hashes of which all bits differ: the low ones assign a key to a
    /// shard, the high ones to a slot.
    hasher: RandomState,
}

/// Some of the entries. Copies share the slots.
#[derive(Debug)]
struct Shard<K, V> {
    /// An entry is in the slot of its hash or, if that was taken, in the next one that was free,
    /// with the first slot after the last. Their number is a power of two, or none. At least half
    /// of them are free, so that a search ends soon.
    slots: Arc<[Option<(K, V)>]>,
    len: usize,
}

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
            shards: Arc::new(vec![Shard::default()]),
            len: 0,
            hasher: RandomState::default(),
        }
    }
}

impl<K, V> Clone for Shard<K, V> {
    fn clone(&self) -> Self {
        Self {
            slots: Arc::clone(&self.slots),
            len: self.len,
        }
    }
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self {
            slots: Arc::default(),
            len: 0,
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
        let slots = self.shards.iter().flat_map(|shard| shard.slots.iter());
        slots.flatten().map(|(key, value)| (key, value))
    }
}

impl<K: Hash + Eq, V> SharedMap<K, V> {
    /// The value of a key.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
        let (_, value) = shard.slots.get(shard.find(hash, key)?)?.as_ref()?;
        Some(value)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SharedMap<K, V> {
    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        let hasher = self.hasher.clone();
        if self.shard_mut(hash).insert(&hasher, hash, key, value) {
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
        let hash = self.hasher.hash_one(key);
        let shard = self.shard_mut(hash);
        let slot = shard.find(hash, key)?;
        let (_, value) = Arc::make_mut(&mut shard.slots)[slot].as_mut()?;
        Some(value)
    }

    /// Removes a key with its value.
    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // If there is no such key, no shard must be copied.
        self.get(key)?;
        let hash = self.hasher.hash_one(key);
        let hasher = self.hasher.clone();
        let old = self.shard_mut(hash).remove(&hasher, hash, key)?;
        self.len -= 1;
        if self.len < MIN_SHARD_MEAN * self.shards.len() && self.shards.len() > 1 {
            self.divide(self.shards.len() / 2);
        }
        Some(old)
    }

    /// The shard of a hash. The list of the shards is this map's own then, the shard may not be
    /// yet.
    fn shard_mut(&mut self, hash: u64) -> &mut Shard<K, V> {
        let shards = Arc::make_mut(&mut self.shards);
        let shard = shard_of(hash, shards.len());
        &mut shards[shard]
    }

    /// Distributes all entries among `count` shards.
    fn divide(&mut self, count: usize) {
        let mut shards = vec![Shard::default(); count];
        for (key, value) in self.iter() {
            let hash = self.hasher.hash_one(key);
            let shard: &mut Shard<K, V> = &mut shards[shard_of(hash, count)];
            shard.insert(&self.hasher, hash, key.clone(), value.clone());
        }
        self.shards = Arc::new(shards);
    }
}

impl<K: Eq, V> Shard<K, V> {
    /// The slot of a key, if the key is here.
    fn find<Q>(&self, hash: u64, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let last = self.slots.len().checked_sub(1)?;
        let mut slot = slot_of(hash, last);
        while let Some((found, _)) = &self.slots[slot] {
            if found.borrow() == key {
                return Some(slot);
            }
            slot = (slot + 1) & last;
        }
        None
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shard<K, V> {
    /// Sets the value of a key; returns whether the key is new.
    fn insert(&mut self, hasher: &RandomState, hash: u64, key: K, value: V) -> bool {
        if let Some(slot) = self.find(hash, &key) {
            if let Some((_, old)) = &mut Arc::make_mut(&mut self.slots)[slot] {
                *old = value;
            }
            return false;
        }
        self.len += 1;
        let needed = 2 * self.len;
        if needed > self.slots.len() {
            let mut slots = vec![None; needed.next_power_of_two()];
            for (key, value) in self.slots.iter().flatten() {
                place(
                    &mut slots,
                    hasher.hash_one(key),
                    (key.clone(), value.clone()),
                );
            }
            place(&mut slots, hash, (key, value));
            self.slots = slots.into();
        } else {
            place(Arc::make_mut(&mut self.slots), hash, (key, value));
        }
        true
    }

    /// Removes a key with its value.
    fn remove<Q>(&mut self, hasher: &RandomState, hash: u64, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut free = self.find(hash, key)?;
        let slots = Arc::make_mut(&mut self.slots);
        let (_, old) = slots[free].take()?;
        self.len -= 1;
        // A search for a later entry must not end here: it takes this place, unless it would be
        // before the slot of its hash there.
        let last = slots.len() - 1;
        let mut slot = free;
        loop {
            slot = (slot + 1) & last;
            let Some((key, _)) = &slots[slot] else {
                return Some(old);
            };
            let first = slot_of(hasher.hash_one(key), last);
            let distance_from = |from: usize| slot.wrapping_sub(from) & last;
            if distance_from(first) >= distance_from(free) {
                slots.swap(free, slot);
                free = slot;
            }
        }
    }
}

/// Puts an entry whose key is not there yet into its slot. At least one slot is free.
fn place<K, V>(slots: &mut [Option<(K, V)>], hash: u64, entry: (K, V)) {
    let last = slots.len() - 1;
    let mut slot = slot_of(hash, last);
    while slots[slot].is_some() {
        slot = (slot + 1) & last;
    }
    slots[slot] = Some(entry);
}

/// The index of the shard of a hash. `count`, the number of shards, is a power of two.
fn shard_of(hash: u64, count: usize) -> usize {
    // Truncation is fine: only the low bits are used.
    hash as usize & (count - 1)
}

/// The slot where the search for a hash begins. `last`, the last slot, is one less than a power of
/// two.
fn slot_of(hash: u64, last: usize) -> usize {
    (hash >> 32) as usize & last
}

#[cfg(test)]
impl<K, V> SharedMap<K, V> {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of entries that were copied or added since this map was cloned from `old`.
    pub(crate) fn copied_since(&self, old: &Self) -> usize {
        let is_shared = |shard: &&Shard<K, V>| {
            let mut known = old.shards.iter();
            known.any(|known| Arc::ptr_eq(&known.slots, &shard.slots))
        };
        let own = self.shards.iter().filter(|shard| !is_shared(shard));
        own.map(|shard| shard.len).sum()
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
