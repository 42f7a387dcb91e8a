//! Which formats of contexts are read, and which endpoints get. Source: Kong 3.9,
//! `kong.tracing.propagation`.

use http::HeaderMap;
use http::header::HeaderName;

use crate::entity::plugin::opentelemetry::{Config, Injected};
use crate::policy::request_trace::RequestTrace;
use crate::trace_context::{Format, OutgoingContext};

/// The formats that are read unless the settings name some. Source: Kong.
const USUAL: [Format; 7] = [
    Format::B3,
    Format::W3c,
    Format::Jaeger,
    Format::Ot,
    Format::Datadog,
    Format::Aws,
    Format::Gcp,
];

/// How the contexts of traces are passed on.
#[derive(Debug)]
pub(super) struct Propagation {
    /// The formats that are read, in their order.
    pub(super) extract: Vec<Format>,
    /// The headers that are removed.
    clear: Vec<HeaderName>,
    /// The formats that endpoints get; `None` for the one that was read.
    inject: Vec<Option<Format>>,
    /// The format in place of the one that was read, if none was.
    default_format: Format,
}

impl Propagation {
    /// # Errors
    /// The name of a header is none.
    pub(super) fn of(config: &Config) -> Result<Self, String> {
        let new = &config.propagation;
        let default_format = new.default_format;
        let is_new = new.extract.is_some() || new.clear.is_some() || new.inject.is_some();
        let header_type = config.header_type.as_deref().unwrap_or("preserve");
        let (extract, inject) = match header_type {
            _ if is_new => {
                let inject = new.inject.iter().flatten().map(|injected| match injected {
                    Injected::Format(format) => Some(*format),
                    Injected::Preserved(_) => None,
                });
                (new.extract.clone().unwrap_or_default(), inject.collect())
            }
            "preserve" => (USUAL.to_vec(), vec![None]),
            "ignore" => (Vec::new(), vec![Some(default_format)]),
            name => {
                let format = Format::ALL.into_iter().find(|format| format.name() == name);
                (USUAL.to_vec(), vec![None, format])
            }
        };
        let clear = new.clear.iter().flatten();
        let clear = clear.map(|name| HeaderName::try_from(name.to_ascii_lowercase()));
        let clear: Result<_, _> = clear.collect();
        Ok(Self {
            extract,
            clear: clear.map_err(|error| error.to_string())?,
            inject,
            default_format,
        })
    }

    /// Has the request go on with its trace, and notes in which formats.
    pub(super) fn propagate(&self, trace: &mut RequestTrace, headers: &mut HeaderMap) {
        for name in &self.clear {
            headers.remove(name);
        }
        let (span_id, parent_id) = match trace.instrumentations.balancer {
            true => (trace.last_try_span, Some(trace.request_span)),
            false => (trace.request_span, trace.client_span),
        };
        let outgoing = OutgoingContext {
            trace_id: trace.id,
            span_id,
            parent_id,
            sampled: trace.is_sampled,
            is_debug: trace.is_debug,
            extracted: trace.extracted,
        };
        for format in &self.inject {
            let preserved = trace.extracted.unwrap_or(self.default_format);
            let format = format.unwrap_or(preserved);
            outgoing.inject(headers, format);
            trace.formats.add(format);
        }
    }
}
