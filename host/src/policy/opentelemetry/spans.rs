//! The spans of a request, made of its record.
//!
//! Spans have Kong's names where Kong has them. Their attributes are those of OpenTelemetry's
//! semantic conventions, and the gateway's own, which begin with `pointsman.`.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use percent_encoding::percent_decode_str;

use crate::clock::since_1970;
use crate::otlp::{KeyValue, Span, SpanKind, Status, StatusCode, Value};
use crate::policy::record::{Record, Try, TryOutcome};
use crate::policy::request_trace::{PolicyPhase, RequestTrace};
use crate::split_mix;
use crate::trace_context::SpanId;

/// The flag of a sampled trace.
const SAMPLED: u32 = 1;

/// Flags that say whether the span above is of another process.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Adds the spans of a request. `template` is the path of its route.
pub(super) fn add(spans: &mut Vec<Span>, record: &Record, template: Option<&str>) {
    let Some(trace) = record.trace.as_deref() else {
        return;
    };
    let builder = Builder { record, trace };
    spans.push(builder.request(template));
    let mut number = 0;
    let mut next = || {
        number += 1;
        child_id(trace.request_span, number)
    };
    let wanted = &trace.instrumentations;
    if let Some(took) = record.stages.matched.filter(|_| wanted.router) {
        spans.push(builder.internal(next(), "kong.router".into(), Duration::ZERO, took));
    }
    for policy in &trace.policies {
        let phase = match policy.phase {
            PolicyPhase::Access => "access",
            PolicyPhase::HeaderFilter => "header_filter",
        };
        let name = format!("kong.{phase}.plugin.{}", policy.name);
        let mut span = builder.internal(next(), name, policy.began, policy.took);
        if policy.phase == PolicyPhase::Access && record.policy == Some(policy.name) {
            span.attributes
                .push(KeyValue::new("pointsman.answered", true));
        }
        spans.push(span);
    }
    if wanted.balancer {
        let last = record.tries.len().saturating_sub(1);
        for (number, one) in record.tries.iter().enumerate() {
            // Endpoints know this id, whichever of them has answered.
            let id = match number == last {
                true => trace.last_try_span,
                false => next(),
            };
            spans.push(builder.one_try(id, number, one));
            spans.push(builder.pick(next(), id, one));
        }
    }
}

/// The id of a span below that of a request. It is derived, so that a batch that is sent again has
/// the same spans.
fn child_id(request: SpanId, number: u64) -> SpanId {
    let step = split_mix::STEP.wrapping_mul(number);
    SpanId::of(split_mix::finish(request.number().wrapping_add(step)))
}

struct Builder<'r> {
    record: &'r Record,
    trace: &'r RequestTrace,
}

impl Builder<'_> {
    fn span(&self, id: SpanId, parent: Option<SpanId>, name: String, kind: SpanKind) -> Span {
        Span {
            trace_id: self.trace.id.bytes().to_vec(),
            span_id: id.bytes().to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.bytes().to_vec()),
            flags: SAMPLED | KNOWS_REMOTE,
            name,
            kind: kind.into(),
            ..Span::default()
        }
    }

    fn request(&self, template: Option<&str>) -> Span {
        let Self { record, trace } = self;
        let (id, parent) = (trace.request_span, trace.client_span);
        let mut span = self.span(id, parent, "kong".into(), SpanKind::Server);
        if parent.is_some() {
            span.flags |= IS_REMOTE;
        }
        set_times(&mut span, record.started, record.latencies.total);
        let mut attributes = Attributes(&mut span.attributes);
        self.add_method(&mut attributes);
        attributes.add("url.scheme", record.scheme);
        let path = record.uri.path();
        attributes.some("url.path", record.unread_line.is_none().then_some(path));
        let query = record.query().filter(|query| !query.is_empty());
        attributes.some("url.query", query.map(without_secrets).as_deref());
        let host = record.host.as_deref().filter(|host| !host.is_empty());
        attributes.some("server.address", host);
        attributes.add("server.port", i64::from(record.server.port()));
        attributes.add("client.address", record.client.ip().to_string());
        attributes.add("network.protocol.name", "http");
        attributes.add("network.protocol.version", version(record.version));
        let agent = record.request_headers.get(http::header::USER_AGENT);
        let agent = agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()));
        attributes.some("user_agent.original", agent.as_deref());
        attributes.some("tls.protocol.version", record.tls.map(|tls| tls.version));
        attributes.some("http.route", template);
        attributes.add("http.request.size", size(record.request_size));
        attributes.add("http.response.size", size(record.response_size()));
        attributes.add("http.response.body.size", size(record.response_body_size));
        let status = record.status.as_u16();
        attributes.add("http.response.status_code", i64::from(status));
        attributes.add("kong.request.id", record.id());
        attributes.entity(
            "pointsman.route",
            record.route,
            record.route_name.as_deref(),
        );
        let service = record.service_name.as_deref();
        attributes.entity("pointsman.service", record.service, service);
        attributes.some("pointsman.upstream", record.upstream.as_deref());
        if let Some(consumer) = &record.subject.consumer {
            let name = consumer.username.as_deref();
            attributes.entity("pointsman.consumer", Some(consumer.id), name);
        }
        attributes.some("pointsman.reason", record.reason);
        attributes.some("pointsman.policy", record.policy);
        if status >= 500 {
            let kind = record
                .reason
                .map_or_else(|| status.to_string(), str::to_owned);
            attributes.add("error.type", kind);
            span.status = Some(failed(record.reason.unwrap_or_default()));
        }
        span
    }

    /// A span within the gateway, which began this long after the head of the request.
    fn internal(&self, id: SpanId, name: String, began: Duration, took: Duration) -> Span {
        let parent = Some(self.trace.request_span);
        let mut span = self.span(id, parent, name, SpanKind::Internal);
        set_times(&mut span, self.record.started + began, took);
        span
    }

    fn one_try(&self, id: SpanId, number: usize, one: &Try) -> Span {
        let parent = Some(self.trace.request_span);
        let mut span = self.span(id, parent, "kong.balancer".into(), SpanKind::Client);
        set_times(&mut span, one.started, one.took);
        let mut attributes = Attributes(&mut span.attributes);
        attributes.add("try_count", count(number + 1));
        self.add_method(&mut attributes);
        if number > 0 {
            attributes.add("http.request.resend_count", count(number));
        }
        let address = one.address.without_port();
        if one.address.ip().is_some() {
            attributes.add("server.address", &*address);
            attributes.add("network.peer.address", &*address);
        } else {
            attributes.add("network.transport", "unix");
            attributes.add("network.peer.address", &*address);
        }
        if let Some(port) = one.address.port() {
            attributes.add("server.port", i64::from(port));
            attributes.add("network.peer.port", i64::from(port));
        }
        attributes.some("pointsman.upstream", self.record.upstream.as_deref());
        add_pick(&mut attributes, one);
        match one.outcome {
            TryOutcome::Answered(status) => {
                attributes.add("http.response.status_code", i64::from(status));
                if status >= 500 {
                    attributes.add("error.type", status.to_string());
                    span.status = Some(failed(""));
                }
            }
            TryOutcome::Failed | TryOutcome::TimedOut => {
                let failure = one.failure.unwrap_or("failed");
                attributes.add("error.type", failure);
                span.status = Some(failed(failure));
            }
            // No fault of the endpoint.
            TryOutcome::Abandoned => attributes.some("pointsman.abandoned", one.failure),
        }
        span
    }

    /// How the endpoint of a try was chosen, below the span of that try.
    fn pick(&self, id: SpanId, of: SpanId, one: &Try) -> Span {
        let name = "pointsman.pick".into();
        let mut span = self.span(id, Some(of), name, SpanKind::Internal);
        set_times(&mut span, one.started, one.balancer);
        add_pick(&mut Attributes(&mut span.attributes), one);
        span
    }

    fn add_method(&self, attributes: &mut Attributes<'_>) {
        let Some(method) = &self.record.method else {
            return;
        };
        // So that clients cannot make any number of values.
        let is_known = [
            Method::CONNECT,
            Method::DELETE,
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::PATCH,
            Method::POST,
            Method::PUT,
            Method::TRACE,
        ]
        .contains(method);
        if is_known {
            attributes.add("http.request.method", method.as_str());
        } else {
            attributes.add("http.request.method", "_OTHER");
            attributes.add("http.request.method_original", method.as_str());
        }
    }
}

fn add_pick(attributes: &mut Attributes<'_>, one: &Try) {
    let Some(pick) = &one.pick else {
        return;
    };
    let (by, reason) = pick.by.parts();
    attributes.add("pointsman.chosen_by", by);
    attributes.some("pointsman.chosen_because", reason);
    if let Some(version) = &pick.version {
        attributes.add("pointsman.balancer", &*version.name);
        attributes.add("pointsman.balancer.version", &*version.version);
        attributes.add("pointsman.balancer.digest", &*version.digest);
    }
}

struct Attributes<'a>(&'a mut Vec<KeyValue>);

impl Attributes<'_> {
    fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn some(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    /// The name of an entity, or its id if it has none.
    fn entity(&mut self, key: &str, id: Option<uuid::Uuid>, name: Option<&str>) {
        match (name, id) {
            (Some(name), _) => self.add(key, name),
            (None, Some(id)) => self.add(key, id.to_string()),
            (None, None) => {}
        }
    }
}

/// Arguments whose values are not sent. A request that is answered before its credentials are
/// hidden has them in its query. Source: OpenTelemetry's semantic conventions, `url.query`, for the
/// signatures of URLs; the defaults of the plugins `key-auth` and `jwt`; and RFC 6750, 2.3.
const SECRET_ARGUMENTS: [&str; 10] = [
    "apikey",
    "jwt",
    "access_token",
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
];

/// A query with `REDACTED` in place of the values of [`SECRET_ARGUMENTS`], in whatever case and
/// escaping their names are.
fn without_secrets(query: &str) -> Cow<'_, str> {
    let is_secret = |argument: &str| {
        let name = argument.split_once('=').map(|(name, _)| name);
        let name = name.map(|name| percent_decode_str(name).decode_utf8_lossy());
        name.is_some_and(|name| {
            let mut secret = SECRET_ARGUMENTS.iter();
            secret.any(|secret| secret.eq_ignore_ascii_case(&name))
        })
    };
    if !query.split('&').any(is_secret) {
        return query.into();
    }
    let shown = query.split('&').map(|argument| {
        let name = argument.split_once('=').map(|(name, _)| name);
        match name.filter(|_| is_secret(argument)) {
            Some(name) => format!("{name}=REDACTED"),
            None => argument.to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join("&").into()
}

fn failed(message: &str) -> Status {
    Status {
        message: message.to_owned(),
        code: StatusCode::Error.into(),
    }
}

fn set_times(span: &mut Span, began: SystemTime, took: Duration) {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let began = since_1970(began);
    span.start_time_unix_nano = nanos(began);
    span.end_time_unix_nano = nanos(began + took);
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
