//! Connects to a member of etcd.

use std::sync::Arc;
use std::time::Duration;

use super::super::journal::OpenError;
use super::grpc::Connection;
use crate::config::{Etcd, EtcdEndpoint};
use crate::dns::Resolver;
use crate::listener;
use crate::tls::{self, Authorities, ClientCertificate, H2, TlsClient, TlsOptions, Trust};

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A setting for a message: a path, but no PEM, which may be a key.
fn shown(text: &str) -> &str {
    match text.len() > 200 || text.contains('\n') {
        true => "the text in it",
        false => text,
    }
}

/// How members are connected to.
#[derive(Debug)]
pub(super) struct Connector {
    tls: Arc<TlsClient>,
    resolver: Arc<Resolver>,
}

impl Connector {
    /// # Errors
    /// A certificate or a key of the settings cannot be used.
    pub(super) fn new(settings: &Etcd, resolver: &Arc<Resolver>) -> Result<Self, OpenError> {
        let wrong = |setting: &str, why: &str| OpenError::Unusable(format!("{setting}: {why}"));
        let read = |setting, text: &str| {
            let read = listener::load_pem(text);
            read.ok_or_else(|| wrong(setting, &format!("failed loading {}", shown(text))))
        };
        let trust = match &settings.ca {
            None => Trust::System,
            Some(ca) => {
                let authorities = Authorities::parse(&[read("etcd_ca", ca)?]);
                Trust::Only(Arc::new(authorities.map_err(|why| wrong("etcd_ca", &why))?))
            }
        };
        let certificate = match (&settings.cert, &settings.cert_key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) =
                    (read("etcd_cert", certificate)?, read("etcd_cert_key", key)?);
                let certificate = ClientCertificate::from_pem(&certificate, &key);
                let certificate = certificate.map_err(|why| wrong("etcd_cert", &why))?;
                Some(Arc::new(certificate))
            }
            _ => None,
        };
        Ok(Self {
            tls: TlsClient::of(TlsOptions {
                trust,
                max_intermediates: None,
                certificate,
            }),
            resolver: Arc::clone(resolver),
        })
    }

    /// Connects to a member.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub(super) async fn connect(&self, endpoint: &EtcdEndpoint) -> Result<Connection, String> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.try_connect(endpoint));
        let connected = connecting.await.unwrap_or_else(|_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Err(format!("it could not be connected within {seconds} s"))
        });
        connected.map_err(|reason| format!("{endpoint}: {reason}"))
    }

    async fn try_connect(&self, endpoint: &EtcdEndpoint) -> Result<Connection, String> {
        let stream = self.resolver.connect(&endpoint.host, endpoint.port).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let no_delay = stream.set_nodelay(true);
        no_delay.map_err(|error| error.to_string())?;
        let origin = endpoint.to_string();
        if !endpoint.tls {
            return Connection::start(stream, origin).await;
        }
        let name = tls::server_name(&endpoint.host);
        let name = name.ok_or("its host is no name of a server")?;
        let connector = self
            .tls
            .connector(&[H2])
            .map_err(|error| error.to_string())?;
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("TLS: {error}"))?;
        Connection::start(stream, origin).await
    }
}
