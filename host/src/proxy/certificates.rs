//! Which certificate a client of the proxy is shown.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::listener::TlsFigures;
use crate::snapshot::Published;
use crate::tls::{ACME_TLS, ListenerCertificate};

/// The certificates of the newest snapshot, and that of the listeners for clients whose server name
/// has none. Source: Kong 3.9, `kong.runloop.certificate`.
pub(crate) struct Certificates {
    pub(crate) published: Arc<Published>,
    pub(crate) default: Arc<ListenerCertificate>,
    pub(crate) figures: Arc<TlsFigures>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        if is_challenge(&hello) {
            // Without the name of a challenge in progress, the handshake fails (RFC 8737, 3).
            let name = hello.server_name()?.to_ascii_lowercase();
            return self.published.challenges.tls_answer(&name);
        }
        let Some(name) = hello.server_name() else {
            self.figures.note_without_name();
            return self.default.choose(offered);
        };
        let (_, snapshot) = self.published.current();
        match snapshot.server_names.find(&name.to_ascii_lowercase()) {
            // A certificate that cannot be used fails the handshake.
            Some(named) => named.as_ref()?.choose(offered),
            None => {
                self.figures.note_unknown_name();
                self.default.choose(offered)
            }
        }
    }
}

/// Whether the client verifies a name by TLS-ALPN-01: it offers that protocol alone (RFC 8737, 3).
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| {
        protocols.next() == Some(ACME_TLS) && protocols.next().is_none()
    })
}
