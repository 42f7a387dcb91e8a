#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::logs::document::Documents;
use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn config(more: Value) -> Config {
    let mut config = json!({
        "traces_endpoint": "http://127.0.0.1:9/v1/traces",
        "connect_timeout": 1000, "send_timeout": 5000, "read_timeout": 5000,
        "header_type": "preserve",
        "sampling_strategy": "parent_drop_probability_fallback",
        "propagation": { "default_format": "w3c" },
        "queue": {
            "max_batch_size": 200, "max_coalescing_delay": 1, "max_entries": 10_000,
            "max_bytes": null, "max_retry_time": 60, "initial_retry_delay": 0.01,
            "max_retry_delay": 60, "concurrency_limit": 1,
        },
    });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn policy(more: Value, instrumentations: Instrumentations) -> OpenTelemetry {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(crate::store::open_test(folder.path()));
    let logs = Logs::start(Documents::new(store)).unwrap();
    let settings = crate::config::Config::load(crate::config::Written::default()).unwrap();
    let plugin = json!({
        "id": Uuid::from_u128(7), "name": "opentelemetry", "config": {}, "protocols": [],
        "enabled": true, "route": null, "service": null, "consumer": null,
    });
    let defaults = Tracing {
        instrumentations,
        sampling_rate: 1.0,
    };
    let resolver = Arc::new(Resolver::new(&settings.dns));
    let plugin = serde_json::from_value(plugin).unwrap();
    OpenTelemetry::new(&config(more), &plugin, &logs, &resolver, defaults).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    let pairs = pairs.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    });
    pairs.collect()
}

/// The headers that an endpoint gets, and the trace.
fn propagated(policy: &OpenTelemetry, sent: &[(&'static str, &str)]) -> (HeaderMap, RequestTrace) {
    let mut headers = headers(sent);
    let mut trace = policy.begin(&headers);
    policy.propagation.propagate(&mut trace, &mut headers);
    (headers, trace)
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

const MULTI: [&str; 4] = [
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
];

/// The settings, what the client sends, what the endpoint gets, and whether the trace goes on.
type Row<'a> = (Value, &'a [(&'static str, &'a str)], Vec<&'a str>, bool);

#[test]
fn settings_say_which_formats_endpoints_get() {
    let b3 = format!("{TRACE}-{SPAN}-1");
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let (b3, w3c) = (("b3", &*b3), ("traceparent", &*w3c));
    let b3_and = |more: &[&'static str]| [&MULTI[..], more].concat();
    let rows: &[Row<'_>] = &[
        (json!({}), &[], vec!["traceparent"], false),
        (json!({}), &[w3c], vec!["traceparent"], true),
        (json!({}), &[b3], vec!["b3"], true),
        (
            json!({"header_type": "ignore"}),
            &[w3c],
            vec!["traceparent"],
            false,
        ),
        (
            json!({"header_type": "b3"}),
            &[w3c],
            b3_and(&["traceparent"]).into_iter().rev().collect(),
            true,
        ),
        (
            json!({"header_type": "jaeger"}),
            &[],
            vec!["traceparent", "uber-trace-id"],
            false,
        ),
        (
            json!({"propagation": {"default_format": "b3"}}),
            &[],
            b3_and(&[]),
            false,
        ),
        (
            json!({"propagation": {"extract": ["w3c"], "default_format": "w3c"}}),
            &[w3c],
            vec!["traceparent"],
            true,
        ),
        (
            json!({"propagation": {"extract": ["w3c"], "inject": ["preserve"], "default_format": "gcp"}}),
            &[b3],
            vec!["b3", "x-cloud-trace-context"],
            false,
        ),
        (
            json!({"propagation": {"extract": ["b3"], "clear": ["B3"], "inject": ["w3c", "b3-single"], "default_format": "w3c"}}),
            &[b3],
            vec!["b3", "traceparent"],
            true,
        ),
        (
            json!({"propagation": {"extract": ["b3"], "clear": ["B3"], "inject": ["aws"], "default_format": "w3c"}}),
            &[b3],
            vec!["x-amzn-trace-id"],
            true,
        ),
        (
            json!({"propagation": {"inject": ["datadog"], "default_format": "w3c"}}),
            &[w3c],
            vec![
                "traceparent",
                "x-datadog-parent-id",
                "x-datadog-sampling-priority",
                "x-datadog-trace-id",
            ],
            false,
        ),
    ];
    for (settings, sent, expected, goes_on) in rows {
        let policy = policy(settings.clone(), Instrumentations::ALL);
        let (got, trace) = propagated(&policy, sent);
        let mut expected = expected.clone();
        expected.sort_unstable();
        assert_eq!(names(&got), expected, "{settings} {sent:?}");
        assert_eq!(
            trace.id.to_string() == TRACE,
            *goes_on,
            "{settings} {sent:?}"
        );
    }
}

#[test]
fn an_endpoint_is_sent_the_span_of_the_last_try_or_that_of_the_request() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let sent = [("traceparent", &*w3c)];
    let (headers, trace) = propagated(&policy(json!({}), Instrumentations::ALL), &sent);
    let expected = format!("00-{TRACE}-{}-01", trace.last_try_span);
    assert_eq!(headers["traceparent"], expected);
    assert_eq!(trace.client_span.unwrap().to_string(), SPAN);
    let only = Instrumentations {
        request: true,
        ..Instrumentations::default()
    };
    let (headers, trace) = propagated(&policy(json!({}), only), &sent);
    let expected = format!("00-{TRACE}-{}-01", trace.request_span);
    assert_eq!(headers["traceparent"], expected);
}

#[test]
fn nothing_is_sampled_without_instrumentations_or_a_collector() {
    let off = Instrumentations::default();
    let nowhere = json!({ "traces_endpoint": null });
    for policy in [
        policy(json!({}), off),
        policy(nowhere, Instrumentations::ALL),
    ] {
        let (headers, trace) = propagated(&policy, &[]);
        assert!(!trace.is_sampled);
        assert!(headers["traceparent"].to_str().unwrap().ends_with("-00"));
    }
}

#[test]
fn the_decision_of_the_client_counts_as_far_as_the_settings_say() {
    let parent = |flag: &str| format!("00-{TRACE}-{SPAN}-{flag}");
    let (yes, no) = (parent("01"), parent("00"));
    let follow = "parent_probability_fallback";
    let drop = "parent_drop_probability_fallback";
    for (strategy, rate, sent, expected) in [
        (drop, 1.0, Some(&yes), true),
        (drop, 0.0, Some(&yes), false),
        (drop, 1.0, Some(&no), false),
        (drop, 1.0, None, true),
        (drop, 0.0, None, false),
        (follow, 0.0, Some(&yes), true),
        (follow, 1.0, Some(&no), false),
        (follow, 0.0, None, false),
        (follow, 1.0, None, true),
    ] {
        let settings = json!({ "sampling_rate": rate, "sampling_strategy": strategy });
        let policy = policy(settings, Instrumentations::ALL);
        let sent: Vec<_> = sent
            .map(|sent| ("traceparent", &**sent))
            .into_iter()
            .collect();
        let (headers, trace) = propagated(&policy, &sent);
        assert_eq!(trace.is_sampled, expected, "{strategy} {rate} {sent:?}");
        let flag = if expected { "-01" } else { "-00" };
        let parent = headers["traceparent"].to_str().unwrap();
        assert!(parent.ends_with(flag), "{parent}");
    }
}

#[test]
fn settings_of_which_no_policy_can_be_made_are_refused() {
    for more in [
        json!({ "traces_endpoint": "ftp://user:secret@a.test" }),
        json!({ "headers": { "a b": "c" } }),
        json!({ "propagation": { "clear": ["a b"], "default_format": "w3c" } }),
    ] {
        let error = check(&config(more.clone())).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
    check(&config(json!({}))).unwrap();
}

proptest! {
    #[test]
    fn a_request_goes_on_with_a_valid_context_whatever_it_has_come_with(
        values in proptest::collection::vec("[-0-9a-f:;=/,]{0,56}", 5),
    ) {
        // Each has a thread of the logs.
        static POLICY: LazyLock<OpenTelemetry> =
            LazyLock::new(|| policy(json!({ "header_type": "w3c" }), Instrumentations::ALL));
        let names = ["traceparent", "b3", "uber-trace-id", "x-amzn-trace-id", "x-datadog-trace-id"];
        let sent: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
        let (headers, trace) = propagated(&POLICY, &sent);
        let read = Context::extract(&headers, &[crate::trace_context::Format::W3c]).unwrap();
        prop_assert_eq!(read.trace_id.unwrap().bytes(), trace.id.bytes());
        prop_assert_eq!(read.span_id, Some(trace.last_try_span));
    }
}
