//! Limits for periods of the calendar, as both rate limiters have them. Source: Kong 3.9,
//! `rate-limiting` and `response-ratelimiting`.

use serde::Deserialize;

use crate::entity::Row;
use crate::entity::field::{Check, Field};

/// The names of the periods, the shortest first.
pub(super) const NAMES: &[&str] = &["second", "minute", "hour", "day", "month", "year"];

/// The limit for a period.
pub(super) const fn limit(period: &'static str) -> Field {
    Field::number(period).check(&[Check::GreaterThan(0)])
}

/// The fields of a record with nothing but limits.
pub(super) const FIELDS: &[Field] = &[
    limit("second"),
    limit("minute"),
    limit("hour"),
    limit("day"),
    limit("month"),
    limit("year"),
];

/// The first pair of limits of which the longer period has the lower one, as the rest of a
/// sentence that begins with "the limit for".
pub(super) fn out_of_order(limits: &Row) -> Option<String> {
    let limit = |name: &&'static str| Some((*name, limits.get(*name)?.as_f64()?));
    let given: Vec<(&str, f64)> = NAMES.iter().filter_map(limit).collect();
    given
        .iter()
        .enumerate()
        .find_map(|(place, (shorter, most))| {
            let (longer, least) = given[place + 1..].iter().find(|(_, limit)| limit < most)?;
            Some(format!(
                "{longer}({least:.1}) cannot be lower than the limit for {shorter}({most:.1})"
            ))
        })
}

/// A policy that counts is not stored if it counts in the database.
pub(super) fn where_to_count(policy: &str) -> Result<(), String> {
    if policy == "cluster" {
        return Err(
            "the policy 'cluster' counts in the database, which would be written with each \
             request: use 'redis' to count over all gateways, or 'local' to count at each one"
                .into(),
        );
    }
    Ok(())
}

/// Pointsman's own settings of both rate limiters.
pub(super) const EXTENSION: Field = Field::record(
    "pointsman",
    &[Field::string("share").check(&[Check::OneOf(&["nodes"])])],
)
.extension();

/// A share is of the limits of this gateway alone.
pub(super) fn share_of_local(config: &Row) -> Result<(), String> {
    let own = config.get("pointsman").and_then(|own| own.get("share"));
    let has_share = own.is_some_and(|share| !share.is_null());
    let is_local = config.get("policy").is_some_and(|policy| policy == "local");
    match has_share && !is_local {
        true => Err("pointsman.share can only be used with the local policy".into()),
        false => Ok(()),
    }
}

/// Settings beyond Kong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// What this gateway allows of each limit; none for all of it.
    pub share: Option<Share>,
}

/// A share of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// One of equal shares of the gateways that are alive.
    Nodes,
}

/// How many requests each period allows.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct PeriodLimits {
    /// In a second.
    pub second: Option<f64>,
    /// In a minute.
    pub minute: Option<f64>,
    /// In an hour.
    pub hour: Option<f64>,
    /// In a day.
    pub day: Option<f64>,
    /// In a month of the calendar.
    pub month: Option<f64>,
    /// In a year of the calendar.
    pub year: Option<f64>,
}

/// Where requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// In the memory of this gateway.
    Local,
    /// In a Redis server, for all gateways that use it.
    Redis,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(limits: Value) -> Option<String> {
        out_of_order(limits.as_object()?)
    }

    #[test]
    fn a_longer_period_does_not_have_a_lower_limit() {
        assert_eq!(said(json!({ "second": 1, "hour": 1, "year": 2.5 })), None);
        assert_eq!(
            said(json!({ "minute": 10, "hour": 5, "day": 1 })).as_deref(),
            Some("hour(5.0) cannot be lower than the limit for minute(10.0)")
        );
        assert_eq!(
            said(json!({ "second": null, "minute": 2, "hour": 3, "year": 1.5 })).as_deref(),
            Some("year(1.5) cannot be lower than the limit for minute(2.0)")
        );
    }
}
