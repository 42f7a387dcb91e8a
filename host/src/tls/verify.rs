//! How the certificates of servers are verified.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Verifies the certificates of servers.
#[derive(Debug)]
pub(super) struct Verifier {
    /// What is accepted; none accepts every certificate, for a service without `tls_verify`. It is
    /// still checked that the server has the private key of its certificate.
    accepted: Option<Accepted>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Accepts what `accepted` says, or every certificate.
    pub(super) fn new(provider: &CryptoProvider, accepted: Option<Accepted>) -> Self {
        Self {
            accepted,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

/// Accepts the certificates of authorities that are valid for the name of the server.
#[derive(Debug)]
pub(super) struct Accepted {
    /// None without any authority, so that no certificate is accepted.
    general: Option<Arc<WebPkiServerVerifier>>,
    roots: Arc<RootCertStore>,
    /// Certificates that are accepted for a server itself. `openssl req -x509` marks a certificate
    /// as one of an authority, and operators use it for the server and name it as the authority.
    own: Vec<CertificateDer<'static>>,
    /// Most certificates between that of the server and that of an authority; none for no limit.
    max_intermediates: Option<u32>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Accepted {
    /// Accepts certificates of `roots`, and the certificates `own` themselves.
    ///
    /// # Errors
    /// Those of rustls.
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        roots: &Arc<RootCertStore>,
        own: &[CertificateDer<'static>],
        max_intermediates: Option<u32>,
    ) -> Result<Self, Error> {
        let general = (!roots.is_empty()).then(|| {
            let (roots, provider) = (Arc::clone(roots), Arc::clone(provider));
            WebPkiServerVerifier::builder_with_provider(roots, provider).build()
        });
        let general = general.transpose();
        Ok(Self {
            general: general.map_err(|error| Error::General(error.to_string()))?,
            roots: Arc::clone(roots),
            own: own.to_vec(),
            max_intermediates,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.own.iter().any(|own| own == certificate) {
            return self.check_itself(certificate, name, now);
        }
        let general = self.general.as_ref();
        let general = general.ok_or(CertificateError::UnknownIssuer)?;
        let verified = general.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        if let Some(max) = self.max_intermediates {
            self.check_depth(max, certificate, intermediates, now)?;
        }
        Ok(verified)
    }

    /// Whether there is a chain to an authority with few enough certificates between.
    fn check_depth(
        &self,
        max: u32,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let most = usize::try_from(max).unwrap_or(usize::MAX);
        let too_long =
            || CertificateError::Other(OtherError(Arc::new(TooManyIntermediates { max })));
        let certificate =
            EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let path = certificate.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&|path| match path.intermediate_certificates().count() {
                count if count <= most => Ok(()),
                _ => Err(webpki::Error::MaximumPathDepthExceeded),
            }),
        );
        path.map(|_| ()).map_err(|_| too_long().into())
    }

    /// Accepts a certificate that is trusted itself, at a time when it is valid, for its names.
    fn check_itself(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_time(certificate, now)?;
        rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

/// Checks that a certificate is valid at this time.
pub(super) fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, facts) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = facts.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The chain to an authority is too long.
struct TooManyIntermediates {
    max: u32,
}

impl fmt::Display for TooManyIntermediates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = self.max;
        write!(
            f,
            "more than {max} certificates are between it and an authority (tls_verify_depth)"
        )
    }
}

// rustls shows errors of others by their `Debug`.
impl fmt::Debug for TooManyIntermediates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TooManyIntermediates {}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.accepted {
            None => Ok(ServerCertVerified::assertion()),
            Some(accepted) => accepted.check(certificate, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
