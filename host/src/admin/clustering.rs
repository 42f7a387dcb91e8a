//! The gateways that share the store: told to each other, shown, and waited for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::error::Error;
use super::{Admin, ApiEndpoint, rollout, shared_probes};
use crate::config::ListenAddress;
use crate::entity::rollout::CANARY;
use crate::node;
use crate::store::{Node, Nodes, Revision};

/// Longest wait of `?wait=all`.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two looks at the others.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shortest pause between two looks for the gateways that are alive.
const MIN_LIST_INTERVAL: Duration = Duration::from_secs(1);

/// The pause for each gateway, so that all of them look a hundred times a second at the most.
const LOOK_FOR_EACH: Duration = Duration::from_millis(10);

/// The header that names the gateways at which a change is not in effect yet.
static NOT_APPLIED: HeaderName = HeaderName::from_static("x-pointsman-not-applied");

pub(super) fn endpoints() -> [ApiEndpoint; 2] {
    [
        (
            "/clustering/data-planes".into(),
            get(data_planes),
            "GET, HEAD, OPTIONS",
        ),
        (
            "/clustering/status".into(),
            get(status),
            "GET, HEAD, OPTIONS",
        ),
    ]
}

/// `GET /clustering/data-planes`: the gateways, in the form in which Kong shows data planes.
async fn data_planes(State(admin): State<Admin>) -> Result<Json<Value>, Error> {
    let nodes = nodes(&admin).await?;
    let now = seconds();
    let data = nodes.iter().map(|node| {
        json!({
            "id": node.id,
            "hostname": node.hostname,
            "ip": node.ip,
            "version": node.version,
            "config_hash": node.config_hash,
            "sync_status": "normal",
            // Its lease would have ended otherwise.
            "last_seen": now,
            "updated_at": node.updated_at,
            "labels": null,
            "pointsman": { "revision": node.revision, "channel": node.channel },
        })
    });
    Ok(Json(
        json!({ "data": data.collect::<Vec<_>>(), "next": null }),
    ))
}

/// `GET /clustering/status`: the same by ids. Source: Kong, which has it for earlier clients.
async fn status(State(admin): State<Admin>) -> Result<Json<Value>, Error> {
    let nodes = nodes(&admin).await?;
    let now = seconds();
    let shown = nodes.iter().map(|node| {
        let state = json!({
            "hostname": node.hostname,
            "ip": node.ip,
            "config_hash": node.config_hash,
            "last_seen": now,
        });
        (node.id.to_string(), state)
    });
    Ok(Json(Value::Object(shown.collect())))
}

async fn nodes(admin: &Admin) -> Result<Vec<Node>, Error> {
    let nodes = admin.store.nodes().ok_or_else(Error::not_found)?;
    let unavailable = |reason| Error::Plain(StatusCode::SERVICE_UNAVAILABLE, reason);
    nodes.list().await.map_err(unavailable)
}

fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// Tells the others of this gateway, for as long as the future is polled.
pub async fn announce(admin: Admin) {
    let Some(nodes) = admin.store.nodes() else {
        return std::future::pending().await;
    };
    let mut applied = admin.published.applied_revisions();
    let first = of_this(&admin, applied.borrow_and_update().unwrap_or_default());
    let (sender, receiver) = watch::channel(first);
    let following = async {
        while applied.changed().await.is_ok() {
            let revision = applied.borrow_and_update().unwrap_or_default();
            let present = of_this(&admin, revision);
            sender.send_modify(|node| {
                let figures = node.figures.take();
                *node = Node { figures, ..present };
            });
            // Many commits in a row are told together.
            sleep(POLL_INTERVAL).await;
        }
    };
    let judging = rollout::judge(&admin, &*nodes, &sender);
    let looking = look_for_peers(&*nodes);
    let probing = shared_probes::share_probes(&admin, &*nodes);
    tokio::join!(
        nodes.announce(receiver),
        following,
        judging,
        looking,
        probing
    );
}

/// Finds out which gateways are alive, while a part of this one needs to know. If the store is
/// away, those count as alive that were before.
async fn look_for_peers(nodes: &dyn Nodes) {
    loop {
        node::PEERS.subscribed().await;
        let mut pause = MIN_LIST_INTERVAL;
        if let Ok(Ok(ids)) = timeout(WAIT_TIMEOUT, nodes.ids()).await {
            let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            pause = pause.max(LOOK_FOR_EACH.saturating_mul(count));
            node::PEERS.set(ids);
        }
        // Not at the same moment as the others.
        sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Tells the others that this gateway ends.
pub async fn leave(nodes: Option<Arc<dyn Nodes>>) {
    if let Some(nodes) = nodes {
        let left = tokio::time::timeout(Duration::from_secs(1), nodes.leave());
        drop(left.await);
    }
}

/// The channel that this gateway follows.
fn channel_of(admin: &Admin) -> &'static str {
    match admin.config.is_canary {
        true => CANARY,
        false => "main",
    }
}

fn of_this(admin: &Admin, revision: Revision) -> Node {
    let mut listens = admin.config.proxy_listen.iter();
    let ip = listens.find_map(|listen| match &listen.address {
        ListenAddress::Ip(address) => Some(address.ip()),
        ListenAddress::Unix(_) => None,
    });
    Node {
        id: node::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: node::hostname(),
        ip: ip
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
        revision,
        config_hash: admin.store.content_hash(),
        channel: Some(channel_of(admin).to_owned()),
        updated_at: seconds(),
        figures: None,
    }
}

/// With `?wait=all`, a change is answered once it is in effect at every gateway that is alive, or
/// after [`WAIT_TIMEOUT`]. A header names those at which it is not, and those that have left the
/// list before they had it.
pub(super) async fn wait_for_all(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let mut waits = false;
    if !request.method().is_safe() {
        let arguments = form_urlencoded::parse(query.as_bytes());
        for (_, value) in arguments.filter(|(name, _)| name == "wait") {
            if value != "all" {
                let message = format!("wait is '{value}': leave it out, or set it to 'all'");
                return Error::bad_request(message).into_response();
            }
            waits = true;
        }
    }
    let mut response = next.run(request).await;
    if !waits || !response.status().is_success() {
        return response;
    }
    let Some(nodes) = admin.store.nodes() else {
        return response;
    };
    let applied = admin.published.applied_revisions();
    let revision = applied.borrow().unwrap_or_default();
    let late = without(&*nodes, revision).await;
    if let Ok(late) = HeaderValue::from_str(&late)
        && !late.is_empty()
    {
        response.headers_mut().insert(NOT_APPLIED.clone(), late);
    }
    response
}

/// Waits until a commit is in effect at every gateway that is alive. Returns the ids of those at
/// which it is not, or why they are not known.
async fn without(nodes: &dyn Nodes, revision: Revision) -> String {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    let mut waiting = Waiting::default();
    loop {
        let listed = nodes.list().await;
        let is_known = listed.is_ok();
        if let Ok(nodes) = listed {
            waiting.look(&nodes, revision);
        }
        let is_done = is_known && waiting.late.is_empty();
        if is_done || Instant::now() + POLL_INTERVAL > deadline {
            return match is_known {
                true => waiting.shown(),
                false => "unknown".to_owned(),
            };
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The gateways that are without a commit.
#[derive(Debug, Default)]
struct Waiting {
    /// Those that are alive.
    late: BTreeSet<Uuid>,
    /// Those that have left while they were late.
    gone: BTreeSet<Uuid>,
}

impl Waiting {
    /// Takes in the gateways that are alive now.
    fn look(&mut self, nodes: &[Node], revision: Revision) {
        self.gone.append(&mut self.late);
        for node in nodes {
            self.gone.remove(&node.id);
            if node.revision < revision {
                self.late.insert(node.id);
            }
        }
    }

    /// Their ids, separated by commas.
    fn shown(&self) -> String {
        let all = self.late.union(&self.gone);
        all.map(Uuid::to_string).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u128, revision: Revision) -> Node {
        Node {
            id: Uuid::from_u128(id),
            version: String::new(),
            hostname: String::new(),
            ip: None,
            revision,
            config_hash: String::new(),
            channel: None,
            updated_at: 0,
            figures: None,
        }
    }

    #[test]
    fn a_gateway_that_leaves_without_a_change_is_named_and_not_waited_for() {
        let mut waiting = Waiting::default();
        waiting.look(&[node(1, 5), node(2, 4), node(3, 4)], 5);
        assert_eq!(waiting.late.len(), 2);
        // The third one leaves, and the second one has it.
        waiting.look(&[node(1, 5), node(2, 5)], 5);
        assert_eq!(waiting.late, BTreeSet::new());
        assert_eq!(waiting.shown(), Uuid::from_u128(3).to_string());
        // It comes back with the change.
        waiting.look(&[node(1, 5), node(2, 5), node(3, 6)], 5);
        assert_eq!(waiting.shown(), "");
    }
}
