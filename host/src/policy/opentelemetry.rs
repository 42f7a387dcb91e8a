//! `opentelemetry`: passes on the context of traces, and sends traces of requests to a collector by
//! OTLP over HTTP. Source: Kong 3.9, `opentelemetry`.
//!
//! While a request runs, no span is made. What its record has is enough: the thread of the logs
//! makes the spans of the requests that are sampled, just before it sends them.

mod collector;
mod propagation;
mod spans;

use std::sync::Arc;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::logs::Logs;
use super::logs::queue::Queue;
use super::record::LogRecord;
use super::request::Request;
use super::request_trace::RequestTrace;
use super::response::Response;
use super::{Access, DryRun, Policy};
use crate::config::{Instrumentations, Tracing};
use crate::dns::Resolver;
use crate::entity::plugin::Plugin;
use crate::entity::plugin::opentelemetry::{Config, SamplingStrategy};
use crate::trace_context::{Context, Formats, SpanId, TraceId};
use propagation::Propagation;

/// Passes on the context of traces, and sends those of sampled requests.
#[derive(Debug)]
pub(super) struct OpenTelemetry {
    plugin: Uuid,
    propagation: Propagation,
    sampling_rate: f64,
    strategy: SamplingStrategy,
    instrumentations: Instrumentations,
    /// The header of responses that has the id of the trace.
    shown_in: Option<HeaderName>,
    /// `None` if nothing is sent, whatever is sampled.
    queue: Option<Arc<Queue>>,
}

/// Whether a policy can be made of these settings.
pub(super) fn check(config: &Config) -> Result<(), String> {
    Propagation::of(config)?;
    collector::CollectorUrl::of(config).map(drop)
}

impl OpenTelemetry {
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn new(
        config: &Config,
        plugin: &Plugin,
        logs: &Logs,
        resolver: &Arc<Resolver>,
        defaults: Tracing,
    ) -> Result<Self, String> {
        let target = collector::CollectorUrl::of(config)?;
        if target.is_some() && !defaults.instrumentations.request {
            tracing::warn!(
                plugin = %plugin.id,
                "no traces are sent: tracing_instrumentations is off"
            );
        }
        let target = target.filter(|_| defaults.instrumentations.request);
        let queue = target.map(|target| {
            logs.queue(plugin, config.queue().into(), |documents| {
                Arc::new(target.collector(config, documents, resolver))
            })
        });
        let shown_in = config.http_response_header_for_traceid.as_deref();
        let shown_in = shown_in.map(|name| HeaderName::try_from(name.to_ascii_lowercase()));
        Ok(Self {
            plugin: plugin.id,
            propagation: Propagation::of(config)?,
            sampling_rate: config.sampling_rate.unwrap_or(defaults.sampling_rate),
            strategy: config.sampling_strategy,
            instrumentations: defaults.instrumentations,
            shown_in: shown_in.transpose().map_err(|error| error.to_string())?,
            queue,
        })
    }

    /// Whether the spans of a trace are sent: as its client has decided, if that counts, or else by
    /// the share.
    fn samples(&self, id: TraceId, decision: Option<bool>) -> bool {
        let follows = self.strategy == SamplingStrategy::ParentProbabilityFallback;
        self.queue.is_some()
            && match decision {
                Some(false) => false,
                Some(true) if follows => true,
                _ => id.is_within(self.sampling_rate),
            }
    }

    fn begin(&self, headers: &HeaderMap) -> RequestTrace {
        let context = Context::extract(headers, &self.propagation.extract);
        let id = context.and_then(|context| context.trace_id);
        let id = id.unwrap_or_else(TraceId::random);
        let mut formats = Formats::default();
        if let Some(context) = context.filter(|context| context.trace_id.is_some()) {
            formats.add(context.format);
        }
        RequestTrace {
            plugin: self.plugin,
            id,
            client_span: context.and_then(|context| context.span_id),
            request_span: SpanId::random(),
            last_try_span: SpanId::random(),
            is_sampled: self.samples(id, context.and_then(|context| context.sampled)),
            is_debug: context.is_some_and(|context| context.is_debug),
            extracted: context.map(|context| context.format),
            formats,
            instrumentations: self.instrumentations,
            policies: Vec::new(),
        }
    }
}

impl Policy for OpenTelemetry {
    fn begin_trace(&self, headers: &HeaderMap) -> Option<RequestTrace> {
        Some(self.begin(headers))
    }

    fn traces(&self) -> bool {
        true
    }

    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let headers = &mut request.head.headers;
        let begun = request.trace.take();
        // Another plugin has begun it, if this one is for a consumer that was not known then.
        let begun = begun.filter(|trace| trace.plugin == self.plugin);
        let mut trace = begun.unwrap_or_else(|| Box::new(self.begin(headers)));
        self.propagation.propagate(&mut trace, headers);
        *request.trace = Some(trace);
        Access::PASS
    }

    fn response(&self, response: &mut Response<'_>) {
        if let (Some(name), Some(trace)) = (&self.shown_in, response.trace)
            && let Ok(value) = HeaderValue::try_from(trace.id.to_string())
        {
            response.head.headers.insert(name.clone(), value);
        }
    }

    fn record(&self, record: &LogRecord) {
        let LogRecord::Request(request) = record else {
            return;
        };
        // Another plugin may have begun the trace: if this one is for a consumer, and a plugin has
        // answered before this one had its turn. There is one of them for each request.
        let is_sampled = request.trace.as_ref().is_some_and(|trace| trace.is_sampled);
        if let Some(queue) = self.queue.as_ref().filter(|_| is_sampled) {
            queue.push(record);
        }
    }
}

#[cfg(test)]
mod tests;
