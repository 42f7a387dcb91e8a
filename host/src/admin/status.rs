//! The state of this node: connections, requests, memory, and whether changes can be stored.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::error::Error;
use super::{Admin, BODY_LIMIT, decode};
use crate::entity::Field;
use crate::proxy::Counters;
use crate::store::Condition;

/// Most decimal places that `scale` of `GET /status` can ask for: no amount of memory has more that
/// matter.
const MOST_DIGITS: f64 = 30.0;

/// `GET /status`: connections, requests, memory, and the state of the store.
pub(super) async fn status(
    State(admin): State<Admin>,
    request: Request,
) -> Result<Response, Error> {
    let mut unit = "m".to_owned();
    let mut scale = 2_usize;
    for (name, value) in form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()) {
        match &*name {
            "unit" => unit = value.into_owned(),
            // A value that is not a number has no effect. Source: Kong.
            "scale" => {
                if let Ok(digits) = value.parse::<f64>() {
                    if digits < 0.0 {
                        return Err(Error::bad_request("scale must be equal or greater than 0"));
                    }
                    scale = digits.min(MOST_DIGITS) as usize;
                }
            }
            _ => {}
        }
    }
    let (divisor, suffix) = match unit.as_str() {
        "" | "b" | "B" => (1.0, "B"),
        "k" | "K" => (1024.0, "KiB"),
        "m" | "M" => (1024.0 * 1024.0, "MiB"),
        "g" | "G" => (1024.0 * 1024.0 * 1024.0, "GiB"),
        other => {
            let message = format!("invalid unit '{other}' (expected 'k/K', 'm/M', or 'g/G')");
            return Err(Error::bad_request(message));
        }
    };
    let resident = resident_bytes().map(|bytes| {
        if suffix == "B" {
            json!(bytes)
        } else {
            json!(format!("{:.scale$} {suffix}", bytes as f64 / divisor))
        }
    });
    let store = admin.store.condition();
    let sum = |of| sum(&admin, of);
    let accepted = sum(|counters| &counters.accepted);
    let active = sum(|counters| &counters.active);
    let mut status = json!({
        "memory": { "workers_lua_vms": [], "lua_shared_dicts": {}, "resident": resident },
        "server": {
            "connections_accepted": accepted,
            "connections_handled": accepted.saturating_sub(sum(|counters| &counters.refused)),
            "connections_active": active,
            // Open connections are not counted by what they do: all count as writing.
            "connections_reading": 0,
            "connections_writing": active,
            "connections_waiting": 0,
            "total_requests": sum(|counters| &counters.requests),
        },
        "pointsman": { "store": shown(&store) },
    });
    if admin.config.database {
        status["database"] = json!({ "reachable": store.failure.is_none() });
    } else {
        status["configuration_hash"] = admin.loaded.hash().into();
    }
    if let Some(wrong) = admin.loaded.wrong() {
        status["pointsman"]["declarative_config"] = json!({ "wrong": wrong });
    }
    Ok(Json(status).into_response())
}

/// The state of the store, for operators.
fn shown(store: &Condition) -> Value {
    let failure = store.failure.as_ref();
    let since = failure.and_then(|failure| failure.since.duration_since(UNIX_EPOCH).ok());
    let set_aside = store
        .set_aside
        .iter()
        .map(|row| json!({ "entity": row.kind.name(), "id": row.id, "reason": row.reason }));
    json!({
        "writable": failure.is_none(),
        "reason": failure.map(|failure| &*failure.reason),
        "since": since.map(|since| since.as_secs()),
        "set_aside": set_aside.collect::<Vec<_>>(),
    })
}

/// `GET /status/ready`: whether the gateway serves the configured entities and accepts changes, and
/// was not told to drain. As Kong's Status API.
pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    let unready = |reason| Error::Plain(StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
    if admin.draining.load(Ordering::Relaxed) {
        return unready("draining".into());
    }
    if !admin.config.database && !admin.loaded.has_entities() {
        return unready("no configuration available (empty configuration present)".into());
    }
    match admin.store.condition().failure {
        None => {
            let mut answer = json!({ "message": "ready" });
            if let Some(wrong) = admin.loaded.wrong() {
                // It serves what was loaded before.
                answer["pointsman"] = json!({ "declarative_config": { "wrong": wrong } });
            }
            Json(answer).into_response()
        }
        Some(failure) => unready(format!("the store cannot be written: {}", failure.reason)),
    }
}

/// `GET /status/dns`: the answer of a Kong whose settings of DNS are those of this gateway, which
/// have no statistics there.
pub(super) async fn dns() -> Error {
    let message = "not implemented with the legacy DNS client";
    Error::Plain(StatusCode::NOT_IMPLEMENTED, message.into())
}

/// The fields of `POST /status/ready`.
const READY_FIELDS: &[Field] = &[Field::string("status")];

/// `POST /status/ready` with the status `draining`: from now on the gateway is not ready, so that a
/// load balancer in front of it sends it no more requests. It goes on to serve those that come.
pub(super) async fn set_ready(
    State(admin): State<Admin>,
    request: Request,
) -> Result<StatusCode, Error> {
    let fields = decode::fields(READY_FIELDS, request, BODY_LIMIT).await?;
    if fields.get("status").and_then(Value::as_str) != Some("draining") {
        return Err(Error::bad_request("the status can only be set to draining"));
    }
    if !admin.draining.swap(true, Ordering::Relaxed) {
        tracing::warn!("draining: the gateway is not ready until it is started again");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A counter, summed over all workers.
pub(super) fn sum(admin: &Admin, of: fn(&Counters) -> &AtomicU64) -> u64 {
    let workers = admin.counters.iter();
    workers
        .map(|worker| of(worker).load(Ordering::Relaxed))
        .sum()
}

/// Resident memory of this process, if the system reports it.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
