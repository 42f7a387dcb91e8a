//! `statsd`: sends metrics of each request to a StatsD server. Source: Kong 3.9, `statsd`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::queue::{self, Queue};
use super::{PROTOCOLS, PluginKind, host, port};
use crate::entity::field::{Check, Field, Preset, Shape, TextPattern};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, Match};

const METRIC: Field = Field::element(Shape::Record(&[
    Field::string("name").required().check(&[Check::OneOf(&[
        "kong_latency",
        "latency",
        "request_count",
        "request_per_user",
        "request_size",
        "response_size",
        "status_count",
        "status_count_per_user",
        "unique_users",
        "upstream_latency",
        "status_count_per_workspace",
        "status_count_per_user_per_route",
        "shdict_usage",
    ])]),
    Field::string("stat_type")
        .required()
        .check(&[Check::OneOf(&[
            "counter",
            "gauge",
            "histogram",
            "meter",
            "set",
            "timer",
        ])]),
    Field::number("sample_rate").check(&[Check::GreaterThan(0)]),
    Field::string("consumer_identifier").check(CONSUMER_IDENTIFIER),
    Field::string("service_identifier").check(SERVICE_IDENTIFIER),
    Field::string("workspace_identifier").check(WORKSPACE_IDENTIFIER),
]))
.entity_checks(&[EntityCheck::Conditional {
    if_field: "stat_type",
    if_match: Match::OneOf(&["counter", "gauge"]),
    then_field: "sample_rate",
    then_match: Match::NotNull,
}]);

const CONSUMER_IDENTIFIER: &[Check] = &[Check::OneOf(&["consumer_id", "custom_id", "username"])];

const SERVICE_IDENTIFIER: &[Check] = &[Check::OneOf(&[
    "service_id",
    "service_name",
    "service_host",
    "service_name_or_host",
])];

const WORKSPACE_IDENTIFIER: &[Check] = &[Check::OneOf(&["workspace_id", "workspace_name"])];

const STATUSES: Field = Field::element(Shape::String).check(STATUS_RANGE);

const STATUS_RANGE: &[Check] = &[Check::Matches(&TextPattern {
    lua: "^[0-9]+-[0-9]+$",
    holds: |text| {
        let is_number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('-')
            .is_some_and(|(first, last)| is_number(first) && is_number(last))
    },
    message: None,
})];

pub(super) static KIND: PluginKind = PluginKind {
    priority: 11,
    is_gate: false,
    schema: Subschema {
        name: "statsd",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    host().default(Preset::String("localhost")),
                    port().default(Preset::Integer(8125)),
                    Field::string("prefix").default(Preset::String("kong")),
                    Field::array("metrics", &METRIC).default(Preset::Computed(all_metrics)),
                    Field::array("allow_status_codes", &STATUSES),
                    Field::number("udp_packet_size")
                        .default(Preset::Integer(0))
                        .check(&[Check::Between(0, 65507)]),
                    Field::boolean("use_tcp").default(Preset::Boolean(false)),
                    Field::boolean("hostname_in_prefix").default(Preset::Boolean(false)),
                    Field::string("consumer_identifier_default")
                        .required()
                        .default(Preset::String("custom_id"))
                        .check(CONSUMER_IDENTIFIER),
                    Field::string("service_identifier_default")
                        .required()
                        .default(Preset::String("service_name_or_host"))
                        .check(SERVICE_IDENTIFIER),
                    Field::string("workspace_identifier_default")
                        .required()
                        .default(Preset::String("workspace_id"))
                        .check(WORKSPACE_IDENTIFIER),
                    queue::RETRY_COUNT,
                    queue::QUEUE_SIZE,
                    queue::FLUSH_TIMEOUT,
                    Field::string("tag_style").check(&[Check::OneOf(&[
                        "dogstatsd",
                        "influxdb",
                        "librato",
                        "signalfx",
                    ])]),
                    queue::RECORD,
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The metrics that are sent if a request names none: each once.
fn all_metrics() -> Value {
    let metrics = [
        ("request_count", "counter", Some(1)),
        ("latency", "timer", None),
        ("request_size", "counter", Some(1)),
        ("status_count", "counter", Some(1)),
        ("response_size", "counter", Some(1)),
        ("unique_users", "set", None),
        ("request_per_user", "counter", Some(1)),
        ("upstream_latency", "timer", None),
        ("kong_latency", "timer", None),
        ("status_count_per_user", "counter", Some(1)),
        ("status_count_per_workspace", "counter", Some(1)),
        ("status_count_per_user_per_route", "counter", Some(1)),
        ("shdict_usage", "gauge", Some(1)),
    ];
    let metrics = metrics.into_iter().map(|(name, stat_type, sample_rate)| {
        json!({
            "name": name,
            "stat_type": stat_type,
            "sample_rate": sample_rate,
            "consumer_identifier": null,
            "service_identifier": null,
            "workspace_identifier": null,
        })
    });
    metrics.collect()
}

/// The settings of `statsd`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The name or address of the server.
    pub host: String,
    /// The port of the server.
    pub port: u16,
    /// What the name of each metric begins with.
    pub prefix: String,
    /// The metrics that are sent.
    pub metrics: Vec<Metric>,
    /// The ranges of statuses, as `200-299`, of requests whose metrics are sent; all if none are
    /// named.
    pub allow_status_codes: Option<Vec<String>>,
    /// The size up to which metrics are sent together in a datagram, in bytes; one metric in each
    /// if zero.
    pub udp_packet_size: f64,
    /// Whether metrics are sent by TCP.
    pub use_tcp: bool,
    /// Whether the prefix has the name of the machine.
    pub hostname_in_prefix: bool,
    /// What stands for a consumer if a metric does not say.
    pub consumer_identifier_default: ConsumerIdentifier,
    /// What stands for a service if a metric does not say.
    pub service_identifier_default: ServiceIdentifier,
    /// What stands for the workspace if a metric does not say.
    pub workspace_identifier_default: WorkspaceIdentifier,
    /// See [`Queue::with_earlier_fields`].
    pub queue_size: Option<i64>,
    /// See [`Queue::with_earlier_fields`].
    pub flush_timeout: Option<f64>,
    /// The form of tags; without one, what they would say is in the names of metrics.
    pub tag_style: Option<TagStyle>,
    /// How metrics wait to be sent; read through [`Config::queue`].
    queue: Queue,
}

impl Config {
    /// How metrics wait to be sent.
    pub fn queue(&self) -> Queue {
        let (size, timeout) = (self.queue_size, self.flush_timeout);
        self.queue.with_earlier_fields(size, timeout)
    }
}

/// A metric that is sent.
#[derive(Debug, Clone, Deserialize)]
pub struct Metric {
    /// What is measured.
    pub name: MetricName,
    /// How the server counts it.
    pub stat_type: StatType,
    /// The share of events that the server is told to assume.
    pub sample_rate: Option<f64>,
    /// What stands for a consumer.
    pub consumer_identifier: Option<ConsumerIdentifier>,
    /// What stands for a service.
    pub service_identifier: Option<ServiceIdentifier>,
    /// What stands for the workspace.
    pub workspace_identifier: Option<WorkspaceIdentifier>,
}

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum MetricName {
    KongLatency,
    Latency,
    RequestCount,
    RequestPerUser,
    RequestSize,
    ResponseSize,
    StatusCount,
    StatusCountPerUser,
    UniqueUsers,
    UpstreamLatency,
    StatusCountPerWorkspace,
    StatusCountPerUserPerRoute,
    ShdictUsage,
}

/// How the server counts a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum StatType {
    Counter,
    Gauge,
    Histogram,
    Meter,
    Set,
    Timer,
}

/// What stands for a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ConsumerIdentifier {
    ConsumerId,
    CustomId,
    Username,
}

/// What stands for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ServiceIdentifier {
    ServiceId,
    ServiceName,
    ServiceHost,
    ServiceNameOrHost,
}

/// What stands for the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum WorkspaceIdentifier {
    WorkspaceId,
    WorkspaceName,
}

/// The form of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum TagStyle {
    Dogstatsd,
    Influxdb,
    Librato,
    Signalfx,
}
