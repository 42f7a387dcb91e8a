//! The certificate of an authority, by which the certificates of endpoints are verified. Source:
//! Kong 3.9, `ca_certificates`.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::certificate::certificate;
use super::declaration::Declaration;
use super::field::{Check, Field};
use super::violations::Violations;
use super::{EntityCheck, Kind, Row, UniqueKey};
use crate::clock;
use crate::tls::CertificateFacts;

/// The certificate of an authority.
pub static DECLARATION: Declaration = Declaration {
    unique: &[UniqueKey::of(&["cert_digest"])],
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("cert")
            .required()
            .check(&[Check::Text(certificate)]),
        Field::string("cert_digest"),
        Field::tags(),
    ],
    normalize: set_digest,
    entity_checks: &[EntityCheck::Custom {
        fields: &["cert"],
        check: is_authority,
    }],
    ..Declaration::of(Kind::CaCertificate, "ca_certificates", "CA certificate")
};

fn facts(row: &Row) -> Option<CertificateFacts> {
    let text = row.get("cert").and_then(Value::as_str)?;
    CertificateFacts::from_pem(text).ok()
}

/// The digest is that of the certificate, whatever a request says.
fn set_digest(row: &mut Row) {
    if let Some(facts) = facts(row) {
        let digits = facts.digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        row.insert("cert_digest".into(), digits.into());
    }
}

fn is_authority(row: &Row, violations: &mut Violations) {
    let Some(facts) = facts(row) else {
        return;
    };
    if facts.count > 1 {
        violations.entity("please submit only one certificate at a time");
    } else if u64::try_from(facts.not_after).unwrap_or(0) < clock::unix_seconds() {
        violations.entity("certificate expired, \"Not After\" time is in the past");
    } else if !facts.is_authority {
        violations.entity(
            "certificate does not appear to be a CA because it is missing the \"CA\" basic \
             constraint",
        );
    }
}

/// What the data plane reads of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CaCertificate {
    /// Primary key.
    pub id: Uuid,
    /// The certificate, in PEM.
    pub cert: String,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use serde_json::json;

    use super::*;
    use crate::entity::Violation;

    fn issued(change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        params.self_signed(&key).unwrap().pem()
    }

    fn create(cert: &str) -> Result<Row, String> {
        let input = json!({ "cert": cert, "cert_digest": "x" });
        match DECLARATION.create(Uuid::from_u128(1), input.as_object().cloned().unwrap()) {
            Ok(row) => Ok(row),
            Err(Violation::Schema(violations)) => Err(violations.message()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_digest_is_that_of_the_certificate() {
        let cert = issued(|_| {});
        let row = create(&cert).unwrap();
        let digest = row["cert_digest"].as_str().unwrap();
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Spaces around a certificate do not make it another one.
        assert_eq!(
            create(&format!("\n{cert}\n")).unwrap()["cert_digest"],
            digest
        );
    }

    #[test]
    fn only_one_valid_authority_is_accepted() {
        let twice = format!("{}{}", issued(|_| {}), issued(|_| {}));
        let expired = issued(|params| params.not_after = date_time_ymd(2001, 1, 1));
        let leaf = issued(|params| params.is_ca = IsCa::NoCa);
        for (wrong, message) in [
            (twice, "please submit only one certificate at a time"),
            (
                expired,
                "certificate expired, \"Not After\" time is in the past",
            ),
            (
                leaf,
                "certificate does not appear to be a CA because it is missing the \"CA\" basic \
                 constraint",
            ),
        ] {
            let refused = create(&wrong).unwrap_err();
            assert_eq!(refused, format!("schema violation ({message})"));
        }
        let refused = create("x").unwrap_err();
        assert!(refused.starts_with("schema violation (cert: invalid certificate: "));
    }
}
