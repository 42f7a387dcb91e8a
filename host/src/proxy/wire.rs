//! What is said to endpoints, whatever the version of HTTP.
//!
//! An exchange is one request and its response. It is not a connection: over HTTP/1.1 it has one to
//! itself for as long as it lasts, while a version that multiplexes has many on one. What sends
//! requests, streams bodies and keeps connections knows [`Exchange`] and [`Connection`] alone.

mod destination;
mod http1;
mod output;
mod stream;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Frame;
use thiserror::Error;
use tokio::time::Sleep;

use super::headers::RequestHead;
use super::upload::Upload;
use crate::endpoint::{ConnectionPermit, Endpoint};
use crate::http1::Framing;
pub(super) use destination::{Destination, Secure};
pub(super) use stream::Stream;

/// Why an exchange broke off.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// The system's word for it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The endpoint closed the connection.
    #[error("the endpoint closed the connection too early")]
    Closed,
    /// What the endpoint sent is not a response.
    #[error("{0}")]
    Response(Box<dyn std::error::Error + Send + Sync>),
    /// The client's body is broken.
    #[error("the client's body is broken: {0}")]
    Client(hyper::Error),
}

impl From<crate::http1::Error> for Error {
    fn from(error: crate::http1::Error) -> Self {
        match error {
            crate::http1::Error::Io(error) => Self::Io(error),
            crate::http1::Error::Closed => Self::Closed,
            malformed => Self::Response(malformed.into()),
        }
    }
}

/// One request to an endpoint, and its response.
pub(super) enum Exchange {
    /// It has the connection to itself.
    Http1(Box<http1::Connection>),
}

/// A connection to an endpoint that requests can be sent on.
pub(super) enum Connection {
    /// One request at a time.
    Http1(Box<http1::Connection>),
}

impl Exchange {
    /// Begins an exchange: the request is sent by [`Exchange::poll_head`], and what is left of its
    /// body by what follows.
    pub(super) fn begin(&mut self, body: Option<Rc<Upload>>, head: &RequestHead<'_>) {
        match self {
            Self::Http1(connection) => connection.begin(body, head),
        }
    }

    /// Whether the endpoint has taken a byte of the request.
    pub(super) fn begun(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.begun(),
        }
    }

    /// Whether it is on a connection that has served another request, and the endpoint has said
    /// nothing since: it may have closed the connection before this request came.
    pub(super) fn is_unanswered_reuse(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_unanswered_reuse(),
        }
    }

    /// Sends the request, and waits for the head of the response meanwhile. `bodiless` says that
    /// the method leaves no room for a body, as `HEAD` does.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        bodiless: bool,
    ) -> Poll<Result<Response<()>, Error>> {
        match self {
            Self::Http1(connection) => connection.poll_head(cx, bodiless),
        }
    }

    /// The next frame of the body of the response; none at its end. What is left of the request is
    /// sent meanwhile.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Http1(connection) => connection.poll_frame(cx),
        }
    }

    /// Sends what can be sent of the request, while nothing is to be read of the response.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Http1(connection) => connection.poll_send(cx),
        }
    }

    /// Whether the body of the response has been read to its end.
    pub(super) fn is_body_done(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.framing().is_done(),
        }
    }

    /// Whether all that is left of the body of the response has been received.
    pub(super) fn has_whole_body(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.has_whole_body(),
        }
    }

    /// What is left of the body of the response, in bytes, if that is known.
    pub(super) fn body_left(&self) -> Option<u64> {
        match self {
            Self::Http1(connection) => connection.framing().left(),
        }
    }

    /// The length of a body that the response describes and does not have, as a 304 does.
    pub(super) fn described_length(&self) -> Option<u64> {
        match self {
            Self::Http1(connection) => match connection.framing() {
                Framing::Described(length) => Some(*length),
                _ => None,
            },
        }
    }

    /// Gives back memory while the client takes nothing.
    pub(super) fn yield_memory(&mut self) {
        match self {
            Self::Http1(connection) => connection.yield_memory(),
        }
    }

    /// A timer for the exchange, which is to be reset first.
    pub(super) fn timer(&mut self) -> Pin<&mut Sleep> {
        match self {
            Self::Http1(connection) => connection.timer.as_mut(),
        }
    }

    /// The bare connection, after a change of protocol, with what was received on it since.
    /// It counts for as long as the first part lives, which is to go last.
    pub(super) fn into_tunnel(self) -> (ConnectionPermit, Stream, BytesMut) {
        match self {
            Self::Http1(connection) => connection.into_parts(),
        }
    }

    /// The connection, now that the exchange is over; none if no other request may follow on it.
    pub(super) fn into_connection(self) -> Option<Connection> {
        match self {
            Self::Http1(connection) => connection
                .is_reusable()
                .then_some(Connection::Http1(connection)),
        }
    }
}

impl Connection {
    /// Over a stream to an endpoint, which was agreed to be HTTP/1.1.
    pub(super) fn http1(
        stream: Stream,
        destination: Destination,
        endpoint: Arc<Endpoint>,
        permit: ConnectionPermit,
        max_head: usize,
    ) -> Self {
        let connection = http1::Connection::new(stream, destination, endpoint, permit, max_head);
        Self::Http1(Box::new(connection))
    }

    /// Room for an exchange.
    pub(super) fn into_exchange(self) -> Exchange {
        match self {
            Self::Http1(connection) => Exchange::Http1(connection),
        }
    }

    /// Where it leads.
    pub(super) fn destination(&self) -> &Destination {
        match self {
            Self::Http1(connection) => &connection.destination,
        }
    }

    /// Requests sent so far.
    pub(super) fn requests(&self) -> u32 {
        match self {
            Self::Http1(connection) => connection.requests,
        }
    }

    /// When it was last used, as [`Connection::rest`] was told.
    pub(super) fn idle_since(&self) -> Instant {
        match self {
            Self::Http1(connection) => connection.idle_since,
        }
    }

    /// Whether it leads to where nothing is sent any more.
    pub(super) fn endpoint_leaving(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.endpoint().is_leaving(),
        }
    }

    /// Whether it is to be closed, being idle, so that another one can be made. A caller that is
    /// told so has to close it.
    pub(super) fn claim_reclaim(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.endpoint().takes_a_connection(),
        }
    }

    /// Whether the endpoint has closed an idle connection, or sent what no request asked for:
    /// neither may become the answer to the next request. The runtime knows of what had arrived
    /// when it last looked at its sockets; with `ask` the system is asked, at the cost of a call.
    pub(super) fn is_stale(&mut self, ask: bool) -> bool {
        match self {
            Self::Http1(connection) => connection.is_stale(ask),
        }
    }

    /// Gives back memory that only large responses need, before the connection is idle.
    pub(super) fn rest(&mut self, now: Instant) {
        match self {
            Self::Http1(connection) => connection.rest(now),
        }
    }
}
