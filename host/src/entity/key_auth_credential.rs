//! A credential of `key-auth`: a key that a consumer sends. Source: Kong 3.9,
//! `keyauth_credentials`.

use serde::Deserialize;
use uuid::Uuid;

use super::consumer::CONSUMER;
use super::declaration::Declaration;
use super::field::{Field, Preset};
use super::{Expiry, ForeignKey, Kind, UniqueKey, key_hash, random};

/// A key of a consumer.
pub static DECLARATION: Declaration = Declaration {
    path: "key-auths",
    nested_path: "key-auth",
    endpoint_key: Some("key"),
    owner: Some("consumer"),
    unique: &[UniqueKey::of(&["key"])],
    fields: &[
        Field::id(),
        Field::created_at(),
        CONSUMER,
        Field::string("key")
            .default(Preset::Generated(random::key))
            .stored_as(key_hash::stored_form)
            .secret(),
        Field::ttl(),
        Field::tags(),
    ],
    ..Declaration::of(Kind::KeyAuthCredential, "keyauth_credentials", "key")
};

/// What the data plane reads of a key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct KeyAuthCredential {
    /// Primary key.
    pub id: Uuid,
    /// Whose key it is.
    pub consumer: ForeignKey,
    /// The key, or its hash.
    pub key: String,
    /// When it ends to be valid; never if none.
    pub ttl: Option<Expiry>,
}
