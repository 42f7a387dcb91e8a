//! A certificate with its key, that the gateway shows to clients or to endpoints. Source: Kong 3.9,
//! `certificates`.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::declaration::Declaration;
use super::field::{Check, Field, Shape};
use super::violations::Violations;
use super::{EntityCheck, Kind, Row, check};
use crate::public_key::{KeyKind, PublicKey};
use crate::tls::{CertificateFacts, ocsp_response, public_half};

const SERVER_NAME: Field = Field::element(Shape::String).check(&[Check::Text(check::sni)]);

/// A certificate with its key.
pub static DECLARATION: Declaration = Declaration {
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        pem("cert", CERTIFICATE).required(),
        pem("key", KEY).required().secret(),
        pem("cert_alt", CERTIFICATE),
        pem("key_alt", KEY).secret(),
        // A row has none: they are the rows of `snis` that refer to it.
        Field::array("snis", &SERVER_NAME)
            .transient()
            .check(&[Check::List(distinct)]),
        Field::record("pointsman", EXTENSION).extension(),
        Field::tags(),
    ],
    entity_checks: &[
        EntityCheck::MutuallyRequired(&["cert_alt", "key_alt"]),
        EntityCheck::Custom {
            fields: &["cert", "key"],
            check: |row, violations| {
                pair(
                    row,
                    ["cert", "key"],
                    "certificate does not match key",
                    violations,
                );
            },
        },
        EntityCheck::Custom {
            fields: &["cert_alt", "key_alt"],
            check: |row, violations| {
                let message = "alternative certificate does not match key";
                pair(row, ["cert_alt", "key_alt"], message, violations);
            },
        },
        EntityCheck::Custom {
            fields: &["cert", "cert_alt"],
            check: different_types,
        },
    ],
    ..Declaration::of(Kind::Certificate, "certificates", "certificate")
};

/// Text in PEM, or a reference to it in a vault.
const fn pem(name: &'static str, checks: &'static [Check]) -> Field {
    Field::string(name).referenceable().check(checks)
}

/// What Kong does not have: OCSP responses (RFC 6960), DER in base64, that clients are shown along
/// with the certificates.
const EXTENSION: &[Field] = &[
    Field::string("ocsp_response").check(&[Check::Text(stapled)]),
    Field::string("ocsp_response_alt").check(&[Check::Text(stapled)]),
];

const CERTIFICATE: &[Check] = &[Check::Text(certificate)];

const KEY: &[Check] = &[Check::Text(private_key)];

pub(super) fn certificate(text: &str) -> Result<(), String> {
    let read = CertificateFacts::from_pem(text);
    read.map_or_else(|why| Err(format!("invalid certificate: {why}")), |_| Ok(()))
}

fn stapled(text: &str) -> Result<(), String> {
    let read = ocsp_response(text);
    read.map_or_else(
        |why| Err(format!("invalid OCSP response: {why}")),
        |_| Ok(()),
    )
}

fn private_key(text: &str) -> Result<(), String> {
    let read = public_half(text);
    read.map_or_else(|why| Err(format!("invalid key: {why}")), |_| Ok(()))
}

/// Whether each name is there once, in any case: names of servers are compared without it.
fn distinct(names: &[Value]) -> Result<(), String> {
    let mut known = HashSet::new();
    let mut names = names.iter().filter_map(Value::as_str);
    match names.find(|name| !known.insert(name.to_ascii_lowercase())) {
        Some(name) => Err(format!("{name} is duplicated")),
        None => Ok(()),
    }
}

fn text<'r>(row: &'r Row, field: &str) -> Option<&'r str> {
    row.get(field).and_then(Value::as_str)
}

/// The public key of the certificate in a field.
fn certified(row: &Row, field: &str) -> Option<PublicKey> {
    CertificateFacts::from_pem(text(row, field)?)
        .ok()?
        .public_key
}

/// Whether a certificate is that of a key; `message` says that it is not.
fn pair(row: &Row, [certificate, key]: [&str; 2], message: &str, violations: &mut Violations) {
    if let Some(key) = text(row, key)
        && certified(row, certificate) != public_half(key).ok()
    {
        violations.entity(message);
    }
}

/// A second certificate is for clients that cannot use the type of the first one.
fn different_types(row: &Row, violations: &mut Violations) {
    let class = |field| {
        certified(row, field).map(|key| match key.kind {
            KeyKind::Rsa => "RSA",
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => "ECDSA",
            KeyKind::Ed25519 => "Ed25519",
        })
    };
    if let (Some(first), Some(second)) = (class("cert"), class("cert_alt"))
        && first == second
    {
        violations.entity(
            "certificate and alternative certificate need to have different type (e.g. RSA and \
             ECDSA), the provided certificates were both of the same type",
        );
    }
}

/// What the data plane reads of a certificate. Each text is in PEM, or a reference to a vault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Certificate {
    /// Primary key.
    pub id: Uuid,
    /// The certificate, and the chain behind it.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// A certificate of another type, for clients that cannot use the first one.
    pub cert_alt: Option<String>,
    /// The private key of that one.
    pub key_alt: Option<String>,
    /// The extensions beyond Kong.
    #[serde(default)]
    pub pointsman: Extension,
}

/// The extensions beyond Kong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// An OCSP response for the certificate, DER in base64.
    pub ocsp_response: Option<String>,
    /// An OCSP response for the certificate of another type, DER in base64.
    pub ocsp_response_alt: Option<String>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
    use serde_json::json;

    use super::*;
    use crate::entity::Violation;

    fn issued(algorithm: &'static SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn create(input: &Value) -> Result<Row, String> {
        let input = input.as_object().cloned().unwrap();
        match DECLARATION.create(Uuid::from_u128(1), input) {
            Ok(row) => Ok(row),
            Err(Violation::Schema(violations)) => Err(violations.message()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_is_accepted_with_its_own_key_alone() {
        let (cert, key) = issued(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, other) = issued(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert!(create(&json!({ "cert": cert, "key": key })).is_ok());
        assert_eq!(
            create(&json!({ "cert": cert, "key": other })).unwrap_err(),
            "schema violation (certificate does not match key)"
        );
        let wrong = create(&json!({ "cert": key, "key": cert })).unwrap_err();
        assert!(wrong.contains("cert: invalid certificate: "), "{wrong}");
        assert!(wrong.contains("key: invalid key: "), "{wrong}");
    }

    #[test]
    fn an_alternative_is_a_pair_of_another_type() {
        let (cert, key) = issued(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (cert_alt, key_alt) = issued(&rcgen::PKCS_ED25519);
        let both = |cert_alt: &str, key_alt: &str| {
            create(&json!({ "cert": cert, "key": key, "cert_alt": cert_alt, "key_alt": key_alt }))
        };
        assert!(both(&cert_alt, &key_alt).is_ok());
        let (same, same_key) = issued(&rcgen::PKCS_ECDSA_P384_SHA384);
        let refused = both(&same, &same_key).unwrap_err();
        assert!(refused.contains("both of the same type"), "{refused}");
        let (_, other) = issued(&rcgen::PKCS_ED25519);
        assert_eq!(
            both(&cert_alt, &other).unwrap_err(),
            "schema violation (alternative certificate does not match key)"
        );
        let alone = json!({ "cert": cert, "key": key, "cert_alt": cert_alt });
        let refused = create(&alone).unwrap_err();
        assert!(refused.contains("all or none of these fields must be set: 'cert_alt', 'key_alt'"));
    }

    #[test]
    fn what_is_in_a_vault_is_not_checked() {
        let vault = "{vault://env/tls}";
        assert!(create(&json!({ "cert": vault, "key": vault })).is_ok());
        let (cert, _) = issued(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert!(create(&json!({ "cert": cert, "key": vault })).is_ok());
    }

    #[test]
    fn server_names_are_names_each_once() {
        let vault = "{vault://env/tls}";
        let named = |snis: Value| create(&json!({ "cert": vault, "key": vault, "snis": snis }));
        assert!(named(json!(["a.example", "*.b.example", "c.*"])).is_ok());
        for (wrong, message) in [
            (
                json!(["a", "b", "a"]),
                "schema violation (snis: a is duplicated)",
            ),
            (
                json!(["a", "A"]),
                "schema violation (snis: A is duplicated)",
            ),
            (
                json!(["a", "1.2.3.4"]),
                "schema violation (snis.2: must not be an IP)",
            ),
            (
                json!(["a:80"]),
                "schema violation (snis.1: must not have a port)",
            ),
        ] {
            assert_eq!(named(wrong).unwrap_err(), message);
        }
    }
}
