//! TLS of the listeners: their certificates, and what has happened in their handshakes.

use std::sync::Arc;

use anyhow::Context;

use super::AllListeners;
use crate::config::Config;
use crate::listener::{
    Listeners, TlsFigures, TlsOffer, TlsServer, client_verifier, listener_certificate,
};
use crate::proxy::Certificates;
use crate::snapshot::Published;
use crate::tls::ServerCertificate;

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
            Ok(TlsOffer {
                certificates,
                clients: client_verifier(settings)?,
                http2: listeners.proxy.http2(),
            })
        })?;
        let admin = server(config, &listeners.admin, admin_figures, || {
            certificate("admin_", &settings.admin).map(over_http1)
        })?;
        let status = server(config, &listeners.status, status_figures, || {
            certificate("status_", &settings.status).map(over_http1)
        })?;
        Ok(Self {
            proxy,
            admin,
            status,
            figures,
        })
    }
}

/// What a listener offers that speaks HTTP/1.1 only, as the Admin API does.
fn over_http1(certificate: Arc<ServerCertificate>) -> TlsOffer {
    TlsOffer {
        certificates: certificate,
        clients: None,
        http2: false,
    }
}

/// TLS of the addresses of a list, if one of them has it.
fn server(
    config: &Config,
    listeners: &Listeners,
    (_, figures): &(&'static str, Arc<TlsFigures>),
    offer: impl FnOnce() -> anyhow::Result<TlsOffer>,
) -> anyhow::Result<Option<TlsServer>> {
    if !listeners.listens.iter().any(|listen| listen.ssl) {
        return Ok(None);
    }
    let patience = config.proxy.client_header_timeout;
    let server = TlsServer::new(&config.tls, offer()?, patience, Arc::clone(figures))
        .context("no TLS with the settings ssl_cipher_suite, ssl_protocols and ssl_ciphers")?;
    Ok(Some(server))
}
