//! The connection below a request, for handlers that outlast most others.
//!
//! A client may close its sending side after its request, so hyper does not take that for the end
//! of the connection. A handler that takes long asks here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::Request;
use parking_lot::Mutex;

use crate::listener::Transport;

/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The connection of a request, in its extensions.
#[derive(Debug, Clone)]
pub(super) struct Peer(Weak<Mutex<Transport>>);

impl Peer {
    pub(super) fn new(transport: &Arc<Mutex<Transport>>) -> Self {
        Self(Arc::downgrade(transport))
    }

    /// The one of a request; none if the request came over no connection, as in a test.
    pub(super) fn of(request: &Request) -> Option<Self> {
        request.extensions().get().cloned()
    }

    /// Ends once the client has closed its sending side, which browsers and HTTP libraries do only
    /// with the connection.
    pub(super) async fn leaves(&self) {
        while let Some(transport) = self.0.upgrade()
            && !transport.lock().socket().is_closed_by_peer()
        {
            drop(transport);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
