//! The level of the log, while the gateway runs. Source: Kong 3.9, `kong.api.routes.debug`.
//!
//! One gateway is the whole cluster, so the level of the cluster is that of the node.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::routing::{get, put};
use serde_json::{Value, json};

use super::arguments::{self, Path};
use super::error::Error;
use super::{Admin, ApiEndpoint};
use crate::log_level::filter_of;

/// Seconds until the level returns to the setting, unless a request says otherwise. Source: Kong.
const TIMEOUT: u32 = 60;

pub(super) fn endpoints() -> Vec<ApiEndpoint> {
    let mut endpoints = vec![(
        "/debug/node/log-level".to_owned(),
        get(show),
        "GET, HEAD, OPTIONS",
    )];
    for scope in ["node", "cluster"] {
        let path = format!("/debug/{scope}/log-level/{{log_level}}");
        endpoints.push((path, put(change), "OPTIONS, PUT"));
    }
    endpoints
}

async fn show(State(admin): State<Admin>) -> Json<Value> {
    let level = admin.log_level.shown();
    Json(json!({ "message": format!("log level: {level}") }))
}

async fn change(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let query = request.uri().query().unwrap_or_default();
    let timeout = timeout(query)?;
    let filter = filter_of(&name);
    let filter = filter.ok_or_else(|| Error::bad_request(format!("unknown log level: {name}")))?;
    let Some(change) = admin.log_level.set(&name, filter) else {
        let message = format!("log level is already {name}");
        return Ok(Json(json!({ "message": message })));
    };
    tracing::info!("log level changed to {name}");
    if let Some(timeout) = timeout {
        admin.log_level.revert_after(timeout, change);
    }
    Ok(Json(json!({ "message": "log level changed" })))
}

/// The time until the level returns to the setting; none if it is to stay. A value that is not a
/// number has no effect, as in Kong.
fn timeout(query: &str) -> Result<Option<Duration>, Error> {
    let pairs = arguments::pairs(query.as_bytes())?;
    let given = pairs.iter().rev().find(|(name, _)| name == "timeout");
    let seconds = given.and_then(|(_, value)| value.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| seconds.is_finite());
    let seconds = seconds.unwrap_or(f64::from(TIMEOUT)).ceil();
    if seconds < 0.0 {
        return Err(Error::bad_request(
            "timeout must be greater than or equal to 0",
        ));
    }
    let seconds = seconds.min(f64::from(u32::MAX)) as u64;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        let read = |query| timeout(query).ok();
        assert_eq!(read(""), Some(Some(Duration::from_secs(60))));
        assert_eq!(read("timeout=soon"), read(""));
        assert_eq!(read("timeout=1.2"), Some(Some(Duration::from_secs(2))));
        assert_eq!(read("timeout=0"), Some(None));
        assert_eq!(read("timeout=-1"), None);
    }
}
