//! The metrics of a request as lines of StatsD. Source: Kong 3.9, `kong/plugins/statsd/log.lua`.

use serde_json::Value;

use crate::entity::plugin::statsd::{
    Config, ConsumerIdentifier, Metric, MetricName, ServiceIdentifier, StatType, TagStyle,
    WorkspaceIdentifier,
};
use crate::entity::{Kind, Row};
use crate::policy::logs::document::{Documents, WORKSPACE, WORKSPACE_NAME, millis};
use crate::policy::record::LogRecord;

/// The entities of a request, as far as it has them and they still exist.
#[derive(Debug, Default)]
pub(super) struct Entities {
    pub(super) route: Option<Row>,
    pub(super) service: Option<Row>,
    pub(super) consumer: Option<Row>,
}

impl Entities {
    pub(super) fn of(record: &LogRecord, documents: &Documents) -> Self {
        let entity = |kind, id: Option<_>| documents.entity(kind, id?);
        Self {
            route: entity(Kind::Route, record.route()),
            service: entity(Kind::Service, record.service()),
            consumer: entity(Kind::Consumer, record.consumer()),
        }
    }
}

/// The lines of a request or of a stream. `machine` is the name of this machine.
pub(super) fn of(
    config: &Config,
    machine: &str,
    record: &LogRecord,
    entities: &Entities,
) -> Vec<String> {
    let lines = Lines {
        config,
        machine,
        record,
        entities,
    };
    let metrics = config.metrics.iter();
    metrics.filter_map(|metric| lines.line(metric)).collect()
}

/// A text field of an entity.
fn text<'r>(row: Option<&'r Row>, field: &str) -> Option<&'r str> {
    row?.get(field).and_then(Value::as_str)
}

struct Lines<'a> {
    config: &'a Config,
    machine: &'a str,
    record: &'a LogRecord,
    entities: &'a Entities,
}

impl Lines<'_> {
    /// The line of a metric, if it is sent for this request.
    fn line(&self, metric: &Metric) -> Option<String> {
        let record = self.record;
        let (status, latencies) = (record.status(), record.latencies());
        let untagged = self.config.tag_style.is_none();
        // What the tags say is not in the name.
        let scope = match untagged {
            true => format!("{}.", self.scope(metric)),
            false => String::new(),
        };
        let user = || self.consumer(metric).filter(|_| untagged);
        let latency = |name: &str, value: i64| {
            (value >= 0).then(|| (format!("{scope}{name}"), value.to_string()))
        };
        let one = || "1".to_owned();
        let (name, value) = match metric.name {
            MetricName::RequestCount => (format!("{scope}request.count"), one()),
            MetricName::RequestSize => (
                format!("{scope}request.size"),
                record.received().to_string(),
            ),
            MetricName::ResponseSize => {
                (format!("{scope}response.size"), record.sent().to_string())
            }
            MetricName::Latency => latency("latency", millis(latencies.total))?,
            MetricName::KongLatency => latency("kong_latency", millis(latencies.gateway))?,
            MetricName::UpstreamLatency => {
                latency("upstream_latency", latencies.upstream.map_or(-1, millis))?
            }
            MetricName::StatusCount if untagged => (format!("{scope}status.{status}"), one()),
            MetricName::StatusCountPerWorkspace if untagged => {
                let workspace = self.workspace(metric);
                (
                    format!("{scope}workspace.{workspace}.status.{status}"),
                    one(),
                )
            }
            MetricName::UniqueUsers => (format!("{scope}user.uniques"), user()?),
            MetricName::RequestPerUser => (format!("{scope}user.{}.request.count", user()?), one()),
            MetricName::StatusCountPerUser => {
                (format!("{scope}user.{}.status.{status}", user()?), one())
            }
            MetricName::StatusCountPerUserPerRoute => {
                let (route, user) = (text(self.entities.route.as_ref(), "id")?, user()?);
                (format!("route.{route}.user.{user}.status.{status}"), one())
            }
            // There are no shared dictionaries of Lua here.
            MetricName::ShdictUsage
            | MetricName::StatusCount
            | MetricName::StatusCountPerWorkspace => return None,
        };
        let stat_type = match metric.name {
            MetricName::UniqueUsers => StatType::Set,
            MetricName::RequestPerUser
            | MetricName::StatusCount
            | MetricName::StatusCountPerUser
            | MetricName::StatusCountPerUserPerRoute
            | MetricName::StatusCountPerWorkspace => StatType::Counter,
            _ => metric.stat_type,
        };
        let kind = match stat_type {
            StatType::Counter => "c",
            StatType::Gauge => "g",
            StatType::Histogram => "h",
            StatType::Meter => "m",
            StatType::Set => "s",
            StatType::Timer => "ms",
        };
        // The server is told of the rate only: each event is sent.
        let is_sampled = |rate: &f64| *rate != 1.0 && stat_type != StatType::Set;
        let rate = metric.sample_rate.filter(is_sampled);
        let rate = rate.map_or_else(String::new, |rate| format!("|@{rate}"));
        let name = format!("{}.{name}", self.prefix());
        let tags = self.tags(metric);
        let joined = |equals: &str| {
            let tags = tags
                .iter()
                .map(|(name, value)| format!("{name}{equals}{value}"));
            tags.collect::<Vec<_>>().join(",")
        };
        Some(match self.config.tag_style.filter(|_| !tags.is_empty()) {
            None => format!("{name}:{value}|{kind}{rate}"),
            Some(TagStyle::Dogstatsd) => format!("{name}:{value}|{kind}{rate}|#{}", joined(":")),
            Some(TagStyle::Influxdb) => format!("{name},{}:{value}|{kind}{rate}", joined("=")),
            Some(TagStyle::Librato) => format!("{name}#{}:{value}|{kind}{rate}", joined("=")),
            Some(TagStyle::Signalfx) => format!("{name}[{}]:{value}|{kind}{rate}", joined("=")),
        })
    }

    fn prefix(&self) -> String {
        let prefix = &self.config.prefix;
        if self.config.hostname_in_prefix && self.config.tag_style.is_none() {
            let machine = self.machine.replace('.', "_");
            return format!("{prefix}.node.{machine}");
        }
        prefix.clone()
    }

    fn scope(&self, metric: &Metric) -> String {
        if self.record.service().is_none() {
            return "global.unmatched".into();
        }
        let service = self.service(metric).map(|name| name.replace('.', "_"));
        format!("service.{}", service.as_deref().unwrap_or("unnamed"))
    }

    fn service(&self, metric: &Metric) -> Option<String> {
        let service = self.entities.service.as_ref();
        let by = metric.service_identifier;
        let found = match by.unwrap_or(self.config.service_identifier_default) {
            ServiceIdentifier::ServiceId => text(service, "id"),
            ServiceIdentifier::ServiceName => text(service, "name"),
            ServiceIdentifier::ServiceHost => text(service, "host"),
            ServiceIdentifier::ServiceNameOrHost => {
                text(service, "name").or_else(|| text(service, "host"))
            }
        };
        found.map(clean)
    }

    fn consumer(&self, metric: &Metric) -> Option<String> {
        let by = metric.consumer_identifier;
        let field = match by.unwrap_or(self.config.consumer_identifier_default) {
            ConsumerIdentifier::ConsumerId => "id",
            ConsumerIdentifier::CustomId => "custom_id",
            ConsumerIdentifier::Username => "username",
        };
        text(self.entities.consumer.as_ref(), field).map(clean)
    }

    fn workspace(&self, metric: &Metric) -> String {
        let by = metric.workspace_identifier;
        match by.unwrap_or(self.config.workspace_identifier_default) {
            WorkspaceIdentifier::WorkspaceId => WORKSPACE.to_string(),
            WorkspaceIdentifier::WorkspaceName => WORKSPACE_NAME.to_owned(),
        }
    }

    /// The tags; none for a request without a service. Source: Kong.
    fn tags(&self, metric: &Metric) -> Vec<(&'static str, String)> {
        if self.config.tag_style.is_none() || self.record.service().is_none() {
            return Vec::new();
        }
        let route = self.entities.route.as_ref();
        let route = text(route, "name").or_else(|| text(route, "id"));
        let tags = [
            ("service", self.service(metric)),
            ("route", route.map(clean)),
            ("workspace", Some(self.workspace(metric))),
            ("consumer", self.consumer(metric)),
            ("node", Some(clean(self.machine))),
            ("status", Some(self.record.status().to_string())),
        ];
        let present = tags
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        present.collect()
    }
}

/// A name without the characters that separate the parts of a line.
fn clean(name: &str) -> String {
    let separates =
        |c: char| matches!(c, ':' | '|' | '@' | '#' | ',' | '=' | '[' | ']') || c.is_control();
    name.replace(separates, "_")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests;
