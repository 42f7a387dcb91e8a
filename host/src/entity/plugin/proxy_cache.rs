//! `proxy-cache`: answers requests with responses that were given before. Source: Kong 3.9,
//! `proxy-cache`.

use serde::Deserialize;

use super::{PROTOCOLS, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;

const STATUS: Field = Field::element(Shape::Integer).check(&[Check::Between(100, 900)]);

const METHOD: Field =
    Field::element(Shape::String).check(&[Check::OneOf(&["HEAD", "GET", "POST", "PATCH", "PUT"])]);

const TEXT: Field = Field::element(Shape::String);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 100,
    is_gate: false,
    schema: Subschema {
        name: "proxy-cache",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::array("response_code", &STATUS)
                        .required()
                        .default(Preset::Integers(&[200, 301, 404]))
                        .check(&[Check::AtLeast(1)]),
                    Field::array("request_method", &METHOD)
                        .required()
                        .default(Preset::Strings(&["GET", "HEAD"])),
                    Field::array("content_type", &TEXT)
                        .required()
                        .default(Preset::Strings(&["text/plain", "application/json"])),
                    Field::integer("cache_ttl")
                        .default(Preset::Integer(300))
                        .check(&[Check::GreaterThan(0)]),
                    Field::string("strategy")
                        .required()
                        .check(&[Check::OneOf(&["memory"])]),
                    switch("cache_control", false),
                    Field::boolean("ignore_uri_case").default(Preset::Boolean(false)),
                    Field::integer("storage_ttl"),
                    Field::record(
                        "memory",
                        &[Field::string("dictionary_name")
                            .required()
                            .default(Preset::String("kong_db_cache"))],
                    )
                    .required(),
                    Field::array("vary_query_params", &TEXT),
                    Field::array("vary_headers", &TEXT),
                    Field::record(
                        "response_headers",
                        &[
                            Field::boolean("age").default(Preset::Boolean(true)),
                            Field::boolean("X-Cache-Status").default(Preset::Boolean(true)),
                            Field::boolean("X-Cache-Key").default(Preset::Boolean(true)),
                        ],
                    )
                    .required(),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `proxy-cache`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The statuses of responses that are kept.
    pub response_code: Vec<u16>,
    /// The methods of requests that the cache may answer.
    pub request_method: Vec<String>,
    /// The media types of responses that are kept, with their parameters.
    pub content_type: Vec<String>,
    /// How long a response answers requests, in seconds, unless `cache_control` says otherwise.
    pub cache_ttl: u64,
    /// Where responses are kept.
    pub strategy: Strategy,
    /// Whether the `Cache-Control` of requests and responses counts (RFC 9111).
    pub cache_control: bool,
    /// Whether paths that differ only in case have the same response.
    pub ignore_uri_case: bool,
    /// How long a response is kept, in seconds; as long as it answers requests if none.
    pub storage_ttl: Option<i64>,
    /// The settings of the strategy `memory`.
    pub memory: Memory,
    /// The query arguments that tell requests apart; all if none are named.
    pub vary_query_params: Option<Vec<String>>,
    /// The headers that tell requests apart, besides those that a response names itself.
    pub vary_headers: Option<Vec<String>>,
    /// Which headers a client is sent about the cache.
    pub response_headers: ResponseHeaders,
}

/// Where responses are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// In the memory of this gateway.
    Memory,
}

/// The settings of the strategy `memory`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Memory {
    /// The name of the memory. It has no effect: all plugins share one memory.
    pub dictionary_name: String,
}

/// Which headers a client is sent about the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ResponseHeaders {
    /// `Age`.
    pub age: bool,
    /// `X-Cache-Status`.
    #[serde(rename = "X-Cache-Status")]
    pub status: bool,
    /// `X-Cache-Key`.
    #[serde(rename = "X-Cache-Key")]
    pub key: bool,
}
