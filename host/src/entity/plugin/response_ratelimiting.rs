//! `response-ratelimiting`: as `rate-limiting`, but the endpoint says in a header of its response
//! how much a request counts, and against which of several limits. Source: Kong 3.9,
//! `response-ratelimiting`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::periods::{self, Extension, PeriodLimits, Policy};
use super::redis::{self, Redis};
use super::{HTTP_PROTOCOLS, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, Row};

const LIMIT: Field = Field::element(Shape::Record(periods::FIELDS))
    .required()
    .check(&[Check::Record(in_order)])
    .entity_checks(&[EntityCheck::AtLeastOneOf(periods::NAMES)]);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 900,
    is_gate: false,
    schema: Subschema {
        name: "response-ratelimiting",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("header_name").default(Preset::String("x-kong-limit")),
                    Field::string("limit_by")
                        .default(Preset::String("consumer"))
                        .check(&[Check::OneOf(&["consumer", "credential", "ip"])]),
                    Field::string("policy")
                        .default(Preset::String("local"))
                        .check(&[
                            Check::Text(periods::where_to_count),
                            Check::OneOf(&["local", "redis"]),
                        ]),
                    switch("fault_tolerant", true),
                    redis::RECORD,
                    switch("block_on_first_violation", false),
                    switch("hide_client_headers", false),
                    Field::map("limits", &[], &LIMIT)
                        .required()
                        .check(&[Check::AtLeast(1)]),
                    periods::EXTENSION,
                ],
            )
            .required()
            .check(&[Check::Record(periods::share_of_local)])
            .shorthands(redis::EARLIER_NAMES),
        ],
        entity_checks: &[
            redis::HOST_NEEDED,
            redis::PORT_NEEDED,
            redis::TIMEOUT_NEEDED,
        ],
    },
};

fn in_order(limits: &Row) -> Result<(), String> {
    match periods::out_of_order(limits) {
        Some(limits) => Err(format!("the limit for {limits}")),
        None => Ok(()),
    }
}

/// The settings of `response-ratelimiting`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The header of the response that says how much the request counts.
    pub header_name: String,
    /// Whose requests are counted together.
    pub limit_by: LimitBy,
    /// Where requests are counted.
    pub policy: Policy,
    /// Settings beyond Kong.
    #[serde(rename = "pointsman", default)]
    pub extension: Extension,
    /// Whether a request passes while requests cannot be counted.
    pub fault_tolerant: bool,
    /// The server of the policy `redis`.
    pub redis: Redis,
    /// Whether a request is refused as soon as any limit is used up.
    pub block_on_first_violation: bool,
    /// Whether clients are not told their limits.
    pub hide_client_headers: bool,
    /// The limits by the names that endpoints use, at least one.
    pub limits: BTreeMap<String, PeriodLimits>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitBy {
    /// Those of a consumer.
    Consumer,
    /// Those with one credential.
    Credential,
    /// Those from one address.
    Ip,
}
