//! The fuzz target of contexts in headers.

#![expect(clippy::expect_used, reason = "a law that does not hold has to panic")]

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Context, Format, OutgoingContext, SpanId};

/// Each line of the input is a header. A context that is read from them is read again from what is
/// written of it, in any format that has room for all of it, and another reader of the same headers
/// reads the same.
pub fn trace_context(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    for format in Format::ALL {
        let Some(context) = Context::extract(&headers, &[format]) else {
            continue;
        };
        assert_eq!(Context::extract(&headers, &[format, format]), Some(context));
        let Some(trace_id) = context.trace_id else {
            assert!(context.span_id.is_none() && context.sampled.is_some());
            continue;
        };
        let sent = OutgoingContext {
            trace_id,
            span_id: context.span_id.unwrap_or(SpanId::of(1)),
            parent_id: context.span_id,
            sampled: context.sampled.unwrap_or(false),
            is_debug: context.is_debug,
            extracted: Some(context.format),
        };
        for other in Format::ALL {
            let mut written = headers.clone();
            sent.inject(&mut written, other);
            // Beside a header of its own, the single one of B3 is read first.
            if other == Format::B3 {
                written.remove("b3");
                written.remove("tracestate");
            }
            let read = Context::extract(&written, &[other]);
            let mut whole = trace_id.bytes();
            if other == Format::Datadog {
                whole[..8].fill(0);
            }
            if whole == [0; 16] {
                continue;
            }
            let read = read.expect("what is written is read");
            let id = read.trace_id.expect("it has the id of the trace");
            assert_eq!(id.bytes(), whole, "{other:?}");
            assert_eq!(read.span_id, Some(sent.span_id), "{other:?}");
            assert_eq!(read.sampled, Some(sent.sampled), "{other:?}");
        }
    }
}
