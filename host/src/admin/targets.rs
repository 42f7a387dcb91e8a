//! Targets: their list, and the health of their addresses. Source: Kong 3.9,
//! `kong.api.routes.upstreams`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Admin;
use super::ApiEndpoint;
use super::ApiResult;
use super::arguments::Path;
use super::changes;
use super::decode;
use super::error::Error;
use super::hooks::Hooks;
use super::lists::newest_first;
use super::rows::{find, find_in, id_of, parent_id};
use crate::authority::{Authority, Host};
use crate::endpoint::{REPORTED_VALUES, ReportName, ReportedValue};
use crate::endpoint_address::{EndpointAddress, unix_path};
use crate::entity::target::DEFAULT_PORT;
use crate::entity::{Kind, Reference, Row};
use crate::node;
use crate::upstream::{AddressReport, Upstream, Weights};

const KIND: Kind = Kind::Target;

pub(super) const HOOKS: Hooks = Hooks {
    before_insert: has_a_form,
    beside_list: add_endpoints,
    ..Hooks::NONE
};

pub(super) fn endpoints() -> Vec<ApiEndpoint> {
    let health = get(
        async |State(admin): State<Admin>, Path(upstream): Path<String>, request: Request| {
            health(&admin, &upstream, &request)
        },
    );
    let mut endpoints = vec![(
        "/upstreams/{key}/health".to_owned(),
        health,
        "GET, HEAD, OPTIONS",
    )];
    for (word, available) in [("healthy", true), ("unhealthy", false)] {
        let target = put(
            async move |State(admin): State<Admin>,
                        Path((upstream, target)): Path<(String, String)>| {
                set_health(&admin, &upstream, &target, None, available)
            },
        );
        let address = put(
            async move |State(admin): State<Admin>,
                        Path((upstream, target, address)): Path<(String, String, String)>| {
                set_health(&admin, &upstream, &target, Some(&address), available)
            },
        );
        let path = TARGET;
        endpoints.push((format!("{path}/{word}"), target, "OPTIONS, PUT"));
        endpoints.push((
            format!("{path}/{{address}}/{word}"),
            address,
            "OPTIONS, PUT",
        ));
    }
    endpoints.push((
        format!("{TARGET}/facts"),
        get(show_reported).patch(set_reported),
        "GET, HEAD, OPTIONS, PATCH",
    ));
    endpoints
}

/// Path of a target.
const TARGET: &str = "/upstreams/{key}/targets/{nested}";

/// Largest body with values, in bytes.
const VALUES_LIMIT: usize = 64 << 10;

async fn show_reported(
    State(admin): State<Admin>,
    Path((upstream, target)): Path<(String, String)>,
) -> ApiResult {
    let (upstream, target) = target_of(&admin, &upstream, &target)?;
    Ok(Json(reported_values_of(&upstream, id_of(&target))).into_response())
}

/// Sets reported values of a target for a limited time. They are those of this gateway, and not
/// stored: what they say is soon old.
async fn set_reported(
    State(admin): State<Admin>,
    Path((upstream, target)): Path<(String, String)>,
    request: Request,
) -> ApiResult {
    let (upstream, target) = target_of(&admin, &upstream, &target)?;
    let input = decode::fields(&[], request, VALUES_LIMIT).await?;
    let too_many = || {
        Error::bad_request(format!(
            "the target has too many reported values: at most {REPORTED_VALUES}, whatever their source; null removes one"
        ))
    };
    // Before the names come into use.
    if input.len() > REPORTED_VALUES {
        return Err(too_many());
    }
    let mut values = Vec::new();
    for (name, value) in &input {
        let value = match value {
            Value::Null => None,
            Value::Number(value) => value.as_f64(),
            // In a form.
            Value::String(value) => Some(value.parse().unwrap_or(f64::NAN)),
            _ => Some(f64::NAN),
        };
        if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
            return Err(Error::field(
                name,
                "expected a number of at least 0, or null",
            ));
        }
        if value.is_none() && ReportName::known(name).is_none() {
            // No target has it.
            continue;
        }
        let name = ReportName::of(name).ok_or_else(|| {
            Error::field(
                name,
                "expected a name of 1 to 128 printable ASCII characters without spaces, commas, quotes and \
                 equals signs, of at most 1024 that are in use",
            )
        })?;
        values.push((name, value));
    }
    let target = id_of(&target);
    if !upstream.set_reported_values(target, &values) {
        return Err(too_many());
    }
    Ok(Json(reported_values_of(&upstream, target)).into_response())
}

fn reported_values_of(upstream: &Upstream, target: Uuid) -> Value {
    let addresses = upstream
        .reported_values(target)
        .into_iter()
        .map(|(address, values)| {
            let values = values.into_iter().map(|(reported, left)| {
                let shown = json!({ "value": reported.value, "expires_in": millis(left) });
                (reported.name.text().to_owned(), shown)
            });
            json!({ "address": address, "facts": values.collect::<Row>() })
        });
    json!({ "data": addresses.collect::<Vec<_>>() })
}

/// Reported values by their names.
pub(super) fn values_by_name(values: &[ReportedValue]) -> Value {
    let values = values.iter();
    let values = values.map(|reported| (reported.name.text().to_owned(), json!(reported.value)));
    Value::Object(values.collect())
}

/// The upstream and the target that a path names.
fn target_of(admin: &Admin, upstream: &str, target: &str) -> Result<(Arc<Upstream>, Row), Error> {
    let row = find(admin, Kind::Upstream, upstream)?.ok_or_else(Error::not_found)?;
    let id = id_of(&row.row);
    let reference: &Reference = Kind::Target
        .references()
        .first()
        .ok_or_else(Error::not_found)?;
    let target = find_in(admin, Kind::Target, reference, id, target)?;
    let target = target.ok_or_else(Error::not_found)?.row;
    Ok((admin.upstream(id)?, target))
}

fn health(admin: &Admin, key: &str, request: &Request) -> ApiResult {
    let id = parent_id(admin, Kind::Upstream, key)?;
    let upstream = admin.upstream(id)?;
    let query = request.uri().query().unwrap_or_default();
    let whole = form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "balancer_health" && value != "0");
    let addresses = upstream.addresses();
    if whole {
        let targets = admin
            .store
            .list_referring(Kind::Target, "upstream", id, None, usize::MAX)?;
        let hosts = targets.iter().map(|stored| {
            let addresses = of_target(&addresses, id_of(&stored.row));
            details(
                admin,
                &upstream,
                &stored.row,
                &addresses,
                |address| json!({ "healthy": address.available, "pointsman": { "id": shown_id(address.id) } }),
            )
        });
        let healthy = upstream.is_healthy();
        let state = if healthy { "HEALTHY" } else { "UNHEALTHY" };
        let checked = upstream.policy().is_checked();
        let answer = json!({
            "data": {
                "id": id,
                "health": if checked { state } else { "HEALTHCHECKS_OFF" },
                "balancer_health": state,
                "details": {
                    "healthy": healthy,
                    "weight": sums(upstream.weights(None)),
                    "hosts": hosts.collect::<Vec<_>>(),
                },
                "pointsman": { "without_peer": without_peer(&upstream) },
            },
            "next": null,
            "node_id": node::id(),
        });
        return Ok(Json(answer).into_response());
    }
    let mut answer = newest_first(admin, KIND, "upstream", id, request, |mut row| {
        let own = of_target(&addresses, id_of(&row));
        let checked = upstream.policy().is_checked();
        // A target without a weight gets no requests, so no check of its health counts.
        let weighs = row.get("weight").and_then(Value::as_u64) != Some(0);
        let state = |available| state(checked && weighs, available);
        let health = match own.as_slice() {
            [] => "DNS_ERROR",
            own => state(own.iter().any(|address| address.available)),
        };
        let data = details(
            admin,
            &upstream,
            &row,
            &own,
            |address| json!({ "health": state(address.available), "pointsman": known(address) }),
        );
        row.insert("health".into(), health.into());
        row.insert("data".into(), data);
        row.into()
    })?;
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("node_id".into(), json!(node::id()));
        let counters = json!({ "without_peer": without_peer(&upstream) });
        answer.insert("pointsman".into(), counters);
    }
    Ok(Json(answer).into_response())
}

/// Requests that found no endpoint, by the reason.
fn without_peer(upstream: &Upstream) -> Value {
    let counts = upstream.without_peer();
    let counts = counts.map(|(reason, count)| (reason.code().to_owned(), json!(count)));
    Value::Object(counts.collect())
}

/// Kong's word for the state of an address.
pub(super) fn state(checked: bool, available: bool) -> &'static str {
    match (checked, available) {
        (false, _) => "HEALTHCHECKS_OFF",
        (true, true) => "HEALTHY",
        (true, false) => "UNHEALTHY",
    }
}

fn of_target(addresses: &[AddressReport], target: Uuid) -> Vec<&AddressReport> {
    let own = addresses.iter().filter(|address| address.target == target);
    own.collect()
}

/// What Kong shows of the host of a target.
fn details(
    admin: &Admin,
    upstream: &Upstream,
    row: &Row,
    addresses: &[&AddressReport],
    state: impl Fn(&AddressReport) -> Value,
) -> Value {
    let text = row
        .get("target")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let target = Authority::of_setting(text);
    let host = target.as_ref().map(|target| &target.host);
    let list = addresses.iter().map(|address| {
        let mut shown = json!({
            "ip": address.address.without_port(),
            "port": address.address.port(),
            "weight": address.weight,
        });
        if let (Some(shown), Value::Object(state)) = (shown.as_object_mut(), state(address)) {
            shown.extend(state);
        }
        shown
    });
    let mut shown = json!({
        "host": unix_path(text).map_or_else(|| host.map(Host::bare), |_| Some(text)),
        "port": target.as_ref().and_then(|target| target.port),
        "dns": host.map(|host| admin.names.kind(host)),
        "nodeWeight": row.get("weight"),
        "weight": sums(upstream.weights(Some(id_of(row)))),
        "addresses": list.collect::<Vec<_>>(),
    });
    if let Some(freshness) = host.and_then(|host| admin.names.freshness(host)) {
        let (age, left) = (freshness.age.as_secs_f64(), freshness.left);
        shown["pointsman"] = json!({ "dns": { "age": millis(age), "expires_in": millis(left) } });
    }
    shown
}

/// The id of an endpoint, as in cookies of sticky sessions, traces and `explain`: 16 hexadecimal
/// digits, since a JSON number cannot hold every id.
pub(super) fn shown_id(id: u64) -> String {
    format!("{id:016x}")
}

/// The ids by which the balancer of an upstream knows the addresses of its targets. They are beside
/// the rows and not in them, since a client may send a row back as it came.
fn add_endpoints(admin: &Admin, upstream: Uuid, list: &mut Row) {
    let addresses = admin.upstream(upstream);
    let addresses = addresses.map_or_else(|_| Vec::new(), |upstream| upstream.addresses());
    let rows = list.get("data").and_then(Value::as_array);
    let endpoints = rows.into_iter().flatten().flat_map(|row| {
        let id = row.get("id").and_then(Value::as_str);
        let id: Option<Uuid> = id.and_then(|id| id.parse().ok());
        let own = addresses
            .iter()
            .filter(move |address| Some(address.target) == id);
        own.map(|address| {
            json!({
                "target": row.get("target"),
                "address": address.address,
                "id": shown_id(address.id),
            })
        })
    });
    let endpoints: Vec<Value> = endpoints.collect();
    list.insert("pointsman".into(), json!({ "endpoints": endpoints }));
}

/// Kong normalizes a target before any other check, and then reports a failure without the value.
fn has_a_form(input: &Row) -> Result<(), Error> {
    match input.get("target") {
        Some(Value::String(target)) if KIND.declaration().check_key("target", target).is_err() => {
            let message = match target.starts_with("unix:") {
                true => "Invalid target; expected unix: and an absolute path of at most 107 bytes",
                false => "Invalid target; not a valid hostname or ip address",
            };
            Err(Error::field("target", message))
        }
        _ => Ok(()),
    }
}

/// Seconds, to the millisecond.
fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn sums(weights: Weights) -> Value {
    json!({
        "total": weights.total,
        "available": weights.available,
        "unavailable": weights.total - weights.available,
    })
}

/// Why an address is in its state, which Kong does not show.
fn known(address: &AddressReport) -> Value {
    let condition = &address.condition;
    json!({
        "id": shown_id(address.id),
        "in_flight": address.in_flight,
        "pending": address.pending,
        "connections": address.connections,
        "ejected": address.ejected,
        "failures": condition.failures,
        "changed_at": condition.changed_at,
        "changed_by": condition.changed_by,
        "last_probe": condition.last_probe,
        "last_failure": condition.last_failure,
        "reports": address.report_reads,
    })
}

/// The address that a path of the Admin API names.
fn address_of(text: &str) -> Option<EndpointAddress> {
    match unix_path(text) {
        Some(path) => Some(EndpointAddress::Unix(path.into())),
        None => {
            let address = Authority::of_setting(text)?.socket_address(DEFAULT_PORT)?;
            Some(EndpointAddress::Inet(address))
        }
    }
}

fn set_health(
    admin: &Admin,
    upstream: &str,
    target: &str,
    address: Option<&str>,
    available: bool,
) -> ApiResult {
    let (upstream, target_row) = target_of(admin, upstream, target)?;
    let target = id_of(&target_row);
    if !upstream.policy().is_checked() {
        return Err(Error::Plain(
            StatusCode::BAD_REQUEST,
            format!("no healthchecker found for {}", upstream.name),
        ));
    }
    let wanted = address.map(address_of);
    // An address that the target does not have is no error, as in Kong.
    upstream.set_health(available, |report| {
        report.target == target
            && wanted
                .as_ref()
                .is_none_or(|wanted| wanted.as_ref() == Some(&report.address))
    });
    let state = if available { "healthy" } else { "unhealthy" };
    let done = match address {
        Some(address) => format!("marked {state} by the operator, at its address {address:?}"),
        None => format!("marked {state} by the operator"),
    };
    changes::log(admin, Kind::Target, &target_row, &done);
    Ok(StatusCode::NO_CONTENT.into_response())
}
