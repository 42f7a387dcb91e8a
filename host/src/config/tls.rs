//! TLS towards clients. Source: Kong 3.9, `ssl_cipher_suite` and the settings around it.

use std::time::Duration;

use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::readers;
use crate::tls::{self, SessionSettings, TlsParameters};

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
    /// How clients may resume sessions.
    pub(crate) sessions: SessionSettings,
    /// Whether clients of the proxy are asked for a certificate.
    pub verify_client: VerifyClient,
    /// The certificates of the authorities of clients: each a path, PEM, or PEM in base64.
    pub client_authorities: Vec<String>,
    /// The certificate of the proxy for clients whose server name has none.
    pub proxy: CertificateFiles,
    /// The certificate of the Admin API.
    pub admin: CertificateFiles,
    /// The certificate of `admin_gui_listen`.
    pub gui: CertificateFiles,
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

/// How many sessions a cache of this size has: 4,000 in a megabyte, as in nginx. A number of bytes,
/// or of kilobytes with `k`, or of megabytes with `m`.
pub(super) fn sessions(size: &str) -> Option<usize> {
    let (number, factor) = match size.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&size[..size.len() - 1], 1 << 10),
        b'm' => (&size[..size.len() - 1], 1 << 20),
        _ => (size, 1),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = number.parse().ok().filter(|_| is_number)?;
    let bytes = u64::from(number) * factor;
    let sessions = (bytes * SESSIONS_IN_MEGABYTE) >> 20;
    usize::try_from(sessions)
        .ok()
        .filter(|_| bytes <= LARGEST_CACHE)
}

/// Source: nginx, `ssl_session_cache`.
const SESSIONS_IN_MEGABYTE: u64 = 4000;

/// Largest cache of sessions, in bytes.
const LARGEST_CACHE: u64 = 1 << 30;

/// How long a session may be resumed: a second to seven days (RFC 8446, 4.6.1).
pub(super) fn session_timeout(text: &str) -> Option<Duration> {
    let most = Duration::from_secs(7 * 86_400);
    readers::time(text).filter(|time| (Duration::from_secs(1)..=most).contains(time))
}

pub(super) fn verify_client(text: &str) -> Option<VerifyClient> {
    match text {
        "off" => Some(VerifyClient::Off),
        "optional" => Some(VerifyClient::Optional),
        "on" => Some(VerifyClient::On),
        _ => None,
    }
}
