//! A key, as a JSON Web Key or in PEM. Source: Kong 3.9, `keys`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::declaration::Declaration;
use super::field::{Check, Field};
use super::violations::Violations;
use super::{EntityCheck, Kind, OnDelete, Row, UniqueKey};
use crate::public_key::PublicKey;
use crate::tls::public_half;

/// A key.
pub static DECLARATION: Declaration = Declaration {
    endpoint_key: Some("name"),
    owner: Some("set"),
    unique: &[
        UniqueKey::of(&["name"]),
        // The same id in another set, or in none, is another key.
        UniqueKey::with_nulls(&["kid", "set"]),
    ],
    fields: &[
        Field::id(),
        Field::reference("set", Kind::KeySet).on_delete(OnDelete::Cascade),
        Field::string("name"),
        Field::string("kid").required(),
        Field::string("jwk").referenceable().secret(),
        Field::record(
            "pem",
            &[
                Field::string("private_key").referenceable().secret(),
                Field::string("public_key").referenceable(),
            ],
        )
        .null_by_default()
        .entity_checks(&[EntityCheck::AtLeastOneOf(&["private_key", "public_key"])])
        .check(&[Check::Record(pair)]),
        Field::tags(),
        Field::created_at(),
        Field::updated_at(),
    ],
    entity_checks: &[
        EntityCheck::MutuallyExclusive(&["jwk", "pem"]),
        EntityCheck::AtLeastOneOf(&["jwk", "pem"]),
        EntityCheck::Custom {
            fields: &["jwk", "kid"],
            check: jwk,
        },
    ],
    ..Declaration::of(Kind::Key, "keys", "key")
};

/// Checks the keys of a pair in PEM; one that is in a vault cannot be checked.
fn pair(pem: &Row) -> Result<(), String> {
    let text = |field: &str| pem.get(field).and_then(Value::as_str);
    let (private, public) = (text("private_key"), text("public_key"));
    let in_vault = |text: &str| text.starts_with("{vault://") && text.ends_with('}');
    if [private, public].into_iter().flatten().any(in_vault) {
        return Ok(());
    }
    let public = public.map(|text| {
        PublicKey::from_pem(text).ok_or_else(|| "could not load public key".to_owned())
    });
    let private = private
        .map(|text| public_half(text).map_err(|why| format!("could not load private key: {why}")));
    match (public.transpose()?, private.transpose()?) {
        (Some(public), Some(private)) if public != private => {
            Err("public key does not match private key".into())
        }
        _ => Ok(()),
    }
}

/// Checks a JSON Web Key (RFC 7517).
fn jwk(row: &Row, violations: &mut Violations) {
    let Some(text) = row.get("jwk").and_then(Value::as_str) else {
        return;
    };
    let Ok(Value::Object(key)) = serde_json::from_str(text) else {
        violations.entity("could not json decode jwk string");
        return;
    };
    if key.get("kid") != row.get("kid") {
        violations.entity("kid in jwk.kid must be equal to keys.kid");
    } else if !is_key(&key) {
        violations.entity("could not load JWK, likely not a valid key");
    }
}

/// Whether the parameters that a key of its type needs are there. Source: RFC 7518, 6, and RFC
/// 8037, 2.
fn is_key(key: &Row) -> bool {
    let needed: &[&str] = match key.get("kty").and_then(Value::as_str) {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["x", "y"],
        Some("OKP") => &["x"],
        Some("oct") => &["k"],
        _ => return false,
    };
    let is_there = |name: &&str| {
        let text = key.get(*name).and_then(Value::as_str).unwrap_or_default();
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        bytes.is_ok_and(|bytes| !bytes.is_empty())
    };
    needed.iter().all(is_there)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use rcgen::KeyPair;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::entity::Violation;

    fn said(input: Value) -> Option<String> {
        let input = input.as_object().cloned().unwrap();
        match DECLARATION.create(Uuid::from_u128(1), input) {
            Ok(_) => None,
            Err(Violation::Schema(violations)) => Some(violations.message()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_is_either_a_jwk_or_in_pem() {
        let jwk = json!({ "kid": "k", "kty": "oct", "k": "AAAA" }).to_string();
        let public = KeyPair::generate().unwrap().public_key_pem();
        assert_eq!(said(json!({ "kid": "k", "jwk": jwk })), None);
        assert_eq!(
            said(json!({ "kid": "k", "pem": { "public_key": public } })),
            None
        );
        let both = said(json!({ "kid": "k", "jwk": jwk, "pem": { "public_key": public } }));
        let message =
            "schema violation (only one or none of these fields must be set: 'jwk', 'pem')";
        assert_eq!(both.as_deref(), Some(message));
        let message =
            "schema violation (at least one of these fields must be non-empty: 'jwk', 'pem')";
        assert_eq!(said(json!({ "kid": "k" })).as_deref(), Some(message));
    }

    #[test]
    fn a_jwk_is_a_key_with_the_id_of_its_row() {
        let with = |jwk: Value| said(json!({ "kid": "k", "jwk": jwk.to_string() }));
        for (jwk, message) in [
            (json!([]), "could not json decode jwk string"),
            (
                json!({ "kid": "j" }),
                "kid in jwk.kid must be equal to keys.kid",
            ),
            (
                json!({ "kid": "k", "kty": "RSA", "n": "AAAA" }),
                "could not load JWK, likely not a valid key",
            ),
        ] {
            assert_eq!(with(jwk), Some(format!("schema violation ({message})")));
        }
        let vault = json!({ "kid": "k", "jwk": "{vault://env/key}" });
        assert_eq!(said(vault), None);
    }

    #[test]
    fn the_keys_of_a_pair_belong_together() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let pem = |private: &str, public: &str| {
            said(json!({ "kid": "k", "pem": { "private_key": private, "public_key": public } }))
        };
        assert_eq!(pem(&key.serialize_pem(), &key.public_key_pem()), None);
        let wrong = pem(&other.serialize_pem(), &key.public_key_pem()).unwrap();
        assert!(
            wrong.contains("public key does not match private key"),
            "{wrong}"
        );
        let wrong = pem(&key.serialize_pem(), "x").unwrap();
        assert!(wrong.contains("could not load public key"), "{wrong}");
        let wrong = pem("x", &key.public_key_pem()).unwrap();
        assert!(wrong.contains("could not load private key"), "{wrong}");
        assert_eq!(pem("{vault://env/key}", &key.public_key_pem()), None);
    }
}
