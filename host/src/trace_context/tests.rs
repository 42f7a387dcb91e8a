#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

/// The order in which Kong's default reads.
const DEFAULT: [Format; 7] = [
    Format::B3,
    Format::W3c,
    Format::Jaeger,
    Format::Ot,
    Format::Datadog,
    Format::Aws,
    Format::Gcp,
];

const LONG: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SHORT: &str = "a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The trace, the span and the decision, if headers have a context.
fn read(pairs: &[(&'static str, &str)]) -> Option<(Format, String, String, Option<bool>)> {
    let context = Context::extract(&headers(pairs), &DEFAULT)?;
    Some((
        context.format,
        context
            .trace_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        context.span_id.map(|id| id.to_string()).unwrap_or_default(),
        context.sampled,
    ))
}

fn padded(id: &str) -> String {
    format!("{id:0>32}")
}

#[test]
fn each_format_is_read() {
    let long = || LONG.to_owned();
    let span = || SPAN.to_owned();
    let w3c = format!("00-{LONG}-{SPAN}-01");
    let aws = format!(
        "Self=x;Root=1-{}-{};Parent={SPAN};Sampled=0",
        &LONG[..8],
        &LONG[8..]
    );
    let decimal = u64::from_str_radix(SPAN, 16).unwrap();
    let gcp = format!("{LONG}/{decimal};o=1");
    let single = format!("{LONG}-{SPAN}-d-{SHORT}");
    let state = format!("other=1, b3={LONG}-{SPAN}-0");
    let jaeger = format!("{}:{}:0:3", &LONG[..31], SPAN.trim_start_matches('0'));
    let escaped = format!("{SHORT}%3A{SPAN}%3A0%3A0");
    let datadog = u64::from_str_radix(SHORT, 16).unwrap().to_string();
    let parent = decimal.to_string();
    let b3 = ("x-b3-traceid", SHORT);
    let rows: &[(&[(&'static str, &str)], _)] = &[
        (
            &[("traceparent", &w3c)],
            (Format::W3c, long(), span(), Some(true)),
        ),
        (
            &[b3, ("x-b3-spanid", SPAN), ("x-b3-sampled", "true")],
            (Format::B3, padded(SHORT), span(), Some(true)),
        ),
        (
            &[b3, ("x-b3-flags", "1")],
            (Format::B3, padded(SHORT), String::new(), Some(true)),
        ),
        (
            &[("x-b3-sampled", "0")],
            (Format::B3, String::new(), String::new(), Some(false)),
        ),
        (
            &[("b3", &single)],
            (Format::B3Single, long(), span(), Some(true)),
        ),
        (
            &[("b3", "0")],
            (Format::B3Single, String::new(), String::new(), Some(false)),
        ),
        (
            &[("tracestate", &state)],
            (Format::B3Single, long(), span(), Some(false)),
        ),
        (
            &[("uber-trace-id", &jaeger)],
            (Format::Jaeger, padded(&LONG[..31]), span(), Some(true)),
        ),
        (
            &[("uber-trace-id", &escaped)],
            (Format::Jaeger, padded(SHORT), span(), Some(false)),
        ),
        (
            &[
                ("ot-tracer-traceid", SHORT),
                ("ot-tracer-spanid", SPAN),
                ("ot-tracer-sampled", "1"),
            ],
            (Format::Ot, padded(SHORT), span(), Some(true)),
        ),
        (
            &[
                ("x-datadog-trace-id", &datadog),
                ("x-datadog-parent-id", &parent),
                ("x-datadog-sampling-priority", "-1"),
            ],
            (Format::Datadog, padded(SHORT), span(), Some(false)),
        ),
        (
            &[
                ("x-datadog-trace-id", &datadog),
                ("x-datadog-sampling-priority", "2"),
            ],
            (Format::Datadog, padded(SHORT), String::new(), Some(true)),
        ),
        (
            &[("x-amzn-trace-id", &aws)],
            (Format::Aws, long(), span(), Some(false)),
        ),
        (
            &[("x-cloud-trace-context", &gcp)],
            (Format::Gcp, long(), span(), Some(true)),
        ),
        (
            &[("x-cloud-trace-context", LONG)],
            (Format::Gcp, long(), String::new(), None),
        ),
    ];
    for (pairs, expected) in rows {
        assert_eq!(read(pairs).as_ref(), Some(expected), "{pairs:?}");
    }
}

#[test]
fn malformed_headers_are_ignored() {
    let zeros = "0".repeat(32);
    let rows: &[(&'static str, String)] = &[
        ("traceparent", format!("00-{LONG}-{SPAN}")),
        ("traceparent", format!("00-{LONG}-{SPAN}-01-x")),
        ("traceparent", format!("ff-{LONG}-{SPAN}-01")),
        ("traceparent", format!("00-{zeros}-{SPAN}-01")),
        ("traceparent", format!("00-{LONG}-0000000000000000-01")),
        (
            "traceparent",
            format!("00-{}-{SPAN}-01", LONG.to_uppercase()),
        ),
        ("traceparent", format!("00-{LONG}-{SPAN}-+1")),
        ("b3", "x".into()),
        ("b3", LONG.into()),
        ("b3", format!("{LONG}-{SPAN}-2")),
        ("b3", format!("{LONG}-{SPAN}-1-{SHORT}-1")),
        ("x-b3-traceid", format!("{SHORT}0")),
        ("x-b3-sampled", "perhaps".into()),
        ("x-b3-spanid", SPAN.into()),
        ("uber-trace-id", format!("{LONG}0:{SPAN}:0:1")),
        ("uber-trace-id", format!("{LONG}:{SPAN}:0")),
        ("uber-trace-id", format!("+{SHORT}:{SPAN}:0:1")),
        ("uber-trace-id", format!("0:{SPAN}:0:1")),
        ("ot-tracer-traceid", "abc".into()),
        ("x-datadog-trace-id", "18446744073709551616".into()),
        ("x-datadog-trace-id", "0".into()),
        ("x-datadog-trace-id", "+5".into()),
        ("x-datadog-sampling-priority", "high".into()),
        (
            "x-amzn-trace-id",
            format!("Root=2-{}-{}", &LONG[..8], &LONG[8..]),
        ),
        ("x-amzn-trace-id", format!("Parent={SPAN};Sampled=1")),
        ("x-cloud-trace-context", format!("{LONG}/x;o=1")),
        ("x-cloud-trace-context", format!("{LONG}/1;p=1")),
        ("tracestate", "a=b3=1".into()),
    ];
    for (name, value) in rows {
        assert_eq!(read(&[(name, value)]), None, "{name}: {value}");
    }
    let parent = format!("00-{LONG}-{SPAN}-01");
    let twice = [("traceparent", &*parent), ("traceparent", &*parent)];
    assert_eq!(read(&twice), None);
    let mut unreadable_first = HeaderMap::new();
    unreadable_first.append(TRACEPARENT, HeaderValue::from_bytes(b"\xff").unwrap());
    unreadable_first.append(TRACEPARENT, HeaderValue::from_str(&parent).unwrap());
    assert_eq!(Context::extract(&unreadable_first, &[Format::W3c]), None);
}

#[test]
fn a_later_version_of_traceparent_is_read_as_far_as_it_is_known() {
    let later = format!("01-{LONG}-{SPAN}-01-more");
    let (format, trace, ..) = read(&[("traceparent", &later)]).unwrap();
    assert_eq!((format, &*trace), (Format::W3c, LONG));
}

#[test]
fn the_first_format_with_a_trace_wins_over_a_decision_alone() {
    let parent = format!("00-{LONG}-{SPAN}-01");
    let both = [("x-b3-sampled", "0"), ("traceparent", &*parent)];
    assert_eq!(read(&both).unwrap().0, Format::W3c);
    let state = [("tracestate", "vendor=1"), ("traceparent", &*parent)];
    assert_eq!(read(&state).unwrap().0, Format::W3c);
    let ids = [("x-b3-traceid", SHORT), ("traceparent", &*parent)];
    assert_eq!(read(&ids).unwrap().0, Format::B3);
    let none: &[Format] = &[];
    assert_eq!(Context::extract(&headers(&ids), none), None);
}

fn outgoing(
    trace: u128,
    is_short: bool,
    span: u64,
    sampled: bool,
    is_debug: bool,
) -> OutgoingContext {
    OutgoingContext {
        trace_id: TraceId::new(trace, is_short).unwrap(),
        span_id: SpanId::of(span),
        parent_id: Some(SpanId::of(7)),
        sampled,
        is_debug,
        extracted: None,
    }
}

#[test]
fn each_format_is_written_as_kong_writes_it() {
    let trace = u128::from_str_radix(LONG, 16).unwrap();
    let span = u64::from_str_radix(SPAN, 16).unwrap();
    let mut written = HeaderMap::new();
    for format in Format::ALL {
        outgoing(trace, false, span, true, false).inject(&mut written, format);
    }
    let rows = [
        ("traceparent", format!("00-{LONG}-{SPAN}-01")),
        ("b3", format!("{LONG}-{SPAN}-1-0000000000000007")),
        ("x-b3-traceid", LONG.into()),
        ("x-b3-spanid", SPAN.into()),
        ("x-b3-parentspanid", "0000000000000007".into()),
        ("x-b3-sampled", "1".into()),
        (
            "uber-trace-id",
            format!("{LONG}:{SPAN}:0000000000000007:01"),
        ),
        ("ot-tracer-traceid", LONG.into()),
        ("ot-tracer-spanid", SPAN.into()),
        ("ot-tracer-sampled", "1".into()),
        (
            "x-datadog-trace-id",
            u64::from_str_radix(SHORT, 16).unwrap().to_string(),
        ),
        ("x-datadog-parent-id", span.to_string()),
        ("x-datadog-sampling-priority", "1".into()),
        (
            "x-amzn-trace-id",
            format!(
                "Root=1-{}-{};Parent={SPAN};Sampled=1",
                &LONG[..8],
                &LONG[8..]
            ),
        ),
        ("x-cloud-trace-context", format!("{LONG}/{span};o=1")),
    ];
    for (name, value) in &rows {
        assert_eq!(written[*name], *value, "{name}");
    }
    assert_eq!(written.len(), rows.len());
}

#[test]
fn a_span_without_a_parent_names_none() {
    let mut sent = headers(&[("x-b3-parentspanid", SPAN)]);
    let root = OutgoingContext {
        parent_id: None,
        ..outgoing(1, true, 2, false, false)
    };
    root.inject(&mut sent, Format::B3);
    assert!(!sent.contains_key("x-b3-parentspanid"));
    root.inject(&mut sent, Format::B3Single);
    assert_eq!(sent["b3"], "0000000000000001-0000000000000002-0");
    root.inject(&mut sent, Format::Jaeger);
    assert_eq!(
        sent["uber-trace-id"],
        "0000000000000001:0000000000000002:0:00"
    );
}

#[test]
fn a_debug_flag_replaces_the_decision_and_an_old_state_is_removed() {
    let mut sent = headers(&[("x-b3-sampled", "1"), ("tracestate", "a=1")]);
    outgoing(1, false, 2, true, true).inject(&mut sent, Format::B3);
    assert_eq!(sent["x-b3-flags"], "1");
    assert!(!sent.contains_key("x-b3-sampled"));
    outgoing(1, false, 2, true, true).inject(&mut sent, Format::B3Single);
    assert!(sent["b3"].to_str().unwrap().contains("-d-"));
    let mut kept = sent.clone();
    outgoing(1, false, 2, true, true).inject(&mut sent, Format::W3c);
    assert!(!sent.contains_key("tracestate"));
    let known = OutgoingContext {
        extracted: Some(Format::W3c),
        ..outgoing(1, false, 2, true, true)
    };
    known.inject(&mut kept, Format::W3c);
    assert_eq!(kept["tracestate"], "a=1");
}

#[test]
fn baggage_goes_from_one_format_to_the_other() {
    let mut sent = headers(&[("uberctx-user", "a"), ("ot-baggage-x", "b")]);
    let context = OutgoingContext {
        extracted: Some(Format::Jaeger),
        ..outgoing(1, false, 2, true, false)
    };
    context.inject(&mut sent, Format::Ot);
    context.inject(&mut sent, Format::Jaeger);
    assert_eq!(sent["ot-baggage-user"], "a");
    assert!(!sent.contains_key("uberctx-x"));
}

#[test]
fn a_share_of_the_ids_is_sampled() {
    let ids: Vec<TraceId> = (0..10_000).map(|_| TraceId::random()).collect();
    let share = |share| ids.iter().filter(|id| id.is_within(share)).count();
    assert_eq!((share(0.0), share(1.0), share(-1.0)), (0, 10_000, 0));
    // 25 % of 10,000, within about 12 standard deviations.
    assert!((2000..3000).contains(&share(0.25)), "{}", share(0.25));
    // The first eight bytes count, in the order of x86.
    let id = TraceId::new(u128::from_be_bytes(*b"\0\0\0\0\0\0\0\x80xxxxxxxx"), false).unwrap();
    assert!(!id.is_within(0.5) && id.is_within(0.500_1));
    // Also the greatest of all ids.
    assert!(TraceId::new(u128::MAX, false).unwrap().is_within(1.0));
}

fn format() -> impl Strategy<Value = Format> {
    proptest::sample::select(Format::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        format in format(),
        trace in 1..u128::MAX,
        is_short: bool,
        span in 1..u64::MAX,
        sampled: bool,
        is_debug: bool,
    ) {
        let trace = if is_short { (trace as u64).max(1).into() } else { trace };
        let sent = outgoing(trace, is_short, span, sampled, is_debug);
        let mut headers = HeaderMap::new();
        sent.inject(&mut headers, format);
        let read = Context::extract(&headers, &[format]).unwrap();
        let expected = match format {
            Format::Datadog => u128::from(trace as u64),
            _ => trace,
        };
        prop_assert_eq!(read.trace_id.map(|id| id.number.get()), Some(expected).filter(|id| *id != 0));
        prop_assert_eq!(read.span_id, Some(SpanId::of(span)));
        prop_assert_eq!(read.sampled, Some(sampled));
        // The context as it was read is written in the same way.
        let mut again = HeaderMap::new();
        let next = OutgoingContext { trace_id: read.trace_id.unwrap(), is_debug: read.is_debug, ..sent };
        next.inject(&mut again, format);
        prop_assert_eq!(again, headers);
    }

    #[test]
    fn the_digits_of_an_id_are_its_text(number in 1_u128..) {
        let id = TraceId::new(number, false).unwrap();
        prop_assert_eq!(id.digits().to_vec(), id.to_string().into_bytes());
    }

    #[test]
    fn no_header_panics_the_parser(values in proptest::collection::vec("[-0-9a-f:;=/,%dRootx ]{0,60}", 17)) {
        let names = [
            "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid",
            "x-b3-sampled", "x-b3-flags", "uber-trace-id", "ot-tracer-traceid", "ot-tracer-spanid",
            "ot-tracer-sampled", "x-datadog-trace-id", "x-datadog-parent-id",
            "x-datadog-sampling-priority", "x-amzn-trace-id", "x-cloud-trace-context",
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in names.into_iter().zip(&values) {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        for format in Format::ALL {
            let _ = Context::extract(&headers, &[format]);
        }
        for value in &values {
            let one = HeaderValue::from_str(value).unwrap();
            for name in names {
                let headers = HeaderMap::from_iter([(HeaderName::from_static(name), one.clone())]);
                let _ = Context::extract(&headers, &DEFAULT);
            }
        }
    }
}
