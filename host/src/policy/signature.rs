//! The algorithms of signatures (RFC 7518, 3.1, and RFC 8037, 3.1).

use p521::ecdsa;
use p521::ecdsa::signature::Verifier;
use ring::hmac;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use crate::public_key::{KeyKind, PublicKey};

/// An algorithm of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// HMAC with this hash function, with a secret.
    Hmac(Hash),
    /// RSASSA-PKCS1-v1_5.
    Rsa(Hash),
    /// RSASSA-PSS.
    RsaPss(Hash),
    /// ECDSA with SHA-256 on P-256.
    Es256,
    /// ECDSA with SHA-384 on P-384.
    Es384,
    /// ECDSA with SHA-512 on P-521.
    Es512,
    /// EdDSA with Ed25519.
    EdDsa,
}

/// A hash function of the SHA-2 family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The algorithm with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "ES256" => return Some(Self::Es256),
            "ES384" => return Some(Self::Es384),
            "ES512" => return Some(Self::Es512),
            "EdDSA" => return Some(Self::EdDsa),
            _ => {}
        }
        let (family, bits) = name.split_at_checked(2)?;
        let hash = match bits {
            "256" => Hash::Sha256,
            "384" => Hash::Sha384,
            "512" => Hash::Sha512,
            _ => return None,
        };
        Some(match family {
            "HS" => Self::Hmac(hash),
            "RS" => Self::Rsa(hash),
            "PS" => Self::RsaPss(hash),
            _ => return None,
        })
    }

    /// How `ring` checks signatures, and the kind of key that they are checked with; `None` for one
    /// that needs a secret, or that `ring` does not know.
    fn verification(self) -> Option<(&'static dyn VerificationAlgorithm, KeyKind)> {
        use Hash::{Sha256, Sha384, Sha512};
        // Keys of RSA have 2048 bits or more (RFC 7518, 3.3).
        Some(match self {
            Self::Rsa(Sha256) => (&signature::RSA_PKCS1_2048_8192_SHA256, KeyKind::Rsa),
            Self::Rsa(Sha384) => (&signature::RSA_PKCS1_2048_8192_SHA384, KeyKind::Rsa),
            Self::Rsa(Sha512) => (&signature::RSA_PKCS1_2048_8192_SHA512, KeyKind::Rsa),
            Self::RsaPss(Sha256) => (&signature::RSA_PSS_2048_8192_SHA256, KeyKind::Rsa),
            Self::RsaPss(Sha384) => (&signature::RSA_PSS_2048_8192_SHA384, KeyKind::Rsa),
            Self::RsaPss(Sha512) => (&signature::RSA_PSS_2048_8192_SHA512, KeyKind::Rsa),
            Self::Es256 => (&signature::ECDSA_P256_SHA256_FIXED, KeyKind::P256),
            Self::Es384 => (&signature::ECDSA_P384_SHA384_FIXED, KeyKind::P384),
            Self::EdDsa => (&signature::ED25519, KeyKind::Ed25519),
            Self::Hmac(_) | Self::Es512 => return None,
        })
    }

    /// Whether a signature is that of a text by the holder of a secret.
    pub(super) fn is_signed_with_secret(self, secret: &[u8], text: &str, signature: &[u8]) -> bool {
        let algorithm = match self {
            Self::Hmac(Hash::Sha256) => hmac::HMAC_SHA256,
            Self::Hmac(Hash::Sha384) => hmac::HMAC_SHA384,
            Self::Hmac(Hash::Sha512) => hmac::HMAC_SHA512,
            _ => return false,
        };
        let key = hmac::Key::new(algorithm, secret);
        // The comparison takes the same time for all signatures.
        hmac::verify(&key, text.as_bytes(), signature).is_ok()
    }

    /// Whether a signature is that of a text by the holder of the private key.
    pub(super) fn is_signed_by(self, key: &PublicKey, text: &str, signature: &[u8]) -> bool {
        if self == Self::Es512 {
            return is_signed_with_p521(key, text, signature).unwrap_or(false);
        }
        let Some((algorithm, kind)) = self.verification() else {
            return false;
        };
        let key_of = || UnparsedPublicKey::new(algorithm, &key.bytes);
        key.kind == kind && key_of().verify(text.as_bytes(), signature).is_ok()
    }
}

/// Whether a signature by ES512, whose curve `ring` does not know, is that of a text. The signature
/// is both of its numbers, one after the other (RFC 7518, 3.4).
fn is_signed_with_p521(key: &PublicKey, text: &str, signature: &[u8]) -> Option<bool> {
    if key.kind != KeyKind::P521 {
        return None;
    }
    let key = ecdsa::VerifyingKey::from_sec1_bytes(&key.bytes).ok()?;
    let signature = ecdsa::Signature::from_slice(signature).ok()?;
    Some(key.verify(text.as_bytes(), &signature).is_ok())
}
