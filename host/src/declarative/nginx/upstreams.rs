//! Upstreams of nginx: their servers as targets, and their algorithm.

use serde_json::{Value, json};

use super::Left;
use super::grammar::Directive;
use crate::entity::Row;

pub(super) fn upstream(upstream: &Directive, left: &mut Left) -> Value {
    let mut row = Row::from_iter([("name".to_owned(), upstream.value().into())]);
    let mut targets = Vec::new();
    for directive in &upstream.block {
        let values = directive.values();
        match directive.name() {
            "server" => targets.extend(target(directive, left)),
            "least_conn" => {
                row.insert("algorithm".into(), "least-connections".into());
            }
            "ip_hash" => {
                row.insert("algorithm".into(), "consistent-hashing".into());
                row.insert("hash_on".into(), "ip".into());
            }
            "hash" => match hash_on(directive.value()) {
                Some(fields) => {
                    row.insert("algorithm".into(), "consistent-hashing".into());
                    row.extend(fields);
                }
                None => left.add(directive, "requests are not hashed on this"),
            },
            "random" if values.is_empty() => {
                row.insert("algorithm".into(), "random".into());
            }
            "random" if values == ["two"] || values == ["two", "least_conn"] => {
                row.insert("algorithm".into(), "p2c".into());
            }
            _ => left.add(directive, "not converted"),
        }
    }
    row.insert("targets".into(), targets.into());
    row.into()
}

fn target(server: &Directive, left: &mut Left) -> Option<Value> {
    let address = server.value();
    if address.starts_with("unix:") {
        left.add(server, "targets have no Unix sockets");
        return None;
    }
    let has_port = match address.rsplit_once(']') {
        Some((_, rest)) => rest.starts_with(':'),
        None => address.contains(':'),
    };
    let target = match has_port {
        true => address.to_owned(),
        false => format!("{address}:80"),
    };
    let mut row = Row::from_iter([("target".to_owned(), target.into())]);
    let mut others = Vec::new();
    for parameter in server.values().get(1..).unwrap_or_default() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name, value.parse::<u64>()) {
            ("weight", Ok(weight)) => {
                row.entry("weight").or_insert(weight.into());
            }
            ("backup", _) => drop(row.insert("failover".into(), true.into())),
            ("down", _) => drop(row.insert("weight".into(), 0.into())),
            ("max_conns", Ok(most)) => {
                let breakers = json!({ "circuit_breakers": { "max_connections": most } });
                row.insert("pointsman".into(), breakers);
            }
            _ => others.push(parameter.as_str()),
        }
    }
    if !others.is_empty() {
        left.add(server, &format!("not converted: {}", others.join(", ")));
    }
    Some(row.into())
}

/// The fields of an upstream that hash on a variable of nginx.
fn hash_on(variable: &str) -> Option<Row> {
    let named = |hash_on: &str, field: &str, name: String| {
        Row::from_iter([
            ("hash_on".to_owned(), hash_on.into()),
            (field.to_owned(), name.into()),
        ])
    };
    if let Some(name) = variable.strip_prefix("$http_") {
        return Some(named("header", "hash_on_header", name.replace('_', "-")));
    }
    if let Some(name) = variable.strip_prefix("$arg_") {
        return Some(named("query_arg", "hash_on_query_arg", name.to_owned()));
    }
    let hash_on = match variable {
        "$remote_addr" | "$binary_remote_addr" => "ip",
        "$uri" => "path",
        _ => return None,
    };
    Some(Row::from_iter([("hash_on".to_owned(), hash_on.into())]))
}
