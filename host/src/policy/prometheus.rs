//! `prometheus`: counts requests and streams for `GET /metrics`. Source: Kong 3.9, `prometheus`.
//!
//! A worker counts in a shard of its own, by the ids of entities: one hash look-up behind a lock
//! that only a reader of the page ever contends. Names are looked up when the page is read. What is
//! counted for an entity that was deleted since is removed then, and there is a bound for what may
//! be counted between two readings.

mod page;
mod series;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use super::Policy;
use super::record::LogRecord;
use crate::entity::plugin::prometheus::Config;
use series::Series;

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

/// Number of shards. Threads share them if there are more threads.
const SHARDS: usize = 64;

/// Most keys of a shard. What would need another one is not counted.
const MOST_KEYS: usize = 100_000;

/// How many keys a reader looks at while it holds the lock of a shard, for which a worker waits.
const STEP: usize = 256;

/// What all plugins of this kind have counted.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Shard>,
    /// What was not counted, because a shard was full.
    errors: AtomicU64,
    /// One reference of it belongs to the metrics, and one to each plugin.
    plugins: Arc<()>,
}

/// The figures of some threads, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<foldhash::HashMap<Key, Series>>);

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    route: Uuid,
    service: Option<Uuid>,
    /// The consumer, with `per_consumer`.
    consumer: Option<Uuid>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            errors: AtomicU64::new(0),
            plugins: Arc::default(),
        }
    }
}

impl Metrics {
    /// Whether there is a plugin of this kind.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.plugins) > 1
    }

    /// The shard of this thread.
    fn shard(&self) -> &Shard {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let number = NUMBER.with(|number| *number);
        &self.shards[number % SHARDS]
    }

    fn count(&self, config: &Config, record: &LogRecord, route: Uuid) {
        let is_stream = matches!(record, LogRecord::Stream(_));
        let common = Key {
            route,
            service: record.service(),
            consumer: None,
        };
        let own = Key {
            consumer: record.consumer().filter(|_| config.per_consumer),
            ..common
        };
        let mut shard = self.shard().0.lock();
        let mut change = |key: Key, change: &dyn Fn(&mut Series)| {
            if shard.len() >= MOST_KEYS && !shard.contains_key(&key) {
                self.errors.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let series = shard.entry(key).or_default();
            series.is_stream = is_stream;
            change(series);
        };
        if config.status_code_metrics || config.bandwidth_metrics {
            change(own, &|series| {
                if config.status_code_metrics {
                    series.count_status(record.status(), record.source());
                }
                if config.bandwidth_metrics {
                    series.count_bytes(record.received(), record.sent());
                }
            });
        }
        if config.latency_metrics {
            // Latencies are not kept for each consumer. Source: Kong.
            change(common, &|series| {
                series.count_latencies(&record.latencies())
            });
        }
    }

    /// All figures, joined over the shards.
    fn all(&self) -> HashMap<Key, Series> {
        let mut all: HashMap<Key, Series> = HashMap::new();
        for shard in &self.shards {
            let keys: Vec<Key> = shard.0.lock().keys().copied().collect();
            for step in keys.chunks(STEP) {
                for (key, series) in shard.copy(step) {
                    all.entry(key).or_default().add(&series);
                }
            }
        }
        all
    }

    fn forget(&self, gone: &[Key]) {
        for shard in &self.shards {
            for step in gone.chunks(STEP) {
                let mut shard = shard.0.lock();
                for key in step {
                    shard.remove(key);
                }
            }
        }
    }
}

impl Shard {
    /// The figures of some keys.
    fn copy(&self, keys: &[Key]) -> Vec<(Key, Series)> {
        let shard = self.0.lock();
        let series = keys
            .iter()
            .filter_map(|key| Some((*key, shard.get(key)?.clone())));
        series.collect()
    }
}
