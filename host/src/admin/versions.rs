//! The versions of a balancer: shown, deleted, promoted and rolled back.
//!
//! A version's row has the outcome of its check; only the balancer's row says which version is
//! active. So making a version active is one write, and no reader can find two active versions, or
//! none.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use uuid::Uuid;

use super::activation::switch;
use super::arguments::Path;
use super::error::Error;
use super::intake::{self, Taken};
use super::lists::newest_first;
use super::rows::{TRIES, conflict, id_of};
use super::version_rows::{balancer_of, id, named, not_shipped, of_digest, text, written};
use super::{Admin, canary_state, changes, settings, upload, writes};
use crate::entity::{Kind, Row};
use crate::store::{self, Stored, Write};

const KIND: Kind = Kind::BalancerVersion;

pub(super) fn endpoints() -> [super::ApiEndpoint; 5] {
    let versions = "/balancers/{key}/versions";
    let read = "GET, HEAD, OPTIONS";
    [
        (
            versions.into(),
            get(list).post(create),
            "GET, HEAD, OPTIONS, POST",
        ),
        (
            format!("{versions}/{{nested}}"),
            get(show).delete(delete),
            "DELETE, GET, HEAD, OPTIONS",
        ),
        (
            format!("{versions}/{{nested}}/component"),
            get(component),
            read,
        ),
        (
            format!("{versions}/{{nested}}/promote"),
            post(promote),
            "OPTIONS, POST",
        ),
        (
            "/balancers/{key}/rollback".into(),
            post(rollback),
            "OPTIONS, POST",
        ),
    ]
}

/// A version as it is shown, with what the balancer's row says of it.
fn shown(mut row: Row, balancer: &Row) -> Value {
    if text(&row, "state") == "ready" {
        let state = if row.get("digest") == balancer.get("digest") {
            "active"
        } else if canary_state::is_of(balancer, text(&row, "digest")) {
            "canary"
        } else if row.get("promoted_at").is_some_and(|time| !time.is_null()) {
            "retired"
        } else {
            "ready"
        };
        row.insert("state".into(), state.into());
    }
    row.into()
}

async fn list(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let balancer = balancer_of(&admin, &key)?;
    let show = |row: Row| shown(row, &balancer.row);
    let id = id_of(&balancer.row);
    let answer = newest_first(&admin, KIND, "balancer", id, &request, show)?;
    Ok(Json(answer).into_response())
}

async fn show(
    State(admin): State<Admin>,
    Path((key, version)): Path<(String, String)>,
) -> Result<Response, Error> {
    let balancer = balancer_of(&admin, &key)?;
    let version = named(&admin, &balancer, &version)?;
    Ok(Json(shown(version.row, &balancer.row)).into_response())
}

async fn component(
    State(admin): State<Admin>,
    Path((key, version)): Path<(String, String)>,
) -> Result<Response, Error> {
    let balancer = balancer_of(&admin, &key)?;
    let version = named(&admin, &balancer, &version)?;
    let blob = admin.store.blob(KIND, id_of(&version.row))?;
    let blob = blob.ok_or_else(Error::not_found)?;
    Ok(([(CONTENT_TYPE, "application/wasm")], blob).into_response())
}

/// Adds a version. It serves no upstream until it is promoted or pinned.
async fn create(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let balancer = balancer_of(&admin, &key)?;
    not_shipped(&balancer.row, "uploaded to")?;
    let is_async = intake::prefers_async(request.headers());
    let upload = upload::read(&admin, request).await?;
    let id = id_of(&balancer.row);
    let taken = intake::take(admin.clone(), id, upload.component, is_async).await?;
    match &taken {
        Taken::Ready(row) => changes::log(&admin, KIND, row, "uploaded"),
        Taken::Checking(row) => changes::log(&admin, KIND, row, "uploaded, and being checked"),
        Taken::Known(_) => {}
    }
    // The version may have been promoted meanwhile.
    let balancer = balancer_of(&admin, &key)?;
    Ok(match taken {
        Taken::Ready(row) => (StatusCode::CREATED, Json(shown(row, &balancer.row))).into_response(),
        Taken::Known(row) => Json(shown(row, &balancer.row)).into_response(),
        Taken::Checking(row) => intake::accepted(id, row, is_async),
    })
}

async fn delete(
    State(admin): State<Admin>,
    Path((key, version)): Path<(String, String)>,
) -> Result<StatusCode, Error> {
    for _ in 0..TRIES {
        let balancer = balancer_of(&admin, &key)?;
        if let Some(id) = set_aside(&admin, &balancer, &version)? {
            writes::delete(&admin, KIND, id).await?;
            return Ok(StatusCode::NO_CONTENT);
        }
        let version = named(&admin, &balancer, &version)?.row;
        let digest = version.get("digest");
        if digest == balancer.row.get("digest") {
            return Err(Error::referenced(KIND, Kind::Balancer));
        }
        if canary_state::is_of(&balancer.row, text(&version, "digest")) {
            return Err(Error::referenced(KIND, Kind::Balancer));
        }
        if settings::is_pinned(&*admin.store, &balancer.row, &version)? {
            return Err(Error::referenced(KIND, Kind::Upstream));
        }
        let mut row = balancer.row.clone();
        if digest == row.get("previous_digest") {
            row.insert("previous_digest".into(), Value::Null);
        }
        canary_state::forget(&mut row, text(&version, "digest"));
        // Written even if unchanged, so that no upstream comes to rely on the version meanwhile.
        let balancer = Write::Replace {
            kind: Kind::Balancer,
            id: id_of(&row),
            row,
            expected: balancer.revision,
            blob: None,
        };
        let id = id_of(&version);
        let delete = Write::Delete { kind: KIND, id };
        if written(&admin, vec![balancer, delete]).await? {
            changes::log(&admin, KIND, &version, "deleted");
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    Err(conflict(KIND))
}

/// The id of a version that is set aside, if the path names such a version and it is not active.
fn set_aside(admin: &Admin, balancer: &Stored, key: &str) -> Result<Option<Uuid>, Error> {
    let id_of_aside = |found| match found {
        Err(store::Error::SetAside { id, .. }) => Some(id),
        _ => None,
    };
    let parent = id_of(&balancer.row);
    let found = match id(key) {
        Some(id) => id_of_aside(admin.store.get(KIND, id)),
        None => id_of_aside(of_digest(&*admin.store, parent, &key.to_ascii_lowercase())),
    };
    let active = of_digest(&*admin.store, parent, text(&balancer.row, "digest"));
    if found.is_some() && found == id_of_aside(active) {
        return Err(Error::referenced(KIND, Kind::Balancer));
    }
    Ok(found)
}

async fn promote(
    State(admin): State<Admin>,
    Path((key, version)): Path<(String, String)>,
) -> Result<Response, Error> {
    for _ in 0..TRIES {
        let balancer = balancer_of(&admin, &key)?;
        not_shipped(&balancer.row, "switched")?;
        let version = named(&admin, &balancer, &version)?;
        if let Some(row) = switch(&admin, &balancer, version).await? {
            log_switch(&admin, &balancer.row, &row, "promoted");
            return Ok(Json(Value::from(row)).into_response());
        }
    }
    Err(conflict(Kind::Balancer))
}

/// Logs that another version is active.
fn log_switch(admin: &Admin, before: &Row, after: &Row, done: &str) {
    let [old, new] = [before, after].map(|row| text(row, "digest"));
    if old == new {
        return;
    }
    let ended = match canary_state::ended_by(before, new, None) {
        Some(canary) => format!("; canary ended: {}", canary_state::outcome(&canary)),
        None => String::new(),
    };
    let done = format!("{done}: the version {new} is active, in place of {old}{ended}");
    changes::log(admin, Kind::Balancer, after, &done);
}

async fn rollback(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Response, Error> {
    for _ in 0..TRIES {
        let balancer = balancer_of(&admin, &key)?;
        not_shipped(&balancer.row, "switched")?;
        let previous = text(&balancer.row, "previous_digest");
        let version = of_digest(&*admin.store, id_of(&balancer.row), previous)?;
        let version = version.ok_or_else(|| {
            Error::bad_request(
                "there is no version to go back to: no other one was active before, or it was deleted",
            )
        })?;
        if let Some(row) = switch(&admin, &balancer, version).await? {
            log_switch(&admin, &balancer.row, &row, "rolled back");
            return Ok(Json(Value::from(row)).into_response());
        }
    }
    Err(conflict(Kind::Balancer))
}
