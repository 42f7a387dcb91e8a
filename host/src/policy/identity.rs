//! Consumers and their credentials, as requests find them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::entity::consumer::Consumer;
use crate::shared_map::SharedMap;

/// Who a request is from.
#[derive(Debug, Default, Clone)]
pub struct Subject {
    /// The consumer, if authentication has found one.
    pub consumer: Option<Arc<Consumer>>,
    /// Whether the consumer is the `anonymous` one of an authentication policy.
    pub is_anonymous: bool,
    /// The credential by which the request was authenticated.
    pub credential: Option<AuthenticatedCredential>,
    /// Groups that an authentication policy has found out by itself.
    pub groups: Option<Arc<[String]>>,
}

impl Subject {
    /// The primary key of the consumer, or else of the credential.
    pub fn id(&self) -> Option<Uuid> {
        let consumer = self.consumer.as_ref().map(|consumer| consumer.id);
        consumer.or_else(|| self.credential.as_ref().map(|credential| credential.id))
    }
}

/// The credential by which a request was authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedCredential {
    /// Its primary key.
    pub id: Uuid,
    /// What the endpoint is told of it.
    pub identifier: Arc<str>,
}

/// Consumers and credentials. Copies share what they have in common.
#[derive(Debug, Default, Clone)]
pub struct Identities {
    pub(crate) consumers: SharedMap<Uuid, Arc<Consumer>>,
    pub(crate) by_username: SharedMap<Arc<str>, Uuid>,
    pub(crate) keys: SharedMap<Secret, KeyCredential>,
}

/// A credential of `key-auth`.
#[derive(Debug, Clone, Copy)]
pub struct KeyCredential {
    /// Its primary key.
    pub id: Uuid,
    /// Its consumer.
    pub consumer: Uuid,
    /// When it expires; `None`: never.
    pub expires: Option<SystemTime>,
}

impl KeyCredential {
    /// Whether it is of no use any longer. The store removes it soon after.
    pub fn is_expired(&self) -> bool {
        let expires = self.expires;
        expires.is_some_and(|expires| expires <= SystemTime::now())
    }
}

impl Identities {
    /// The consumer with this primary key.
    pub fn consumer(&self, id: Uuid) -> Option<&Arc<Consumer>> {
        self.consumers.get(&id)
    }

    /// The consumer with this primary key or username.
    pub fn consumer_named(&self, name: &str) -> Option<&Arc<Consumer>> {
        let by_id = Uuid::try_parse(name).ok().and_then(|id| self.consumer(id));
        by_id.or_else(|| self.consumer(*self.by_username.get(name)?))
    }

    /// The credential of `key-auth` with this key.
    pub fn key(&self, key: &[u8]) -> Option<&KeyCredential> {
        self.keys.get(&Secret::new(key))
    }
}

/// A secret by which a credential is found. Its comparison takes the same time for every secret of
/// the same length, so that a client learns nothing from the time.
#[derive(Clone)]
pub(crate) struct Secret(Arc<[u8]>);

impl Secret {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(secret.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
