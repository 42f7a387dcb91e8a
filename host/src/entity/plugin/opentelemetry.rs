//! `opentelemetry`: passes on the context of traces, and sends traces of requests to a collector.
//! Source: Kong 3.9, `opentelemetry`; `sampling_strategy`: Kong 3.10.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::queue::{self, Queue};
use super::{HTTP_PROTOCOLS, PluginKind};
use crate::entity::field::{Check, Deprecation, Field, Preset, Shape, Shorthand};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, check};
use crate::trace_context::Format;

const LONGEST: i64 = (1 << 31) - 2;

/// The value of `batch_span_count` that changes nothing.
const OLD_BATCH_SPAN_COUNT: i64 = 200;

/// The value of `batch_flush_delay` that changes nothing.
const OLD_BATCH_FLUSH_DELAY: i64 = 3;

const HEADER_VALUE: Field = Field::element(Shape::String).referenceable();

const ATTRIBUTE_VALUE: Field = Field::element(Shape::String).required();

const EXTRACTED: Field = Field::element(Shape::String).check(&[Check::OneOf(&[
    "w3c", "b3", "jaeger", "ot", "datadog", "aws", "gcp",
])]);

const CLEARED: Field = Field::element(Shape::String).check(&[Check::Text(check::header_name)]);

const INJECTED: Field = Field::element(Shape::String).check(&[Check::OneOf(&[
    "preserve",
    "w3c",
    "b3",
    "b3-single",
    "jaeger",
    "ot",
    "datadog",
    "aws",
    "gcp",
])]);

const PROPAGATION: Field = Field::record(
    "propagation",
    &[
        Field::array("extract", &EXTRACTED),
        Field::array("clear", &CLEARED),
        Field::array("inject", &INJECTED),
        Field::string("default_format")
            .required()
            .default(Preset::String("w3c"))
            .check(&[Check::OneOf(&[
                "w3c",
                "b3",
                "b3-single",
                "jaeger",
                "ot",
                "datadog",
                "aws",
                "gcp",
            ])]),
    ],
)
.required()
.default(Preset::Computed(|| json!({ "default_format": "w3c" })));

pub(super) static KIND: PluginKind = PluginKind {
    priority: 14,
    is_gate: false,
    schema: Subschema {
        name: "opentelemetry",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("traces_endpoint")
                        .referenceable()
                        .check(&[Check::Text(check::url)]),
                    Field::string("logs_endpoint").check(&[Check::Nothing(NO_LOGS)]),
                    Field::map("headers", &[Check::Text(check::header_name)], &HEADER_VALUE),
                    Field::map("resource_attributes", &[], &ATTRIBUTE_VALUE),
                    queue::RECORD_OF_SPANS,
                    Field::integer("batch_span_count").deprecated(Deprecation {
                        message: "config.batch_span_count is deprecated: use \
                                  config.queue.max_batch_size",
                        old_default: Some(OLD_BATCH_SPAN_COUNT),
                    }),
                    Field::integer("batch_flush_delay").deprecated(Deprecation {
                        message: "config.batch_flush_delay is deprecated: use \
                                  config.queue.max_coalescing_delay",
                        old_default: Some(OLD_BATCH_FLUSH_DELAY),
                    }),
                    timeout("connect_timeout", 1000),
                    timeout("send_timeout", 5000),
                    timeout("read_timeout", 5000),
                    Field::string("http_response_header_for_traceid")
                        .check(&[Check::Text(check::header_name)]),
                    Field::string("header_type")
                        .default(Preset::String("preserve"))
                        .check(&[Check::OneOf(&[
                            "preserve",
                            "ignore",
                            "b3",
                            "b3-single",
                            "w3c",
                            "jaeger",
                            "ot",
                            "aws",
                            "gcp",
                            "datadog",
                        ])])
                        .deprecated(Deprecation {
                            message: "config.header_type is deprecated: use config.propagation",
                            old_default: None,
                        }),
                    Field::number("sampling_rate").check(&[Check::Between(0, 1)]),
                    Field::string("sampling_strategy")
                        .extension()
                        .default(Preset::String(PARENT_DROP))
                        .check(&[Check::OneOf(&[PARENT_DROP, "parent_probability_fallback"])]),
                    PROPAGATION,
                ],
            )
            .required()
            .entity_checks(&[EntityCheck::AtLeastOneOf(&[
                "traces_endpoint",
                "logs_endpoint",
            ])])
            .shorthands(&[Shorthand {
                field: Field::string("endpoint"),
                path: &["traces_endpoint"],
                message: "config.endpoint is deprecated: use config.traces_endpoint",
                is_echoed: false,
            }]),
        ],
        entity_checks: &[],
    },
};

/// The default of `sampling_strategy`.
const PARENT_DROP: &str = "parent_drop_probability_fallback";

const NO_LOGS: &str = "this gateway does not export its own log by OTLP: leave logs_endpoint out, \
     and have a collector read the log";

const fn timeout(name: &'static str, default: i64) -> Field {
    Field::integer(name)
        .default(Preset::Integer(default))
        .check(&[Check::Between(0, LONGEST)])
}

/// The settings of `opentelemetry`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The URL to which traces are sent, such as `http://localhost:4318/v1/traces`.
    pub traces_endpoint: Option<String>,
    /// Headers that are sent with them.
    pub headers: Option<BTreeMap<String, String>>,
    /// What the gateway says of itself, beside and in place of what it says by itself.
    pub resource_attributes: Option<BTreeMap<String, String>>,
    /// The longest time to connect to the collector, in milliseconds.
    pub connect_timeout: f64,
    /// The longest time to send a batch, in milliseconds.
    pub send_timeout: f64,
    /// The longest time to wait for the answer, in milliseconds.
    pub read_timeout: f64,
    /// The header of responses that has the id of the trace, if one has.
    pub http_response_header_for_traceid: Option<String>,
    /// How contexts are passed on, if `propagation` does not say.
    pub header_type: Option<String>,
    /// The share of traces that is sampled, from 0 to 1; that of the gateway's settings if none.
    pub sampling_rate: Option<f64>,
    /// Whose decision counts.
    pub sampling_strategy: SamplingStrategy,
    /// How contexts are passed on.
    pub propagation: Propagation,
    batch_span_count: Option<i64>,
    batch_flush_delay: Option<i64>,
    /// How traces wait to be sent; read through [`Config::queue`].
    queue: Queue,
}

/// Which of the decisions of a client counts. Where none counts, the share decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingStrategy {
    /// That a trace is not sampled.
    ParentDropProbabilityFallback,
    /// Either.
    ParentProbabilityFallback,
}

/// How the contexts of traces are passed on.
#[derive(Debug, Clone, Deserialize)]
pub struct Propagation {
    /// The formats that are read, in their order.
    pub extract: Option<Vec<Format>>,
    /// Headers that are removed before others are set.
    pub clear: Option<Vec<String>>,
    /// The formats that endpoints get.
    pub inject: Option<Vec<Injected>>,
    /// The format in place of the one that was read, if none was.
    pub default_format: Format,
}

/// A format that endpoints get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Injected {
    /// This one.
    Format(Format),
    /// The one that was read.
    Preserved(Preserve),
}

/// The word for the format that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the name says it")]
pub enum Preserve {
    Preserve,
}

impl Config {
    /// How traces wait to be sent. The fields from before there was the record take precedence
    /// where they differ from their old defaults.
    pub fn queue(&self) -> Queue {
        let count = self.batch_span_count;
        let count = count.filter(|count| *count != OLD_BATCH_SPAN_COUNT);
        let delay = self.batch_flush_delay;
        let delay = delay.filter(|delay| *delay != OLD_BATCH_FLUSH_DELAY);
        Queue {
            max_batch_size: count.unwrap_or(self.queue.max_batch_size),
            max_coalescing_delay: delay
                .map_or(self.queue.max_coalescing_delay, |delay| delay as f64),
            // It counts entries that are texts. Source: Kong.
            max_bytes: None,
            ..self.queue.clone()
        }
    }
}
