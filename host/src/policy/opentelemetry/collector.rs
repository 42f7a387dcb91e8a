//! Sends traces to a collector: OTLP over HTTP, in protobuf.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message;
use serde_json::Value;

use super::spans;
use crate::dns::Resolver;
use crate::entity::Kind;
use crate::entity::plugin::opentelemetry::Config;
use crate::node;
use crate::otlp::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
};
use crate::policy::logs::connection::millis;
use crate::policy::logs::document::Documents;
use crate::policy::logs::http_server::{HttpServer, PostTarget, Timeouts};
use crate::policy::logs::queue::{Entry, Sink};
use crate::policy::record::{LogRecord, Record};

const CONTENT_TYPE: &str = "application/x-protobuf";

/// The name of the service unless the settings give one. Source: Kong.
const SERVICE_NAME: &str = "kong";

/// How long an idle connection is kept. Source: nginx, `lua_socket_keepalive_timeout`.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Where traces are sent.
pub(super) struct CollectorUrl(PostTarget);

impl CollectorUrl {
    /// `None` if the settings name no collector.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(url) = &config.traces_endpoint else {
            return Ok(None);
        };
        let headers = config.headers.iter().flatten();
        let target = PostTarget::of("traces_endpoint", url, "POST", CONTENT_TYPE, headers)?;
        Ok(Some(Self(target)))
    }

    /// The collector at this place.
    pub(super) fn collector(
        self,
        config: &Config,
        documents: &Arc<Documents>,
        resolver: &Arc<Resolver>,
    ) -> Collector {
        let timeouts = Timeouts {
            connect: millis(config.connect_timeout),
            // The client of HTTP does not tell when the request was sent.
            answer: millis(config.send_timeout) + millis(config.read_timeout),
            keepalive: KEEPALIVE,
        };
        Collector {
            documents: Arc::clone(documents),
            server: HttpServer::new(self.0, timeouts, resolver),
            resource: resource(config.resource_attributes.as_ref()),
        }
    }
}

/// What the gateway says of itself.
fn resource(given: Option<&BTreeMap<String, String>>) -> Resource {
    let own = [
        ("service.name", SERVICE_NAME.to_owned()),
        ("service.instance.id", node::id().to_string()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("host.name", node::hostname()),
    ];
    let mut attributes: BTreeMap<&str, &str> = BTreeMap::new();
    attributes.extend(own.iter().map(|(key, value)| (*key, &**value)));
    attributes.extend(
        given
            .into_iter()
            .flatten()
            .map(|(key, value)| (&**key, &**value)),
    );
    let attributes = attributes.into_iter();
    Resource {
        attributes: attributes
            .map(|(key, value)| KeyValue::new(key, value))
            .collect(),
    }
}

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    documents: Arc<Documents>,
    server: HttpServer,
    resource: Resource,
}

impl Collector {
    /// The first path of the route of a request, which is a template for its own path.
    fn template(&self, record: &Record) -> Option<String> {
        let route = self.documents.entity(Kind::Route, record.route?)?;
        let paths = route.get("paths").and_then(Value::as_array)?;
        paths.first()?.as_str().map(str::to_owned)
    }

    fn message(&self, batch: &[Entry]) -> ExportTraceServiceRequest {
        let mut spans = Vec::new();
        for entry in batch {
            if let LogRecord::Request(record) = &entry.record {
                spans::add(&mut spans, record, self.template(record).as_deref());
            }
        }
        let scope = InstrumentationScope {
            name: "pointsman".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let scope_spans = ScopeSpans {
            scope: Some(scope),
            spans,
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![scope_spans],
            }],
        }
    }
}

impl Sink for Collector {
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let message = self.message(batch).encode_to_vec();
            match self.server.post(message.into()).await?.as_u16() {
                // Any other status is a failure. Source: Kong, and OTLP/HTTP.
                200 => Ok(()),
                status => Err(format!("{}: it has answered {status}", self.server)),
            }
        }
        .boxed()
    }
}
