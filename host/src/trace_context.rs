//! The context of a trace, as requests carry it in headers: which trace a request belongs to, which
//! span has caused it, and whether the trace is sampled. The formats are those of Kong 3.9,
//! `propagation`.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod read;
mod write;

use std::fmt;
use std::num::NonZero;

use http::header::{HeaderMap, HeaderName};
use serde::Deserialize;

use read::Found;
pub use write::OutgoingContext;

/// The id of a trace: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId {
    number: NonZero<u128>,
    /// Whether it has come with 8 bytes. Formats that allow it are sent 8 bytes again.
    is_short: bool,
}

/// The id of a span: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(NonZero<u64>);

impl TraceId {
    /// A new id.
    pub fn random() -> Self {
        let number = NonZero::new(fastrand::u128(..)).unwrap_or(NonZero::<u128>::MIN);
        Self {
            number,
            is_short: false,
        }
    }

    fn new(number: u128, is_short: bool) -> Option<Self> {
        NonZero::new(number).map(|number| Self { number, is_short })
    }

    /// Its 16 bytes.
    pub fn bytes(self) -> [u8; 16] {
        self.number.get().to_be_bytes()
    }

    /// Its 32 hexadecimal digits.
    pub fn digits(self) -> [u8; 32] {
        let (number, mut digits) = (self.number.get(), [0; 32]);
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
        }
        digits
    }

    /// Whether a trace of this id is among the sampled ones, of which there is this share. Every
    /// gateway decides the same for an id. Source: Kong 3.9, which compares the first 8 bytes as a
    /// little-endian number.
    pub fn is_within(self, share: f64) -> bool {
        let mut first = [0; 8];
        first.copy_from_slice(&self.bytes()[..8]);
        let number = u64::from_le_bytes(first);
        // A share of 1 or more is greater than any number, and one of 0 or less is not.
        (number as f64) < share * TWO_TO_64 || share >= 1.0
    }

    /// The id as this format writes it. Formats with 16 bytes have zeros before a shorter id, and
    /// `datadog` has the last 8 bytes in decimal.
    pub fn text(self, format: Format) -> String {
        let number = self.number.get();
        match format {
            Format::Datadog => (number as u64).to_string(),
            Format::Aws => {
                let digits = self.to_string();
                let (time, rest) = digits.split_at(8);
                format!("1-{time}-{rest}")
            }
            Format::B3 | Format::B3Single | Format::Jaeger | Format::Ot if self.is_short => {
                format!("{number:016x}")
            }
            _ => self.to_string(),
        }
    }
}

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// 32 hexadecimal digits.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.number)
    }
}

impl SpanId {
    /// A new id.
    pub fn random() -> Self {
        Self::of(fastrand::u64(..))
    }

    /// The id with this number; 1 in place of 0.
    pub fn of(number: u64) -> Self {
        Self(NonZero::new(number).unwrap_or(NonZero::<u64>::MIN))
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// Its 8 bytes.
    pub fn bytes(self) -> [u8; 8] {
        self.number().to_be_bytes()
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How headers carry the context of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `traceparent` (W3C Trace Context).
    W3c,
    /// `x-b3-traceid` and others beside it. Extraction also reads the single header.
    B3,
    /// `b3`.
    B3Single,
    /// `uber-trace-id`.
    Jaeger,
    /// `ot-tracer-traceid` and others beside it.
    Ot,
    /// `x-datadog-trace-id` and others beside it.
    Datadog,
    /// `x-amzn-trace-id`.
    Aws,
    /// `x-cloud-trace-context`.
    Gcp,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 8] = [
        Self::W3c,
        Self::B3,
        Self::B3Single,
        Self::Jaeger,
        Self::Ot,
        Self::Datadog,
        Self::Aws,
        Self::Gcp,
    ];

    /// Its name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::W3c => "w3c",
            Self::B3 => "b3",
            Self::B3Single => "b3-single",
            Self::Jaeger => "jaeger",
            Self::Ot => "ot",
            Self::Datadog => "datadog",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
        }
    }
}

/// A set of formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats(u8);

impl Formats {
    /// Adds a format.
    pub fn add(&mut self, format: Format) {
        self.0 |= 1 << format as u8;
    }

    /// The formats in it.
    pub fn iter(self) -> impl Iterator<Item = Format> {
        let all = Format::ALL.into_iter();
        all.filter(move |format| self.0 & (1 << *format as u8) != 0)
    }
}

/// The context of a trace that a request has come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The format that it was read from.
    pub format: Format,
    /// The trace; `None` if the client has only decided whether it is sampled.
    pub trace_id: Option<TraceId>,
    /// The span of the client that the request is part of.
    pub span_id: Option<SpanId>,
    /// Whether the client has its trace sampled, if it says so.
    pub sampled: Option<bool>,
    /// Whether the trace is sampled whatever samplers decide: `d` of B3.
    pub is_debug: bool,
}

impl Context {
    fn of(format: Format) -> Self {
        Self {
            format,
            trace_id: None,
            span_id: None,
            sampled: None,
            is_debug: false,
        }
    }

    /// Reads the context of a request in the first of these formats that has the id of a trace; if
    /// none has, in the first that has a decision about sampling. Malformed headers are ignored.
    pub fn extract(headers: &HeaderMap, formats: &[Format]) -> Option<Self> {
        if formats.is_empty() || headers.is_empty() {
            return None;
        }
        let found = Found::in_headers(headers)?;
        let mut decision = None;
        for format in formats {
            match found.context(*format) {
                Some(context) if context.trace_id.is_some() => return Some(context),
                Some(context) if context.sampled.is_some() && decision.is_none() => {
                    decision = Some(context);
                }
                _ => {}
            }
        }
        decision
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const JAEGER: HeaderName = HeaderName::from_static("uber-trace-id");
const OT_TRACE_ID: HeaderName = HeaderName::from_static("ot-tracer-traceid");
const OT_SPAN_ID: HeaderName = HeaderName::from_static("ot-tracer-spanid");
const OT_SAMPLED: HeaderName = HeaderName::from_static("ot-tracer-sampled");
const DATADOG_TRACE_ID: HeaderName = HeaderName::from_static("x-datadog-trace-id");
const DATADOG_PARENT_ID: HeaderName = HeaderName::from_static("x-datadog-parent-id");
const DATADOG_PRIORITY: HeaderName = HeaderName::from_static("x-datadog-sampling-priority");
const AWS: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const GCP: HeaderName = HeaderName::from_static("x-cloud-trace-context");

/// What the name of each header begins with that carries baggage, in these two formats.
const JAEGER_BAGGAGE: &str = "uberctx-";
const OT_BAGGAGE: &str = "ot-baggage-";

#[cfg(test)]
mod tests;
