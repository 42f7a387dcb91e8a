//! TLS towards endpoints, for requests and for probes, and towards other servers; and what TLS
//! towards clients needs: `server.rs`, `server_names.rs`, `generated.rs`.

pub(crate) mod generated;
mod pem;
mod server;
mod server_names;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

use crate::authority::Host;
pub(crate) use pem::{CertificateFacts, public_half};
pub(crate) use server::{ServerCertificate, TlsParameters, cipher_suite, version};
pub(crate) use server_names::{NamedCertificate, ServerNames};

/// HTTP/1.1, as ALPN names it in a handshake (RFC 7301).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// HTTP/2, as ALPN names it (RFC 9113, 3.1).
pub(crate) const H2: &[u8] = b"h2";

/// No protocol is named in the handshake, for servers of other protocols than HTTP.
pub(crate) const NO_PROTOCOL: &[u8] = b"";

/// The server name for TLS of a setting: a name or an address. An IPv6 address may have brackets.
pub(crate) fn server_name(text: &str) -> Option<ServerName<'static>> {
    server_name_of(&Host::of_setting(text)?)
}

/// The server name for TLS of a host, without the dot at the end of a name (RFC 6066, 3).
pub(crate) fn server_name_of(host: &Host<'_>) -> Option<ServerName<'static>> {
    ServerName::try_from(host.bare().to_owned()).ok()
}

/// The authorities whose certificates are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Every certificate is accepted.
    Anybody,
    /// Certificates of the authorities that the system trusts, or that `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` name.
    System,
    /// Certificates of these authorities.
    Only(Arc<Authorities>),
}

impl Trust {
    /// `self` if certificates are verified, otherwise [`Trust::Anybody`].
    pub(crate) fn if_verified(&self, verify: bool) -> Self {
        if verify { self.clone() } else { Self::Anybody }
    }

    /// A connector that offers one protocol. For the same trust and protocol, all callers get the
    /// same connector, and so share its cache of TLS sessions.
    pub(crate) fn connector(&self, protocol: &'static [u8]) -> Result<TlsConnector, Error> {
        static ANYBODY: LazyLock<Connectors> = LazyLock::new(Connectors::default);
        static SYSTEM: LazyLock<Connectors> = LazyLock::new(Connectors::default);
        match self {
            Self::Anybody => ANYBODY.get(protocol, None),
            Self::System => SYSTEM.get(protocol, Some(roots())),
            Self::Only(these) => these.connectors.get(protocol, Some(&these.roots)),
        }
    }
}

/// Connectors by protocol.
#[derive(Default)]
struct Connectors(Mutex<BTreeMap<&'static [u8], TlsConnector>>);

impl Connectors {
    fn get(
        &self,
        protocol: &'static [u8],
        roots: Option<&Arc<RootCertStore>>,
    ) -> Result<TlsConnector, Error> {
        let mut made = self.0.lock();
        if let Some(connector) = made.get(protocol) {
            return Ok(connector.clone());
        }
        let connector = make(roots, protocol)?;
        made.insert(protocol, connector.clone());
        Ok(connector)
    }
}

/// Authorities that an operator has configured. Two values are equal if they were parsed from the
/// same texts.
pub(crate) struct Authorities {
    digest: [u8; 32],
    roots: Arc<RootCertStore>,
    connectors: Connectors,
}

impl Authorities {
    /// Reads certificates, each text with one or more in PEM (RFC 7468).
    ///
    /// # Errors
    /// What is wrong with the first invalid certificate.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let mut digest = Sha256::new();
        for text in texts {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("it is no PEM: {error}"))?;
                let added = roots.add(certificate);
                added.map_err(|error| format!("it is no certificate of an authority: {error}"))?;
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
            connectors: Connectors::default(),
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
        builder.build().map_err(|error| error.to_string())
    }

    /// No authorities, so that no certificate is accepted.
    pub(crate) fn none() -> Self {
        Self {
            digest: [0; 32],
            roots: Arc::new(RootCertStore::empty()),
            connectors: Connectors::default(),
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

/// A connector that verifies certificates with these roots, or accepts every certificate.
fn make(roots: Option<&Arc<RootCertStore>>, protocol: &[u8]) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = match roots {
        Some(roots) => builder
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(algorithms)))
            .with_no_client_auth(),
    };
    if !protocol.is_empty() {
        config.alpn_protocols = vec![protocol.to_vec()];
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The authorities that the system trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
fn roots() -> &'static Arc<RootCertStore> {
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

/// Accepts every certificate, for a service without `tls_verify`. It is still checked that the
/// server has the private key of its certificate.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
