//! `GET /upstreams/{u}/shadow`: what a second balancer would have done.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use serde_json::{Value, json};

use super::Admin;
use super::ApiEndpoint;
use super::arguments::Path;
use super::candidate::{self, CandidateError};
use super::error::Error;
use super::rows::{find, id_of};
use crate::balancer::Engine;
use crate::entity::{Kind, Row};
use crate::store::{Store, Write};

pub(super) fn endpoint() -> ApiEndpoint {
    (
        "/upstreams/{key}/shadow".into(),
        get(show),
        "GET, HEAD, OPTIONS",
    )
}

async fn show(State(admin): State<Admin>, Path(key): Path<String>) -> Result<Response, Error> {
    let upstream = find(&admin, Kind::Upstream, &key)?;
    let upstream = upstream.ok_or_else(|| Error::missing("upstream", &key))?;
    let upstream = admin.upstream(id_of(&upstream.row))?;
    let Some(shadow) = upstream.shadow() else {
        return Err(Error::Plain(
            StatusCode::NOT_FOUND,
            "this upstream has no shadow: set pointsman.shadow.balancer to add one".into(),
        ));
    };
    let balancer = Arc::clone(upstream.balancer());
    // If a call of the shadow is under way, this request waits for it; no other work does.
    let report = admin.engine.aside(move || {
        let mut report = shadow.report();
        let times = balancer.counters().times;
        report.first.pick_ns =
            (times.count() > 0).then(|| times.sum() * 1e9 / times.count() as f64);
        report
    });
    Ok(Json(report.await?).into_response())
}

/// Checks the shadow that an upstream asks for. Returns what to write together with the upstream,
/// so that the version asked for is not deleted meanwhile.
///
/// # Errors
/// Which field is wrong, and how.
pub(super) async fn check(
    store: &Arc<dyn Store>,
    engine: &Arc<Engine>,
    upstream: &Row,
) -> Result<Option<Write>, Error> {
    let given = upstream.get("pointsman");
    let given = given.and_then(|extension| extension.get("shadow"));
    let Some(shadow) = given.and_then(Value::as_object) else {
        return Ok(None);
    };
    let found = candidate::find(store, engine, shadow).await;
    let found = found.map_err(|wrong| match wrong {
        CandidateError::Field(field, message) => {
            let message = json!({ "shadow": { field: message } });
            Error::field("pointsman", message)
        }
        CandidateError::Other(error) => error,
    })?;
    let is_pinned = shadow.get("version").is_some_and(Value::is_string);
    let pinned = found.filter(|_| is_pinned);
    Ok(pinned.map(|(_, balancer)| Write::Replace {
        kind: Kind::Balancer,
        id: id_of(&balancer.row),
        row: balancer.row,
        expected: balancer.revision,
        blob: None,
    }))
}
