//! The trace that a request belongs to, as the policy `opentelemetry` has begun it.

use std::time::Duration;

use uuid::Uuid;

use crate::config::Instrumentations;
use crate::trace_context::{Format, Formats, SpanId, TraceId};

/// The trace that a request belongs to.
#[derive(Debug)]
pub struct RequestTrace {
    /// The plugin that has begun it.
    pub plugin: Uuid,
    /// The trace.
    pub id: TraceId,
    /// The span of the client that the request is part of, if the client has named one.
    pub client_span: Option<SpanId>,
    /// The span of the request.
    pub request_span: SpanId,
    /// The span of its last try, which endpoints are told.
    pub last_try_span: SpanId,
    /// Whether spans are sent.
    pub is_sampled: bool,
    /// Whether the client wants it to be sampled everywhere.
    pub is_debug: bool,
    /// The format that the context was read from, if the request has come with one.
    pub extracted: Option<Format>,
    /// The formats in which the request has come with the context or goes on with it.
    pub formats: Formats,
    /// Which spans it has.
    pub instrumentations: Instrumentations,
    /// How long policies took, in the order in which they ran; only if it is sampled.
    pub policies: Vec<PolicyTime>,
}

/// How long a policy took in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyTime {
    /// The name of the policy.
    pub name: &'static str,
    /// The phase.
    pub phase: PolicyPhase,
    /// From the head of the request until it began.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
}

/// A phase in which policies are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyPhase {
    /// Before an endpoint is chosen.
    Access,
    /// When the head of the response is known.
    HeaderFilter,
}

impl RequestTrace {
    /// Whether policies are measured in this phase.
    pub fn measures(&self, phase: PolicyPhase) -> bool {
        let instrumentations = &self.instrumentations;
        self.is_sampled
            && match phase {
                PolicyPhase::Access => instrumentations.plugin_access,
                PolicyPhase::HeaderFilter => instrumentations.plugin_header_filter,
            }
    }
}
