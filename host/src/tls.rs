//! TLS towards endpoints, for requests and for probes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

/// HTTP/1.1 as it is agreed on in a handshake (RFC 7301).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

/// HTTP/2 (RFC 9113, 3.1).
pub(crate) const H2: &[u8] = b"h2";

/// A connector that verifies what it is shown, or takes everything, and offers one protocol. All that
/// ask for the same get the same one, and so share its memory of sessions to resume.
pub(crate) fn connector(verify: bool, protocol: &'static [u8]) -> Result<TlsConnector, Error> {
    static MADE: Mutex<BTreeMap<(bool, &[u8]), TlsConnector>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock();
    if let Some(connector) = made.get(&(verify, protocol)) {
        return Ok(connector.clone());
    }
    let connector = make(verify, protocol)?;
    made.insert((verify, protocol), connector.clone());
    Ok(connector)
}

fn make(verify: bool, protocol: &[u8]) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = if verify {
        builder
            .with_root_certificates(Arc::clone(roots()))
            .with_no_client_auth()
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(algorithms)))
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![protocol.to_vec()];
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

/// Takes every certificate, as a service without `tls_verify` asks for. That the server holds the
/// key of the one that it shows is still checked.
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
