//! The record `queue`: how entries wait to be sent, and how often a failed sending is tried again.
//! Source: Kong 3.9, `kong.tools.queue`.

use serde::Deserialize;
use serde_json::json;

use crate::entity::field::{Check, Deprecation, Field, Preset};

/// The largest number of entries, and of seconds between tries.
const MAX_NUMBER: i64 = 1_000_000;

const DELAY: &[Check] = &[Check::BetweenNumbers(0.001, MAX_NUMBER as f64)];

/// The record.
pub(super) const RECORD: Field = Field::record(
    "queue",
    &[
        Field::integer("max_batch_size")
            .default(Preset::Integer(1))
            .check(&[Check::Between(1, MAX_NUMBER)]),
        Field::number("max_coalescing_delay")
            .default(Preset::Integer(1))
            .check(&[Check::Between(0, 3600)]),
        Field::integer("max_entries")
            .default(Preset::Integer(10_000))
            .check(&[Check::Between(1, MAX_NUMBER)]),
        Field::integer("max_bytes"),
        Field::number("max_retry_time").default(Preset::Integer(60)),
        Field::number("initial_retry_delay")
            .default(Preset::Number(0.01))
            .check(DELAY),
        Field::number("max_retry_delay")
            .default(Preset::Integer(60))
            .check(DELAY),
        Field::integer("concurrency_limit")
            .default(Preset::Integer(1))
            .check(&[Check::OneOfIntegers(&[-1, 1])]),
    ],
)
.required();

/// The record for traces, which are sent many together. A record that names other fields alone has
/// the usual `max_batch_size`, as in Kong.
pub(super) const RECORD_OF_SPANS: Field =
    RECORD.default(Preset::Computed(|| json!({ "max_batch_size": 200 })));

/// Fields from before there was the record.
pub(super) const RETRY_COUNT: Field = Field::integer("retry_count").deprecated(Deprecation {
    message: "config.retry_count has no effect: use config.queue.max_retry_time",
    old_default: Some(10),
});

/// As above.
pub(super) const QUEUE_SIZE: Field = Field::integer("queue_size").deprecated(Deprecation {
    message: "config.queue_size is deprecated: use config.queue.max_batch_size",
    old_default: Some(OLD_QUEUE_SIZE),
});

/// As above.
pub(super) const FLUSH_TIMEOUT: Field = Field::number("flush_timeout").deprecated(Deprecation {
    message: "config.flush_timeout is deprecated: use config.queue.max_coalescing_delay",
    old_default: Some(OLD_FLUSH_TIMEOUT),
});

/// The value of `queue_size` that changes nothing.
const OLD_QUEUE_SIZE: i64 = 1;

/// The value of `flush_timeout` that changes nothing.
const OLD_FLUSH_TIMEOUT: i64 = 2;

/// How entries wait to be sent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Queue {
    /// How many entries are sent together.
    pub max_batch_size: i64,
    /// How long an entry waits for others to be sent with, in seconds.
    pub max_coalescing_delay: f64,
    /// How many entries may wait.
    pub max_entries: i64,
    /// How many bytes of text may wait; any number if none.
    pub max_bytes: Option<i64>,
    /// How long a failed sending is tried again, in seconds; not at all if not positive.
    pub max_retry_time: f64,
    /// The time to the first further try, in seconds. It doubles with each try.
    pub initial_retry_delay: f64,
    /// The longest time between two tries, in seconds.
    pub max_retry_delay: f64,
    /// How many sendings there are at a time: 1, or any number if -1; then no entry waits.
    pub concurrency_limit: i64,
}

impl Queue {
    /// The record with the fields that were used before there was the record. They take precedence
    /// where they differ from their old defaults. Source: Kong.
    #[must_use]
    pub fn with_earlier_fields(&self, queue_size: Option<i64>, flush_timeout: Option<f64>) -> Self {
        let size = queue_size.filter(|size| *size != OLD_QUEUE_SIZE);
        let delay = flush_timeout.filter(|delay| *delay != OLD_FLUSH_TIMEOUT as f64);
        Self {
            max_batch_size: size.unwrap_or(self.max_batch_size),
            max_coalescing_delay: delay.unwrap_or(self.max_coalescing_delay),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_field_counts_if_it_differs_from_its_old_default() {
        let queue = Queue {
            max_batch_size: 7,
            max_coalescing_delay: 3.0,
            max_entries: 10_000,
            max_bytes: None,
            max_retry_time: 60.0,
            initial_retry_delay: 0.01,
            max_retry_delay: 60.0,
            concurrency_limit: 1,
        };
        assert_eq!(queue.with_earlier_fields(None, None), queue);
        assert_eq!(queue.with_earlier_fields(Some(1), Some(2.0)), queue);
        let changed = queue.with_earlier_fields(Some(20), Some(0.5));
        assert_eq!(
            (changed.max_batch_size, changed.max_coalescing_delay),
            (20, 0.5)
        );
    }
}
