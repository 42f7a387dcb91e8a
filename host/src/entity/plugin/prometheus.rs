//! `prometheus`: which metrics of requests are kept. Source: Kong 3.9, `prometheus`.

use serde::Deserialize;

use super::{PROTOCOLS, PluginKind};
use crate::entity::field::{Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 13,
    is_gate: false,
    schema: Subschema {
        name: "prometheus",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    off("per_consumer"),
                    off("status_code_metrics"),
                    off("ai_metrics"),
                    off("latency_metrics"),
                    off("bandwidth_metrics"),
                    off("upstream_health_metrics"),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

const fn off(name: &'static str) -> Field {
    Field::boolean(name).default(Preset::Boolean(false))
}

/// The settings of `prometheus`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Whether metrics are kept for each consumer.
    pub per_consumer: bool,
    /// Whether requests are counted by their status.
    pub status_code_metrics: bool,
    /// Whether requests to language models are counted.
    pub ai_metrics: bool,
    /// Whether latencies are kept.
    pub latency_metrics: bool,
    /// Whether the bytes of requests and responses are counted.
    pub bandwidth_metrics: bool,
    /// Whether the health of targets is shown.
    pub upstream_health_metrics: bool,
}
