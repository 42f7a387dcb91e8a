//! From an uploaded component to a version: the component is checked, either while the client waits
//! or in the background.
//!
//! A check that takes long, or that the client does not want to wait for, runs in the background;
//! meanwhile the version's row says that it is being checked. A check that a restart interrupts is
//! run again.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::Admin;
use super::changes;
use super::error::Error;
use super::rows::{TRIES, conflict, id_of};
use super::version_rows::{of_digest, text, written};
use crate::balancer::{LoadError, LoadedBalancer};
use crate::component::{ComponentError, digest};
use crate::entity::{Kind, Row, Violation};
use crate::in_place::in_place;
use crate::store::Write;

const KIND: Kind = Kind::BalancerVersion;

/// Longest time that a client waits for a check. A check takes part of a second; clients and
/// intermediaries often give up after 10 s or more.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Limits the checks that run in the background at a time, since the machine has other work.
static TURNS: Semaphore = Semaphore::const_new(2);

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";

/// The result of an upload.
pub(super) enum Taken {
    /// A version that is ready.
    Ready(Row),
    /// A version that existed already.
    Known(Row),
    /// A version that is being checked.
    Checking(Row),
}

/// Whether the client prefers not to wait (RFC 7240, 4.1).
pub(super) fn prefers_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().map(HeaderValue::as_bytes);
    let mut preferences = values.flat_map(|value| value.split(|byte| *byte == b','));
    preferences.any(|preference| {
        let name = preference.split(|byte| matches!(byte, b';' | b'=')).next();
        let name = name.unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(RESPOND_ASYNC.as_bytes())
    })
}

/// The answer while a version is being checked: where its progress can be read.
pub(super) fn accepted(balancer: Uuid, row: Row, is_async: bool) -> Response {
    let location = format!("/balancers/{balancer}/versions/{}", id_of(&row));
    let body = Json(Value::from(row));
    let mut response = (StatusCode::ACCEPTED, [(LOCATION, location)], body).into_response();
    if is_async {
        let applied = HeaderValue::from_static(RESPOND_ASYNC);
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// Accepts an upload. The check goes on even if the client disconnects.
pub(super) async fn take(
    admin: Admin,
    balancer: Uuid,
    component: Bytes,
    is_async: bool,
) -> Result<Taken, Error> {
    if component.is_empty() {
        return Err(LoadError::from(ComponentError::Empty).into());
    }
    let digest = digest(&component);
    if let Some(known) = of_digest(&*admin.store, balancer, &digest)? {
        match known.row.get("state").and_then(Value::as_str) {
            Some("checking") => return Ok(Taken::Checking(known.row)),
            Some("ready") => return Ok(Taken::Known(known.row)),
            // A version whose check failed is checked again.
            _ => {}
        }
    }
    let (answer, answered) = oneshot::channel();
    let new = New {
        admin,
        balancer,
        digest,
        component,
    };
    tokio::spawn(in_place(async move {
        if is_async {
            new.check_behind(answer).await;
        } else {
            new.check_in_sight(answer).await;
        }
    }));
    let gone = |_| LoadError::Component(ComponentError::Internal("a check has stopped".into()));
    answered.await.map_err(gone)?
}

type Reply = oneshot::Sender<Result<Taken, Error>>;

/// An uploaded component that is not a version yet. An answer is dropped if its client no longer
/// waits.
struct New {
    admin: Admin,
    balancer: Uuid,
    digest: String,
    component: Bytes,
}

impl New {
    async fn check_in_sight(self, reply: Reply) {
        let mut check = std::pin::pin!(self.admin.engine.load(self.component.clone()));
        match tokio::time::timeout(CHECK_TIMEOUT, &mut check).await {
            Ok(Ok(plugin)) => {
                let row = self.write(facts(Ok(&plugin))).await;
                let _ = reply.send(row.map(Taken::Ready));
            }
            Ok(Err(error)) => {
                let _ = reply.send(Err(error.into()));
            }
            Err(_) => {
                if self.announce(reply).await {
                    let checked = check.await;
                    settle(&self.admin, self.balancer, &self.digest, checked.as_deref()).await;
                }
            }
        }
    }

    async fn check_behind(self, reply: Reply) {
        if self.announce(reply).await {
            // An error means that the semaphore was closed, which no code does.
            let _turn = TURNS.acquire().await;
            let checked = self.admin.engine.load(self.component.clone()).await;
            settle(&self.admin, self.balancer, &self.digest, checked.as_deref()).await;
        }
    }

    /// Stores that the component is being checked, and answers the client. Returns whether it is.
    async fn announce(&self, reply: Reply) -> bool {
        let row = self.write(checking()).await;
        let taken = row.map(|row| {
            // Another upload of the same component may have finished first.
            let is_checking = row.get("state").and_then(Value::as_str) == Some("checking");
            let taken = if is_checking {
                Taken::Checking(row)
            } else {
                Taken::Known(row)
            };
            (is_checking, taken)
        });
        let (is_checking, taken) = match taken {
            Ok((is_checking, taken)) => (is_checking, Ok(taken)),
            Err(error) => (false, Err(error)),
        };
        let _ = reply.send(taken);
        is_checking
    }

    /// Writes what is known of the component. A version that is ready stays so.
    async fn write(&self, facts: Row) -> Result<Row, Error> {
        let store = &*self.admin.store;
        for _ in 0..TRIES {
            let known = of_digest(store, self.balancer, &self.digest)?;
            let (row, write) = match known {
                Some(known) if known.row.get("state") == Some(&"ready".into()) => {
                    return Ok(known.row);
                }
                Some(known) => {
                    let row = KIND.declaration().update(&known.row, facts.clone())?;
                    let id = id_of(&row);
                    let old = Some(known.revision);
                    (row.clone(), Write::put(KIND, id, row, None, old))
                }
                None => {
                    let size = self.component.len();
                    let row = row(self.balancer, &self.digest, size, facts.clone())?;
                    let blob = Some(self.component.clone());
                    let id = id_of(&row);
                    (row.clone(), Write::put(KIND, id, row, blob, None))
                }
            };
            if written(&self.admin, vec![write]).await? {
                return Ok(row);
            }
        }
        Err(conflict(KIND))
    }
}

/// Runs the checks again that an earlier run of the gateway did not finish.
pub async fn resume_checks(admin: Admin) {
    let is_checking = |row: &Row| row.get("state") == Some(&"checking".into());
    let unfinished = admin.store.list(KIND, None, usize::MAX, &is_checking);
    for version in unfinished.unwrap_or_else(|error| {
        tracing::error!("cannot look for unfinished checks of components: {error}");
        Vec::new()
    }) {
        let balancer = version.row.get("balancer").and_then(Value::as_object);
        let (Some(balancer), Some(digest)) = (
            balancer.map(id_of),
            version.row.get("digest").and_then(Value::as_str),
        ) else {
            continue;
        };
        let Ok(Some(component)) = admin.store.blob(KIND, id_of(&version.row)) else {
            continue;
        };
        let checked = admin.engine.load(component).await;
        settle(&admin, balancer, digest, checked.as_deref()).await;
    }
}

/// Stores the outcome of a check. A version that was deleted meanwhile stays deleted.
async fn settle(
    admin: &Admin,
    balancer: Uuid,
    digest: &str,
    checked: Result<&LoadedBalancer, &LoadError>,
) {
    if let Err(LoadError::Component(ComponentError::Internal(cause))) = checked {
        tracing::error!("cannot load a component: {cause}");
    }
    let mut facts = facts(checked);
    for _ in 0..TRIES {
        let settled = async {
            let is_checking = |row: &Row| row.get("state") == Some(&"checking".into());
            let known = of_digest(&*admin.store, balancer, digest)?;
            let Some(known) = known.filter(|known| is_checking(&known.row)) else {
                return Ok(true);
            };
            let row = KIND.declaration().update(&known.row, facts.clone())?;
            let id = id_of(&row);
            let write = Write::put(KIND, id, row.clone(), None, Some(known.revision));
            let is_written = written(admin, vec![write]).await?;
            if is_written {
                let done = match text(&row, "state") {
                    "ready" => "checked: ready".to_owned(),
                    _ => format!("checked: failed, {}", text(&row, "reason")),
                };
                changes::log(admin, KIND, &row, &done);
            }
            Ok(is_written)
        };
        match settled.await {
            Ok(true) => {
                admin.left_over.notify_one();
                return;
            }
            Ok(false) => {}
            // The component's description of itself cannot be stored, so the check has failed.
            Err::<_, Error>(Error::Plain(StatusCode::BAD_REQUEST, reason))
                if text(&facts, "state") == "ready" =>
            {
                facts = failed(&reason);
            }
            Err::<_, Error>(error) => {
                // The row still says that the version is being checked, so the next start checks
                // it.
                tracing::error!(
                    version = digest,
                    "cannot store the outcome of a check: {error:?}"
                );
                return;
            }
        }
    }
}

/// The row of a new version.
pub(super) fn row(
    balancer: Uuid,
    digest: &str,
    size: usize,
    mut facts: Row,
) -> Result<Row, Violation> {
    facts.insert("balancer".into(), json!({ "id": balancer }));
    facts.insert("digest".into(), digest.into());
    facts.insert("size".into(), size.into());
    // Ids ascend in the order of creation, so that the newest of one second is known.
    KIND.declaration().create(Uuid::now_v7(), facts)
}

fn checking() -> Row {
    fields(json!({
        "state": "checking",
        "reason": null,
        "description": null,
        "exports": null,
        "imports": null,
    }))
}

/// The fields of a version that its check sets.
pub(super) fn facts(checked: Result<&LoadedBalancer, &LoadError>) -> Row {
    fields(match checked {
        Ok(plugin) => {
            let columns = plugin.columns.iter().map(|column| column.name());
            json!({
                "state": "ready",
                "reason": null,
                "description": {
                    "name": plugin.name,
                    "version": plugin.version,
                    "config_schema": plugin.config_schema,
                    "columns": columns.collect::<Vec<_>>(),
                },
                "exports": plugin.exports,
                "imports": plugin.imports,
            })
        }
        Err(error) => return failed(&error.to_string()),
    })
}

fn failed(reason: &str) -> Row {
    fields(json!({
        "state": "failed",
        "reason": reason,
        "description": null,
        "exports": null,
        "imports": null,
    }))
}

fn fields(value: Value) -> Row {
    match value {
        Value::Object(fields) => fields,
        _ => Row::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_one_of_a_list_and_may_have_parameters() {
        let prefers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_static(value));
            }
            prefers_async(&headers)
        };
        assert!(prefers(&["respond-async"]));
        assert!(prefers(&["wait=10, Respond-Async"]));
        assert!(prefers(&["wait=10", "respond-async; foo=bar"]));
        assert!(!prefers(&[]));
        assert!(!prefers(&["return=minimal", "handling=respond-async"]));
    }
}
