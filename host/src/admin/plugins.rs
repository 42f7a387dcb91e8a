//! What plugins have beyond their declaration: their protocols fit their routes, and clients are
//! told which plugins there are. Source: Kong 3.9, `kong.db.dao.plugins`.

use std::cell::RefCell;
use std::collections::BTreeSet;

use axum::Json;
use axum::routing::get;
use futures_util::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::Path;
use super::error::Error;
use super::hooks::Hooks;
use super::rows::id_of;
use super::schemas::subschema;
use super::{Admin, ApiEndpoint};
use crate::entity::plugin::KINDS;
use crate::entity::{self, Kind, Row, has_references};
use crate::policy;
use crate::store;

pub(super) const HOOKS: Hooks = Hooks {
    check: |admin, row| {
        let checked = check_config(row).and_then(|()| check_protocols(admin, row));
        let checked = checked.map(|()| Vec::new());
        std::future::ready(checked).boxed()
    },
    ..Hooks::NONE
};

/// Whether a policy can be made of the settings. Those with references to vaults are known only when
/// they are used.
fn check_config(row: &Row) -> Result<(), Error> {
    if has_references(Kind::Plugin, row) {
        return Ok(());
    }
    let plugin = entity::view(Kind::Plugin, row.clone());
    let plugin = plugin.map_err(|error| Error::field("config", error.to_string()))?;
    policy::check(&plugin).map_err(|why| Error::field("config", why))
}

/// The fields that decide which requests a plugin is for.
const SCOPE: [&str; 3] = ["protocols", "route", "service"];

/// Whether there can be a request that a plugin is for: its protocols are among those of its route,
/// or of one of the routes of its service. A service without routes may get any.
fn check_protocols(admin: &Admin, row: &Row) -> Result<(), Error> {
    let old = admin.store.get(Kind::Plugin, id_of(row))?;
    if old.is_some_and(|old| {
        SCOPE
            .iter()
            .all(|field| old.row.get(*field) == row.get(*field))
    }) {
        // Its routes may have changed since; it can still be changed, as by turning it off.
        return Ok(());
    }
    if let Some(route) = referred(row, "route") {
        let route = admin.store.get(Kind::Route, route)?;
        if route.is_some_and(|route| !have_protocol_in_common(row, &route.row)) {
            let message = "must match the associated route's protocols";
            return Err(Error::field("protocols", message));
        }
    } else if let Some(service) = referred(row, "service") {
        let store = &admin.store;
        let routes = store.list_referring(Kind::Route, "service", service, None, usize::MAX)?;
        let mut fitting = routes.iter();
        let fits = fitting.any(|route| have_protocol_in_common(row, &route.row));
        if !routes.is_empty() && !fits {
            let message = "must match the protocols of at least one route pointing to this \
                           Plugin's service";
            return Err(Error::field("protocols", message));
        }
    }
    Ok(())
}

fn referred(row: &Row, field: &str) -> Option<Uuid> {
    row.get(field)?.get("id")?.as_str()?.parse().ok()
}

fn have_protocol_in_common(plugin: &Row, route: &Row) -> bool {
    let protocols = |row: &Row| row.get("protocols").and_then(Value::as_array).cloned();
    let (of_plugin, of_route) = (protocols(plugin), protocols(route));
    let (of_plugin, of_route) = (of_plugin.unwrap_or_default(), of_route.unwrap_or_default());
    of_plugin.iter().any(|protocol| of_route.contains(protocol))
}

pub(super) fn endpoints() -> [ApiEndpoint; 2] {
    [
        (
            "/plugins/enabled".into(),
            get(enabled),
            "GET, HEAD, OPTIONS",
        ),
        (
            "/plugins/schema/{name}".into(),
            get(config_schema),
            "GET, HEAD, OPTIONS",
        ),
    ]
}

/// `GET /plugins/enabled`: the kinds that there are.
async fn enabled() -> Json<Value> {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.schema.name).collect();
    Json(json!({ "enabled_plugins": names }))
}

/// `GET /plugins/schema/{name}`: the settings of a kind.
async fn config_schema(Path(name): Path<String>) -> Result<Json<Value>, Error> {
    let mut schema = subschema(Kind::Plugin, &name)?.schema();
    let fields = schema["fields"].as_array_mut();
    let mut fields = fields.into_iter().flatten();
    let config = fields.find_map(|field| field.get_mut("config").map(Value::take));
    Ok(Json(config.unwrap_or_default()))
}

/// The kinds that there are, each with this version, and those of which there is a plugin: what
/// `GET /` shows.
///
/// # Errors
/// The store cannot be read.
pub(super) fn overview(admin: &Admin, version: &str) -> Result<Value, store::Error> {
    let available = KINDS.iter().map(|kind| {
        let shown = json!({ "version": version, "priority": kind.priority });
        (kind.schema.name.to_owned(), shown)
    });
    let present = RefCell::new(BTreeSet::new());
    admin.store.list(Kind::Plugin, None, usize::MAX, &|row| {
        if let Some(name) = row.get("name").and_then(Value::as_str) {
            let mut present = present.borrow_mut();
            if !present.contains(name) {
                present.insert(name.to_owned());
            }
        }
        // Only looked at, not collected.
        false
    })?;
    Ok(json!({
        "available_on_server": available.collect::<Row>(),
        "disabled_on_server": {},
        "enabled_in_cluster": present.into_inner(),
    }))
}
