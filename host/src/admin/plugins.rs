//! What plugins have beyond their declaration: their protocols fit their routes, and clients are
//! told which plugins there are. Source: Kong 3.9, `kong.db.dao.plugins`.

use std::cell::RefCell;
use std::collections::BTreeSet;

use axum::Json;
use axum::routing::get;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::arguments::Path;
use super::error::Error;
use super::hooks::Hooks;
use super::rows::id_of;
use super::schemas::subschema;
use super::{Admin, ApiEndpoint};
use crate::entity::plugin::{KINDS, check_protocols_of_route, check_protocols_of_service};
use crate::entity::{Kind, Row, referred};
use crate::policy;
use crate::store;

pub(super) const HOOKS: Hooks = Hooks {
    check: |admin, row| {
        let checked = policy::check_row(row).map_err(|why| Error::field("config", why));
        let checked = checked.and_then(|()| check_protocols(admin, row));
        let checked = checked.map(|()| Vec::new());
        std::future::ready(checked).boxed()
    },
    ..Hooks::NONE
};

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
    let checked = if let Some(route) = referred(row, "route") {
        let route = admin.store.get(Kind::Route, route)?;
        route.map_or(Ok(()), |route| check_protocols_of_route(row, &route.row))
    } else if let Some(service) = referred(row, "service") {
        let store = &admin.store;
        let routes = store.list_referring(Kind::Route, "service", service, None, usize::MAX)?;
        check_protocols_of_service(row, routes.iter().map(|route| &route.row))
    } else {
        Ok(())
    };
    checked.map_err(|message| Error::field("protocols", message))
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
