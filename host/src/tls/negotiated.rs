//! What the two sides of a TLS handshake have agreed on, with the names of OpenSSL, which Kong
//! logs.

use rustls::{CipherSuite, ProtocolVersion, ServerConnection};

/// What the gateway and a client have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NegotiatedTls {
    /// The version of TLS, such as `TLSv1.3`.
    pub(crate) version: &'static str,
    /// The cipher suite.
    pub(crate) cipher: &'static str,
    /// Whether the client has shown a certificate, which was verified then.
    pub(crate) has_client_certificate: bool,
}

impl NegotiatedTls {
    /// Of a connection whose handshake is done.
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        let suite = connection.negotiated_cipher_suite();
        let certificates = connection.peer_certificates();
        Self {
            version: connection.protocol_version().map_or("", version_name),
            cipher: suite.map_or("", |suite| cipher_name(suite.suite())),
            has_client_certificate: certificates.is_some_and(|chain| !chain.is_empty()),
        }
    }

    /// Whether the client has shown a certificate, as nginx names it (`$ssl_client_verify`).
    pub(crate) fn client_verify(self) -> &'static str {
        match self.has_client_certificate {
            true => "SUCCESS",
            false => "NONE",
        }
    }
}

fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        other => other.as_str().unwrap_or(""),
    }
}

fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other.as_str().unwrap_or(""),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use rustls::crypto::ring::ALL_CIPHER_SUITES;

    use super::*;
    use crate::tls::cipher_suite;

    #[test]
    fn every_suite_has_the_name_that_selects_it() {
        for suite in ALL_CIPHER_SUITES {
            let name = cipher_name(suite.suite());
            match suite.tls13() {
                // As RFC 8446 writes it, and not rustls, which has `TLS13_`.
                Some(_) => assert!(name.starts_with("TLS_"), "{name}"),
                None => assert_eq!(cipher_suite(name).unwrap().suite(), suite.suite()),
            }
        }
    }
}
