//! Consumers and their credentials, as requests find them.

use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::signature::Algorithm;
use crate::entity::basic_auth_credential::BasicAuthCredential;
use crate::entity::consumer::Consumer;
use crate::entity::jwt_secret::JwtSecret;
use crate::entity::key_auth_credential::KeyAuthCredential;
use crate::entity::key_hash;
use crate::entity::{Expiry, uuid};
use crate::public_key::PublicKey;
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
    pub(crate) passwords: SharedMap<Arc<str>, Arc<PasswordCredential>>,
    pub(crate) jwts: SharedMap<Arc<str>, Arc<JwtCredential>>,
    pub(crate) groups: SharedMap<Uuid, Arc<[String]>>,
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

impl From<&KeyAuthCredential> for KeyCredential {
    fn from(row: &KeyAuthCredential) -> Self {
        Self {
            id: row.id,
            consumer: row.consumer.id,
            expires: row.ttl.map(Expiry::time),
        }
    }
}

impl KeyCredential {
    /// Whether it is of no use any longer. The store removes it soon after.
    pub fn is_expired(&self) -> bool {
        let expires = self.expires;
        expires.is_some_and(|expires| expires <= SystemTime::now())
    }
}

/// A credential of `basic-auth`.
#[derive(Clone)]
pub struct PasswordCredential {
    /// Its primary key.
    pub id: Uuid,
    /// Its consumer.
    pub consumer: Uuid,
    /// The password, as it is stored.
    pub(crate) password: String,
}

impl From<BasicAuthCredential> for PasswordCredential {
    fn from(row: BasicAuthCredential) -> Self {
        Self {
            id: row.id,
            consumer: row.consumer.id,
            password: row.password,
        }
    }
}

impl Debug for PasswordCredential {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PasswordCredential");
        shown.field("id", &self.id).finish_non_exhaustive()
    }
}

/// A credential of `jwt`.
#[derive(Clone)]
pub struct JwtCredential {
    /// Its primary key.
    pub id: Uuid,
    /// Its consumer.
    pub consumer: Uuid,
    /// The algorithm of its signatures; `None` for one that this version does not know.
    pub(super) algorithm: Option<Algorithm>,
    /// The key of HS256, HS384 and HS512.
    pub(super) secret: String,
    /// The key of all other algorithms.
    pub(super) public_key: Option<PublicKey>,
}

impl From<JwtSecret> for JwtCredential {
    fn from(row: JwtSecret) -> Self {
        let public_key = row.rsa_public_key.as_deref();
        Self {
            id: row.id,
            consumer: row.consumer.id,
            algorithm: Algorithm::named(&row.algorithm),
            public_key: public_key.and_then(PublicKey::from_pem),
            secret: row.secret,
        }
    }
}

impl Debug for JwtCredential {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("JwtCredential");
        shown.field("id", &self.id).finish_non_exhaustive()
    }
}

impl Identities {
    /// The consumer with this primary key.
    pub fn consumer(&self, id: Uuid) -> Option<&Arc<Consumer>> {
        self.consumers.get(&id)
    }

    /// The consumer with this primary key or username.
    pub fn consumer_named(&self, name: &str) -> Option<&Arc<Consumer>> {
        let by_id = uuid(name).and_then(|id| self.consumer(id));
        by_id.or_else(|| self.consumer(*self.by_username.get(name)?))
    }

    /// The credential of `key-auth` with this key.
    pub fn key(&self, key: &[u8]) -> Option<&KeyCredential> {
        let clear = self.keys.get(&Secret::clear(key));
        clear.or_else(|| self.keys.get(&Secret::Hashed(key_hash::hash(key)?)))
    }

    /// The credential of `basic-auth` with this username.
    pub fn password(&self, username: &str) -> Option<&PasswordCredential> {
        self.passwords.get(username).map(Arc::as_ref)
    }

    /// The credential of `jwt` with this key.
    pub fn jwt(&self, key: &str) -> Option<&JwtCredential> {
        self.jwts.get(key).map(Arc::as_ref)
    }

    /// The groups of a consumer, in their order.
    pub fn groups(&self, consumer: Uuid) -> Option<&Arc<[String]>> {
        self.groups.get(&consumer)
    }
}

/// A secret by which a credential is found. Its comparison takes the same time for every secret of
/// the same length, so that a client learns nothing from the time.
#[derive(Clone)]
pub(crate) enum Secret {
    /// As clients send it. It is here and not in memory of its own, so that a look-up among many
    /// reads one place less.
    Short { length: u8, bytes: [u8; SHORT] },
    /// A longer one.
    Long(Arc<[u8]>),
    /// Its hash. It is of another variant, so that a client cannot send the hash in place of the
    /// key.
    Hashed([u8; 32]),
}

/// The longest key, in bytes, that takes no memory of its own: the greatest with which a [`Secret`]
/// is no larger than its hash needs. Kong generates keys of 32.
const SHORT: usize = 38;

impl Secret {
    /// A key as clients send it.
    fn clear(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(key);
                Self::Short { length, bytes }
            }
            _ => Self::Long(key.into()),
        }
    }

    /// The key of a credential, as it is stored.
    pub(crate) fn stored(key: &str) -> Self {
        match key_hash::parse(key) {
            Some(hash) => Self::Hashed(hash),
            None => Self::clear(key.as_bytes()),
        }
    }

    /// The bytes of the key or of its hash.
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
            Self::Hashed(hash) => hash,
        }
    }

    fn is_hashed(&self) -> bool {
        matches!(self, Self::Hashed(_))
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is_hashed() == other.is_hashed() && self.bytes().ct_eq(other.bytes()).into()
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_keys_is_found() {
        let mut identities = Identities::default();
        for number in 0..100_000_u128 {
            let key = Secret::stored(&number.to_string());
            let credential = KeyCredential {
                id: Uuid::from_u128(number),
                consumer: Uuid::nil(),
                expires: None,
            };
            identities.keys.insert(key, credential);
        }
        for number in (0..100_000_u128).step_by(101) {
            let found = identities.key(number.to_string().as_bytes()).unwrap();
            assert_eq!(found.id, Uuid::from_u128(number));
        }
        assert!(identities.key(b"100000").is_none());
        assert!(identities.key(b"").is_none());
    }

    #[test]
    fn keys_of_every_length_are_told_apart() {
        let mut identities = Identities::default();
        let key = |length: usize, last: u8| {
            let mut key = vec![b'k'; length];
            key.push(last);
            String::from_utf8(key).unwrap()
        };
        for length in 0..100 {
            let credential = KeyCredential {
                id: Uuid::from_u128(length as u128),
                consumer: Uuid::nil(),
                expires: None,
            };
            let secret = Secret::stored(&key(length, b'a'));
            identities.keys.insert(secret, credential);
        }
        for length in 0..100 {
            let found = identities.key(key(length, b'a').as_bytes()).unwrap();
            assert_eq!(found.id, Uuid::from_u128(length as u128));
            assert!(identities.key(key(length, b'b').as_bytes()).is_none());
        }
        assert!(identities.key(key(100, b'a').as_bytes()).is_none());
    }

    #[test]
    fn a_hash_is_no_key() {
        let hash = [b'h'; 32];
        assert!(Secret::Hashed(hash) != Secret::clear(&hash));
        assert_eq!(size_of::<Secret>(), 40);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!("{:?}", Secret::stored("top"));
        assert_eq!(shown, "Secret(\u{2026})");
    }
}
