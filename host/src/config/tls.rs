//! TLS towards clients. Source: Kong 3.9, `ssl_cipher_suite` and the settings around it.

use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::tls::{self, TlsParameters};

/// TLS towards clients.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Which versions and cipher suites clients may use.
    pub cipher_suite: CipherSuite,
    /// The versions of [`CipherSuite::Custom`].
    pub protocols: Vec<&'static SupportedProtocolVersion>,
    /// The cipher suites that [`CipherSuite::Custom`] has of TLS 1.2.
    pub ciphers: Vec<SupportedCipherSuite>,
    /// Whether their order decides in [`CipherSuite::Custom`], and not the client's.
    pub prefer_server_ciphers: bool,
    /// Whether clients of the proxy are asked for a certificate.
    pub verify_client: VerifyClient,
    /// The certificates of the authorities of clients: each a path, PEM, or PEM in base64.
    pub client_authorities: Vec<String>,
    /// The certificate of the proxy for clients whose server name has none.
    pub proxy: CertificateFiles,
    /// The certificate of the Admin API.
    pub admin: CertificateFiles,
    /// The certificate of `status_listen`.
    pub status: CertificateFiles,
}

/// Which versions and cipher suites clients may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CipherSuite {
    /// TLS 1.3.
    Modern,
    /// TLS 1.2 and 1.3.
    #[default]
    Intermediate,
    /// What other settings say.
    Custom,
}

/// Whether clients are asked for a certificate. Source: nginx, `ssl_verify_client`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// They are not.
    #[default]
    Off,
    /// They are, and may have none.
    Optional,
    /// They are, and must have one.
    On,
}

/// Certificates with their keys: each a path, PEM, or PEM in base64.
#[derive(Debug, Clone, Default)]
pub struct CertificateFiles {
    /// The certificates, with the chains behind them.
    pub certificates: Vec<String>,
    /// Their keys, in the same order.
    pub keys: Vec<String>,
}

impl Tls {
    /// Versions and cipher suites.
    pub(crate) fn parameters(&self) -> TlsParameters {
        match self.cipher_suite {
            CipherSuite::Modern => TlsParameters::modern(),
            CipherSuite::Intermediate => TlsParameters::intermediate(),
            CipherSuite::Custom => {
                let own_order = self.prefer_server_ciphers;
                TlsParameters::custom(&self.protocols, &self.ciphers, own_order)
            }
        }
    }
}

pub(super) fn suite(text: &str) -> Option<CipherSuite> {
    match text {
        "modern" => Some(CipherSuite::Modern),
        "intermediate" => Some(CipherSuite::Intermediate),
        "custom" => Some(CipherSuite::Custom),
        _ => None,
    }
}

/// Versions, separated by spaces.
pub(super) fn protocols(text: &str) -> Option<Vec<&'static SupportedProtocolVersion>> {
    let versions = text.split_ascii_whitespace().map(tls::version);
    let versions: Vec<_> = versions.collect::<Option<_>>()?;
    (!versions.is_empty()).then_some(versions)
}

/// Cipher suites of TLS 1.2, separated by colons.
pub(super) fn ciphers(text: &str) -> Option<Vec<SupportedCipherSuite>> {
    text.split(':').map(tls::cipher_suite).collect()
}

pub(super) fn verify_client(text: &str) -> Option<VerifyClient> {
    match text {
        "off" => Some(VerifyClient::Off),
        "optional" => Some(VerifyClient::Optional),
        "on" => Some(VerifyClient::On),
        _ => None,
    }
}
