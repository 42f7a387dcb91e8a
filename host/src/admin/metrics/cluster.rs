//! The gateways that share the configuration, as `/metrics` shows them.

use std::time::Duration;

use super::super::Admin;
use crate::store::Node;

/// Longest wait for the list. A scrape must not fail because the store is away.
const LIST_TIMEOUT: Duration = Duration::from_millis(500);

/// The gateways that share the configuration, if several can. The inner value is none if the list
/// cannot be read in time.
pub(super) async fn nodes(admin: &Admin) -> Option<Option<Vec<Node>>> {
    let nodes = admin.store.nodes()?;
    let listed = tokio::time::timeout(LIST_TIMEOUT, nodes.list()).await;
    Some(listed.ok().and_then(Result::ok))
}
