//! `correlation-id`: gives each request an id in a header. Source: Kong 3.9, `correlation-id`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use super::request::{Client, Request};
use super::response::Response;
use super::{Access, DryRun, Policy};
use crate::clock;
use crate::entity::plugin::correlation_id::{Config, Generator};

/// Gives each request an id.
#[derive(Debug)]
pub(super) struct CorrelationId {
    header: HeaderName,
    generator: Generator,
    echoes: bool,
    /// Tells its ids from those of other gateways, and of other plugins.
    own: Uuid,
    /// Number of ids with a counter that were made.
    made: AtomicU64,
}

/// The id of a request.
struct Id(HeaderValue);

impl CorrelationId {
    /// # Errors
    /// The name of the header is none.
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let name = HeaderName::from_bytes(config.header_name.as_bytes());
        Ok(Self {
            header: name.map_err(|error| error.to_string())?,
            generator: config.generator,
            echoes: config.echo_downstream,
            own: Uuid::new_v4(),
            made: AtomicU64::new(0),
        })
    }

    /// The id that a request has come with.
    fn sent(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let sent = headers.get(&self.header);
        sent.filter(|value| !value.is_empty()).cloned()
    }

    fn make(&self, client: &Client<'_>) -> Option<HeaderValue> {
        let text = match self.generator {
            Generator::Uuid => Uuid::new_v4().to_string(),
            Generator::UuidCounter => {
                let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
                format!("{}#{number}", self.own)
            }
            Generator::Tracker => {
                let now = clock::since_1970(SystemTime::now());
                format!(
                    "{}-{}-{}-{}-{}-{:.3}",
                    client.local,
                    client.port,
                    std::process::id(),
                    client.connection,
                    client.requests,
                    now.as_secs_f64()
                )
            }
        };
        HeaderValue::try_from(text).ok()
    }
}

impl Policy for CorrelationId {
    fn dry_run(&self) -> DryRun {
        match self.generator {
            Generator::UuidCounter => DryRun::Effects("it counts requests"),
            _ => DryRun::Harmless,
        }
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let id = match self.sent(&request.head.headers) {
            Some(sent) => Some(sent),
            None => {
                let made = self.make(&request.client);
                if let Some(made) = &made {
                    let headers = &mut request.head.headers;
                    headers.insert(self.header.clone(), made.clone());
                }
                made
            }
        };
        let text = id.as_ref().map(|id| String::from_utf8_lossy(id.as_bytes()));
        *request.correlation_id = text.as_deref().map(Arc::from);
        if self.echoes
            && let Some(id) = id
        {
            request.keep(Id(id));
        }
        Access::PASS
    }

    fn response(&self, response: &mut Response<'_>) {
        if !self.echoes {
            return;
        }
        let kept = response.kept::<Id>().map(|id| id.0.clone());
        // A request without a route has not passed the access phase.
        let sent = || self.sent(&response.request.headers);
        let id = kept.or_else(sent);
        if let Some(id) = id.or_else(|| self.make(&response.client)) {
            response.head.headers.insert(self.header.clone(), id);
        }
    }
}
