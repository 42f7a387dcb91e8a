//! Canaries: a version takes a share of the picks before it is made active. If it breaks a bound,
//! it loses the share by itself.
//!
//! The settings and the outcome of a canary are in the balancer's row, beside the digest of the
//! active version. So each step is one write, and every gateway on the store follows. A broken
//! bound takes effect where requests are placed; here it is stored.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use super::ApiEndpoint;
use super::arguments::Path;
use super::canary_state::{canary_in, concluded, figures, figures_of, live_in, shown};
use super::error::Error;
use super::rows::{TRIES, conflict, id_of};
use super::version_rows::{balancer_of, named, not_shipped, of_digest, text, written};
use super::{Admin, BODY_LIMIT, activation, changes, decode};
use crate::balancer::{RunningCanary, Verdict};
use crate::clock;
use crate::entity::balancer::{CANARY, CanaryState};
use crate::entity::{Kind, Row, Violations, read_fields};
use crate::in_place::in_place;
use crate::store::{Stored, Write};

const KIND: Kind = Kind::Balancer;

/// Pause before a failed write is tried again, and between two checks of whether a canary has
/// placed enough requests to have passed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn endpoint() -> ApiEndpoint {
    (
        "/balancers/{key}/versions/{nested}/canary".into(),
        get(show).post(begin).delete(end),
        "DELETE, GET, HEAD, OPTIONS, POST",
    )
}

async fn show(
    State(admin): State<Admin>,
    Path((key, version)): Path<(String, String)>,
) -> Result<Response, Error> {
    let balancer = balancer_of(&admin, &key)?;
    let version = named(&admin, &balancer, &version)?;
    let shown = shown(&admin, &balancer.row);
    let own = shown.filter(|canary| canary.get("version") == version.row.get("digest"));
    Ok(Json(own.ok_or_else(|| not_a_canary(&version.row))?).into_response())
}

/// Gives a version a share of the picks. A version that has a share already starts again with other
/// bounds.
async fn begin(
    State(admin): State<Admin>,
    Path((key, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Error> {
    let input = decode::fields(CANARY, request, BODY_LIMIT).await?;
    let asked = asked(input).map_err(|wrong| Error::schema(&wrong))?;
    for _ in 0..TRIES {
        let balancer = balancer_of(&admin, &key)?;
        not_shipped(&balancer.row, "switched")?;
        let version = named(&admin, &balancer, &version)?.row;
        let digest = text(&version, "digest");
        if digest == text(&balancer.row, "digest") {
            return Err(Error::bad_request("this version is active already"));
        }
        if let Some(other) = live_in(&balancer.row).filter(|other| text(other, "version") != digest)
        {
            let message = format!(
                "the version {} is a canary: end that first",
                text(other, "version")
            );
            return Err(Error::Plain(StatusCode::CONFLICT, message));
        }
        activation::check_fit(&admin, &balancer.row, &version).await?;
        let mut canary = Row::new();
        canary.insert("id".into(), Uuid::new_v4().to_string().into());
        canary.insert("version".into(), digest.into());
        canary.insert("state".into(), CanaryState::Running.name().into());
        canary.insert("reason".into(), Value::Null);
        canary.extend(asked.clone());
        canary.insert("created_at".into(), clock::unix_seconds().into());
        canary.insert("ended_at".into(), Value::Null);
        if let Some(row) = put(&admin, balancer, canary.into()).await? {
            let share = asked.get("share_percent").cloned().unwrap_or_default();
            let done = format!("canary started: the version {digest} takes {share} % of the picks");
            changes::log(&admin, KIND, &row, &done);
            let canary = shown(&admin, &row);
            return Ok((StatusCode::CREATED, Json(canary)).into_response());
        }
    }
    Err(conflict(KIND))
}

/// Reads the settings of a canary from a request.
fn asked(input: Row) -> Result<Row, Violations> {
    let asked = read_fields(CANARY, input)?;
    let mut wrong = Violations::default();
    if asked.get("share_percent").and_then(Value::as_f64) == Some(0.0) {
        wrong.field("share_percent", "value must be greater than 0");
    }
    let is_all = asked.get("share_percent").and_then(Value::as_f64) == Some(100.0);
    for ratio in ["max_error_ratio", "max_p99_ratio"] {
        if is_all && asked.get(ratio).is_some_and(Value::is_number) {
            let message = "needs a share_percent below 100: nothing is left to compare with";
            wrong.field(ratio, message);
        }
    }
    let has_end = asked.get("duration").is_some_and(Value::is_number);
    if asked.get("promote") == Some(&true.into()) && !has_end {
        let message = "required field missing";
        wrong.conditional("promote", "duration", message);
    }
    if wrong.is_empty() {
        Ok(asked)
    } else {
        Err(wrong)
    }
}

fn not_a_canary(version: &Row) -> Error {
    let message = format!("the version {} is not a canary", text(version, "digest"));
    Error::Plain(StatusCode::NOT_FOUND, message)
}

/// Ends a live canary, and keeps its figures; or removes one that is over.
async fn end(
    State(admin): State<Admin>,
    Path((key, version)): Path<(String, String)>,
) -> Result<StatusCode, Error> {
    for _ in 0..TRIES {
        let balancer = balancer_of(&admin, &key)?;
        let version = named(&admin, &balancer, &version)?;
        let digest = text(&version.row, "digest");
        let canary = canary_in(&balancer.row);
        if canary.is_none_or(|canary| text(canary, "version") != digest) {
            return Err(not_a_canary(&version.row));
        }
        let figures = figures(&admin, &balancer.row);
        let ended = live_in(&balancer.row).map(|canary| {
            let reason = "it was ended by a request to the Admin API".to_owned();
            concluded(canary, CanaryState::Ended, Some(reason), figures)
        });
        let done = match &ended {
            Some(_) => format!("canary ended: the version {digest} takes no picks any longer"),
            None => format!("canary forgotten: that of the version {digest}"),
        };
        if let Some(row) = put(&admin, balancer, ended.into()).await? {
            changes::log(&admin, KIND, &row, &done);
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    Err(conflict(KIND))
}

/// Writes the canary of a balancer. Returns the balancer, or none if it has changed meanwhile.
async fn put(admin: &Admin, balancer: Stored, canary: Value) -> Result<Option<Row>, Error> {
    let input = Row::from_iter([("canary".to_owned(), canary)]);
    let row = KIND.declaration().update(&balancer.row, input)?;
    let write = Write::put(
        KIND,
        id_of(&row),
        row.clone(),
        None,
        Some(balancer.revision),
    );
    Ok(written(admin, vec![write]).await?.then_some(row))
}

/// Follows all canaries, and stores their outcomes.
pub async fn follow_canaries(admin: Admin) {
    let mut canaries = admin.published.canaries();
    let mut followed = HashSet::new();
    loop {
        let going_on = canaries.borrow_and_update().clone();
        followed.retain(|id| going_on.iter().any(|canary| canary.settings.id == *id));
        for canary in going_on {
            if followed.insert(canary.settings.id) {
                tokio::spawn(in_place(follow(admin.clone(), canary)));
            }
        }
        // An error means that the sender was dropped, but `admin` holds it.
        if canaries.changed().await.is_err() {
            return;
        }
    }
}

async fn follow(admin: Admin, canary: Arc<RunningCanary>) {
    let mut verdict = canary.verdict();
    let mut passes = pin!(passes(&canary));
    let mut passed = canary.settings.state == CanaryState::Passed;
    loop {
        let decided = async {
            let decided = verdict.wait_for(|verdict| *verdict != Verdict::Open).await;
            decided.map(|verdict| verdict.clone())
        };
        tokio::select! {
            biased;
            decided = decided => {
                if let Ok(Verdict::Returned(reason)) = decided {
                    conclude(&admin, &canary, CanaryState::Returned, Some(reason)).await;
                }
                return;
            }
            () = &mut passes, if !passed => {
                passed = true;
                pass(&admin, &canary).await;
            }
        }
    }
}

/// Returns once the canary's duration is over and both sides have placed enough requests to be
/// judged; without a duration, never.
async fn passes(canary: &RunningCanary) {
    let Some(duration) = canary.settings.duration else {
        return std::future::pending().await;
    };
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(canary.settings.created_at);
    let end = began + Duration::try_from_secs_f64(duration).unwrap_or_default();
    let left = end.duration_since(SystemTime::now());
    tokio::time::sleep(left.unwrap_or_default()).await;
    while !canary.is_judged() {
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

async fn pass(admin: &Admin, canary: &RunningCanary) {
    let (balancer, version) = (&*canary.name, &*canary.plugin.digest);
    let reason = if canary.settings.promote {
        match promote(admin, canary).await {
            Ok(true) => {
                changes::log_text(&format!(
                    "balancer {balancer:?} canary ended: promoted, since no bound was broken (version {version})"
                ));
                return;
            }
            // The step that ended it reports why.
            Ok(false) => return,
            Err(error) => {
                let reason = format!("it could not be promoted: {}", error.message());
                tracing::warn!(
                    balancer,
                    version,
                    "canary passed, but not promoted: {reason}"
                );
                Some(reason)
            }
        }
    } else {
        tracing::info!(
            balancer,
            version,
            "canary passed: it keeps its share until it is promoted"
        );
        None
    };
    conclude(admin, canary, CanaryState::Passed, reason).await;
}

/// Makes a canary's version active, unless the canary has ended meanwhile; returns whether it did.
async fn promote(admin: &Admin, canary: &RunningCanary) -> Result<bool, Error> {
    for _ in 0..TRIES {
        let Some(balancer) = balancer_with(admin, canary)? else {
            return Ok(false);
        };
        if *canary.verdict().borrow() != Verdict::Open {
            return Ok(false);
        }
        let version = of_digest(&*admin.store, canary.balancer, &canary.plugin.digest)?;
        let version = version.ok_or_else(Error::not_found)?;
        if activation::switch(admin, &balancer, version)
            .await?
            .is_some()
        {
            return Ok(true);
        }
    }
    Err(conflict(KIND))
}

/// The balancer of a canary, while the canary is live.
fn balancer_with(admin: &Admin, canary: &RunningCanary) -> Result<Option<Stored>, Error> {
    let balancer = admin.store.get(KIND, canary.balancer)?;
    let is_own = |balancer: &Stored| {
        live_in(&balancer.row).is_some_and(|row| id_of(row) == canary.settings.id)
    };
    Ok(balancer.filter(is_own))
}

/// Stores the outcome of a canary, unless it has ended in another way. Retries until the write
/// succeeds.
async fn conclude(
    admin: &Admin,
    canary: &RunningCanary,
    state: CanaryState,
    reason: Option<String>,
) {
    loop {
        let written = async {
            let Some(balancer) = balancer_with(admin, canary)? else {
                return Ok(true);
            };
            let figures = Some(figures_of(canary));
            let row = live_in(&balancer.row);
            let row = row.map(|row| concluded(row, state, reason.clone(), figures));
            let Some(row) = put(admin, balancer, row.into()).await? else {
                return Ok(false);
            };
            if !state.is_live() {
                let why = reason.as_deref().unwrap_or(state.name());
                let digest = &canary.plugin.digest;
                let done = format!("canary taken back: {why} (version {digest})");
                changes::log(admin, KIND, &row, &done);
            }
            Ok::<_, Error>(true)
        };
        match written.await {
            Ok(true) => return,
            // Another request has written the row. The canary may have ended by that: look again.
            Ok(false) => {}
            Err(error) => {
                let (balancer, state) = (&*canary.name, state.name());
                let cause = error.message();
                tracing::error!(
                    balancer,
                    state,
                    "cannot store the outcome of a canary: {cause}"
                );
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        }
    }
}
