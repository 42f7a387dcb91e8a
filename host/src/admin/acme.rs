//! `/acme`: the certificates that the plugin `acme` requests, and their next tries. Source: Kong
//! 3.9, `kong.plugins.acme.api`.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, patch};
use http::StatusCode;
use serde_json::{Value, json};

use super::arguments::Path;
use super::error::Error;
use super::{Admin, ApiEndpoint, ApiResult};
use crate::acme::Name;
use crate::clock;
use crate::entity::sni::same_name;

const READ: &str = "GET, HEAD, OPTIONS";

pub(super) fn endpoints() -> [ApiEndpoint; 3] {
    [
        ("/acme".into(), patch(hurry), "OPTIONS, PATCH"),
        ("/acme/certificates".into(), get(list), READ),
        ("/acme/certificates/{key}".into(), get(show), READ),
    ]
}

/// Has the names that have failed tried again now, as all others are when they are due.
async fn hurry(State(admin): State<Admin>) -> ApiResult {
    admin.acme.hurry();
    let message = json!({ "message": "Renewal process started successfully" });
    Ok((StatusCode::ACCEPTED, Json(message)).into_response())
}

async fn list(State(admin): State<Admin>) -> Json<Value> {
    let names = admin.acme.names();
    let shown: Vec<Value> = names
        .iter()
        .map(|(name, state)| shown(name, state))
        .collect();
    Json(json!({ "data": shown, "next": null }))
}

async fn show(State(admin): State<Admin>, Path(name): Path<String>) -> ApiResult {
    let name = same_name(&name);
    let names = admin.acme.names();
    let state = names.get(&name).ok_or_else(Error::not_found)?;
    Ok(Json(shown(&name, state)).into_response())
}

/// The state of a name. Times are in seconds since 1970.
fn shown(name: &str, state: &Name) -> Value {
    let seconds = |time: SystemTime| clock::since_1970(time).as_secs();
    json!({
        "name": name,
        "certificate": state.certificate.map(|id| json!({ "id": id })),
        "not_after": state.not_after,
        "in_progress": state.is_in_progress,
        "next_try": state.next_try.map(seconds),
        "suggested_renewal": state.suggested_renewal().map(seconds),
        "last_error": state.last_error,
        "failures": state.failures,
    })
}
