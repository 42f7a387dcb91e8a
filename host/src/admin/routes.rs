//! The check of a route that needs all other routes: whether there is room for its regular
//! expressions.

use futures_util::{FutureExt, TryFutureExt};
use http::StatusCode;

use super::Admin;
use super::error::Error;
use super::hooks::Hooks;
use super::rows::id_of;
use crate::entity::Row;
use crate::router::{check_patterns, has_patterns};

pub(super) const HOOKS: Hooks = Hooks {
    check: |admin, row| check(admin, row).map_ok(|()| Vec::new()).boxed(),
    ..Hooks::NONE
};

/// Compiles the regular expressions of a route, as the data plane will, in the memory that other
/// routes leave of the limit for all.
///
/// That takes up to a second, so it does not run on the runtime's threads. Two routes that are
/// written at the same time may each fit alone: the later one then has no effect, and the log says
/// so.
async fn check(admin: &Admin, row: &Row) -> Result<(), Error> {
    if !has_patterns(row) {
        return Ok(());
    }
    let flavor = admin.config.proxy.router_flavor;
    let room = admin.published.patterns.left_for(id_of(row));
    let row = row.clone();
    let compiled = tokio::task::spawn_blocking(move || check_patterns(&row, flavor, room));
    let compiled = compiled.await.map_err(|panic| {
        tracing::error!("a route cannot be compiled: {panic}");
        Error::Plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "An unexpected error occurred".into(),
        )
    })?;
    compiled.map_err(|(field, message)| Error::field(field, message))?;
    Ok(())
}
