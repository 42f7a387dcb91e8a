//! An upstream: a virtual host name with targets to balance over. Source: Kong 3.9, `upstreams`.

use serde::Deserialize;
use uuid::Uuid;

/// The algorithms that Kong knows. Each is the name of a shipped balancer, or of one to come.
pub const KONG_ALGORITHMS: &[&str] = &[
    "consistent-hashing",
    "least-connections",
    "round-robin",
    "latency",
];

/// What the data plane reads of an upstream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Upstream {
    /// Primary key.
    pub id: Uuid,
    /// The host name that services use to refer to it.
    pub name: String,
    /// Name of the balancer that chooses among its targets.
    pub algorithm: String,
    /// `Host` to send in place of the target's own.
    pub host_header: Option<String>,
    /// What the affinity hash is made of.
    pub hash_on: Option<String>,
}
