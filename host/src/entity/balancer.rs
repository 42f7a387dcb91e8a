//! A balancer: a component that chooses among the targets of an upstream. Pointsman's own entity.

use serde::Deserialize;
use uuid::Uuid;

/// What the data plane reads of a balancer. The component itself is the row's blob.
#[derive(Debug, Clone, Deserialize)]
pub struct Balancer {
    /// Primary key.
    pub id: Uuid,
    /// Unique name, as `upstream.algorithm` gives it.
    pub name: String,
    /// SHA-256 of the component, in lower-case hex.
    pub digest: String,
}
