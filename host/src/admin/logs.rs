//! The log lines of balancers.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};

use super::Admin;
use super::arguments::Path;
use super::error::Error;
use super::rows::find;
use crate::entity::Kind;

pub(super) fn endpoint() -> super::ApiEndpoint {
    (
        "/balancers/{key}/logs".into(),
        get(logs),
        "GET, HEAD, OPTIONS",
    )
}

/// The last lines of a balancer's instances, the oldest first, and how many lines were dropped.
async fn logs(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Json<Value>, Error> {
    let row = find(&admin, Kind::Balancer, &key)?
        .ok_or_else(|| Error::missing("balancer", &key))?
        .row;
    let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
    let journal = admin.engine.journal(name);
    let (lines, dropped) = journal.map(|journal| journal.read()).unwrap_or_default();
    Ok(Json(json!({ "data": lines, "dropped": dropped })))
}
