//! Clients of TLS servers: what they accept and what they show.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::{ClientConfig, Error};
use tokio_rustls::TlsConnector;

use super::verify::{Accepted, Verifier};
use super::{ClientCertificate, Protocols, Trust, trust};

/// What a client of TLS servers accepts and shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TlsOptions {
    /// The authorities whose certificates are accepted.
    pub(crate) trust: Trust,
    /// Most certificates between that of the server and that of an authority; none for no limit.
    pub(crate) max_intermediates: Option<u32>,
    /// The certificate that is shown to a server that asks for one.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// A client of TLS servers, with its caches of TLS sessions. There is one for the same options, so
/// two are compared by their addresses.
pub(crate) struct TlsClient {
    options: TlsOptions,
    connectors: Mutex<BTreeMap<Protocols, TlsConnector>>,
}

impl TlsClient {
    /// The client with these options.
    pub(crate) fn of(options: TlsOptions) -> Arc<Self> {
        type Clients = HashMap<TlsOptions, Weak<TlsClient>>;
        static IN_USE: LazyLock<Mutex<Clients>> = LazyLock::new(Mutex::default);
        let mut in_use = IN_USE.lock();
        if let Some(client) = in_use.get(&options).and_then(Weak::upgrade) {
            return client;
        }
        in_use.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(Self {
            options: options.clone(),
            connectors: Mutex::default(),
        });
        in_use.insert(options, Arc::downgrade(&client));
        client
    }

    /// A connector that names these protocols.
    pub(crate) fn connector(&self, protocols: Protocols) -> Result<TlsConnector, Error> {
        let mut made = self.connectors.lock();
        if let Some(connector) = made.get(protocols) {
            return Ok(connector.clone());
        }
        let connector = self.make(protocols)?;
        made.insert(protocols, connector.clone());
        Ok(connector)
    }

    fn make(&self, protocols: Protocols) -> Result<TlsConnector, Error> {
        let provider = Arc::new(ring::default_provider());
        let max = self.options.max_intermediates;
        let accepted = match &self.options.trust {
            Trust::Unverified => None,
            Trust::System => Some(Accepted::new(&provider, trust::system(), &[], max)?),
            Trust::Only(these) => {
                let own = &these.certificates;
                Some(Accepted::new(&provider, &these.roots, own, max)?)
            }
        };
        let verifier = Arc::new(Verifier::new(&provider, accepted));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.options.certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let shown: Arc<dyn ResolvesClientCert> = certificate.resolver();
                builder.with_client_cert_resolver(shown)
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Trust {
    /// A connector that names these protocols and shows no certificate. For the same trust and
    /// protocols, all callers get the same connector, and so share its cache of TLS sessions.
    pub(crate) fn connector(&self, protocols: Protocols) -> Result<TlsConnector, Error> {
        static UNVERIFIED: LazyLock<Arc<TlsClient>> = LazyLock::new(|| client(Trust::Unverified));
        static SYSTEM: LazyLock<Arc<TlsClient>> = LazyLock::new(|| client(Trust::System));
        match self {
            Self::Unverified => UNVERIFIED.connector(protocols),
            Self::System => SYSTEM.connector(protocols),
            Self::Only(_) => client(self.clone()).connector(protocols),
        }
    }
}

fn client(trust: Trust) -> Arc<TlsClient> {
    TlsClient::of(TlsOptions {
        trust,
        max_intermediates: None,
        certificate: None,
    })
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for TlsClient {}

impl Hash for TlsClient {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self).hash(state);
    }
}
