//! Which entities name a key, such as a host or a certificate.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use uuid::Uuid;

/// Which entities name a key. So when what has the key changes, only those are compiled again.
#[derive(Debug)]
pub(super) struct Users<K> {
    of: HashMap<K, BTreeSet<Uuid>>,
}

impl<K> Default for Users<K> {
    fn default() -> Self {
        Self { of: HashMap::new() }
    }
}

impl<K: Hash + Eq> Users<K> {
    /// An entity names a key.
    pub(super) fn add(&mut self, key: K, user: Uuid) {
        self.of.entry(key).or_default().insert(user);
    }

    /// An entity no longer names a key.
    pub(super) fn remove<Q>(&mut self, key: &Q, user: Uuid)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(users) = self.of.get_mut(key) {
            users.remove(&user);
            if users.is_empty() {
                self.of.remove(key);
            }
        }
    }

    /// The entities that name a key.
    pub(super) fn of<Q>(&self, key: &Q) -> impl Iterator<Item = Uuid>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.of.get(key).into_iter().flatten().copied()
    }

    /// Whether any entity names a key.
    pub(super) fn has<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.of.contains_key(key)
    }

    /// The keys that are named.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.of.keys()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The users of each key are those that a search among all entities would find.
        #[test]
        fn it_agrees_with_a_search(
            steps in prop::collection::vec((0_u8..4, 0_u8..6, any::<bool>()), 0..60),
        ) {
            let mut users = Users::<u8>::default();
            let mut named: BTreeMap<u8, BTreeSet<Uuid>> = BTreeMap::new();
            for (key, user, adds) in steps {
                let user = Uuid::from_u128(user.into());
                let all = named.entry(key).or_default();
                if adds {
                    users.add(key, user);
                    all.insert(user);
                } else {
                    users.remove(&key, user);
                    all.remove(&user);
                }
                prop_assert_eq!(users.of(&key).collect::<BTreeSet<_>>(), named[&key].clone());
                prop_assert_eq!(users.has(&key), !named[&key].is_empty());
            }
            let keys: BTreeSet<u8> = users.keys().copied().collect();
            named.retain(|_, users| !users.is_empty());
            prop_assert_eq!(keys, named.into_keys().collect::<BTreeSet<_>>());
        }
    }
}
