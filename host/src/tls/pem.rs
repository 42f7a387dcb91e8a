//! Certificates and private keys as operators write them: in PEM (RFC 7468).

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::Error;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::public_key::PublicKey;

/// What the Admin API checks of a certificate: of the first one, if there is a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// Its public key; none if no algorithm of ours can use it.
    pub(crate) public_key: Option<PublicKey>,
    /// The SHA-256 of its DER.
    pub(crate) digest: [u8; 32],
    /// The first second of its validity, since the Unix epoch.
    pub(crate) not_before: i64,
    /// The last second of its validity, since the Unix epoch.
    pub(crate) not_after: i64,
    /// Whether it may sign other certificates (RFC 5280, 4.2.1.9).
    pub(crate) is_authority: bool,
    /// How many certificates the text has.
    pub(crate) count: usize,
}

impl CertificateFacts {
    /// Reads a certificate, and the chain behind it.
    ///
    /// # Errors
    /// What is wrong with the first invalid one.
    pub(crate) fn from_pem(text: &str) -> Result<Self, String> {
        let mut first = None;
        let mut count = 0;
        for section in Pem::iter_from_buffer(text.as_bytes()) {
            let section = section.map_err(|error| format!("it is no PEM: {error}"))?;
            if section.label != "CERTIFICATE" {
                continue;
            }
            let facts = Self::from_der(&section.contents)?;
            first.get_or_insert(facts);
            count += 1;
        }
        let first = first.ok_or("there is no certificate in it, in PEM")?;
        Ok(Self { count, ..first })
    }

    fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("there are bytes after its end".into());
        }
        Ok(Self {
            public_key: PublicKey::from_spki(certificate.public_key().raw),
            digest: Sha256::digest(der).into(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            is_authority: certificate.is_ca(),
            count: 1,
        })
    }
}

/// Reads an OCSP response (RFC 6960) in base64, and returns it as DER.
///
/// # Errors
/// It is none, or one that says that the responder has failed.
pub(crate) fn ocsp_response(text: &str) -> Result<Vec<u8>, String> {
    let der = BASE64_STANDARD.decode(text.trim());
    let der = der.map_err(|error| format!("it is no base64: {error}"))?;
    // The first element of the outer sequence is the status; 0 is `successful` (RFC 6960, 4.2.1).
    let content = match der.as_slice() {
        [0x30, length, rest @ ..] if *length < 0x80 => Some(rest),
        [0x30, length, rest @ ..] => rest.get(usize::from(length & 0x7f)..),
        _ => None,
    };
    match content {
        Some([0x0a, 1, 0, ..]) => Ok(der),
        Some([0x0a, 1, status, ..]) => Err(format!("it is an error of the responder ({status})")),
        _ => Err("it is no OCSP response".into()),
    }
}

/// The public half of a private key in PEM.
///
/// # Errors
/// It is not a private key, or one that TLS cannot use here.
pub(crate) fn public_half(text: &str) -> Result<PublicKey, String> {
    let key = signing_key(text).map_err(|what| format!("it is {what}"))?;
    let public = key
        .public_key()
        .and_then(|spki| PublicKey::from_spki(&spki));
    public.ok_or_else(|| format!("it is {UNSUPPORTED}"))
}

/// A certificate with the chain behind it, and its key, both in PEM.
///
/// # Errors
/// What is wrong with them.
pub(super) fn certified(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain: Result<Vec<_>, _> = chain.collect();
    let chain = chain.map_err(|error| format!("the certificate is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in PEM".into());
    }
    let key = signing_key(key).map_err(|what| format!("the key is {what}"))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) => Ok(pair),
        Err(Error::InconsistentKeys(_)) => Err("the certificate does not match the key".into()),
        Err(error) => Err(format!("the certificate cannot be used: {error}")),
    }
}

/// What a key is that TLS cannot use here.
const UNSUPPORTED: &str =
    "neither RSA of 2048 bits or more, nor ECDSA on P-256 or P-384, nor Ed25519";

/// A private key in PEM.
///
/// # Errors
/// What the text is instead.
fn signing_key(text: &str) -> Result<Arc<dyn SigningKey>, String> {
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
    let key = key.map_err(|error| format!("not a private key in PEM: {error}"))?;
    any_supported_type(&key).map_err(|_| UNSUPPORTED.to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn issued(authority: bool) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        if authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        (params.self_signed(&key).unwrap().pem(), key)
    }

    #[test]
    fn a_certificate_and_its_key_have_one_public_key() {
        let (certificate, key) = issued(false);
        let facts = CertificateFacts::from_pem(&certificate).unwrap();
        assert_eq!(facts.public_key, public_half(&key.serialize_pem()).ok());
        assert!(!facts.is_authority && facts.not_after > 0);
        let (other, _) = issued(true);
        let other = CertificateFacts::from_pem(&other).unwrap();
        assert!(other.is_authority);
        assert_ne!(other.public_key, facts.public_key);
        assert_ne!(other.digest, facts.digest);
    }

    #[test]
    fn of_a_chain_the_first_certificate_counts() {
        let (leaf, _) = issued(false);
        let (root, _) = issued(true);
        let facts = CertificateFacts::from_pem(&leaf).unwrap();
        let chain = CertificateFacts::from_pem(&format!("{leaf}{root}")).unwrap();
        assert_eq!(chain, CertificateFacts { count: 2, ..facts });
    }

    #[test]
    fn what_is_no_certificate_or_key_is_refused_with_a_reason() {
        let (certificate, key) = issued(false);
        let broken = certificate.replacen("MII", "MIJ", 1);
        let (key, cut) = (key.serialize_pem(), &certificate[..80]);
        for wrong in ["", "x", &key, &broken, cut] {
            let refused = CertificateFacts::from_pem(wrong);
            assert!(refused.is_err_and(|why| !why.is_empty()), "{wrong}");
        }
        for wrong in ["", "x", &certificate, &key[..60]] {
            assert!(
                public_half(wrong).is_err_and(|why| !why.is_empty()),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_ocsp_response_says_first_that_the_responder_succeeded() {
        let read = |der: &[u8]| ocsp_response(&BASE64_STANDARD.encode(der));
        assert!(read(&[0x30, 3, 0x0a, 1, 0]).is_ok());
        assert!(read(&[0x30, 0x81, 0x80, 0x0a, 1, 0, 0]).is_ok());
        let failed = read(&[0x30, 3, 0x0a, 1, 6]).unwrap_err();
        assert!(failed.contains("(6)"), "{failed}");
        assert!(read(b"x").is_err() && read(&[0x30, 0xff]).is_err());
        assert!(ocsp_response("-").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = CertificateFacts::from_pem(&text);
            let _ = CertificateFacts::from_der(&bytes);
            let _ = public_half(&text);
            let _ = ocsp_response(&BASE64_STANDARD.encode(&bytes));
        }
    }
}
