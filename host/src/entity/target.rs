//! A target: an address of an upstream. Source: Kong 3.9, `targets`.

use serde::Deserialize;
use uuid::Uuid;

use super::route::Reference;

/// What the data plane reads of a target.
#[derive(Debug, Clone, Deserialize)]
pub struct Target {
    /// Primary key.
    pub id: Uuid,
    /// `host:port`, the host an address or a name.
    pub target: String,
    /// Share of the traffic, 0 to 65535; with 0 it gets none.
    pub weight: u32,
    /// The upstream that it belongs to.
    pub upstream: Reference,
}
