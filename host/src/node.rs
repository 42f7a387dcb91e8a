//! The identity of this gateway among others, and of its machine.

use std::sync::LazyLock;

use uuid::Uuid;

/// Identifies this run of the gateway. Source: Kong, `node_id`.
pub(crate) static ID: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);

/// The name of this machine, as its system knows it.
pub(crate) fn hostname() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}
