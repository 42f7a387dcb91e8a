//! Removes compiled components that belong to no version from their folder.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use super::{Admin, simulate};
use crate::entity::Kind;

/// Pause after a change: for further changes, and for the last user of a component to release it.
const TIDY_DELAY: Duration = Duration::from_secs(1);

/// Has the folder swept after an answered request that may have left a component in it: an upload
/// that was refused after it was compiled, or a deletion.
pub(super) async fn after_changes(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Response {
    let changes = !request.method().is_safe() && request.uri().path().starts_with("/balancers");
    let response = next.run(request).await;
    if changes {
        admin.left_over.notify_one();
    }
    response
}

/// Sweeps the folder at the start, and whenever a component may have been left in it.
pub async fn tidy_cache(admin: Admin) {
    simulate::remove_left_over(&admin.config.data_dir);
    loop {
        match digests(&admin) {
            Ok(stored) => admin.engine.sweep_cache(&stored),
            Err(error) => tracing::warn!("the versions of balancers cannot be read: {error}"),
        }
        admin.left_over.notified().await;
        tokio::time::sleep(TIDY_DELAY).await;
    }
}

/// Digests of all components that are stored.
fn digests(admin: &Admin) -> Result<HashSet<String>, crate::store::Error> {
    let versions = admin
        .store
        .list(Kind::BalancerVersion, None, usize::MAX, &|_| true)?;
    let digest =
        |row: &crate::entity::Row| row.get("digest").and_then(Value::as_str).map(str::to_owned);
    Ok(versions
        .iter()
        .filter_map(|version| digest(&version.row))
        .collect())
}
