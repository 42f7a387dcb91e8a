//! `prometheus`: counts requests and streams for `GET /metrics`. Source: Kong 3.9, `prometheus`.
//!
//! A worker counts in series of its own, by the ids of entities: one hash look-up, and no lock.
//! Names are looked up when the page is read. What is counted for an entity that was deleted since
//! is removed then, and there is a bound for what may be counted between two readings.

mod counts;
mod histogram;
mod page;
mod series;
mod shards;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use uuid::Uuid;

use super::record::LogRecord;
use super::{DryRun, Policy};
use crate::entity::plugin::prometheus::Config;
use shards::{Key, Shards};

/// Counts requests.
#[derive(Debug)]
pub(super) struct Prometheus {
    config: Config,
    metrics: Arc<Metrics>,
    /// Counts the plugins of this kind.
    _counted: Arc<()>,
}

impl Prometheus {
    pub(super) fn new(config: Config, metrics: &Arc<Metrics>) -> Self {
        Self {
            config,
            metrics: Arc::clone(metrics),
            _counted: Arc::clone(&metrics.plugins),
        }
    }
}

impl Policy for Prometheus {
    fn dry_run(&self) -> DryRun {
        DryRun::Idle
    }

    fn record(&self, record: &LogRecord) {
        // A request or a stream without a route is not counted. Source: Kong.
        if let Some(route) = record.route() {
            self.metrics.count(&self.config, record, route);
        }
    }

    fn records(&self) -> bool {
        let Config {
            status_code_metrics,
            latency_metrics,
            bandwidth_metrics,
            ..
        } = self.config;
        status_code_metrics || latency_metrics || bandwidth_metrics
    }
}

/// What all plugins of this kind have counted.
#[derive(Debug, Default)]
pub struct Metrics {
    shards: Shards,
    /// What was not counted, because a thread had too many series.
    errors: AtomicU64,
    /// Whether a scraper has asked for exemplars. Until then, none are kept.
    wants_exemplars: AtomicBool,
    /// One reference of it belongs to the metrics, and one to each plugin.
    plugins: Arc<()>,
}

impl Metrics {
    /// Whether there is a plugin of this kind.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.plugins) > 1
    }

    fn count(&self, config: &Config, record: &LogRecord, route: Uuid) {
        let common = Key {
            route,
            is_stream: matches!(record, LogRecord::Stream(_)),
            service: record.service(),
            consumer: None,
        };
        let own = Key {
            consumer: record.consumer().filter(|_| config.per_consumer),
            ..common
        };
        let mut are_counted = true;
        if config.status_code_metrics || config.bandwidth_metrics {
            are_counted &= self.shards.with(own, |series| {
                if config.status_code_metrics {
                    series.count_outcome(record);
                }
                if config.bandwidth_metrics {
                    series.count_bytes(record.received(), record.sent());
                }
            });
        }
        if config.latency_metrics {
            let wants_exemplars = self.wants_exemplars.load(Ordering::Relaxed);
            // Latencies are not kept for each consumer. Source: Kong.
            are_counted &= self.shards.with(common, |series| {
                series.observe(record, wants_exemplars);
            });
        }
        if !are_counted {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}
