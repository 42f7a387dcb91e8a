//! Which tries are repeated, for a service or a route: an extension of Kong, which has only
//! `retries`.

use serde::Deserialize;

use super::check;
use super::field::{Check, Field, Shape};

const STATUS: Field = Field::element(Shape::Integer).check(&[Check::Between(400, 599)]);
const METHOD: Field = Field::element(Shape::String).check(&[Check::Text(check::method)]);

/// The field `pointsman` of routes.
pub(super) const EXTENSION: &[Field] = &[FIELD];

/// The field `retry` within it.
pub(super) const FIELD: Field = Field::optional_record(
    "retry",
    &[
        Field::set("statuses", &STATUS),
        Field::set("methods", &METHOD),
        Field::integer("per_try_timeout").check(&[Check::Between(1, 2_147_483_646)]),
        Field::number("budget_percent").check(&[Check::Between(0, 100)]),
        Field::integer("min_retry_concurrency").check(&[Check::Between(0, 2_147_483_647)]),
    ],
);

/// The extensions beyond Kong.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Which tries are repeated.
    pub retry: Retry,
}

/// Which tries are repeated, as many times as `retries` of the service says.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Statuses that lead to another try while one is left; none for those of Kong, which has none.
    pub statuses: Option<Vec<u16>>,
    /// Methods that may be sent again after a request was sent; none for all but POST, PATCH and
    /// LOCK.
    pub methods: Option<Vec<String>>,
    /// Longest time from the choice of an endpoint to the head of its response, in milliseconds.
    pub per_try_timeout: Option<u64>,
    /// Retries in flight, as a percentage of requests in flight; none for the value of the
    /// upstream. With 0 there is no limit.
    pub budget_percent: Option<f64>,
    /// Retries in flight that are always allowed; none for the value of the upstream.
    pub min_retry_concurrency: Option<u32>,
}
