//! A credential of `jwt`: what the tokens of a consumer are signed with. Source: Kong 3.9,
//! `jwt_secrets`.

use serde::Deserialize;
use uuid::Uuid;

use super::consumer::CONSUMER;
use super::declaration::Declaration;
use super::field::{Check, Field, Preset};
use super::{EntityCheck, ForeignKey, Kind, Match, UniqueKey, random};
use crate::public_key::PublicKey;

/// What the tokens of a consumer are signed with.
pub static DECLARATION: Declaration = Declaration {
    path: "jwts",
    nested_path: "jwt",
    endpoint_key: Some("key"),
    owner: Some("consumer"),
    unique: &[UniqueKey::of(&["key"])],
    fields: &[
        Field::id(),
        Field::created_at(),
        CONSUMER,
        Field::string("key").default(Preset::Generated(random::key)),
        Field::string("secret")
            .default(Preset::Generated(random::key))
            .secret(),
        Field::string("rsa_public_key"),
        Field::string("algorithm")
            .default(Preset::String("HS256"))
            .check(&[Check::OneOf(&[
                "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512",
                "PS256", "PS384", "PS512", "EdDSA",
            ])]),
        Field::tags(),
    ],
    // Kong does not ask for the key of ES256, ES384 and ES512: without it, no token is accepted.
    entity_checks: &[EntityCheck::Conditional {
        if_field: "algorithm",
        if_match: Match::OneOf(&[
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
        ]),
        then_field: "rsa_public_key",
        then_match: Match::Passes(public_key),
    }],
    ..Declaration::of(Kind::JwtSecret, "jwt_secrets", "jwt credential")
};

fn public_key(text: &str) -> Result<(), String> {
    match PublicKey::from_pem(text) {
        Some(key) if key.is_short() => {
            Err("a key of RSA must have 2048 bits or more (RFC 7518)".into())
        }
        Some(_) => Ok(()),
        None if PublicKey::is_ed448(text) => {
            Err("keys of Ed448 are not supported: use one of Ed25519".into())
        }
        None => Err("invalid key".into()),
    }
}

/// What the data plane reads of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JwtSecret {
    /// Primary key.
    pub id: Uuid,
    /// Whose tokens it is for.
    pub consumer: ForeignKey,
    /// The value of the claim that names the credential, such as `iss`.
    pub key: String,
    /// The key of HS256, HS384 and HS512.
    pub secret: String,
    /// The key of all other algorithms, in PEM.
    pub rsa_public_key: Option<String>,
    /// The algorithm of the signatures (RFC 7518, 3.1, and RFC 8037, 3.1).
    pub algorithm: String,
}
