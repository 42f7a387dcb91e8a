//! The snapshot that the data plane reads: compiled from the stored entities, replaced as a whole.
//!
//! The control plane follows the store's watch and compiles only what a commit affects. A target or
//! an algorithm changes inside its upstream and needs no new snapshot. A route changes a copy of
//! the router, and a service or an upstream a copy of a map; each copy shares nearly everything
//! with the one before.

mod channel;
mod compile;
mod new_names;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use compile::complete;
pub use compile::{Compiler, UpstreamResources};

use crate::acme::Challenges;
use crate::balancer::RunningCanary;
use crate::clock;
use crate::pattern::{PATTERN_MEMORY, PatternMemory};
use crate::policy::chain::Policies;
use crate::retry::Retry;
use crate::router::{Router, StreamRouter};
use crate::shared_map::SharedMap;
use crate::store::Revision;
use crate::tls::{ServerNames, TlsClient};
use crate::upstream::Upstream;

/// Everything that the path of a request depends on, immutable.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Finds the route of a request.
    pub router: Router,
    /// Finds the route of a stream.
    pub stream_router: StreamRouter,
    /// The services that routes name.
    pub(crate) services: SharedMap<Uuid, Arc<Service>>,
    /// The upstreams of the Admin API; requests find theirs through the service.
    pub(crate) upstreams: SharedMap<Uuid, Arc<Upstream>>,
    /// What happens to requests apart from load balancing, and whose they are.
    pub policies: Policies,
    /// The policies of streams.
    pub stream_policies: Policies,
    /// The certificates that clients are shown.
    pub(crate) server_names: ServerNames,
}

/// A service as the data plane uses it.
#[derive(Debug)]
pub struct Service {
    /// Unique name, or the id of a service without one.
    pub name: Arc<str>,
    /// Why requests cannot be sent over the service's protocol, if they cannot.
    pub unsupported: Option<String>,
    /// How requests and streams are sent over TLS; none for clear text.
    pub(crate) tls: Option<Arc<TlsClient>>,
    /// How HTTP/2 is spoken with its endpoints; none for HTTP/1.1.
    pub http2: Option<Http2>,
    /// Whether its requests are gRPC: their path is not rewritten, and their bodies are not read
    /// ahead. Source: Kong.
    pub grpc: bool,
    /// Put in front of the path of each request; `/` if the service has none.
    pub path: String,
    /// Further tries after the first one failed.
    pub retries: u32,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time between two writes.
    pub write_timeout: Duration,
    /// Longest time between two reads.
    pub read_timeout: Duration,
    /// Which tries are retried.
    pub retry: Retry,
    /// The upstream of its requests.
    pub upstream: Arc<Upstream>,
}

/// How HTTP/2 is spoken with endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Http2 {
    /// Whether HTTP/1.1 is spoken with an endpoint over TLS that does not choose HTTP/2.
    pub or_http1: bool,
    /// How often an endpoint is asked whether it still answers; none for never.
    pub keepalive: Option<KeepAlive>,
}

/// How often an endpoint is asked by a PING whether it still answers. Source: Envoy,
/// `connection_keepalive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeepAlive {
    /// Time between two PINGs.
    pub interval: Duration,
    /// Longest time until the answer.
    pub timeout: Duration,
}

/// The newest snapshot. Workers look at it before each request.
#[derive(Debug)]
pub struct Published {
    /// Counts the snapshots: while nothing changes, reading this is all that a request costs.
    generation: AtomicU64,
    current: RwLock<Arc<Snapshot>>,
    /// None until the first commit.
    applied: watch::Sender<Option<Revision>>,
    /// When the newest commit took effect, in milliseconds since 1970; 0 before the first one.
    applied_at: AtomicU64,
    /// The canaries in progress.
    canaries: watch::Sender<Vec<Arc<RunningCanary>>>,
    /// Applied commits with names that are still being looked up for the first time.
    unresolved: watch::Sender<BTreeSet<Revision>>,
    /// The memory of the routes' regular expressions.
    pub patterns: Arc<PatternMemory>,
    /// The answers to challenges of ACME.
    pub challenges: Arc<Challenges>,
}

impl Default for Published {
    fn default() -> Self {
        Self::new(PATTERN_MEMORY)
    }
}

impl Published {
    /// No snapshot yet. `pattern_memory` is what the regular expressions of all routes may take, in
    /// bytes.
    pub fn new(pattern_memory: usize) -> Self {
        Self {
            patterns: Arc::new(PatternMemory::new(pattern_memory)),
            generation: AtomicU64::new(1),
            current: RwLock::default(),
            applied: watch::Sender::new(None),
            applied_at: AtomicU64::new(0),
            canaries: watch::Sender::default(),
            unresolved: watch::Sender::default(),
            challenges: Arc::default(),
        }
    }

    /// Number of the newest snapshot.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest snapshot with its number.
    pub fn current(&self) -> (u64, Arc<Snapshot>) {
        let current = self.current.read();
        (self.generation(), Arc::clone(&current))
    }

    /// Waits until requests that start from now on see the commit `revision`, and its names are
    /// looked up or given up for now. A commit without new names does not wait for the names of
    /// other commits.
    pub async fn applied(&self, revision: Revision) {
        // An error would mean that the sender was dropped, but `self` holds it.
        let _ = self
            .applied
            .subscribe()
            .wait_for(|applied| *applied >= Some(revision))
            .await;
        let _ = self
            .unresolved
            .subscribe()
            .wait_for(|unresolved| !unresolved.contains(&revision))
            .await;
    }

    /// Follows which commit is in effect; none before the first one.
    pub fn applied_revisions(&self) -> watch::Receiver<Option<Revision>> {
        self.applied.subscribe()
    }

    /// When the newest commit took effect, in seconds since 1970; none before the first one.
    pub(crate) fn applied_at(&self) -> Option<f64> {
        let millis = self.applied_at.load(Ordering::Relaxed);
        (millis > 0).then(|| millis as f64 / 1000.0)
    }

    /// Waits until what was stored at the start is in effect.
    pub async fn started(&self) {
        let applied = *match self.applied.subscribe().wait_for(Option::is_some).await {
            Ok(applied) => applied,
            Err(_) => return,
        };
        if let Some(first) = applied {
            self.applied(first).await;
        }
    }

    /// The canaries in progress, now and later on.
    pub fn canaries(&self) -> watch::Receiver<Vec<Arc<RunningCanary>>> {
        self.canaries.subscribe()
    }

    /// The canary of a balancer, if one is in progress.
    pub fn canary_of(&self, balancer: Uuid) -> Option<Arc<RunningCanary>> {
        let canaries = self.canaries.borrow();
        canaries
            .iter()
            .find(|canary| canary.balancer == balancer)
            .cloned()
    }

    fn set_canaries(&self, canaries: Vec<Arc<RunningCanary>>) {
        self.canaries.send_if_modified(|now| {
            let is_there = |canary| now.iter().any(|known| Arc::ptr_eq(known, canary));
            let same = now.len() == canaries.len() && canaries.iter().all(is_there);
            if !same {
                *now = canaries;
            }
            !same
        });
    }

    fn publish(&self, snapshot: Snapshot) {
        let mut current = self.current.write();
        *current = Arc::new(snapshot);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// `resolved` is whether no name of the commit is still being looked up.
    fn mark_applied(&self, revision: Revision, resolved: bool) {
        if !resolved {
            self.unresolved.send_modify(|unresolved| {
                unresolved.insert(revision);
            });
        }
        let now = (clock::unix_millis() * 1000.0) as u64;
        self.applied_at.store(now, Ordering::Relaxed);
        self.applied.send_replace(Some(revision));
    }

    fn mark_resolved(&self, revision: Revision) {
        self.unresolved.send_modify(|unresolved| {
            unresolved.remove(&revision);
        });
    }
}
