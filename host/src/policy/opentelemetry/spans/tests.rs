#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Uri};
use prost::Message;
use uuid::Uuid;

use super::*;
use crate::balancer::{BalancerVersion, ChosenBy, Pick};
use crate::config::Instrumentations;
use crate::endpoint_address::EndpointAddress;
use crate::policy::identity::Subject;
use crate::policy::record::{Latencies, Stages};
use crate::policy::request_trace::PolicyTime;
use crate::policy::response::Source;
use crate::trace_context::{Formats, TraceId};

const STARTED: Duration = Duration::from_secs(1_700_000_000);

fn one_try(by: ChosenBy, outcome: TryOutcome, failure: Option<&'static str>) -> Try {
    Try {
        address: EndpointAddress::from(SocketAddr::from(([192, 0, 2, 9], 80))),
        pick: Some(Pick {
            by,
            version: Some(Arc::new(BalancerVersion {
                name: "p2c".into(),
                version: "1.0.0".into(),
                digest: "ab".into(),
            })),
        }),
        started: SystemTime::UNIX_EPOCH + STARTED + Duration::from_micros(10),
        balancer: Duration::from_micros(3),
        took: Duration::from_millis(4),
        outcome,
        failure,
    }
}

fn record() -> Record {
    Record {
        id: [b'7'; 32],
        started: SystemTime::UNIX_EPOCH + STARTED,
        client: SocketAddr::from(([192, 0, 2, 7], 5000)),
        server: SocketAddr::from(([192, 0, 2, 1], 8000)),
        connection: (3, 2),
        scheme: "https",
        tls: None,
        host: Some("a.test".into()),
        version: Version::HTTP_2,
        method: Some(Method::GET),
        uri: Uri::from_static("/a/1?b=c"),
        unread_line: None,
        changed_query: None,
        request_headers: HeaderMap::new(),
        request_size: 100,
        status: http::StatusCode::OK,
        response_headers: HeaderMap::new(),
        response_head_size: 200,
        response_body_size: 1000,
        source: Source::Endpoint,
        reason: None,
        policy: None,
        upstream_target: Some("/a/1?b=c".into()),
        tries: vec![
            one_try(
                ChosenBy::Host("busy"),
                TryOutcome::Failed,
                Some("connect_failed"),
            ),
            one_try(ChosenBy::Canary, TryOutcome::Answered(200), None),
        ],
        latencies: Latencies {
            total: Duration::from_millis(12),
            ..Latencies::default()
        },
        stages: Stages {
            matched: Some(Duration::from_micros(5)),
            ..Stages::default()
        },
        route: Some(Uuid::from_u128(1)),
        route_name: Some("r".into()),
        service: Some(Uuid::from_u128(2)),
        service_name: Some("s".into()),
        upstream: Some("u".into()),
        subject: Subject::default(),
        correlation_id: None,
        trace: Some(Box::new(RequestTrace {
            plugin: Uuid::from_u128(9),
            id: TraceId::random(),
            client_span: Some(SpanId::of(5)),
            request_span: SpanId::of(6),
            last_try_span: SpanId::of(7),
            is_sampled: true,
            is_debug: false,
            extracted: None,
            formats: Formats::default(),
            instrumentations: Instrumentations::ALL,
            policies: vec![
                PolicyTime {
                    name: "key-auth",
                    phase: PolicyPhase::Access,
                    began: Duration::from_micros(6),
                    took: Duration::from_micros(2),
                },
                PolicyTime {
                    name: "cors",
                    phase: PolicyPhase::HeaderFilter,
                    began: Duration::from_millis(9),
                    took: Duration::from_micros(1),
                },
            ],
        })),
    }
}

fn spans(record: &Record) -> Vec<Span> {
    let mut spans = Vec::new();
    add(&mut spans, record, Some("/a/"));
    spans
}

/// The value of an attribute as text.
fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|one| one.key == key)?;
    let value = found.value.as_ref().and_then(|value| value.value.clone());
    Some(match value? {
        Value::Text(text) => text,
        Value::Boolean(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
    })
}

fn with(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(
            attribute(span, key).as_deref(),
            Some(*value),
            "{key}: {span:?}"
        );
    }
}

#[test]
fn a_request_has_a_span_for_each_of_its_parts() {
    let record = record();
    let spans = spans(&record);
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    let expected = [
        "kong",
        "kong.router",
        "kong.access.plugin.key-auth",
        "kong.header_filter.plugin.cors",
        "kong.balancer",
        "pointsman.pick",
        "kong.balancer",
        "pointsman.pick",
    ];
    assert_eq!(names, expected);
    let id = |number: u64| number.to_be_bytes().to_vec();
    assert_eq!(
        (&spans[0].span_id, &spans[0].parent_span_id),
        (&id(6), &id(5))
    );
    assert!(spans[0].flags & IS_REMOTE != 0);
    for span in &spans[1..] {
        let is_pick = span.name == "pointsman.pick";
        assert_eq!(span.parent_span_id == id(6), !is_pick, "{span:?}");
        assert!(span.flags & IS_REMOTE == 0);
    }
    assert_eq!(spans[6].span_id, id(7));
    assert_eq!(spans[5].parent_span_id, spans[4].span_id);
    assert_eq!(spans[7].parent_span_id, id(7));
    let mut ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len());
    // The same again, as a collector may get a batch twice.
    assert_eq!(self::spans(&record), spans);
    let message = crate::otlp::ScopeSpans {
        scope: None,
        spans: spans.clone(),
    };
    let bytes = message.encode_to_vec();
    assert_eq!(crate::otlp::ScopeSpans::decode(&*bytes).unwrap(), message);
}

#[test]
fn spans_say_what_has_happened_and_when() {
    let spans = spans(&record());
    with(
        &spans[0],
        &[
            ("http.request.method", "GET"),
            ("url.scheme", "https"),
            ("url.path", "/a/1"),
            ("url.query", "b=c"),
            ("server.address", "a.test"),
            ("server.port", "8000"),
            ("client.address", "192.0.2.7"),
            ("network.protocol.version", "2"),
            ("http.route", "/a/"),
            ("http.response.status_code", "200"),
            ("pointsman.route", "r"),
            ("pointsman.service", "s"),
            ("pointsman.upstream", "u"),
        ],
    );
    assert_eq!(spans[0].status, None);
    let times = |span: &Span| {
        let began = span.start_time_unix_nano - STARTED.as_nanos() as u64;
        (began, span.end_time_unix_nano - span.start_time_unix_nano)
    };
    assert_eq!(times(&spans[0]), (0, 12_000_000));
    assert_eq!(times(&spans[1]), (0, 5000));
    assert_eq!(times(&spans[2]), (6000, 2000));
    assert_eq!(times(&spans[4]), (10_000, 4_000_000));
    assert_eq!(times(&spans[5]), (10_000, 3000));
    with(
        &spans[4],
        &[
            ("try_count", "1"),
            ("server.address", "192.0.2.9"),
            ("network.peer.port", "80"),
            ("error.type", "connect_failed"),
            ("pointsman.chosen_by", "host"),
            ("pointsman.chosen_because", "busy"),
            ("pointsman.balancer", "p2c"),
            ("pointsman.balancer.version", "1.0.0"),
        ],
    );
    assert_eq!(
        spans[4].status.as_ref().unwrap().code,
        StatusCode::Error as i32
    );
    with(
        &spans[6],
        &[
            ("try_count", "2"),
            ("http.request.resend_count", "1"),
            ("http.response.status_code", "200"),
            ("pointsman.chosen_by", "canary"),
        ],
    );
    assert_eq!(spans[6].status, None);
}

#[test]
fn a_failure_of_the_gateway_and_the_policy_that_answers_are_marked() {
    let mut failed = record();
    failed.status = http::StatusCode::BAD_GATEWAY;
    failed.reason = Some("upstream_failed");
    failed.method = Some(Method::from_bytes(b"BREW").unwrap());
    let span = &spans(&failed)[0];
    with(
        span,
        &[
            ("error.type", "upstream_failed"),
            ("http.request.method", "_OTHER"),
            ("http.request.method_original", "BREW"),
        ],
    );
    assert_eq!(span.status.as_ref().unwrap().message, "upstream_failed");
    let mut answered = record();
    answered.policy = Some("key-auth");
    answered.tries.clear();
    let spans = spans(&answered);
    with(&spans[2], &[("pointsman.answered", "true")]);
    assert_eq!(spans.len(), 4);
}

#[test]
fn only_the_spans_that_are_wanted_are_made() {
    let mut record = record();
    if let Some(trace) = &mut record.trace {
        trace.instrumentations.balancer = false;
        trace.instrumentations.router = false;
        trace.policies.clear();
    }
    assert_eq!(spans(&record).len(), 1);
    record.trace = None;
    assert!(spans(&record).is_empty());
}

#[test]
fn values_of_secret_arguments_are_not_sent() {
    for (query, shown) in [
        ("a=1&apikey=topkey1&b", "a=1&apikey=REDACTED&b"),
        (
            "APIKey=k&x-amz-SIGNATURE=s=t",
            "APIKey=REDACTED&x-amz-SIGNATURE=REDACTED",
        ),
        ("%61pi%6bey=k&sig=", "%61pi%6bey=REDACTED&sig=REDACTED"),
        ("apikeys=1&sig&=2&&a=apikey", "apikeys=1&sig&=2&&a=apikey"),
    ] {
        assert_eq!(without_secrets(query), shown);
    }
    let mut record = record();
    record.uri = Uri::from_static("/a?jwt=e.y.J");
    with(&spans(&record)[0], &[("url.query", "jwt=REDACTED")]);
}
