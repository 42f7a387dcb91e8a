//! TLS of the listeners: their certificates, and what has happened in their handshakes. And the
//! certificate that endpoints are shown.

use std::sync::Arc;

use anyhow::Context;

use super::listeners::AllListeners;
use crate::config::{CertificateFiles, Config};
use crate::listener::{
    Listeners, TlsFigures, TlsOffer, TlsServer, client_verifier, listener_certificate, load_pem,
};
use crate::proxy::Certificates;
use crate::snapshot::Published;
use crate::tls::{
    ACME_TLS, ClientCertificate, H2, HTTP_1_1, ListenerCertificate, NO_PROTOCOL, Protocols,
};

/// TLS of the listeners. Of listeners in clear text there is none.
#[derive(Default)]
pub(super) struct ListenerTls {
    pub(super) proxy: Option<TlsServer>,
    pub(super) admin: Option<TlsServer>,
    pub(super) gui: Option<TlsServer>,
    pub(super) status: Option<TlsServer>,
    pub(super) stream: Option<TlsServer>,
    /// Counters of handshakes, by listener.
    pub(super) figures: [(&'static str, Arc<TlsFigures>); 5],
    pub(super) certificates: ListenerCertificates,
}

/// The certificates of the settings that are in use, each with the prefix of its settings and where
/// these have its files.
#[derive(Clone, Default)]
pub(super) struct ListenerCertificates(Vec<(Prefix, Files, Arc<ListenerCertificate>)>);

/// What the names of the settings begin with.
type Prefix = &'static str;

/// The files that the settings name.
type Files = fn(&Config) -> &CertificateFiles;

impl ListenerCertificates {
    /// Reads or generates a certificate.
    fn open(
        &mut self,
        config: &Config,
        prefix: Prefix,
        files: Files,
    ) -> anyhow::Result<Arc<ListenerCertificate>> {
        let certificate = listener_certificate(prefix, files(config), &config.data_dir)?;
        let certificate = Arc::new(ListenerCertificate::new(certificate));
        self.0.push((prefix, files, Arc::clone(&certificate)));
        Ok(certificate)
    }

    /// Reads the files again. One that cannot be used changes nothing, and is named in the log.
    pub(super) fn reload(&self, config: &Config) {
        for (prefix, files, certificate) in &self.0 {
            match listener_certificate(prefix, files(config), &config.data_dir) {
                Ok(new) => certificate.replace(new),
                Err(error) => tracing::error!("the certificate in use stays: {error:#}"),
            }
        }
    }
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
        let figures =
            ["proxy", "admin", "gui", "status", "stream"].map(|name| (name, Arc::default()));
        let [
            proxy_figures,
            admin_figures,
            gui_figures,
            status_figures,
            stream_figures,
        ] = &figures;
        let settings = &config.tls;
        let mut used = ListenerCertificates::default();
        // Certificates by server name are for both. Source: Kong.
        let mut by_name = |figures: &Arc<TlsFigures>, protocols: Protocols| {
            let certificates = Arc::new(Certificates {
                published: Arc::clone(published),
                default: used.open(config, "", |config| &config.tls.proxy)?,
                figures: Arc::clone(figures),
            });
            Ok(TlsOffer {
                certificates,
                clients: client_verifier(settings)?,
                protocols,
            })
        };
        let proxy = server(config, &listeners.proxy, proxy_figures, || {
            let protocols: Protocols = match listeners.proxy.http2() {
                true => &[H2, HTTP_1_1, ACME_TLS],
                false => &[HTTP_1_1, ACME_TLS],
            };
            by_name(&proxy_figures.1, protocols)
        })?;
        let stream = server(config, &listeners.stream, stream_figures, || {
            by_name(&stream_figures.1, NO_PROTOCOL)
        })?;
        let admin = server(config, &listeners.admin, admin_figures, || {
            let certificate = used.open(config, "admin_", |config| &config.tls.admin)?;
            Ok(over_http1(certificate))
        })?;
        let gui = server(config, &listeners.gui, gui_figures, || {
            let certificate = used.open(config, "admin_gui_", |config| &config.tls.gui)?;
            Ok(over_http1(certificate))
        })?;
        let status = server(config, &listeners.status, status_figures, || {
            let certificate = used.open(config, "status_", |config| &config.tls.status)?;
            Ok(over_http1(certificate))
        })?;
        Ok(Self {
            proxy,
            admin,
            gui,
            status,
            stream,
            figures,
            certificates: used,
        })
    }
}

/// What a listener offers that speaks HTTP/1.1 only, as the Admin API does.
fn over_http1(certificate: Arc<ListenerCertificate>) -> TlsOffer {
    TlsOffer {
        certificates: certificate,
        clients: None,
        protocols: &[HTTP_1_1],
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

/// The certificate of the settings that endpoints are shown, if there is one.
pub(super) fn client_certificate(
    config: &Config,
) -> anyhow::Result<Option<Arc<ClientCertificate>>> {
    let Some((certificate, key)) = config.client_ssl.pair() else {
        if config.client_ssl.on {
            tracing::warn!(
                "client_ssl is on, but client_ssl_cert and client_ssl_cert_key are not set: \
                 endpoints are shown no certificate"
            );
        }
        return Ok(None);
    };
    let certificate = load_pem(certificate).with_context(|| {
        format!("client_ssl_cert: failed loading certificate from {certificate}")
    })?;
    let key = load_pem(key).context("client_ssl_cert_key: failed loading key")?;
    let certificate = ClientCertificate::from_pem(&certificate, &key);
    let certificate = certificate.map_err(|why| {
        anyhow::anyhow!("client_ssl_cert and client_ssl_cert_key cannot be used: {why}")
    })?;
    Ok(Some(Arc::new(certificate)))
}
