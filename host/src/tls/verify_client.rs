//! How the certificates of clients are verified.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::verify::check_time;

/// Accepts certificates of authorities, and those of the authorities themselves: operators use what
/// `openssl req -x509` makes for a client, and name it as the authority, as for
/// [servers](super::verify::Accepted).
#[derive(Debug)]
pub(super) struct ClientVerifier {
    general: Arc<dyn ClientCertVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ClientVerifier {
    /// Accepts what `general` accepts, and the certificates `own` themselves.
    pub(super) fn new(
        general: Arc<dyn ClientCertVerifier>,
        own: &[CertificateDer<'static>],
    ) -> Self {
        Self {
            general,
            own: own.to_vec(),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.general.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.general.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.general.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.own.iter().any(|own| own == certificate) {
            check_time(certificate, now)?;
            return Ok(ClientCertVerified::assertion());
        }
        self.general
            .verify_client_cert(certificate, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.general
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.general
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.general.supported_verify_schemes()
    }
}
