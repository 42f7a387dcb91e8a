//! What an authority asks for to verify that a name leads to this gateway: HTTP-01 (RFC 8555, 8.3)
//! and TLS-ALPN-01 (RFC 8737).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// Where the authority asks for the answer to a challenge.
const PATH: &str = "/.well-known/acme-challenge/";

/// The answers to the challenges that are in progress. Workers look here.
#[derive(Debug, Default)]
pub struct Challenges {
    /// The answer to HTTP-01, by its token.
    http: RwLock<HashMap<String, String>>,
    /// The certificate that answers TLS-ALPN-01, by its name.
    tls: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

/// An answer that is given until this is dropped.
pub(super) struct Offered {
    challenges: Arc<Challenges>,
    challenge: Challenge,
}

enum Challenge {
    /// With this token.
    Http(String),
    /// For this name.
    Tls(String),
}

impl Challenges {
    /// The answer to the request of an authority for this path, if the path is that of a challenge
    /// in progress.
    pub(crate) fn http_answer(&self, path: &str) -> Option<String> {
        // All other requests fail here.
        let token = path.strip_prefix(PATH)?;
        self.http.read().get(token).cloned()
    }

    /// The certificate that answers the authority's challenge of a name in lower case.
    pub(crate) fn tls_answer(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.tls.read().get(name).cloned()
    }

    /// Answers HTTP-01.
    pub(super) fn offer_http(self: &Arc<Self>, token: &str, answer: &str) -> Offered {
        self.http
            .write()
            .insert(token.to_owned(), answer.to_owned());
        self.offered(Challenge::Http(token.to_owned()))
    }

    /// Answers TLS-ALPN-01. `digest` is the SHA-256 of the answer.
    ///
    /// # Errors
    /// No certificate can be made for the name.
    pub(super) fn offer_tls(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8],
    ) -> Result<Offered, String> {
        let certificate = certificate(name, digest)?;
        self.tls
            .write()
            .insert(name.to_owned(), Arc::new(certificate));
        Ok(self.offered(Challenge::Tls(name.to_owned())))
    }

    fn offered(self: &Arc<Self>, challenge: Challenge) -> Offered {
        Offered {
            challenges: Arc::clone(self),
            challenge,
        }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        match &self.challenge {
            Challenge::Http(token) => drop(self.challenges.http.write().remove(token)),
            Challenge::Tls(name) => drop(self.challenges.tls.write().remove(name)),
        }
    }
}

/// A certificate of the name that shows the digest (RFC 8737, 3), signed by itself. It has an
/// extension that only the authority understands, so it is not checked as other certificates are.
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    let made = || {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        Ok::<_, rcgen::Error>((params.self_signed(&key)?, key.serialize_der()))
    };
    let (certificate, key) = made().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
    let key = any_supported_type(&key).map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_while_its_challenge_is_in_progress() {
        let challenges = Arc::new(Challenges::default());
        let path = "/.well-known/acme-challenge/token";
        let http = challenges.offer_http("token", "token.key");
        let tls = challenges.offer_tls("a.example", &[7; 32]).unwrap();
        assert_eq!(challenges.http_answer(path).unwrap(), "token.key");
        assert_eq!(
            challenges.http_answer("/.well-known/acme-challenge/other"),
            None
        );
        assert_eq!(challenges.http_answer("/token"), None);
        assert!(challenges.tls_answer("a.example").is_some());
        assert!(challenges.tls_answer("b.example").is_none());
        drop((http, tls));
        assert_eq!(challenges.http_answer(path), None);
        assert!(challenges.tls_answer("a.example").is_none());
    }
}
