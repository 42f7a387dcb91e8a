//! What an upstream hashes on, and how its algorithm depends on that. Source: Kong 3.9.

use serde_json::Value;

use super::KONG_ALGORITHMS;
use crate::entity::{EntityCheck, Match, Row};

/// Kong couples `algorithm` and `hash_on`. An operator's own balancer is exempt: it may use the
/// hash or not.
pub(super) fn couple(input: &mut Row, old: Option<&Row>) {
    let algorithm = input.get("algorithm").and_then(Value::as_str);
    let in_force = algorithm.or_else(|| old?.get("algorithm")?.as_str());
    if !in_force.is_none_or(|name| KONG_ALGORITHMS.contains(&name)) {
        return;
    }
    if matches!(algorithm, Some("least-connections" | "latency")) {
        input.insert("hash_on".into(), "none".into());
        return;
    }
    match input.get("hash_on") {
        None => {}
        Some(Value::Null) => {
            input.insert("hash_on".into(), "none".into());
        }
        // Independent of the old algorithm.
        Some(Value::String(on)) if on == "none" => {
            input.insert("algorithm".into(), "round-robin".into());
        }
        Some(_) => {
            input.insert("algorithm".into(), "consistent-hashing".into());
        }
    }
}

/// Sets the algorithm of a whole row; Kong does it whenever it reads one. An upstream that hashes
/// on nothing gets `round-robin`, one that hashes on something `consistent-hashing`.
pub(super) fn settle(row: &mut Row) {
    let algorithm = text(row, "algorithm");
    if !KONG_ALGORITHMS.contains(&algorithm) {
        return;
    }
    let (field, settled) = match (algorithm, text(row, "hash_on")) {
        ("least-connections" | "latency", _) => ("hash_on", "none"),
        (_, "none") => ("algorithm", "round-robin"),
        _ => ("algorithm", "consistent-hashing"),
    };
    row.insert(field.into(), settled.into());
}

fn text<'r>(row: &'r Row, field: &str) -> &'r str {
    row.get(field).and_then(Value::as_str).unwrap_or("none")
}

/// A source of the hash that has a name needs that name.
const fn named(
    field: &'static str,
    on: &'static [&'static str],
    name: &'static str,
) -> EntityCheck {
    EntityCheck::Conditional {
        if_field: field,
        if_match: Match::OneOf(on),
        then_field: name,
        then_match: Match::NotNull,
    }
}

/// The allowed values of `hash_fallback` depend on `hash_on`, in Kong's order.
const fn fallback(on: &'static [&'static str], allowed: &'static [&'static str]) -> EntityCheck {
    EntityCheck::Conditional {
        if_field: "hash_on",
        if_match: Match::OneOf(on),
        then_field: "hash_fallback",
        then_match: Match::OneOf(allowed),
    }
}

/// The rules across the fields that define the hash. Two sources may be of the same kind if their
/// names differ.
pub(super) const ENTITY_CHECKS: &[EntityCheck] = &[
    fallback(&["none", "cookie"], &["none"]),
    fallback(
        &["consumer"],
        &[
            "none",
            "ip",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
    ),
    fallback(
        &["ip"],
        &[
            "none",
            "consumer",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
    ),
    fallback(
        &["path"],
        &[
            "none",
            "consumer",
            "header",
            "cookie",
            "query_arg",
            "ip",
            "uri_capture",
        ],
    ),
    named("hash_on", &["header"], "hash_on_header"),
    named("hash_on", &["cookie"], "hash_on_cookie"),
    named("hash_on", &["query_arg"], "hash_on_query_arg"),
    named("hash_on", &["uri_capture"], "hash_on_uri_capture"),
    named("hash_fallback", &["header"], "hash_fallback_header"),
    named("hash_fallback", &["cookie"], "hash_on_cookie"),
    named("hash_fallback", &["query_arg"], "hash_fallback_query_arg"),
    named(
        "hash_fallback",
        &["uri_capture"],
        "hash_fallback_uri_capture",
    ),
    // Kong ties sessions to endpoints with a cookie, which needs a name. Source: Kong Enterprise
    // 3.11.
    named("algorithm", &["sticky-sessions"], "sticky_sessions_cookie"),
    EntityCheck::Distinct(&["hash_on_header", "hash_fallback_header"]),
    EntityCheck::Distinct(&["hash_on_query_arg", "hash_fallback_query_arg"]),
    EntityCheck::Distinct(&["hash_on_uri_capture", "hash_fallback_uri_capture"]),
];
