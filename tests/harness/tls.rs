//! Servers over TLS whose certificates a test's own authority has signed.

use std::sync::Arc;

use rcgen::{Certificate, CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
    /// The certificate of the authority that signed it, as PEM.
    pub(crate) authority: String,
}

impl Issued {
    /// A certificate for `host`.
    pub(crate) fn to(host: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // To OpenSSL, a certificate with the name of its issuer is one that has signed itself.
        let name = &mut authority.distinguished_name;
        name.push(rcgen::DnType::CommonName, "Authority of a test");
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(authority, key).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap();
        Self {
            certificate: certificate.signed_by(&key, &authority).unwrap(),
            key,
            authority: authority.pem(),
        }
    }

    /// A certificate for `host` that has signed itself, as one of an authority.
    pub(crate) fn by_itself(host: &str) -> Self {
        let mut certificate = CertificateParams::new(vec![host.to_owned()]).unwrap();
        certificate.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        Self {
            authority: certificate.pem(),
            certificate,
            key,
        }
    }
}

/// The acceptor of a TLS server for `host`, and the certificate of the authority that signed its
/// certificate, as PEM. `protocols` are those that the server offers in ALPN.
pub(crate) fn tls_acceptor(host: &str, protocols: &[&[u8]]) -> (TlsAcceptor, String) {
    let Issued {
        certificate,
        key,
        authority,
    } = Issued::to(host);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), authority)
}
