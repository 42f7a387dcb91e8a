//! Public keys as operators write them: in PEM (RFC 7468).

use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    /// What the key is for.
    pub(crate) kind: KeyKind,
    /// The key, in the form that `ring` takes: for RSA an `RSAPublicKey` (RFC 8017, A.1.1), for a
    /// curve of NIST the uncompressed point (SEC 1, 2.3.3), for Ed25519 its 32 bytes.
    pub(crate) bytes: Vec<u8>,
}

/// What a public key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// RSA.
    Rsa,
    /// ECDSA on the curve P-256.
    P256,
    /// ECDSA on the curve P-384.
    P384,
    /// ECDSA on the curve P-521.
    P521,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl PublicKey {
    /// Reads the first section of a PEM: `PUBLIC KEY`, or `RSA PUBLIC KEY`. None for all else.
    pub(crate) fn from_pem(text: &str) -> Option<Self> {
        let section = Pem::iter_from_buffer(text.as_bytes()).next()?.ok()?;
        match section.label.as_str() {
            "PUBLIC KEY" => Self::from_spki(&section.contents),
            "RSA PUBLIC KEY" => Self::new(KeyKind::Rsa, section.contents),
            _ => None,
        }
    }

    /// Whether a PEM has a key of Ed448 (RFC 8410, 3), which no signature can be checked with here.
    pub(crate) fn is_ed448(text: &str) -> bool {
        let section = Pem::iter_from_buffer(text.as_bytes()).next();
        let Some(Ok(section)) = section.filter(|section| section.is_ok()) else {
            return false;
        };
        let spki = SubjectPublicKeyInfo::from_der(&section.contents);
        spki.is_ok_and(|(_, spki)| spki.algorithm.algorithm.to_id_string() == "1.3.101.113")
    }

    /// Reads a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7), as certificates have it.
    pub(crate) fn from_spki(der: &[u8]) -> Option<Self> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let curve = || spki.algorithm.parameters.as_ref()?.as_oid().ok();
        let kind = match spki.algorithm.algorithm.to_id_string().as_str() {
            // RFC 3279, 2.3.1.
            "1.2.840.113549.1.1.1" => KeyKind::Rsa,
            // RFC 5480, 2.1.1.
            "1.2.840.10045.2.1" => match curve()?.to_id_string().as_str() {
                "1.2.840.10045.3.1.7" => KeyKind::P256,
                "1.3.132.0.34" => KeyKind::P384,
                "1.3.132.0.35" => KeyKind::P521,
                _ => return None,
            },
            // RFC 8410, 3.
            "1.3.101.112" => KeyKind::Ed25519,
            _ => return None,
        };
        let bytes = spki.subject_public_key.data.to_vec();
        if rest.is_empty() {
            Self::new(kind, bytes)
        } else {
            None
        }
    }

    /// Whether it is a key of RSA with fewer than 2048 bits, which no signature may be made with
    /// (RFC 7518, 3.3).
    pub(crate) fn is_short(&self) -> bool {
        let is_short = |key: RSAPublicKey<'_>| key.key_size() < 2048;
        self.kind == KeyKind::Rsa
            && RSAPublicKey::from_der(&self.bytes).is_ok_and(|(_, key)| is_short(key))
    }

    fn new(kind: KeyKind, bytes: Vec<u8>) -> Option<Self> {
        let is_point = |length: usize| bytes.len() == 1 + 2 * length && bytes[0] == 4;
        let fits = match kind {
            KeyKind::Rsa => RSAPublicKey::from_der(&bytes).is_ok_and(|(rest, _)| rest.is_empty()),
            KeyKind::P256 => is_point(32),
            KeyKind::P384 => is_point(48),
            KeyKind::P521 => is_point(66),
            KeyKind::Ed25519 => bytes.len() == 32,
        };
        fits.then_some(Self { kind, bytes })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    /// Made with `openssl genrsa 2048`.
    const RSA: &str = "\
        -----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0bgtilkqecEdjGvJr59m\n\
        IpnYGJo6tZ4/eexV28AKaqQ2AOzUY42lTbaml3p1rwMxVqkEknrxAFvQRF6qUujy\n\
        e71DlNO9rfJMUOXv5r16agbYY/gAUr5yYL3/1Mwl71rwQ3OWpehuGJBlrDKGgOt2\n\
        B33ZWymuecgSSh5Fh2RX7qi61Sx3aUPfEJEBaKc2E9VSqbBYOGmG9t3dw7OC31yZ\n\
        QmOHx5SK7T3QrszFnVkcv9NriIxC7GEnvIX8Z2ISI+jMVRaHU8CwuD8GuOQ12f3J\n\
        dirzkH4kytDnfiMRNh/zwhyDreB/nd7Mew95BNz4XcCjBTThseDrB9zwR8wFJhiR\n\
        owIDAQAB\n\
        -----END PUBLIC KEY-----\n";

    /// The same key, written with `-RSAPublicKey_out`.
    const RSA_PKCS1: &str = "\
        -----BEGIN RSA PUBLIC KEY-----\n\
        MIIBCgKCAQEA0bgtilkqecEdjGvJr59mIpnYGJo6tZ4/eexV28AKaqQ2AOzUY42l\n\
        Tbaml3p1rwMxVqkEknrxAFvQRF6qUujye71DlNO9rfJMUOXv5r16agbYY/gAUr5y\n\
        YL3/1Mwl71rwQ3OWpehuGJBlrDKGgOt2B33ZWymuecgSSh5Fh2RX7qi61Sx3aUPf\n\
        EJEBaKc2E9VSqbBYOGmG9t3dw7OC31yZQmOHx5SK7T3QrszFnVkcv9NriIxC7GEn\n\
        vIX8Z2ISI+jMVRaHU8CwuD8GuOQ12f3JdirzkH4kytDnfiMRNh/zwhyDreB/nd7M\n\
        ew95BNz4XcCjBTThseDrB9zwR8wFJhiRowIDAQAB\n\
        -----END RSA PUBLIC KEY-----\n";

    /// Made with `openssl genrsa 1024`.
    const SHORT: &str = "\
        -----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7F+PjA+RqqC7M4ruL6FEOpJZB\n\
        lVFjdLLTCOxM/FrbUlxVyW1cajFGEol4FMXikQgtZGPzECp53uUyWFK9utYb7gFo\n\
        R7hV5be6bKo2WY7rXONzIAGpyMndHV+7O2F0WmmJvnttTR4GJXA8JGxt5nAjWMGm\n\
        7ZeJkQlhoH7jMH4ruQIDAQAB\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn keys_of_rsa_have_2048_bits_or_they_are_short() {
        assert!(PublicKey::from_pem(SHORT).unwrap().is_short());
        assert!(!PublicKey::from_pem(RSA).unwrap().is_short());
    }

    #[test]
    fn keys_of_the_algorithms_of_tokens_are_read() {
        for (algorithm, kind, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::P256, 65),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::P384, 97),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519, 32),
        ] {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            let key = PublicKey::from_pem(&pair.public_key_pem()).unwrap();
            assert_eq!((key.kind, key.bytes.len()), (kind, length));
            assert_eq!(
                PublicKey::from_spki(&pair.subject_public_key_info()),
                Some(key)
            );
        }
    }

    #[test]
    fn both_forms_of_an_rsa_key_are_one_key() {
        let key = PublicKey::from_pem(RSA).unwrap();
        assert_eq!((key.kind, key.bytes.len()), (KeyKind::Rsa, 270));
        assert_eq!(PublicKey::from_pem(RSA_PKCS1), Some(key));
    }

    #[test]
    fn a_private_key_or_a_broken_one_is_no_public_key() {
        let pair = KeyPair::generate().unwrap();
        let public = pair.public_key_pem();
        let cut = public.replacen("MF", "MA", 1);
        for wrong in ["", "x", &pair.serialize_pem(), &cut, &public[..60]] {
            assert_eq!(PublicKey::from_pem(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = PublicKey::from_spki(&bytes);
            let _ = PublicKey::new(KeyKind::Rsa, bytes);
        }
    }
}
