//! Connections that many exchanges share at a time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::{Connection, Destination, Exchange, http2};
use crate::connect::{ConnectError, EndpointStream};
use crate::endpoint::{ConnectionPermit, Endpoint};

/// A connection of a version of HTTP that multiplexes.
#[derive(Clone)]
pub(in crate::proxy) struct SharedConnection(Rc<http2::Connection>);

/// A connection that has just been opened.
pub(in crate::proxy) enum Opened {
    /// One exchange at a time uses it.
    Exclusive(Connection),
    /// Many use it.
    Shared(SharedConnection),
}

/// The version of HTTP that an endpoint speaks on a new stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Protocol {
    Http1,
    Http2,
}

impl Opened {
    /// Has an endpoint's stream carry exchanges. `freed` is notified whenever an exchange on a
    /// shared connection ends; `max_head` is the size of the largest head of a response, in bytes.
    ///
    /// # Errors
    /// The endpoint does not begin the connection as its version of HTTP wants it.
    pub(in crate::proxy) async fn over(
        (stream, protocol): (EndpointStream, Protocol),
        destination: Destination,
        endpoint: Arc<Endpoint>,
        permit: ConnectionPermit,
        max_head: usize,
        freed: &Rc<Notify>,
    ) -> Result<Self, ConnectError> {
        if protocol == Protocol::Http1 {
            let connection = Connection::http1(stream, destination, endpoint, permit, max_head);
            return Ok(Self::Exclusive(connection));
        }
        let freed = Rc::clone(freed);
        http2::Connection::open(stream, destination, endpoint, permit, max_head, freed)
            .await
            .map(|connection| Self::Shared(SharedConnection(connection)))
            .map_err(ConnectError::Http2)
    }
}

impl SharedConnection {
    /// Another exchange on the connection, which has not begun.
    pub(in crate::proxy) fn exchange(&self) -> Exchange {
        Exchange::Http2(Box::new(self.0.stream()))
    }

    /// Whether the endpoint allows another exchange at this time.
    pub(in crate::proxy) fn has_room(&self) -> bool {
        self.0.has_room()
    }

    /// Whether no exchange can begin any more.
    pub(in crate::proxy) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Whether no exchange goes on.
    pub(in crate::proxy) fn is_idle(&self) -> bool {
        self.0.is_idle()
    }

    /// When the last exchange ended.
    pub(in crate::proxy) fn idle_since(&self) -> Instant {
        self.0.idle_since()
    }

    /// Number of exchanges so far.
    pub(in crate::proxy) fn requests(&self) -> u32 {
        self.0.requests()
    }

    /// Whether its endpoint is leaving, so that no more requests are sent to it.
    pub(in crate::proxy) fn endpoint_leaving(&self) -> bool {
        self.0.endpoint().is_leaving()
    }

    /// As [`Connection::claim_reclaim`].
    pub(in crate::proxy) fn claim_reclaim(&self) -> bool {
        self.0.endpoint().takes_a_connection()
    }

    /// The destination of the connection.
    pub(in crate::proxy) fn destination(&self) -> &Destination {
        self.0.destination()
    }
}
