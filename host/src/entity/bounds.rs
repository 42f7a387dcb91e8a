//! Bounds on a canary of a balancer, and on a rollout.

use serde::Deserialize;

use super::field::{Check, Field, Preset};

pub(super) const NOT_NEGATIVE: &[Check] = &[Check::Between(0, 2_147_483_647)];
pub(super) const PERCENT: &[Check] = &[Check::Between(0, 100)];

// The fields of a request. A bound that is null is not judged.
pub(super) const MAX_ERROR_PERCENT: Field = Field::number("max_error_percent").check(PERCENT);
pub(super) const MAX_ERROR_RATIO: Field = Field::number("max_error_ratio").check(NOT_NEGATIVE);
pub(super) const MAX_P99_MS: Field = Field::number("max_p99_ms").check(NOT_NEGATIVE);
pub(super) const MAX_P99_RATIO: Field = Field::number("max_p99_ratio").check(NOT_NEGATIVE);
pub(super) const MIN_REQUESTS: Field = Field::integer("min_requests")
    .required()
    .default(Preset::Integer(100))
    .check(&[Check::Between(1, 2_147_483_647)]);
// In seconds; a year at most.
pub(super) const DURATION: Field =
    Field::number("duration").check(&[Check::Between(0, 31_536_000)]);
pub(super) const PROMOTE: Field = Field::boolean("promote")
    .required()
    .default(Preset::Boolean(false));

/// What is judged of the requests of a trial, and of those that it is compared with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Bounds {
    /// Bound on its error rate: failed requests among all of its requests, in percent, 0 to 100.
    pub max_error_percent: Option<f64>,
    /// Bound on its error rate, as a multiple of that of the others.
    pub max_error_ratio: Option<f64>,
    /// Longest p99 of the time until the head of the response, in milliseconds.
    pub max_p99_ms: Option<f64>,
    /// Bound on its p99, as a multiple of that of the others.
    pub max_p99_ratio: Option<f64>,
    /// Requests before anything is judged: of the trial, and of the others where the two are
    /// compared.
    pub min_requests: u64,
}

impl Bounds {
    /// Whether the trial is compared with the others, who must then have requests as well.
    pub fn is_compared(&self) -> bool {
        self.max_error_ratio.or(self.max_p99_ratio).is_some()
    }

    /// Whether there is a bound.
    pub fn is_any(&self) -> bool {
        let absolute = self.max_error_percent.or(self.max_p99_ms);
        absolute.is_some() || self.is_compared()
    }
}
