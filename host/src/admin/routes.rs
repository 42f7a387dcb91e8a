//! The check of a route that needs all other routes: whether there is room for its regular
//! expressions.

use futures_util::{FutureExt, TryFutureExt};
use http::StatusCode;
use serde_json::Value;

use super::Admin;
use super::error::Error;
use super::hooks::Hooks;
use super::rows::id_of;
use crate::entity::{Kind, Row, view};
use crate::router::Route;

pub(super) const HOOKS: Hooks = Hooks {
    check: |admin, row| check(admin, row).map_ok(|()| Vec::new()).boxed(),
    ..Hooks::NONE
};

/// Compiles the regular expressions of a route, as the data plane will, in the memory that other
/// routes leave of the limit for all.
///
/// That takes up to a second, so it does not run on the runtime's threads. Two routes that are
/// written at the same time may each fit alone: the data plane then sets the later one aside, and
/// logs that.
async fn check(admin: &Admin, row: &Row) -> Result<(), Error> {
    if !has_patterns(row) {
        return Ok(());
    }
    let room = admin.published.patterns.left_for(id_of(row));
    let row = row.clone();
    let compiled = tokio::task::spawn_blocking(move || {
        let route =
            view(Kind::Route, row).map_err(|error| Error::bad_request(error.to_string()))?;
        match Route::compile(route, room) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::field(error.field, error.to_string())),
        }
    });
    let stopped = |panic| {
        tracing::error!("a route cannot be compiled: {panic}");
        Error::Plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error occurred".into(),
        )
    };
    compiled.await.map_err(stopped)?
}

fn has_patterns(row: &Row) -> bool {
    let paths = row.get("paths").and_then(Value::as_array);
    let mut paths = paths.into_iter().flatten();
    let headers = row.get("headers").and_then(Value::as_object);
    let mut headers = headers.into_iter().flat_map(|headers| headers.values());
    let is_pattern =
        |value: &Value, mark: &str| value.as_str().is_some_and(|text| text.starts_with(mark));
    paths.any(|path| is_pattern(path, "~"))
        || headers.any(|values| {
            let values = values.as_array();
            values.is_some_and(|values| values.iter().any(|value| is_pattern(value, "~*")))
        })
}
