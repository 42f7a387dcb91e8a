//! TLS of the listeners: their certificates, and what has happened in their handshakes.

use std::sync::Arc;

use anyhow::Context;
use rustls::server::ResolvesServerCert;

use crate::config::{Config, Listen};
use crate::listener::{Listeners, TlsFigures, TlsServer, listener_certificate};
use crate::proxy::Certificates;
use crate::snapshot::Published;

/// TLS of the listeners. Of listeners in clear text there is none.
#[derive(Default)]
pub(super) struct ListenerTls {
    pub(super) proxy: Option<TlsServer>,
    pub(super) admin: Option<TlsServer>,
    proxy_figures: Arc<TlsFigures>,
    admin_figures: Arc<TlsFigures>,
}

impl ListenerTls {
    /// Reads or generates the certificates that the listeners need.
    ///
    /// # Errors
    /// A sentence: a certificate or a key cannot be used, or the versions have no cipher suite.
    pub(super) fn new(
        config: &Config,
        proxy: &Listeners,
        admin: &Listeners,
        published: &Arc<Published>,
    ) -> anyhow::Result<Self> {
        let mut tls = Self::default();
        let server = |certificates: Arc<dyn ResolvesServerCert>, listeners: &Listeners, figures| {
            let patience = config.proxy.client_header_timeout;
            let http2 = listeners.http2();
            let server = TlsServer::new(&config.tls, certificates, http2, patience, figures);
            server
                .context("no TLS with the settings ssl_cipher_suite, ssl_protocols and ssl_ciphers")
        };
        if has_tls(proxy) {
            let files = &config.tls.proxy;
            let certificates = Arc::new(Certificates {
                published: Arc::clone(published),
                default: listener_certificate("", files, &config.data_dir)?,
                figures: Arc::clone(&tls.proxy_figures),
            });
            let figures = Arc::clone(&tls.proxy_figures);
            tls.proxy = Some(server(certificates, proxy, figures)?);
        }
        if has_tls(admin) {
            let files = &config.tls.admin;
            let certificate = listener_certificate("admin_", files, &config.data_dir)?;
            let figures = Arc::clone(&tls.admin_figures);
            tls.admin = Some(server(certificate, admin, figures)?);
        }
        Ok(tls)
    }

    /// What has happened in handshakes, by what listens.
    pub(super) fn figures(&self) -> [(&'static str, Arc<TlsFigures>); 2] {
        [
            ("proxy", Arc::clone(&self.proxy_figures)),
            ("admin", Arc::clone(&self.admin_figures)),
        ]
    }
}

fn has_tls(listeners: &Listeners) -> bool {
    listeners.listens.iter().any(|listen: &Listen| listen.ssl)
}
