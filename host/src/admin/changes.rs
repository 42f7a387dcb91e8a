//! What a change did, as one line of the log each.

use serde_json::Value;
use uuid::Uuid;

use super::Admin;
use super::entities::id_of;
use crate::entity::{Kind, Row};

/// Says in the log what was done to an entity, such as "created".
pub(super) fn log(admin: &Admin, kind: Kind, row: &Row, done: &str) {
    let of = match kind {
        Kind::Target => parent_of(admin, Kind::Upstream, row.get("upstream")),
        Kind::BalancerVersion => parent_of(admin, Kind::Balancer, row.get("balancer")),
        _ => String::new(),
    };
    tracing::info!("{}{of} {done}", described(kind, row));
}

/// As [`log`], of a row of which only the id is known.
pub(super) fn log_id(kind: Kind, id: Uuid, done: &str) {
    tracing::info!("{} {id} {done}", noun(kind));
}

/// An entity by its kind, name and id, as the log names it.
pub(super) fn described(kind: Kind, row: &Row) -> String {
    let field = match kind {
        Kind::Target => "target",
        Kind::BalancerVersion => "digest",
        _ => "name",
    };
    let id = id_of(row);
    // Quoted with escapes, so that no name can look like another line of the log.
    match row.get(field).and_then(Value::as_str) {
        Some(name) => format!("{} {name:?} ({id})", noun(kind)),
        None => format!("{} {id}", noun(kind)),
    }
}

fn parent_of(admin: &Admin, kind: Kind, link: Option<&Value>) -> String {
    let id = link.and_then(Value::as_object).map(id_of);
    let row = id.and_then(|id| admin.store.get(kind, id).ok().flatten());
    let row = row.map(|stored| format!(" of {}", described(kind, &stored.row)));
    row.unwrap_or_default()
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "service",
        Kind::Route => "route",
        Kind::Upstream => "upstream",
        Kind::Target => "target",
        Kind::Balancer => "balancer",
        Kind::BalancerVersion => "version",
    }
}
