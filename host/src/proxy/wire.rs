//! Exchanges with endpoints, for all versions of HTTP.
//!
//! An exchange is one request and its response. It is not a connection: over HTTP/1.1 an exchange
//! occupies a whole connection while it lasts; a version that multiplexes has many exchanges on one
//! connection. The code that sends requests, streams bodies and pools connections uses only
//! [`Exchange`], [`Connection`] and [`SharedConnection`].

mod destination;
mod http1;
mod http2;
mod output;
mod shared;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Response, Version};
use http_body::Frame;
use thiserror::Error;
use tokio::time::Sleep;

use super::headers::RequestHead;
use super::upload::{BodyError, Upload};
use crate::connect::EndpointStream;
use crate::endpoint::{ConnectionPermit, Endpoint};
use crate::http1::Framing;
pub(super) use destination::{Destination, Secure};
pub(super) use shared::{Opened, Protocol, SharedConnection};

/// Why an exchange broke off.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// An error of the system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The endpoint closed the connection.
    #[error("the endpoint closed the connection too early")]
    Closed,
    /// What the endpoint sent is not a response.
    #[error("{0}")]
    Response(Box<dyn std::error::Error + Send + Sync>),
    /// The endpoint has closed the connection in order, and has not processed the request (RFC
    /// 9113, 6.8).
    #[error("the endpoint closed the connection before the request")]
    GoneAway,
    /// The endpoint has refused the request, and has not processed it (RFC 9113, 8.7).
    #[error("the endpoint refused the request")]
    Refused,
    /// The endpoint has reset the stream. If the response has begun, hyper resets the stream of a
    /// client with the same code, which it finds in this source.
    #[error("the endpoint reset the stream: {0}")]
    Reset(h2::Reason, #[source] h2::Error),
    /// The endpoint has not answered a PING in time.
    #[error("the endpoint did not answer a PING in time")]
    Unresponsive,
    /// HTTP/2 cannot carry the request.
    #[error("the request cannot be sent over HTTP/2: {0}")]
    Request(http::Error),
    /// The client's body is malformed, ended too early, or is longer than allowed.
    #[error("the client's body is broken: {0}")]
    Client(BodyError),
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
    /// The exchange occupies the connection.
    Http1(Box<http1::Connection>),
    /// The exchange has a stream of the connection.
    Http2(Box<http2::Stream>),
}

/// A connection to an endpoint that serves one exchange at a time, without one. Those that serve
/// many are [`SharedConnection`]s.
pub(super) enum Connection {
    /// One request at a time.
    Http1(Box<http1::Connection>),
}

impl Exchange {
    /// Begins an exchange. [`Exchange::poll_head`] sends the request; the later polls send the rest
    /// of its body.
    pub(super) fn begin(&mut self, body: Option<Rc<Upload>>, head: &RequestHead<'_>) {
        match self {
            Self::Http1(connection) => connection.begin(body, head),
            Self::Http2(stream) => stream.begin(body, head),
        }
    }

    /// The version of the protocol that the response is received by.
    pub(super) fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::HTTP_11,
            Self::Http2(_) => Version::HTTP_2,
        }
    }

    /// Whether the endpoint has taken a byte of the request.
    pub(super) fn begun(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.begun(),
            Self::Http2(stream) => stream.begun(),
        }
    }

    /// Whether other exchanges can use its connection at the same time.
    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(_) => true,
        }
    }

    /// Whether it is the first one of its connection.
    pub(super) fn is_first(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.requests <= 1,
            Self::Http2(stream) => stream.is_first(),
        }
    }

    /// Whether the connection has served another request before, and the endpoint has sent nothing
    /// since. Then the endpoint may have closed the connection before this request was sent.
    pub(super) fn is_unanswered_reuse(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_unanswered_reuse(),
            Self::Http2(stream) => stream.is_unanswered_reuse(),
        }
    }

    /// Sends the request, and waits for the head of the response at the same time. `bodiless` says
    /// that the response has no body because of the method, such as `HEAD`.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        bodiless: bool,
    ) -> Poll<Result<Response<()>, Error>> {
        match self {
            Self::Http1(connection) => connection.poll_head(cx, bodiless),
            Self::Http2(stream) => stream.poll_head(cx),
        }
    }

    /// Whether [`Exchange::poll_head`] has received a part of the head, or an interim response,
    /// since this was last asked.
    pub(super) fn take_progress(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.take_progress(),
            Self::Http2(stream) => stream.take_progress(),
        }
    }

    /// The next frame of the body of the response; `None` at its end. The rest of the request is
    /// sent at the same time.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Http1(connection) => connection.poll_frame(cx),
            Self::Http2(stream) => stream.poll_frame(cx),
        }
    }

    /// Sends as much of the request as possible, without reading the response.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Http1(connection) => connection.poll_send(cx),
            Self::Http2(stream) => stream.poll_send(cx),
        }
    }

    /// Whether the body of the response has been read to its end.
    pub(super) fn is_body_done(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.framing().is_done(),
            Self::Http2(stream) => stream.is_body_done(),
        }
    }

    /// Whether the whole body of the response has been received, even if it is not read yet.
    pub(super) fn has_whole_body(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.has_whole_body(),
            Self::Http2(stream) => stream.is_body_done(),
        }
    }

    /// Takes a body of known length that was received as a whole.
    pub(super) fn take_whole_body(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(connection) => connection.take_whole_body(),
            Self::Http2(_) => None,
        }
    }

    /// Number of bytes of the response's body that are left, if that is known.
    pub(super) fn body_left(&self) -> Option<u64> {
        match self {
            Self::Http1(connection) => connection.framing().left(),
            Self::Http2(stream) => stream.body_left(),
        }
    }

    /// The length that the head gives for a body that the response does not have, as in a 304.
    pub(super) fn described_length(&self) -> Option<u64> {
        match self {
            Self::Http1(connection) => match connection.framing() {
                Framing::Described(length) => Some(*length),
                _ => None,
            },
            Self::Http2(stream) => stream.described_length(),
        }
    }

    /// Gives back memory while the client reads nothing.
    pub(super) fn yield_memory(&mut self) {
        match self {
            Self::Http1(connection) => connection.yield_memory(),
            // The endpoint's window bounds what is held.
            Self::Http2(_) => {}
        }
    }

    /// To be called when the endpoint has sent nothing for too long.
    pub(super) fn note_timeout(&self) {
        match self {
            // The connection ends with the exchange.
            Self::Http1(_) => {}
            Self::Http2(stream) => stream.note_timeout(),
        }
    }

    /// The timer of the exchange. It has to be reset before it is used.
    pub(super) fn timer(&mut self) -> Pin<&mut Sleep> {
        match self {
            Self::Http1(connection) => connection.timer.as_mut(),
            Self::Http2(stream) => stream.timer(),
        }
    }

    /// The bare connection, after a change of protocol, with the bytes that were received after it.
    /// The connection counts as open while the permit lives, so the permit has to be dropped last.
    /// `None` for a stream of HTTP/2, whose protocol does not change.
    pub(super) fn into_tunnel(self) -> Option<(ConnectionPermit, EndpointStream, BytesMut)> {
        match self {
            Self::Http1(connection) => Some(connection.into_parts()),
            Self::Http2(_) => None,
        }
    }

    /// The connection, after the exchange has ended; `None` if no other request may follow on it.
    pub(super) fn into_connection(self) -> Option<Connection> {
        match self {
            Self::Http1(connection) => connection
                .is_reusable()
                .then_some(Connection::Http1(connection)),
            // The connection serves other exchanges all the time.
            Self::Http2(_) => None,
        }
    }
}

impl Connection {
    /// A connection over a stream to an endpoint that speaks HTTP/1.1.
    fn http1(
        stream: EndpointStream,
        destination: Destination,
        endpoint: Arc<Endpoint>,
        permit: ConnectionPermit,
        max_head: usize,
    ) -> Self {
        let connection = http1::Connection::new(stream, destination, endpoint, permit, max_head);
        Self::Http1(Box::new(connection))
    }

    /// Turns the connection into an exchange that has not begun.
    pub(super) fn into_exchange(self) -> Exchange {
        match self {
            Self::Http1(connection) => Exchange::Http1(connection),
        }
    }

    /// The destination of the connection.
    pub(super) fn destination(&self) -> &Destination {
        match self {
            Self::Http1(connection) => &connection.destination,
        }
    }

    /// Number of requests sent so far.
    pub(super) fn requests(&self) -> u32 {
        match self {
            Self::Http1(connection) => connection.requests,
        }
    }

    /// When the connection was last used, as given to [`Connection::rest`].
    pub(super) fn idle_since(&self) -> Instant {
        match self {
            Self::Http1(connection) => connection.idle_since,
        }
    }

    /// Whether its endpoint is leaving, so that no more requests are sent to it.
    pub(super) fn endpoint_leaving(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.endpoint().is_leaving(),
        }
    }

    /// Whether this idle connection has to be closed, so that a waiting request can open another
    /// one to the endpoint. A caller that gets `true` has claimed this and has to close the
    /// connection.
    pub(super) fn claim_reclaim(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.endpoint().takes_a_connection(),
        }
    }

    /// Whether the endpoint has closed the idle connection, or has sent bytes that no request asked
    /// for. These must not be taken for the response to the next request. The runtime knows only
    /// the bytes that had arrived when it last polled its sockets; with `ask` the system is asked,
    /// which costs a system call.
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
