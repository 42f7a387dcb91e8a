//! Before a request that may change something, waits for what other gateways have committed.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use super::Admin;
use crate::store::{self, Nodes, Revision, Store};

/// Longest time for etcd to tell the newest commit: a change of its leader takes one second or two.
const NEWEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for a commit that etcd has told of. Its event is on its way, so this is for a
/// gateway that has little time on its processors.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(10);

/// Has a request that may change something see all that was acknowledged before it, at whichever
/// gateway. Otherwise, shortly after a change elsewhere, a reference to a new entity would be
/// refused. Clients such as decK send each request to whichever gateway their load balancer
/// chooses.
///
/// While etcd is away, the request goes on with what is here: the store refuses its change, and
/// [`catch_up_to_newest`] what would need none.
pub(super) async fn catch_up(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if !request.method().is_safe()
        && reads_store(request.uri().path())
        && let Some(nodes) = admin.store.nodes()
        && admin.store.condition().failure.is_none()
    {
        match newest(&*nodes).await {
            Ok(newest) => {
                let reached = timeout(FOLLOW_TIMEOUT, admin.store.reach(newest)).await;
                if !matches!(reached, Ok(Ok(()))) {
                    tracing::debug!(
                        "this gateway has not caught up with etcd: the request uses older rows"
                    );
                }
            }
            Err(why) => tracing::debug!("the request uses the rows that this gateway has: {why}"),
        }
    }
    next.run(request).await
}

/// Whether a request that is not safe may read or change what is stored.
fn reads_store(path: &str) -> bool {
    let is_cache = path.starts_with("/proxy-cache") && !path.contains("/caches/");
    !is_cache && !path.starts_with("/debug/") && !path.starts_with("/schemas/")
}

/// The newest commit of all gateways.
async fn newest(nodes: &dyn Nodes) -> Result<Revision, String> {
    let asked = timeout(NEWEST_TIMEOUT, nodes.newest()).await;
    asked.unwrap_or_else(|_| {
        let seconds = NEWEST_TIMEOUT.as_secs();
        Err(format!("etcd has not answered for {seconds} s"))
    })
}

/// Whether rows that were read at some revision have all that other gateways had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// They have.
    Current,
    /// This gateway had older rows, and has all now: rows have to be read again, which needs no
    /// other check.
    CaughtUp,
}

/// Checks that rows read at `head` are current, and waits for what is missing. This is for requests
/// that write nothing: the store itself refuses a write that is based on older rows.
///
/// # Errors
/// The store cannot be written, or is not known to be current: another gateway may have changed it
/// unseen.
pub(super) async fn catch_up_to_newest(
    store: &dyn Store,
    head: Revision,
) -> Result<Freshness, store::Error> {
    check_condition(store)?;
    let Some(nodes) = store.nodes() else {
        return Ok(Freshness::Current);
    };
    let unknown = |why: &str| {
        let reason = format!("whether there is something to change is not known: {why}");
        store::Error::Unavailable(reason)
    };
    let newest = newest(&*nodes).await.map_err(|why| unknown(&why))?;
    if newest <= head {
        return Ok(Freshness::Current);
    }
    let reached = timeout(FOLLOW_TIMEOUT, store.reach(newest)).await;
    reached.map_err(|_| unknown("changes in etcd have not arrived here"))??;
    Ok(Freshness::CaughtUp)
}

fn check_condition(store: &dyn Store) -> Result<(), store::Error> {
    match store.condition().failure {
        None => Ok(()),
        Some(failure) => Err(store::Error::Unavailable(format!(
            "the store cannot be written: {}",
            failure.reason
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_leave_the_store_alone_do_not_wait_for_it() {
        for path in [
            "/debug/node/log-level/debug",
            "/proxy-cache",
            "/proxy-cache/0a",
            "/schemas/routes/validate",
        ] {
            assert!(!reads_store(path), "{path}");
        }
        for path in ["/services", "/proxy-cache/p/caches/0a", "/config"] {
            assert!(reads_store(path), "{path}");
        }
    }
}
