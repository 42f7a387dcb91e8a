//! Writes the context of a trace to headers.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{
    AWS, B3, B3_FLAGS, B3_PARENT_ID, B3_SAMPLED, B3_SPAN_ID, B3_TRACE_ID, DATADOG_PARENT_ID,
    DATADOG_PRIORITY, DATADOG_TRACE_ID, Format, GCP, JAEGER, JAEGER_BAGGAGE, OT_BAGGAGE,
    OT_SAMPLED, OT_SPAN_ID, OT_TRACE_ID, SpanId, TRACEPARENT, TRACESTATE, TraceId,
};

/// The context of a trace that a request goes on with.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of the gateway that the request is part of.
    pub span_id: SpanId,
    /// The span above it, if there is one.
    pub parent_id: Option<SpanId>,
    /// Whether the trace is sampled.
    pub sampled: bool,
    /// Whether it is sampled whatever samplers decide: `d` of B3.
    pub is_debug: bool,
    /// The format that the context was read from.
    pub extracted: Option<Format>,
}

impl OutgoingContext {
    /// Sets the headers of a format. Headers of other formats stay as they are.
    pub fn inject(&self, headers: &mut HeaderMap, format: Format) {
        let id = self.trace_id;
        // Requests that are not sampled pay for this too: the usual format allocates once.
        let trace = || id.text(format);
        let span = self.span_id;
        let flag = u8::from(self.sampled);
        let is_debug = self.is_debug && self.sampled;
        match format {
            Format::W3c => {
                set(headers, TRACEPARENT, format!("00-{id}-{span}-0{flag}"));
                if self.extracted != Some(Format::W3c) {
                    // It belongs to the `traceparent` that was replaced.
                    headers.remove(TRACESTATE);
                }
            }
            Format::B3 => {
                set(headers, B3_TRACE_ID, trace());
                set(headers, B3_SPAN_ID, span.to_string());
                match self.parent_id {
                    Some(parent) => set(headers, B3_PARENT_ID, parent.to_string()),
                    None => drop(headers.remove(B3_PARENT_ID)),
                }
                // The flag implies the decision.
                let (name, other) = match is_debug {
                    true => (B3_FLAGS, B3_SAMPLED),
                    false => (B3_SAMPLED, B3_FLAGS),
                };
                headers.remove(other);
                set(headers, name, flag.to_string());
            }
            Format::B3Single => {
                let decision = match (is_debug, self.sampled) {
                    (true, _) => 'd',
                    (false, true) => '1',
                    (false, false) => '0',
                };
                let trace = trace();
                let value = match self.parent_id {
                    Some(parent) => format!("{trace}-{span}-{decision}-{parent}"),
                    None => format!("{trace}-{span}-{decision}"),
                };
                set(headers, B3, value);
            }
            Format::Jaeger => {
                let trace = trace();
                let parent = self
                    .parent_id
                    .map_or_else(|| "0".to_owned(), |id| id.to_string());
                set(headers, JAEGER, format!("{trace}:{span}:{parent}:0{flag}"));
                self.copy_baggage(headers, Format::Ot, OT_BAGGAGE, JAEGER_BAGGAGE);
            }
            Format::Ot => {
                set(headers, OT_TRACE_ID, trace());
                set(headers, OT_SPAN_ID, span.to_string());
                set(headers, OT_SAMPLED, flag.to_string());
                self.copy_baggage(headers, Format::Jaeger, JAEGER_BAGGAGE, OT_BAGGAGE);
            }
            Format::Datadog => {
                set(headers, DATADOG_TRACE_ID, trace());
                set(headers, DATADOG_PARENT_ID, span.number().to_string());
                set(headers, DATADOG_PRIORITY, flag.to_string());
            }
            Format::Aws => {
                let trace = trace();
                let value = format!("Root={trace};Parent={span};Sampled={flag}");
                set(headers, AWS, value);
            }
            Format::Gcp => {
                let span = span.number();
                set(headers, GCP, format!("{id}/{span};o={flag}"));
            }
        }
    }

    /// Copies the baggage that has come with the context, under the names of another format.
    fn copy_baggage(&self, headers: &mut HeaderMap, from: Format, prefix: &str, own: &str) {
        if self.extracted != Some(from) {
            return;
        }
        let named = |name: &HeaderName| {
            let key = name.as_str().strip_prefix(prefix)?;
            HeaderName::try_from(format!("{own}{key}")).ok()
        };
        let baggage = headers.iter();
        let baggage = baggage.filter_map(|(name, value)| Some((named(name)?, value.clone())));
        let baggage: Vec<(HeaderName, HeaderValue)> = baggage.collect();
        for (name, value) in baggage {
            headers.insert(name, value);
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // Digits and a few separators are a valid value.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
