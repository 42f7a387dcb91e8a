//! From the layout of format 1 to that of format 2, and from rows as an earlier version stored them to
//! rows as this one does.
//!
//! In format 1 a component belonged to its balancer. Now it belongs to a version of it, and the balancer
//! says which one is active.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::rows::Rows;
use super::super::{Error, Stored, Write};
use super::{format as keys, journal as engine};
use crate::entity::{Kind, Row};

/// What there is to write. Nothing is left to do for a balancer whose component has moved.
pub(in crate::store) fn writes(rows: &Rows, blobs: &::sled::Tree) -> Result<Vec<Write>, Error> {
    let kind = Kind::Balancer;
    let mut writes = Vec::new();
    for (id, stored) in rows.of_kind(kind, None) {
        let Some(component) = engine::blob(blobs, kind, id)? else {
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
            // None would leave the component here.
            blob: Some(Bytes::new()),
        });
    }
    Ok(writes)
}

/// What there is to write so that each row is as it would be stored now, and is found in any spelling of
/// its name. Two rows that differ in that alone stay as they are: each is found in its own spelling.
pub(in crate::store) fn renewals(rows: &Rows) -> Vec<Write> {
    let mut writes = Vec::new();
    for kind in Kind::ALL {
        let mut planned = HashSet::new();
        // A row that is set aside stays as it is, and so do the keys that lead to it.
        for (id, stored) in rows.of_kind(kind, None) {
            let Stored { row: old, revision } = stored;
            let mut row = old.clone();
            (kind.declaration().normalize)(&mut row);
            let (mut stale, mut taken) = (row != old, false);
            for &unique in kind.unique_keys() {
                let Some(values) = unique.values(&row) else {
                    continue;
                };
                let index = keys::unique(kind, unique.fields, &values);
                match rows.get(&index) {
                    Some(found) => taken |= **found != *id.as_bytes(),
                    None => {
                        stale = true;
                        taken |= !planned.insert(index);
                    }
                }
            }
            if taken {
                tracing::warn!(
                    entity = kind.name(),
                    %id,
                    "another one has the same name in another spelling: give one of them another name"
                );
            } else if stale {
                writes.push(Write::Replace {
                    kind,
                    id,
                    row,
                    expected: revision,
                    blob: None,
                });
            }
        }
    }
    writes
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
