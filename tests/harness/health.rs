//! The health of targets, as the Admin API shows and sets it: all functions are for the upstream
//! `u` that [`Gateway::balanced`] makes.

use std::fmt::Display;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Gateway;

/// Changes fields of the upstream.
pub(crate) fn patch_upstream(gateway: &Gateway, fields: &Value) {
    let answer = gateway.admin_json("PATCH", "/upstreams/u", fields);
    answer.expect(200);
}

/// Sets the thresholds of passive health checks.
pub(crate) fn set_passive_checks(gateway: &Gateway, unhealthy: &Value) {
    patch_upstream(
        gateway,
        &json!({"healthchecks": {"passive": {"unhealthy": unhealthy}}}),
    );
}

/// The fields of an upstream that make quick active health checks of a type, with more fields of
/// them.
pub(crate) fn active_checks(kind: &str, more: &Value) -> Value {
    let mut active = json!({
        "type": kind,
        "http_path": "/probe",
        // So long that a busy machine is no failure of a probe.
        "timeout": 10,
        "healthy": {"interval": 0.05, "successes": 2},
        "unhealthy": {"interval": 0.05, "http_failures": 2, "tcp_failures": 2, "timeouts": 1},
    });
    let fields = active.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    json!({"healthchecks": {"active": active}})
}

/// The state of a target, and what is shown of its first address.
pub(crate) fn health(gateway: &Gateway, target: impl Display) -> (String, Value) {
    let all = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    let all = all.json();
    let rows = all["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["target"] == target.to_string());
    let row = row.unwrap_or_else(|| panic!("{target} is not in {all}"));
    (
        row["health"].as_str().unwrap().to_owned(),
        row["data"]["addresses"][0].clone(),
    )
}

/// Whether a target is in a state.
pub(crate) fn has_health(gateway: &Gateway, target: impl Display, state: &str) -> bool {
    health(gateway, target).0 == state
}

/// Sets a target to `healthy` or `unhealthy`, as an operator does.
pub(crate) fn set_health(gateway: &Gateway, target: SocketAddr, state: &str) {
    let path = format!("/upstreams/u/targets/{target}/{state}");
    gateway.admin("PUT", &path, &[]).expect(204);
}
