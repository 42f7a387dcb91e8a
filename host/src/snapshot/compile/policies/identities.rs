//! Consumers and their credentials.

mod index;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::super::{Part, view};
use crate::entity::acl::Acl;
use crate::entity::basic_auth_credential::BasicAuthCredential;
use crate::entity::consumer::Consumer;
use crate::entity::jwt_secret::JwtSecret;
use crate::entity::key_auth_credential::KeyAuthCredential;
use crate::entity::{Kind, Row};
use crate::policy::identity::{self, JwtCredential, KeyCredential, PasswordCredential, Secret};
use crate::shared_map::SharedMap;
use index::Index;

/// Consumers and their credentials.
pub(super) struct Identities {
    consumers: Consumers,
    keys: Credentials<KeyAuthCredential, Secret, KeyCredential>,
    passwords: Credentials<BasicAuthCredential, Arc<str>, Arc<PasswordCredential>>,
    jwts: Credentials<JwtSecret, Arc<str>, Arc<JwtCredential>>,
    groups: Groups,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            consumers: Consumers::default(),
            keys: Credentials::of(Kind::KeyAuthCredential, |row| {
                (Secret::stored(&row.key), (&row).into())
            }),
            passwords: Credentials::of(Kind::BasicAuthCredential, |row| {
                (row.username.as_str().into(), Arc::new(row.into()))
            }),
            jwts: Credentials::of(Kind::JwtSecret, |row| {
                (row.key.as_str().into(), Arc::new(row.into()))
            }),
            groups: Groups::default(),
        }
    }
}

impl Identities {
    /// The part of an entity; `None` if it is no part of an identity.
    pub(super) fn part(&mut self, kind: Kind) -> Option<&mut dyn Part> {
        Some(match kind {
            Kind::Consumer => &mut self.consumers,
            Kind::KeyAuthCredential => &mut self.keys,
            Kind::BasicAuthCredential => &mut self.passwords,
            Kind::JwtSecret => &mut self.jwts,
            Kind::Acl => &mut self.groups,
            _ => return None,
        })
    }

    /// Whether anything has changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        let changed = [
            self.consumers.by_username.take_changed(),
            self.keys.index.take_changed(),
            self.passwords.index.take_changed(),
            self.jwts.index.take_changed(),
            std::mem::take(&mut self.groups.is_changed),
        ];
        changed.contains(&true)
    }

    /// All of them, as requests find them.
    pub(super) fn compiled(&self) -> identity::Identities {
        identity::Identities {
            consumers: self.consumers.by_id.clone(),
            by_username: self.consumers.by_username.entries().clone(),
            keys: self.keys.index.entries().clone(),
            passwords: self.passwords.index.entries().clone(),
            jwts: self.jwts.index.entries().clone(),
            groups: self.groups.by_consumer.clone(),
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

/// The credentials of a kind, by what requests have of them.
struct Credentials<R, K, V> {
    kind: Kind,
    index: Index<K, V>,
    entry: fn(R) -> (K, V),
}

impl<R, K, V> Credentials<R, K, V> {
    fn of(kind: Kind, entry: fn(R) -> (K, V)) -> Self {
        Self {
            kind,
            index: Index::default(),
            entry,
        }
    }
}

impl<R: DeserializeOwned, K: Hash + Eq + Clone, V: Clone> Part for Credentials<R, K, V> {
    fn put(&mut self, id: Uuid, row: Row) {
        let row = view::<R>(self.kind, id, row);
        self.index.set(id, row.map(self.entry));
    }

    fn delete(&mut self, id: Uuid) {
        self.index.set(id, None);
    }
}

/// The groups of consumers.
#[derive(Default)]
struct Groups {
    rows: HashMap<Uuid, Acl>,
    /// The rows of each consumer, by the names of their groups.
    of_consumers: HashMap<Uuid, BTreeMap<String, Uuid>>,
    by_consumer: SharedMap<Uuid, Arc<[String]>>,
    is_changed: bool,
}

impl Groups {
    fn set(&mut self, id: Uuid, row: Option<Acl>) {
        self.is_changed = true;
        if let Some(old) = self.rows.remove(&id) {
            let consumer = old.consumer.id;
            if let Some(groups) = self.of_consumers.get_mut(&consumer) {
                // Within a commit, another row may have been given the name before.
                if groups.get(&old.group) == Some(&id) {
                    groups.remove(&old.group);
                }
            }
            self.rebuild(consumer);
        }
        if let Some(row) = row {
            let consumer = row.consumer.id;
            let groups = self.of_consumers.entry(consumer).or_default();
            groups.insert(row.group.clone(), id);
            self.rows.insert(id, row);
            self.rebuild(consumer);
        }
    }

    fn rebuild(&mut self, consumer: Uuid) {
        let groups = self.of_consumers.get(&consumer);
        match groups.filter(|groups| !groups.is_empty()) {
            Some(groups) => {
                let names = groups.keys().cloned().collect();
                self.by_consumer.insert(consumer, names);
            }
            None => {
                self.of_consumers.remove(&consumer);
                self.by_consumer.remove(&consumer);
            }
        }
    }
}

impl Part for Groups {
    fn put(&mut self, id: Uuid, row: Row) {
        let row = view::<Acl>(Kind::Acl, id, row);
        self.set(id, row);
    }

    fn delete(&mut self, id: Uuid) {
        self.set(id, None);
    }
}
