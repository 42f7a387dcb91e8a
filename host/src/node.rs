//! The identity of this gateway among others.

use std::sync::LazyLock;

use uuid::Uuid;

/// Identifies this run of the gateway. Source: Kong, `node_id`.
pub(crate) static ID: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);
