//! Rollouts: a document is first in effect at the gateways of the channel `canary` alone, and then at
//! all, or at none.
//!
//! What it changes is one row of the store, beside the rows that it is about. So each step is one
//! commit, and each gateway on the store follows.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::Error;
use super::rows::{TRIES, conflict, is_race};
use super::{Admin, ApiEndpoint, upstreams};
use crate::entity::Kind;
use crate::entity::rollout::{CANARY, RolloutChange};
use crate::store::{self, Store, Stored, Write};

const KIND: Kind = Kind::Rollout;

/// The row, which is always the same one, so that two gateways cannot add one each.
const ID: Uuid = Uuid::from_u128(0xe92c9fbd_567e_457f_ba35_7909f3c62559);

/// Most bytes of the changes of a rollout, as JSON: they are one row.
const LARGEST: usize = 512 << 10;

pub(super) fn endpoints() -> [ApiEndpoint; 2] {
    [
        (
            "/pointsman/rollout".into(),
            get(show).delete(end),
            "DELETE, GET, HEAD, OPTIONS",
        ),
        (
            "/pointsman/rollout/promote".into(),
            post(promote),
            "OPTIONS, POST",
        ),
    ]
}

/// What an import is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To make the stored configuration that of the document.
    Change,
    /// To find what would change.
    Trial,
    /// To have it change at the gateways of the channel `canary` alone.
    Canary,
}

impl Aim {
    /// Whether what would change is only told.
    pub(crate) fn of_trial(is_trial: bool) -> Self {
        match is_trial {
            true => Self::Trial,
            false => Self::Change,
        }
    }
}

/// The aim of an import into the channel.
///
/// # Errors
/// The gateway shares its store with no others, or the import is only a trial.
pub(super) fn aim(admin: &Admin, asked: Aim) -> Result<Aim, Error> {
    if admin.store.nodes().is_none() {
        return Err(Error::bad_request(
            "there are channels only among gateways that share a store: set store to etcd",
        ));
    }
    if asked == Aim::Trial {
        let message = "a rollout is not tried: leave out dry_run, or channel";
        return Err(Error::field("dry_run", message));
    }
    Ok(Aim::Canary)
}

/// The write that has these writes take effect at the gateways of the channel alone, in place of those
/// of the rollout before; none if there is nothing to do. `switches` are those of balancers.
///
/// # Errors
/// They are too large, or there are some of balancers.
pub(super) fn begin(
    store: &dyn Store,
    writes: &[Write],
    switches: &[Write],
) -> Result<Vec<Write>, Error> {
    if !switches.is_empty() {
        return Err(Error::bad_request(
            "a rollout cannot change balancers: upload their versions first, which have canaries of \
             their own",
        ));
    }
    let mut changes = Vec::new();
    for write in writes {
        let (row, replaces) = match write {
            Write::Insert { row, .. } => (Some(row.clone()), None),
            Write::Replace { row, expected, .. } => (Some(row.clone()), Some(*expected)),
            Write::Delete { kind, id } => match store.get(*kind, *id)? {
                Some(stored) => (None, Some(stored.revision)),
                None => continue,
            },
        };
        changes.push(RolloutChange {
            kind: write.kind(),
            id: write.id(),
            row,
            replaces,
        });
    }
    let changes = RolloutChange::written(&changes);
    let length = changes.to_string().len();
    if length > LARGEST {
        return Err(Error::bad_request(format!(
            "the rollout has changes of {length} bytes, and {LARGEST} at the most fit: roll out a part of \
             them first"
        )));
    }
    let old = store.get(KIND, ID)?;
    let is_running = old.as_ref().is_some_and(is_running);
    let state = match changes.as_array().is_none_or(Vec::is_empty) {
        true if !is_running => return Ok(Vec::new()),
        // The document is what all gateways have.
        true => "dropped",
        false => "running",
    };
    Ok(vec![written(old, state, changes)?])
}

/// The write of the rollout's row.
fn written(old: Option<Stored>, state: &str, changes: Value) -> Result<Write, Error> {
    let input = json!({ "name": CANARY, "state": state, "changes": changes });
    let input = input.as_object().cloned().unwrap_or_default();
    let declaration = KIND.declaration();
    let (row, revision) = match old {
        Some(old) => (declaration.update(&old.row, input)?, Some(old.revision)),
        None => (declaration.create(ID, input)?, None),
    };
    Ok(Write::put(KIND, ID, row, None, revision))
}

/// The rollout that goes on.
fn running(admin: &Admin) -> Result<Stored, Error> {
    let found = admin.store.get(KIND, ID)?.filter(is_running);
    found.ok_or_else(|| {
        let message = "there is no rollout: PUT /pointsman/config?channel=canary begins one";
        Error::Plain(StatusCode::NOT_FOUND, message.into())
    })
}

fn is_running(rollout: &Stored) -> bool {
    rollout.row.get("state") == Some(&"running".into())
}

/// What a rollout changes, without the rows: they may have secrets.
async fn show(State(admin): State<Admin>) -> Result<Json<Value>, Error> {
    let row = running(&admin)?.row;
    let mut changes = Vec::new();
    for change in RolloutChange::of(&row) {
        let done = match (&change.row, change.replaces) {
            (None, _) => "delete",
            (_, None) => "create",
            _ => "update",
        };
        let stored = admin.store.get(change.kind, change.id)?;
        changes.push(json!({
            "change": done,
            "entity": change.kind.name(),
            "id": change.id,
            "overtaken": is_overtaken(&change, stored.as_ref()),
        }));
    }
    let field = |name: &str| row.get(name).cloned().unwrap_or_default();
    Ok(Json(json!({
        "channel": CANARY,
        "state": field("state"),
        "created_at": field("created_at"),
        "updated_at": field("updated_at"),
        "changes": changes,
    })))
}

/// Whether another write has changed a row since the rollout began.
fn is_overtaken(change: &RolloutChange, stored: Option<&Stored>) -> bool {
    stored.map(|stored| stored.revision) != change.replaces
}

/// The writes of a change, which are made only if its row is as it was when the rollout began. None
/// if it is not.
fn guarded(admin: &Admin, change: RolloutChange) -> Result<Option<Vec<Write>>, store::Error> {
    let RolloutChange { kind, id, .. } = change;
    let stored = admin.store.get(kind, id)?;
    if is_overtaken(&change, stored.as_ref()) {
        return Ok(None);
    }
    Ok(Some(match (change.row, stored) {
        (Some(row), _) => vec![Write::put(kind, id, row, None, change.replaces)],
        (None, Some(stored)) => Write::delete_unchanged(kind, id, stored).into(),
        (None, None) => Vec::new(),
    }))
}

/// Makes the changes at all gateways, in the commit that ends the rollout. If another write has
/// changed one of the rows since, nothing is done: that write would be lost.
async fn promote(State(admin): State<Admin>) -> Result<Response, Error> {
    for _ in 0..TRIES {
        let rollout = running(&admin)?;
        let changes = RolloutChange::of(&rollout.row);
        let count = changes.len();
        if count < RolloutChange::count(&rollout.row) {
            return Err(Error::bad_request(
                "the rollout has entities that this version does not know: promote it at a gateway of \
                 the later version",
            ));
        }
        let (mut writes, mut overtaken) = (Vec::new(), Vec::new());
        let mut relied_on = HashMap::new();
        for change in changes {
            let shown = format!("{} {}", change.kind.name(), change.id);
            if let (Kind::Upstream, Some(row)) = (change.kind, &change.row) {
                // Their balancers may have other versions since.
                let own = &admin.config.balancer;
                let checked = upstreams::check_with(&admin.store, &admin.engine, own, row, None);
                relied_on.extend(checked.await?.into_iter().map(|write| (write.id(), write)));
            }
            match guarded(&admin, change)? {
                Some(own) => writes.extend(own),
                None => overtaken.push(shown),
            }
        }
        if !overtaken.is_empty() {
            let message = format!(
                "these were changed since the rollout began, and it would undo that: {}; roll out the \
                 document again",
                overtaken.join(", ")
            );
            return Err(Error::Plain(StatusCode::CONFLICT, message));
        }
        writes.extend(relied_on.into_values());
        writes.push(written(Some(rollout), "promoted", json!([]))?);
        match admin.store.exchange(writes).await {
            Ok(revision) => {
                admin.wait_for(revision).await;
                tracing::info!(
                    changes = count,
                    "rollout promoted: it is in effect at all gateways"
                );
                return Ok(Json(json!({ "changes": count })).into_response());
            }
            Err(error) if is_race(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict(KIND))
}

/// Has the gateways of the channel return to what the others have.
async fn end(State(admin): State<Admin>) -> Result<StatusCode, Error> {
    for _ in 0..TRIES {
        let rollout = running(&admin)?;
        let write = written(Some(rollout), "dropped", json!([]))?;
        match admin.store.write(vec![write]).await {
            Ok(revision) => {
                admin.wait_for(revision).await;
                tracing::info!("rollout dropped: its gateways have what the others have");
                return Ok(StatusCode::NO_CONTENT);
            }
            Err(error) if is_race(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(conflict(KIND))
}
