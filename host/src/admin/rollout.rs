//! Rollouts: a document is first in effect at the gateways of the channel `canary` alone, and then
//! at all, or at none.
//!
//! What it changes is one row of the store, beside the rows that it is about. So each step is one
//! commit, and each gateway on the store follows.

mod figures;
mod judge;

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::changes::name_of;
use super::error::Error;
use super::rows::{TRIES, conflict, is_race};
use super::{Admin, ApiEndpoint, form, upstreams};
use crate::clock;
use crate::entity::rollout::{CANARY, RolloutChange, RolloutComparison, RolloutState, TRIAL};
use crate::entity::{Kind, Row, Violations, read_fields};
use crate::store::{self, Store, Stored, Write};
pub(super) use judge::judge;

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
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Aim {
    /// To make the stored configuration that of the document.
    Change,
    /// To find what would change.
    DryRun,
    /// To have it change at the gateways of the channel `canary` alone, with these settings of
    /// [`TRIAL`].
    Canary(Row),
}

impl Aim {
    /// `DryRun` if `is_dry_run`, else `Change`.
    pub(crate) fn of_dry_run(is_dry_run: bool) -> Self {
        match is_dry_run {
            true => Self::DryRun,
            false => Self::Change,
        }
    }
}

/// Whether a query can have an argument of this name for an import into the channel.
pub(super) fn is_setting(name: &str) -> bool {
    TRIAL.iter().any(|field| field.name == name)
}

/// The aim of an import into the channel, with the settings of the query.
///
/// # Errors
/// The gateway shares its store with no others, the import is only a trial, or a setting is wrong.
pub(super) fn aim(admin: &Admin, asked: &Aim, mut settings: Row) -> Result<Aim, Error> {
    if admin.store.nodes().is_none() {
        return Err(Error::bad_request(
            "there are channels only among gateways that share a store: set store to etcd",
        ));
    }
    if *asked == Aim::DryRun {
        let message = "dry_run cannot be combined with channel: leave one of them out";
        return Err(Error::field("dry_run", message));
    }
    form::infer(TRIAL, &mut settings);
    let settings = read_fields(TRIAL, settings).map_err(|wrong| Error::schema(&wrong))?;
    let has_end = settings.get("duration").is_some_and(Value::is_number);
    if settings.get("promote") == Some(&true.into()) && !has_end {
        let mut wrong = Violations::default();
        wrong.conditional("promote", "duration", "required field missing");
        return Err(Error::schema(&wrong));
    }
    Ok(Aim::Canary(settings))
}

/// The write that has these writes take effect at the gateways of the channel alone, in place of
/// those of the rollout before; none if there is nothing to do. `switches` are those of balancers,
/// and `settings` those of [`TRIAL`].
///
/// # Errors
/// They are too large, or there are some of balancers.
pub(super) fn begin(
    store: &dyn Store,
    writes: &[Write],
    switches: &[Write],
    settings: &Row,
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
    if changes.as_array().is_none_or(Vec::is_empty) {
        // The document is what all gateways have.
        let Some(old) = old.filter(|old| is_live(&old.row)) else {
            return Ok(Vec::new());
        };
        let ending = Ending {
            state: RolloutState::Dropped,
            reason: Some(
                "a document without differences from what is stored was rolled out".into(),
            ),
            figures: None,
        };
        return Ok(vec![ending.written(old)?]);
    }
    let mut trial = Row::new();
    trial.insert("id".into(), Uuid::new_v4().to_string().into());
    trial.extend(settings.clone());
    trial.insert("created_at".into(), clock::unix_seconds().into());
    let state = RolloutState::Running;
    Ok(vec![written(old, state, changes, trial)?])
}

/// The write of the rollout's row.
fn written(
    old: Option<Stored>,
    state: RolloutState,
    changes: Value,
    trial: Row,
) -> Result<Write, Error> {
    let state = state.name();
    let input = json!({ "name": CANARY, "state": state, "changes": changes, "trial": trial });
    let input = input.as_object().cloned().unwrap_or_default();
    let declaration = KIND.declaration();
    let (row, revision) = match old {
        Some(old) => (declaration.update(&old.row, input)?, Some(old.revision)),
        None => (declaration.create(ID, input)?, None),
    };
    Ok(Write::put(KIND, ID, row, None, revision))
}

/// How a rollout ends, or that it has passed.
#[derive(Clone)]
struct Ending {
    state: RolloutState,
    reason: Option<String>,
    /// The figures of both channels; none if there are none.
    figures: Option<Value>,
}

impl Ending {
    /// The ending by an operator, with what the gateways that are alive tell.
    async fn by_request(admin: &Admin, rollout: &Stored, state: RolloutState) -> Self {
        let reason = match state {
            RolloutState::Dropped => Some("it was ended by a request to the Admin API".into()),
            _ => None,
        };
        Self {
            state,
            reason,
            figures: figures_now(admin, &rollout.row).await,
        }
    }

    /// The write of the rollout's row.
    fn written(self, old: Stored) -> Result<Write, Error> {
        let Self {
            state,
            reason,
            figures,
        } = self;
        let mut trial = trial_in(&old.row);
        trial.insert("reason".into(), reason.into());
        // Stored, because the gateways forget them.
        trial.insert("figures".into(), figures.into());
        let changes = match state.is_live() {
            true => old.row.get("changes").cloned().unwrap_or_default(),
            false => {
                trial.insert("ended_at".into(), clock::unix_seconds().into());
                json!([])
            }
        };
        written(Some(old), state, changes, trial)
    }
}

/// The settings and the outcome of a rollout.
fn trial_in(rollout: &Row) -> Row {
    let trial = rollout.get("trial").and_then(Value::as_object);
    trial.cloned().unwrap_or_default()
}

/// What the gateways that are alive tell of a rollout; none if it is not judged.
async fn figures_now(admin: &Admin, rollout: &Row) -> Option<Value> {
    let trial = RolloutComparison::of(rollout).filter(RolloutComparison::is_judged)?;
    let nodes = admin.store.nodes()?.list().await.ok()?;
    Some(figures::of_nodes(&nodes, trial.id))
}

/// Stores the outcome of a rollout, if it goes on; with `only`, if it is the one with this trial.
/// Returns whether it was stored.
async fn put_outcome(admin: &Admin, only: Option<Uuid>, ending: Ending) -> Result<bool, Error> {
    let Some(rollout) = live(&*admin.store)?.filter(|rollout| is_of(rollout, only)) else {
        return Ok(false);
    };
    let write = ending.written(rollout)?;
    match admin.store.write(vec![write]).await {
        Ok(revision) => {
            admin.wait_for(revision).await;
            Ok(true)
        }
        Err(error) if is_race(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a rollout is the one with this trial; any is if none is asked for.
fn is_of(rollout: &Stored, only: Option<Uuid>) -> bool {
    only.is_none_or(|only| {
        RolloutComparison::of(&rollout.row).is_some_and(|trial| trial.id == only)
    })
}

fn is_live(rollout: &Row) -> bool {
    RolloutState::of(rollout).is_some_and(RolloutState::is_live)
}

/// The rollout that goes on, if there is one.
fn live(store: &dyn Store) -> Result<Option<Stored>, store::Error> {
    Ok(store.get(KIND, ID)?.filter(|rollout| is_live(&rollout.row)))
}

fn missing() -> Error {
    let message = "there is no rollout: PUT /pointsman/config?channel=canary begins one";
    Error::Plain(StatusCode::NOT_FOUND, message.into())
}

/// What a rollout changes, without the rows: they may have secrets; or how the last one has ended.
async fn show(State(admin): State<Admin>) -> Result<Json<Value>, Error> {
    let row = admin.store.get(KIND, ID)?.ok_or_else(missing)?.row;
    let mut changes = Vec::new();
    for change in RolloutChange::of(&row) {
        let done = match (&change.row, change.replaces) {
            (None, _) => "delete",
            (_, None) => "create",
            _ => "update",
        };
        let stored = admin.store.get(change.kind, change.id)?;
        // An entity that is deleted has the name that it is stored with.
        let row = change.row.as_ref();
        let row = row.or(stored.as_ref().map(|stored| &stored.row));
        changes.push(json!({
            "change": done,
            "entity": change.kind.name(),
            "id": change.id,
            "name": row.and_then(|row| name_of(change.kind, row)),
            "overtaken": is_overtaken(&change, stored.as_ref()),
        }));
    }
    let field = |name: &str| row.get(name).cloned().unwrap_or_default();
    let mut shown = json!({
        "channel": CANARY,
        "state": field("state"),
        "created_at": field("created_at"),
        "updated_at": field("updated_at"),
        "changes": changes,
    });
    let mut trial = trial_in(&row);
    if is_live(&row) {
        let figures = figures_now(&admin, &row).await;
        trial.insert("figures".into(), figures.into());
    }
    if let Some(shown) = shown.as_object_mut() {
        for name in ["reason", "ended_at"] {
            shown.insert(name.into(), Value::Null);
        }
        shown.extend(trial);
    }
    Ok(Json(shown))
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

async fn promote(State(admin): State<Admin>) -> Result<Response, Error> {
    let rollout = live(&*admin.store)?.ok_or_else(missing)?;
    let ending = Ending::by_request(&admin, &rollout, RolloutState::Promoted).await;
    let count = try_promote(&admin, None, ending).await?;
    let count = count.ok_or_else(missing)?;
    Ok(Json(json!({ "changes": count })).into_response())
}

/// Makes the changes at all gateways, in the commit that ends the rollout. If another write has
/// changed one of the rows since, nothing is done: that write would be lost. Returns the number of
/// changes; none if there is no rollout, or only another one than `only`.
async fn try_promote(
    admin: &Admin,
    only: Option<Uuid>,
    ending: Ending,
) -> Result<Option<usize>, Error> {
    let reason = ending.reason.clone();
    for _ in 0..TRIES {
        let Some(rollout) = live(&*admin.store)?.filter(|rollout| is_of(rollout, only)) else {
            return Ok(None);
        };
        let (count, mut writes) = promotion(admin, &rollout).await?;
        writes.push(ending.clone().written(rollout)?);
        match admin.store.exchange(writes, None).await {
            Ok(revision) => {
                admin.wait_for(revision).await;
                tracing::info!(
                    changes = count,
                    "rollout promoted: it is in effect at all gateways{}",
                    reason
                        .map(|reason| format!("; {reason}"))
                        .unwrap_or_default()
                );
                return Ok(Some(count));
            }
            Err(error) if is_race(&error) => {}
            Err(error) => return Err(in_the_way(error)),
        }
    }
    Err(conflict(KIND))
}

/// The number of changes of a rollout, and the writes that make them.
///
/// # Errors
/// It cannot be promoted.
async fn promotion(admin: &Admin, rollout: &Stored) -> Result<(usize, Vec<Write>), Error> {
    let changes = RolloutChange::of(&rollout.row);
    let count = changes.len();
    if count < RolloutChange::count(&rollout.row) {
        return Err(Error::bad_request(
            "the rollout has entities that this version does not know: promote it at a gateway of the \
             later version",
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
        match guarded(admin, change)? {
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
    Ok((count, writes))
}

/// Why the store does not make the changes of a rollout: an entity that was made or deleted since
/// it began is in their way.
fn in_the_way(error: store::Error) -> Error {
    let what = match &error {
        store::Error::StillReferenced {
            kind,
            id,
            by,
            referrer,
        } => format!(
            "it deletes {} {id}, to which {} {referrer} refers by now",
            kind.name(),
            by.name()
        ),
        store::Error::ReferenceMissing {
            kind, field, to, ..
        } => format!(
            "its {} refer by {field} to {} that were deleted since",
            kind.name(),
            to.name()
        ),
        _ => return error.into(),
    };
    let message =
        format!("the rollout cannot be promoted, because {what}; roll out the document again");
    Error::Plain(StatusCode::CONFLICT, message)
}

/// Has the gateways of the channel return to what the others have.
async fn end(State(admin): State<Admin>) -> Result<StatusCode, Error> {
    for _ in 0..TRIES {
        let rollout = live(&*admin.store)?.ok_or_else(missing)?;
        let ending = Ending::by_request(&admin, &rollout, RolloutState::Dropped).await;
        if put_outcome(&admin, None, ending).await? {
            tracing::info!("rollout dropped: its gateways have what the others have");
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    Err(conflict(KIND))
}
