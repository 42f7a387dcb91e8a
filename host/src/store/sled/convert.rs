//! Converts the layout of format 1 to the layout of format 2.
//!
//! In format 1 a component belonged to its balancer. In format 2 it belongs to a version of the
//! balancer, and the balancer says which version is active.

use ::sled::Tree;
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::rows::Rows;
use super::super::{Error, Stored, Write};
use super::blobs;
use crate::entity::{Kind, Row};

/// The writes of the conversion. A balancer whose component has already moved needs none.
pub(super) fn writes(rows: &Rows, tree: &Tree) -> Result<Vec<Write>, Error> {
    let kind = Kind::Balancer;
    let mut writes = Vec::new();
    for (id, stored) in rows.of_kind(kind, None) {
        let Some(component) = blobs::read(tree, (kind, id))? else {
            continue;
        };
        let Stored { mut row, revision } = stored;
        let version = Uuid::now_v7();
        writes.push(Write::Insert {
            kind: Kind::BalancerVersion,
            id: version,
            row: of_balancer(version, id, &row),
            blob: Some(component),
        });
        row.insert("previous_digest".into(), Value::Null);
        writes.push(Write::Replace {
            kind,
            id,
            row,
            expected: revision,
            // `None` would leave the component with the balancer.
            blob: Some(Bytes::new()),
        });
    }
    Ok(writes)
}

/// The version that a balancer of format 1 had.
fn of_balancer(id: Uuid, balancer: Uuid, row: &Row) -> Row {
    let of = |field: &str| row.get(field).cloned().unwrap_or_default();
    let version = json!({
        "id": id,
        "balancer": { "id": balancer },
        "digest": of("digest"),
        "created_at": of("updated_at"),
        "size": of("size"),
        "description": of("description"),
        "exports": of("exports"),
        "state": "ready",
        "reason": null,
        "promoted_at": of("updated_at"),
    });
    match version {
        Value::Object(version) => version,
        _ => Row::new(),
    }
}
