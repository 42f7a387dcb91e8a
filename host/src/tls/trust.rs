//! The authorities whose certificates are accepted.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};

use super::verify_client::ClientVerifier;

/// The authorities whose certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Every certificate is accepted.
    Unverified,
    /// Certificates of the authorities that the system trusts, or that `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name.
    System,
    /// Certificates of these authorities.
    Only(Arc<Authorities>),
}

impl Trust {
    /// `self` if certificates are verified, otherwise [`Trust::Unverified`].
    pub(crate) fn if_verified(&self, verify: bool) -> Self {
        if verify {
            self.clone()
        } else {
            Self::Unverified
        }
    }
}

/// Authorities that an operator has configured. Two values are equal if they were parsed from the
/// same texts.
pub(crate) struct Authorities {
    digest: [u8; 32],
    pub(super) roots: Arc<RootCertStore>,
    /// The certificates themselves.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads certificates, each text with one or more in PEM (RFC 7468).
    ///
    /// # Errors
    /// What is wrong with the first invalid certificate.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        let mut digest = Sha256::new();
        for text in texts {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("it is no PEM: {error}"))?;
                let added = roots.add(certificate.clone());
                added.map_err(|error| format!("it is no certificate of an authority: {error}"))?;
                certificates.push(certificate);
            }
            if roots.len() == before {
                return Err("there is no certificate in it, in PEM".into());
            }
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        }
        Ok(Self {
            digest: digest.finalize().into(),
            roots: Arc::new(roots),
            certificates,
        })
    }

    /// Verifies the certificates of clients, which `required` says to be asked for or demanded.
    ///
    /// # Errors
    /// There is no authority.
    pub(crate) fn verify_clients(
        &self,
        required: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::clone(&self.roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = match required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let general = builder.build().map_err(|error| error.to_string())?;
        Ok(Arc::new(ClientVerifier::new(general, &self.certificates)))
    }

    /// No authorities, so that no certificate is accepted.
    pub(crate) fn none() -> Self {
        Self {
            digest: [0; 32],
            roots: Arc::new(RootCertStore::empty()),
            certificates: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authorities({})", self.roots.len())
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Authorities {}

impl Hash for Authorities {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The digest is uniformly distributed already.
        state.write(&self.digest[..8]);
    }
}

/// The authorities that the system trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
pub(super) fn system() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("a trusted certificate cannot be read: {error}");
        }
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(
                "no trusted certificates are installed: no certificate of an endpoint can be verified"
            );
        }
        Arc::new(roots)
    })
}
