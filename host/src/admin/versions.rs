//! The versions of a balancer: shown, deleted, made active and taken back.
//!
//! A version's row says what became of its check; which version is active is said by the balancer's row
//! alone. So making one active is one write, and no reader can find two of them, or none.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::Path;
use super::balancers::not_shipped;
use super::canary;
use super::error::Error;
use super::intake::{self, Taken};
use super::lists::newest_first;
use super::rows::{TRIES, busy, find, id_of};
use super::{Admin, changes, settings, upload};
use crate::balancer::Plugin;
use crate::entity::version::BY_DIGEST;
use crate::entity::{Kind, Row, Violation};
use crate::store::{self, Revision, Store, Stored, Write};

pub use intake::resume_checks;

const KIND: Kind = Kind::BalancerVersion;

/// Fewest digits of a digest that stand for it.
const PREFIX: usize = 8;

/// Digits of a whole digest.
const DIGEST: usize = 64;

/// What a balancer shows of its active version.
const COPIED: [&str; 4] = ["digest", "size", "description", "exports"];

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

pub(super) fn text<'r>(row: &'r Row, field: &str) -> &'r str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn balancer_of(admin: &Admin, key: &str) -> Result<Stored, Error> {
    find(admin, Kind::Balancer, key)?.ok_or_else(|| Error::missing("balancer", key))
}

/// The version of a balancer that has this digest.
pub(super) fn of_digest(
    store: &dyn Store,
    balancer: Uuid,
    digest: &str,
) -> Result<Option<Stored>, store::Error> {
    store.find(
        KIND,
        BY_DIGEST.fields,
        &[&digest.into(), &json!({ "id": balancer })],
    )
}

/// The versions of a balancer.
pub(super) fn all(store: &dyn Store, balancer: Uuid) -> Result<Vec<Stored>, store::Error> {
    store.list_referring(KIND, "balancer", balancer, None, usize::MAX)
}

/// An id as paths and pins have it: with its dashes, since digits alone can begin a digest.
pub(super) fn id(key: &str) -> Option<Uuid> {
    key.contains('-').then(|| Uuid::try_parse(key).ok())?
}

/// The version that a path names by its id, its digest, or the beginning of its digest.
pub(super) fn named(admin: &Admin, balancer: &Stored, key: &str) -> Result<Stored, Error> {
    let parent = id_of(&balancer.row);
    let missing = || {
        let name = text(&balancer.row, "name");
        let advice = match key.len() {
            0..PREFIX => format!("; give its id, or {PREFIX} digits of its digest or more"),
            _ => String::new(),
        };
        let message = format!("the balancer {name:?} has no version {key:?}{advice}");
        Error::Plain(StatusCode::NOT_FOUND, message)
    };
    if let Some(id) = id(key) {
        let found = admin.store.get(KIND, id)?;
        let link = json!({ "id": parent });
        let own = found.filter(|version| version.row.get("balancer") == Some(&link));
        return own.ok_or_else(missing);
    }
    let digest = key.to_ascii_lowercase();
    if digest.len() == DIGEST {
        let found = of_digest(&*admin.store, parent, &digest)?;
        return found.ok_or_else(missing);
    }
    if digest.len() < PREFIX {
        return Err(missing());
    }
    let mut found = all(&*admin.store, parent)?;
    found.retain(|version| text(&version.row, "digest").starts_with(&digest));
    let first = found.pop().ok_or_else(missing)?;
    if found.is_empty() {
        return Ok(first);
    }
    Err(Error::bad_request(format!(
        "several versions of this balancer have a digest that begins with {digest}: give more of it"
    )))
}

/// A version as it is shown: with what the balancer says of it.
fn shown(mut row: Row, balancer: &Row) -> Value {
    if text(&row, "state") == "ready" {
        let state = if row.get("digest") == balancer.get("digest") {
            "active"
        } else if canary::is_of(balancer, text(&row, "digest")) {
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

/// Why a version cannot serve; none if it can.
pub(super) fn not_ready(version: &Row) -> Option<String> {
    let digest = text(version, "digest");
    match text(version, "state") {
        "ready" => None,
        "checking" => Some(format!(
            "the version {digest} is still being checked: wait until its state is ready"
        )),
        _ => Some(format!(
            "the version {digest} has failed its check: {}",
            text(version, "reason")
        )),
    }
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

/// Adds a version. It serves nobody until it is promoted or pinned.
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
    // It may have been promoted meanwhile.
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
            super::writes::delete(&admin, KIND, id).await?;
            return Ok(StatusCode::NO_CONTENT);
        }
        let version = named(&admin, &balancer, &version)?.row;
        let digest = version.get("digest");
        if digest == balancer.row.get("digest") {
            return Err(Error::referenced(KIND, Kind::Balancer));
        }
        if canary::is_of(&balancer.row, text(&version, "digest")) {
            return Err(Error::referenced(KIND, Kind::Balancer));
        }
        if settings::is_pinned(&*admin.store, &balancer.row, &version)? {
            return Err(Error::referenced(KIND, Kind::Upstream));
        }
        let mut row = balancer.row.clone();
        if digest == row.get("previous_digest") {
            row.insert("previous_digest".into(), Value::Null);
        }
        canary::forget(&mut row, text(&version, "digest"));
        // Written even where it stays as it is, so that nobody comes to rely on the version meanwhile.
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
    Err(busy(KIND))
}

/// The id of a version that is set aside, if a path names one that is not active.
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
    Err(busy(Kind::Balancer))
}

/// Says in the log that another version is active.
fn log_switch(admin: &Admin, before: &Row, after: &Row, done: &str) {
    let [old, new] = [before, after].map(|row| text(row, "digest"));
    if old == new {
        return;
    }
    let ended = match canary::ended_by(before, new, None) {
        Some(canary) => format!("; canary ended: {}", canary::outcome(&canary)),
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
    Err(busy(Kind::Balancer))
}

/// Makes a version active that is there. Returns the balancer, unless it has changed meanwhile.
pub(super) async fn switch(
    admin: &Admin,
    balancer: &Stored,
    version: Stored,
) -> Result<Option<Row>, Error> {
    if version.row.get("digest") == balancer.row.get("digest") {
        return Ok(Some(balancer.row.clone()));
    }
    check_fit(admin, &balancer.row, &version.row).await?;
    let candidate = Candidate {
        row: version.row,
        revision: Some(version.revision),
        component: None,
    };
    let id = id_of(&balancer.row);
    let figures = canary::figures(admin, &balancer.row);
    let (row, writes) = activation(id, Some(balancer), Row::new(), candidate, figures)?;
    Ok(written(admin, writes).await?.then_some(row))
}

/// Checks that a version can choose for all upstreams that follow its balancer.
pub(super) async fn check_fit(admin: &Admin, balancer: &Row, version: &Row) -> Result<(), Error> {
    if let Some(reason) = not_ready(version) {
        return Err(Error::bad_request(reason));
    }
    let component = admin.store.blob(KIND, id_of(version))?;
    let component = component.ok_or_else(Error::not_found)?;
    let plugin = admin.engine.load(component).await?;
    let name = text(balancer, "name");
    let unfit = settings::unfit(&admin.store, &admin.engine, name, &plugin).await?;
    if unfit.is_empty() {
        Ok(())
    } else {
        Err(Error::field("upstreams", unfit))
    }
}

/// A version that is ready, with what it takes to write its row.
pub(super) struct Candidate {
    row: Row,
    /// None for a new one.
    revision: Option<Revision>,
    component: Option<Bytes>,
}

/// The version of a balancer that a component is, or becomes.
pub(super) fn candidate(
    store: &dyn Store,
    balancer: Uuid,
    plugin: &Plugin,
    component: Bytes,
) -> Result<Candidate, Error> {
    let facts = intake::facts(Ok(plugin));
    Ok(match of_digest(store, balancer, &plugin.digest)? {
        Some(known) => Candidate {
            row: KIND.declaration().update(&known.row, facts)?,
            revision: Some(known.revision),
            component: None,
        },
        None => Candidate {
            row: intake::row(balancer, &plugin.digest, component.len(), facts)?,
            revision: None,
            component: Some(component),
        },
    })
}

/// A balancer with this version active, and the steps that make it so, for one write. `fields` are
/// those of the balancer that change beside, `figures` what a canary that this ends has come to.
pub(super) fn activation(
    id: Uuid,
    old: Option<&Stored>,
    fields: Row,
    version: Candidate,
    figures: Option<Value>,
) -> Result<(Row, Vec<Write>), Violation> {
    let mut input = fields;
    for field in COPIED {
        let value = version.row.get(field).cloned().unwrap_or_default();
        input.insert(field.into(), value);
    }
    let before = old.and_then(|old| old.row.get("digest"));
    let stays = before.is_some_and(|before| version.row.get("digest") == Some(before));
    if let (Some(before), false) = (before, stays) {
        input.insert("previous_digest".into(), before.clone());
    }
    if let (Some(old), false) = (old, stays)
        && let Some(canary) = canary::ended_by(&old.row, text(&version.row, "digest"), figures)
    {
        input.insert("canary".into(), canary.into());
    }
    let declaration = Kind::Balancer.declaration();
    let row = match old {
        Some(old) => declaration.update(&old.row, input)?,
        None => declaration.create(id, input)?,
    };
    let version_row = if stays {
        version.row
    } else {
        let promoted = Row::from_iter([("promoted_at".to_owned(), seconds().into())]);
        KIND.declaration().update(&version.row, promoted)?
    };
    let old = old.map(|old| old.revision);
    let version_id = id_of(&version_row);
    let writes = vec![
        Write::put(Kind::Balancer, id, row.clone(), None, old),
        Write::put(
            KIND,
            version_id,
            version_row,
            version.component,
            version.revision,
        ),
    ];
    Ok((row, writes))
}

pub(super) fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// Writes, unless something has changed since it was read: then nothing is done, and the answer is
/// false.
pub(super) async fn written(admin: &Admin, writes: Vec<Write>) -> Result<bool, Error> {
    match admin.store.write(writes).await {
        Ok(revision) => {
            admin.wait_for(revision).await;
            Ok(true)
        }
        // The same component came twice at a time.
        Err(store::Error::UniqueKeyTaken { kind: KIND, .. }) => Ok(false),
        Err(store::Error::Changed { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
