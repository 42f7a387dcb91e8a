//! What an upstream hashes on, and what its algorithm has to do with that. Source: Kong 3.9.

use serde_json::Value;

use super::KONG_ALGORITHMS;
use crate::entity::{Row, Violations};

/// Kong ties `algorithm` and `hash_on` to each other. A balancer of one's own is not part of that: it
/// may use the hash or not.
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
        // Whatever the algorithm was.
        Some(Value::String(on)) if on == "none" => {
            input.insert("algorithm".into(), "round-robin".into());
        }
        Some(_) => {
            input.insert("algorithm".into(), "consistent-hashing".into());
        }
    }
}

/// The same for a whole row, which Kong does whenever it reads one: an upstream that hashes on nothing
/// takes turns, one that hashes on something hashes.
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

/// What `hash_fallback` may be depends on `hash_on`.
pub(super) fn fallback_fits(row: &Row, violations: &mut Violations) {
    let (on, fallback) = (text(row, "hash_on"), text(row, "hash_fallback"));
    // In Kong's order.
    let allowed: &[&str] = match on {
        "none" | "cookie" => &["none"],
        "consumer" => &[
            "none",
            "ip",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
        "ip" => &[
            "none",
            "consumer",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
        "path" => &[
            "none",
            "consumer",
            "header",
            "cookie",
            "query_arg",
            "ip",
            "uri_capture",
        ],
        // Of one kind there may be two, by other names.
        _ => return,
    };
    if !allowed.contains(&fallback) {
        let message = format!("expected one of: {}", allowed.join(", "));
        violations.conditional("hash_on", "hash_fallback", message);
    }
}

/// Hashing on something by name needs the name.
pub(super) fn has_its_parameter(row: &Row, violations: &mut Violations) {
    let missing = |field: &str| row.get(field).is_none_or(Value::is_null);
    for (field, infix) in [("hash_on", "hash_on"), ("hash_fallback", "hash_fallback")] {
        let parameter = match text(row, field) {
            "cookie" => "hash_on_cookie".to_owned(),
            kind @ ("header" | "query_arg" | "uri_capture") => format!("{infix}_{kind}"),
            _ => continue,
        };
        if missing(&parameter) {
            violations.conditional(field, &parameter, "required field missing");
        }
    }
}

/// What is hashed on by name and its fallback have different names, whether they are used or not.
pub(super) fn differs_from_its_fallback(row: &Row, violations: &mut Violations) {
    for kind in ["header", "query_arg", "uri_capture"] {
        let (on, fallback) = (format!("hash_on_{kind}"), format!("hash_fallback_{kind}"));
        let value = row.get(&on).filter(|value| !value.is_null());
        if value.is_some() && value == row.get(&fallback) {
            violations.entity(format!(
                "values of these fields must be distinct: '{on}', '{fallback}'"
            ));
        }
    }
}
