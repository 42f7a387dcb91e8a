//! TLS of the listeners: their certificates, and what has happened in their handshakes.

use std::sync::Arc;

use anyhow::Context;
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;

use super::AllListeners;
use crate::config::Config;
use crate::listener::{Listeners, TlsFigures, TlsServer, client_verifier, listener_certificate};
use crate::proxy::Certificates;
use crate::snapshot::Published;

/// TLS of the listeners. Of listeners in clear text there is none.
#[derive(Default)]
pub(super) struct ListenerTls {
    pub(super) proxy: Option<TlsServer>,
    pub(super) admin: Option<TlsServer>,
    pub(super) status: Option<TlsServer>,
    /// What has happened in handshakes, by what listens.
    pub(super) figures: [(&'static str, Arc<TlsFigures>); 3],
}

impl ListenerTls {
    /// Reads or generates the certificates that the listeners need.
    ///
    /// # Errors
    /// A sentence: a certificate or a key cannot be used, or the versions have no cipher suite.
    pub(super) fn new(
        config: &Config,
        listeners: &AllListeners,
        published: &Arc<Published>,
    ) -> anyhow::Result<Self> {
        let figures = ["proxy", "admin", "status"].map(|name| (name, Arc::default()));
        let [proxy_figures, admin_figures, status_figures] = &figures;
        let settings = &config.tls;
        let certificate = |prefix, files| listener_certificate(prefix, files, &config.data_dir);
        let proxy = server(config, &listeners.proxy, proxy_figures, || {
            let certificates = Arc::new(Certificates {
                published: Arc::clone(published),
                default: certificate("", &settings.proxy)?,
                figures: Arc::clone(&proxy_figures.1),
            });
            Ok((certificates, client_verifier(settings)?))
        })?;
        let admin = server(config, &listeners.admin, admin_figures, || {
            Ok((certificate("admin_", &settings.admin)?, None))
        })?;
        let status = server(config, &listeners.status, status_figures, || {
            Ok((certificate("status_", &settings.status)?, None))
        })?;
        Ok(Self {
            proxy,
            admin,
            status,
            figures,
        })
    }
}

/// TLS of the addresses of a list, if one of them has it. `certificates` are those that clients are
/// shown, and what verifies those of clients.
fn server<C: ResolvesServerCert + 'static>(
    config: &Config,
    listeners: &Listeners,
    (_, figures): &(&'static str, Arc<TlsFigures>),
    certificates: impl FnOnce() -> anyhow::Result<(Arc<C>, Option<Arc<dyn ClientCertVerifier>>)>,
) -> anyhow::Result<Option<TlsServer>> {
    if !listeners.listens.iter().any(|listen| listen.ssl) {
        return Ok(None);
    }
    let (certificates, clients) = certificates()?;
    let server = TlsServer::new(
        &config.tls,
        certificates,
        clients,
        listeners.http2(),
        config.proxy.client_header_timeout,
        Arc::clone(figures),
    );
    let server = server
        .context("no TLS with the settings ssl_cipher_suite, ssl_protocols and ssl_ciphers")?;
    Ok(Some(server))
}
