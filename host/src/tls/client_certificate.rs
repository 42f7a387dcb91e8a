//! The certificate that the gateway shows to servers.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::sign::SingleCertAndKey;
use sha2::{Digest, Sha256};

/// A certificate with its key, that the gateway shows to servers that ask for one. Two values are
/// equal if they were parsed from the same texts.
pub(crate) struct ClientCertificate {
    digest: [u8; 32],
    shown: Arc<SingleCertAndKey>,
}

impl ClientCertificate {
    /// Reads a certificate with the chain behind it, and its key, both in PEM (RFC 7468).
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn from_pem(certificate: &str, key: &str) -> Result<Self, String> {
        let certified = super::pem::certified(certificate, key)?;
        let mut digest = Sha256::new();
        digest.update(certificate.len().to_le_bytes());
        digest.update(certificate);
        digest.update(key);
        Ok(Self {
            digest: digest.finalize().into(),
            shown: Arc::new(SingleCertAndKey::from(certified)),
        })
    }

    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::clone(&self.shown)
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ClientCertificate {}

impl Hash for ClientCertificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The digest is uniformly distributed already.
        state.write(&self.digest[..8]);
    }
}
