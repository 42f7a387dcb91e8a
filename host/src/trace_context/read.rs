//! Reads the context of a trace from headers.

use http::HeaderMap;

use super::{Context, Format, SpanId, TraceId};

/// The headers of a request that may carry the context of a trace. They are collected in one pass,
/// since most requests have none.
#[derive(Default)]
pub(super) struct Found<'h> {
    traceparent: Option<&'h str>,
    has_traceparent: bool,
    /// Whether there is more than one `traceparent`: then it is invalid (W3C Trace Context, 3.2).
    is_ambiguous: bool,
    /// The member `b3` of `tracestate`.
    tracestate_b3: Option<&'h str>,
    b3: Option<&'h str>,
    b3_trace_id: Option<&'h str>,
    b3_span_id: Option<&'h str>,
    b3_sampled: Option<&'h str>,
    b3_flags: Option<&'h str>,
    jaeger: Option<&'h str>,
    ot_trace_id: Option<&'h str>,
    ot_span_id: Option<&'h str>,
    ot_sampled: Option<&'h str>,
    datadog_trace_id: Option<&'h str>,
    datadog_parent_id: Option<&'h str>,
    datadog_priority: Option<&'h str>,
    aws: Option<&'h str>,
    gcp: Option<&'h str>,
}

impl<'h> Found<'h> {
    /// `None` if no header carries a context.
    pub(super) fn in_headers(headers: &'h HeaderMap) -> Option<Self> {
        let mut found = Self::default();
        let mut has_any = false;
        for (name, value) in headers {
            let place = match name.as_str() {
                "traceparent" => {
                    found.is_ambiguous = found.has_traceparent;
                    found.has_traceparent = true;
                    &mut found.traceparent
                }
                "tracestate" => {
                    let members = value.to_str().unwrap_or_default().split(',');
                    let mut b3 = members.filter_map(|member| member.trim().strip_prefix("b3="));
                    found.tracestate_b3 = found.tracestate_b3.or_else(|| b3.next());
                    has_any |= found.tracestate_b3.is_some();
                    continue;
                }
                "b3" => &mut found.b3,
                "x-b3-traceid" => &mut found.b3_trace_id,
                "x-b3-spanid" => &mut found.b3_span_id,
                "x-b3-sampled" => &mut found.b3_sampled,
                "x-b3-flags" => &mut found.b3_flags,
                "uber-trace-id" => &mut found.jaeger,
                "ot-tracer-traceid" => &mut found.ot_trace_id,
                "ot-tracer-spanid" => &mut found.ot_span_id,
                "ot-tracer-sampled" => &mut found.ot_sampled,
                "x-datadog-trace-id" => &mut found.datadog_trace_id,
                "x-datadog-parent-id" => &mut found.datadog_parent_id,
                "x-datadog-sampling-priority" => &mut found.datadog_priority,
                "x-amzn-trace-id" => &mut found.aws,
                "x-cloud-trace-context" => &mut found.gcp,
                _ => continue,
            };
            has_any = true;
            if place.is_none() {
                *place = value.to_str().ok().map(str::trim);
            }
        }
        has_any.then_some(found)
    }

    /// The context in a format; `None` if it is absent or malformed.
    pub(super) fn context(&self, format: Format) -> Option<Context> {
        match format {
            Format::W3c => w3c(self.traceparent.filter(|_| !self.is_ambiguous)?),
            Format::B3 | Format::B3Single => {
                let single = self.b3.or(self.tracestate_b3).and_then(b3_single);
                single.or_else(|| self.b3())
            }
            Format::Jaeger => jaeger(self.jaeger?),
            Format::Ot => self.ot(),
            Format::Datadog => self.datadog(),
            Format::Aws => aws(self.aws?),
            Format::Gcp => gcp(self.gcp?),
        }
    }

    /// <https://github.com/openzipkin/b3-propagation>, several headers.
    fn b3(&self) -> Option<Context> {
        let is_debug = self.b3_flags == Some("1");
        let ids = match self.b3_trace_id {
            None => None,
            Some(trace) => {
                let span = match self.b3_span_id {
                    None => None,
                    Some(span) => Some(span_id(span)?),
                };
                Some((trace_id(trace)?, span))
            }
        };
        let sampled = match is_debug {
            true => Some(true),
            false => self.b3_sampled.and_then(yes_or_no),
        };
        (ids.is_some() || sampled.is_some()).then(|| Context {
            trace_id: ids.map(|(trace, _)| trace),
            span_id: ids.and_then(|(_, span)| span),
            sampled,
            is_debug,
            ..Context::of(Format::B3)
        })
    }

    fn ot(&self) -> Option<Context> {
        let trace_id = trace_id(self.ot_trace_id?)?;
        let span_id = match self.ot_span_id {
            None => None,
            Some(span) => Some(span_id(span)?),
        };
        Some(Context {
            trace_id: Some(trace_id),
            span_id,
            sampled: self.ot_sampled.and_then(yes_or_no),
            ..Context::of(Format::Ot)
        })
    }

    fn datadog(&self) -> Option<Context> {
        let priority = self.datadog_priority.map(str::parse::<i64>);
        let sampled = priority.and_then(|priority| Some(priority.ok()? > 0));
        let trace_id = match self.datadog_trace_id {
            None => None,
            Some(id) => Some(TraceId::new(decimal(id)?.into(), true)?),
        };
        let span_id = match self.datadog_parent_id {
            None => None,
            Some(id) => nonzero(decimal(id)?),
        };
        (trace_id.is_some() || sampled.is_some()).then(|| Context {
            trace_id,
            span_id: span_id.filter(|_| trace_id.is_some()),
            sampled,
            ..Context::of(Format::Datadog)
        })
    }
}

/// `traceparent`. A version that is not known is read as far as version 00 goes (W3C Trace Context,
/// 4.3); Kong reads version 00 alone.
fn w3c(text: &str) -> Option<Context> {
    let is_lower = |text: &str| {
        let mut bytes = text.bytes();
        bytes.all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let mut parts = text.split('-');
    let mut part = |length| {
        let part = parts.next()?;
        (part.len() == length && is_lower(part)).then_some(part)
    };
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(Context {
        trace_id: Some(trace_id(trace)?),
        span_id: Some(span_id(span)?),
        sampled: Some(flags & 1 == 1),
        ..Context::of(Format::W3c)
    })
}

/// <https://github.com/openzipkin/b3-propagation>, one header: `trace-span`, the decision, and the
/// parent, of which those at the end may be missing; or the decision alone.
fn b3_single(text: &str) -> Option<Context> {
    let decision = |text: &str| match text {
        "0" => Some((false, false)),
        "1" => Some((true, false)),
        "d" => Some((true, true)),
        _ => None,
    };
    let context = Context::of(Format::B3Single);
    if let Some((sampled, is_debug)) = decision(text) {
        return Some(Context {
            sampled: Some(sampled),
            is_debug,
            ..context
        });
    }
    let mut parts = text.split('-');
    let (trace, span) = (trace_id(parts.next()?)?, span_id(parts.next()?)?);
    let (sampled, is_debug) = match parts.next() {
        None => (None, false),
        Some(text) => {
            let (sampled, is_debug) = decision(text)?;
            (Some(sampled), is_debug)
        }
    };
    if let Some(parent) = parts.next() {
        hex(parent, &[16])?;
    }
    parts.next().is_none().then_some(Context {
        trace_id: Some(trace),
        span_id: Some(span),
        sampled,
        is_debug,
        ..context
    })
}

/// `trace:span:parent:flags`, with ids whose leading zeros may be missing. Some clients escape the
/// colons.
fn jaeger(text: &str) -> Option<Context> {
    let plain = text.replace("%3A", ":").replace("%3a", ":");
    let mut parts = plain.split(':');
    let mut part = |most: usize| {
        let digits = parts.next()?;
        let fits = (1..=most).contains(&digits.len());
        let number = u128::from_str_radix(digits, 16).ok()?;
        (fits && is_hex(digits)).then_some((number, digits.len()))
    };
    let (trace, length) = part(32)?;
    let (span, _) = part(16)?;
    let (_, _) = part(16)?;
    let (flags, _) = part(2)?;
    parts.next().is_none().then_some(Context {
        trace_id: Some(TraceId::new(trace, length <= 16)?),
        span_id: nonzero(u64::try_from(span).ok()?),
        sampled: Some(flags & 1 == 1),
        ..Context::of(Format::Jaeger)
    })
}

/// `Root=1-<8>-<24>;Parent=<16>;Sampled=1`, in any order and with other members.
fn aws(text: &str) -> Option<Context> {
    let mut context = Context::of(Format::Aws);
    for member in text.split(';') {
        let (name, value) = member.split_once('=')?;
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "root" => {
                let (time, rest) = value.strip_prefix("1-")?.split_once('-')?;
                let number = (hex(time, &[8])? << 96) | hex(rest, &[24])?;
                context.trace_id = Some(TraceId::new(number, false)?);
            }
            "parent" => context.span_id = Some(span_id(value)?),
            "sampled" => {
                // `?` leaves the decision to the receiver.
                context.sampled = match value {
                    "0" => Some(false),
                    "1" => Some(true),
                    _ => None,
                }
            }
            _ => {}
        }
    }
    context.trace_id.is_some().then_some(context)
}

/// `<32>/<decimal span>;o=1`, of which only the trace has to be present.
fn gcp(text: &str) -> Option<Context> {
    let (ids, options) = match text.split_once(';') {
        Some((ids, options)) => (ids, Some(options.trim())),
        None => (text, None),
    };
    let (trace, span) = match ids.split_once('/') {
        Some((trace, span)) => (trace, nonzero(decimal(span)?)),
        None => (ids, None),
    };
    let options = match options {
        None => None,
        Some(options) => Some(decimal(options.strip_prefix("o=")?)?),
    };
    Some(Context {
        trace_id: Some(TraceId::new(hex(trace, &[32])?, false)?),
        span_id: span,
        sampled: options.map(|options| options & 1 == 1),
        ..Context::of(Format::Gcp)
    })
}

/// The id of a trace in 16 or 32 hexadecimal digits.
fn trace_id(digits: &str) -> Option<TraceId> {
    TraceId::new(hex(digits, &[16, 32])?, digits.len() == 16)
}

/// The id of a span in 16 hexadecimal digits.
fn span_id(digits: &str) -> Option<SpanId> {
    nonzero(u64::try_from(hex(digits, &[16])?).ok()?)
}

fn nonzero(number: u64) -> Option<SpanId> {
    (number != 0).then(|| SpanId::of(number))
}

fn is_hex(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A hexadecimal number of one of these lengths.
fn hex(digits: &str, lengths: &[usize]) -> Option<u128> {
    let fits = lengths.contains(&digits.len()) && is_hex(digits);
    fits.then(|| u128::from_str_radix(digits, 16).ok())
        .flatten()
}

fn decimal(digits: &str) -> Option<u64> {
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| digits.parse().ok()).flatten()
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}
