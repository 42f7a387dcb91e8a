//! TLS towards clients: versions, cipher suites, and the certificates that clients are shown.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    Error, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion, version,
};

use super::sessions::SessionSettings;

/// Versions and cipher suites that clients may use. Source: Kong's `ssl_cipher_suite`.
#[derive(Clone)]
pub(crate) struct TlsParameters {
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Vec<SupportedCipherSuite>,
    /// Whether the order of the suites decides, and not the client's.
    prefers_own_order: bool,
}

impl TlsParameters {
    /// TLS 1.3 only.
    pub(crate) fn modern() -> Self {
        Self {
            versions: vec![&version::TLS13],
            ..Self::intermediate()
        }
    }

    /// TLS 1.2 and 1.3, with all cipher suites.
    pub(crate) fn intermediate() -> Self {
        Self {
            versions: vec![&version::TLS13, &version::TLS12],
            suites: ring::ALL_CIPHER_SUITES.to_vec(),
            prefers_own_order: false,
        }
    }

    /// These versions, and of TLS 1.2 these cipher suites; TLS 1.3 has all of its own.
    pub(crate) fn custom(
        versions: &[&'static SupportedProtocolVersion],
        suites: &[SupportedCipherSuite],
        prefers_own_order: bool,
    ) -> Self {
        let of_13 = ring::ALL_CIPHER_SUITES.iter();
        let of_13 = of_13.filter(|suite| suite.tls13().is_some());
        Self {
            versions: versions.to_vec(),
            suites: of_13.chain(suites).copied().collect(),
            prefers_own_order,
        }
    }

    /// The configuration of a server. `certificates` says which certificate a client is shown,
    /// `protocols` are those that it may choose from, the preferred one first (RFC 7301), and
    /// `clients` verifies those of clients, if they are asked for one. `sessions` says how clients
    /// may resume sessions.
    ///
    /// # Errors
    /// No cipher suite is left for a version, or the system has no random numbers.
    pub(crate) fn server(
        &self,
        certificates: Arc<dyn ResolvesServerCert>,
        protocols: &[&[u8]],
        clients: Option<Arc<dyn ClientCertVerifier>>,
        sessions: &SessionSettings,
    ) -> Result<Arc<ServerConfig>, Error> {
        let provider = CryptoProvider {
            cipher_suites: self.suites.clone(),
            ..ring::default_provider()
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificates);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.ignore_client_order = self.prefers_own_order;
        sessions.apply(&mut config)?;
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for TlsParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsParameters")
            .field("versions", &self.versions)
            .field("suites", &self.suites)
            .field("prefers_own_order", &self.prefers_own_order)
            .finish()
    }
}

/// A version of TLS, as OpenSSL names it; none for one that is not offered here.
pub(crate) fn version(name: &str) -> Option<&'static SupportedProtocolVersion> {
    match name {
        "TLSv1.2" => Some(&version::TLS12),
        "TLSv1.3" => Some(&version::TLS13),
        _ => None,
    }
}

/// A cipher suite of TLS 1.2, as OpenSSL names it; none for one that is not offered here.
pub(crate) fn cipher_suite(name: &str) -> Option<SupportedCipherSuite> {
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => {
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "ECDHE-RSA-AES128-GCM-SHA256" => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-CHACHA20-POLY1305" => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        _ => return None,
    })
}

/// A certificate with the chain behind it, and its key, in PEM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PemPair<'p> {
    pub(crate) certificate: &'p str,
    pub(crate) key: &'p str,
    /// What its authority says of it, in base64: an OCSP response that is shown along with it.
    pub(crate) ocsp_response: Option<&'p str>,
}

impl<'p> From<(&'p str, &'p str)> for PemPair<'p> {
    fn from((certificate, key): (&'p str, &'p str)) -> Self {
        Self {
            certificate,
            key,
            ocsp_response: None,
        }
    }
}

/// A certificate that clients are shown, and another one of a different type, if there is one.
#[derive(Debug)]
pub(crate) struct ServerCertificate(Vec<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// Reads pairs of certificates and keys.
    ///
    /// # Errors
    /// What is wrong with the first pair that is.
    pub(crate) fn from_pem<'p, P: Into<PemPair<'p>>>(
        pairs: impl IntoIterator<Item = P>,
    ) -> Result<Self, String> {
        let pairs = pairs.into_iter().map(|pair| certified(pair.into()));
        let mut pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        // A signature by RSA takes ten times as long as one by ECDSA, so it is for clients that
        // offer nothing else.
        pairs.sort_by_key(|pair| pair.key.algorithm() == SignatureAlgorithm::RSA);
        Ok(Self(pairs))
    }

    /// The first certificate with which the client can verify a signature; if there is none, any:
    /// the handshake then fails with the alert that says so.
    pub(crate) fn choose(&self, offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let suits = |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(offered).is_some();
        let chosen = self.0.iter().find(suits);
        chosen.or_else(|| self.0.first()).cloned()
    }
}

/// The certificate of a listener, which can be replaced.
#[derive(Debug)]
pub(crate) struct ListenerCertificate(RwLock<Arc<ServerCertificate>>);

impl ListenerCertificate {
    pub(crate) fn new(certificate: Arc<ServerCertificate>) -> Self {
        Self(RwLock::new(certificate))
    }

    /// Has further handshakes show another certificate.
    pub(crate) fn replace(&self, certificate: Arc<ServerCertificate>) {
        *self.0.write() = certificate;
    }

    /// As [`ServerCertificate::choose`].
    pub(crate) fn choose(&self, offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.read().choose(offered)
    }
}

impl ResolvesServerCert for ListenerCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.signature_schemes())
    }
}

fn certified(pair: PemPair<'_>) -> Result<Arc<CertifiedKey>, String> {
    let PemPair {
        certificate,
        key,
        ocsp_response,
    } = pair;
    let mut pair = super::pem::certified(certificate, key)?;
    if let Some(response) = ocsp_response {
        let response = super::ocsp_response(response);
        pair.ocsp = Some(response.map_err(|why| format!("the OCSP response: {why}"))?);
    }
    Ok(Arc::new(pair))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm as Algorithm};

    use super::*;

    fn issued(algorithm: &'static Algorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_client_is_shown_a_certificate_that_it_can_verify() {
        let (p256, ed25519) = (
            issued(&rcgen::PKCS_ECDSA_P256_SHA256),
            issued(&rcgen::PKCS_ED25519),
        );
        let pairs = [(&*p256.0, &*p256.1), (&*ed25519.0, &*ed25519.1)];
        let certificate = ServerCertificate::from_pem(pairs).unwrap();
        let shown = |offered: &[SignatureScheme]| {
            let shown = certificate.choose(offered).unwrap();
            shown.key.algorithm()
        };
        let (ecdsa, ed) = (SignatureAlgorithm::ECDSA, SignatureAlgorithm::ED25519);
        assert_eq!(shown(&[SignatureScheme::ED25519]), ed);
        assert_eq!(shown(&[SignatureScheme::ECDSA_NISTP256_SHA256]), ecdsa);
        assert_eq!(shown(&[SignatureScheme::RSA_PSS_SHA256]), ecdsa);
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_with_a_reason() {
        let (cert, _) = issued(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, other) = issued(&rcgen::PKCS_ECDSA_P256_SHA256);
        for (cert, key, reason) in [
            (&*cert, &*other, "does not match"),
            ("", &*other, "no certificate"),
            (&*cert, "", "not a private key"),
        ] {
            let refused = ServerCertificate::from_pem([(cert, key)]).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn every_named_suite_is_of_tls_12_and_a_custom_list_keeps_those_of_13() {
        let names = [
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ];
        let suites: Vec<_> = names
            .iter()
            .map(|name| cipher_suite(name).unwrap())
            .collect();
        assert!(suites.iter().all(|suite| suite.tls13().is_none()));
        let custom = TlsParameters::custom(&[&version::TLS13], &suites[..1], true);
        assert_eq!(custom.suites.len(), 4);
        assert!(cipher_suite("DHE-RSA-AES128-GCM-SHA256").is_none());
        assert!(version("TLSv1.1").is_none() && version("TLSv1.3").is_some());
    }
}
