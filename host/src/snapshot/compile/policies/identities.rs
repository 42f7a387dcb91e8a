//! Consumers and their credentials.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use uuid::Uuid;

use super::super::{Part, view};
use crate::entity::consumer::Consumer;
use crate::entity::{Kind, Row};
use crate::policy::identity;
use crate::shared_map::SharedMap;

/// Consumers and their credentials.
#[derive(Default)]
pub(super) struct Identities {
    consumers: Consumers,
}

impl Identities {
    /// The part of an entity; `None` if it is no part of an identity.
    pub(super) fn part(&mut self, kind: Kind) -> Option<&mut dyn Part> {
        Some(match kind {
            Kind::Consumer => &mut self.consumers,
            _ => return None,
        })
    }

    /// Whether anything has changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        self.consumers.by_username.take_changed()
    }

    /// All of them, as requests find them.
    pub(super) fn compiled(&self) -> identity::Identities {
        identity::Identities {
            consumers: self.consumers.by_id.clone(),
            by_username: self.consumers.by_username.entries.clone(),
            keys: SharedMap::default(),
        }
    }
}

/// The consumers.
#[derive(Default)]
struct Consumers {
    by_id: SharedMap<Uuid, Arc<Consumer>>,
    by_username: Index<Arc<str>, Uuid>,
}

impl Part for Consumers {
    fn put(&mut self, id: Uuid, row: Row) {
        let Some(consumer) = view::<Consumer>(Kind::Consumer, id, row) else {
            return self.delete(id);
        };
        let username = consumer.username.as_deref();
        let entry = username.map(|name| (Arc::from(name), id));
        self.by_username.set(id, entry);
        self.by_id.insert(id, Arc::new(consumer));
    }

    fn delete(&mut self, id: Uuid) {
        self.by_username.set(id, None);
        self.by_id.remove(&id);
    }
}

/// What is found by a key, each entry from one row.
struct Index<K, V> {
    /// The keys of the rows.
    keys: HashMap<Uuid, K>,
    entries: SharedMap<K, V>,
    is_changed: bool,
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            entries: SharedMap::default(),
            is_changed: false,
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Index<K, V> {
    /// Sets the entry of a row, or removes it.
    fn set(&mut self, row: Uuid, entry: Option<(K, V)>) {
        self.is_changed = true;
        if let Some(old) = self.keys.remove(&row) {
            self.entries.remove(&old);
        }
        if let Some((key, value)) = entry {
            self.keys.insert(row, key.clone());
            self.entries.insert(key, value);
        }
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }
}
