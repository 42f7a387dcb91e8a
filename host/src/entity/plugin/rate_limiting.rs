//! `rate-limiting`: how many requests a client may send in each period of the calendar. Source:
//! Kong 3.9, `rate-limiting`.

use serde::Deserialize;

use super::periods::{self, Extension, PeriodLimits, Policy, limit};
use super::redis::{self, Redis};
use super::{HTTP_PROTOCOLS, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, Match, Row, check};

/// The value of `sync_rate` with which each request is counted at once.
const AT_ONCE: f64 = -1.0;

/// The least `sync_rate` otherwise, in seconds.
const LEAST_SYNC_RATE: f64 = 0.02;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 910,
    is_gate: false,
    schema: Subschema {
        name: "rate-limiting",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    limit("second"),
                    limit("minute"),
                    limit("hour"),
                    limit("day"),
                    limit("month"),
                    limit("year"),
                    Field::string("limit_by")
                        .default(Preset::String("consumer"))
                        .check(&[Check::OneOf(&[
                            "consumer",
                            "credential",
                            "ip",
                            "service",
                            "header",
                            "path",
                        ])]),
                    Field::string("header_name").check(&[Check::Text(check::header_name)]),
                    Field::string("path").check(&[Check::Text(check::path)]),
                    Field::string("policy")
                        .default(Preset::String("local"))
                        .may_be_empty()
                        .check(&[
                            Check::Text(periods::where_to_count),
                            Check::OneOf(&["local", "redis"]),
                        ]),
                    switch("fault_tolerant", true),
                    redis::RECORD,
                    switch("hide_client_headers", false),
                    Field::number("error_code")
                        .default(Preset::Integer(429))
                        .check(&[Check::GreaterThan(0)]),
                    Field::string("error_message")
                        .default(Preset::String("API rate limit exceeded")),
                    Field::number("sync_rate")
                        .required()
                        .default(Preset::Integer(-1)),
                    periods::EXTENSION,
                ],
            )
            .required()
            .check(&[Check::Record(agree)])
            .shorthands(redis::EARLIER_NAMES),
        ],
        entity_checks: &[
            EntityCheck::AtLeastOneOf(&[
                "config.second",
                "config.minute",
                "config.hour",
                "config.day",
                "config.month",
                "config.year",
            ]),
            redis::HOST_NEEDED,
            redis::PORT_NEEDED,
            redis::TIMEOUT_NEEDED,
            EntityCheck::Conditional {
                if_field: "config.limit_by",
                if_match: Match::Is("header"),
                then_field: "config.header_name",
                then_match: Match::NotNull,
            },
            EntityCheck::Conditional {
                if_field: "config.limit_by",
                if_match: Match::Is("path"),
                then_field: "config.path",
                then_match: Match::NotNull,
            },
        ],
    },
};

/// Whether the limits are in order, and `sync_rate` is one that the policy can have.
fn agree(config: &Row) -> Result<(), String> {
    if let Some(limits) = periods::out_of_order(config) {
        return Err(format!("The limit for {limits}"));
    }
    periods::share_of_local(config)?;
    let sync_rate = config.get("sync_rate").and_then(serde_json::Value::as_f64);
    let sync_rate = sync_rate.filter(|rate| *rate != AT_ONCE);
    let uses_redis = config.get("policy").is_some_and(|policy| policy == "redis");
    match sync_rate {
        Some(_) if !uses_redis => Err("sync_rate can only be used with the redis policy".into()),
        Some(rate) if rate < LEAST_SYNC_RATE => {
            Err("sync_rate must be greater than 0.02, or -1 to disable".into())
        }
        _ => Ok(()),
    }
}

/// The settings of `rate-limiting`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// How many requests each period allows; at least one period has a limit.
    #[serde(flatten)]
    pub limits: PeriodLimits,
    /// Whose requests are counted together.
    pub limit_by: LimitBy,
    /// The header that identifies a client; given if they are told apart by one.
    pub header_name: Option<String>,
    /// The path whose requests are counted; given if they are counted by path.
    pub path: Option<String>,
    /// Where requests are counted.
    pub policy: Policy,
    /// Settings beyond Kong.
    #[serde(rename = "pointsman", default)]
    pub extension: Extension,
    /// Whether a request passes while requests cannot be counted.
    pub fault_tolerant: bool,
    /// The server of the policy `redis`.
    pub redis: Redis,
    /// Whether clients are not told their limits.
    pub hide_client_headers: bool,
    /// The status of a refused request.
    pub error_code: f64,
    /// The message of a refused request.
    pub error_message: String,
    /// How often counts are sent to the server, in seconds; with each request if negative.
    pub sync_rate: f64,
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
    /// Those for a service.
    Service,
    /// Those with one value of a header.
    Header,
    /// Those for one path.
    Path,
}
