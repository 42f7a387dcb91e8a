//! HTTP/2 with endpoints (RFC 9113): one connection carries many exchanges, each on a stream of its
//! own.
//!
//! The crate `h2` keeps the state of a connection. A task of the worker drives it, and the tasks of
//! the clients write and read their streams. hyper's client is not used, because it passes every
//! request and response through further tasks.

mod keepalive;
mod sending;
mod stream;
mod watched;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::StreamId;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::{Destination, Error};
use crate::connect::EndpointStream;
use crate::endpoint::{ConnectionPermit, Endpoint};
use crate::http1::MAX_HEADERS;
use crate::proxy::http2::{FIELD_OVERHEAD, before_cut};
pub(in crate::proxy) use stream::Stream;
use watched::WatchedStream;

/// Most streams on a connection, if the endpoint allows more.
const STREAMS: u32 = 100;

/// The number of streams that an endpoint allows before its SETTINGS are received, which no
/// endpoint can set.
const UNKNOWN: usize = usize::MAX - 1;

/// How many bytes of a response an endpoint may send before the client has read them.
const WINDOW: u32 = 128 * 1024;

/// How many bytes of a request are kept until the endpoint's connection takes them.
const SEND_BUFFER: usize = 64 * 1024;

/// A connection to an endpoint.
pub(super) struct Connection {
    sender: RefCell<SendRequest<Bytes>>,
    destination: Destination,
    endpoint: Arc<Endpoint>,
    state: Rc<State>,
    /// Most bytes of a head, or of trailers.
    max_head: usize,
    /// Number of streams in use.
    streams: Cell<usize>,
    /// Number of streams so far.
    requests: Cell<u32>,
    /// When the last stream ended, as the worker's clock has it.
    idle_since: Cell<Instant>,
    /// Whether no further streams are opened, because the endpoint has refused one, or sends
    /// nothing any more.
    retired: Cell<bool>,
    /// How often something was received on any stream. May wrap.
    received: Cell<u32>,
    /// Timers of streams that have ended: resetting a timer costs far less than making one.
    timers: RefCell<Vec<Pin<Box<Sleep>>>>,
    /// Notified when a stream ends.
    freed: Rc<Notify>,
}

/// What the task that drives a connection tells its streams.
#[derive(Default)]
pub(super) struct State {
    /// Whether the connection was closed because the endpoint has not answered a PING.
    unresponsive: Cell<bool>,
    /// The streams on which the endpoint has sent a head or trailers whose compressed form is too
    /// large.
    oversized: RefCell<Vec<u32>>,
}

impl State {
    /// Takes a stream from those with fields that are too large. Returns whether it was one of
    /// them.
    fn take_oversized(&self, stream: impl FnOnce() -> Option<StreamId>) -> bool {
        let mut oversized = self.oversized.borrow_mut();
        if oversized.is_empty() {
            return false;
        }
        let known = oversized.len();
        let number = stream().map(|stream| stream.as_u32());
        oversized.retain(|other| Some(*other) != number);
        oversized.len() < known
    }
}

impl Connection {
    /// Begins to speak HTTP/2 on a stream to an endpoint, and waits for the endpoint's SETTINGS:
    /// they say how many streams it allows, and whether it speaks HTTP/2 at all.
    pub(super) async fn open(
        stream: EndpointStream,
        destination: Destination,
        endpoint: Arc<Endpoint>,
        permit: ConnectionPermit,
        max_head: usize,
        freed: Rc<Notify>,
    ) -> io::Result<Rc<Self>> {
        let state = Rc::<State>::default();
        let max_decoded = u32::try_from(before_cut(max_head)).unwrap_or(u32::MAX);
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(UNKNOWN)
            .initial_window_size(WINDOW)
            // So the streams of clients that read nothing cannot use up the window of the
            // connection, which all its streams share.
            .initial_connection_window_size(STREAMS * WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(max_decoded)
            .handshake::<_, Bytes>(WatchedStream::new(stream, max_head, Rc::clone(&state)))
            .await
            .map_err(io::Error::other)?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Pending if sender.current_max_send_streams() == UNKNOWN => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
        })
        .await?;
        let keepalive = destination.http2.and_then(|http2| http2.keepalive);
        let driven = keepalive::drive(connection, keepalive, Rc::clone(&state));
        tokio::task::spawn_local(async move {
            // The connection counts as open while the permit lives.
            let _permit = permit;
            driven.await;
        });
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            destination,
            endpoint,
            state,
            max_head,
            streams: Cell::new(0),
            requests: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            retired: Cell::new(false),
            received: Cell::new(0),
            timers: RefCell::default(),
            freed,
        }))
    }

    /// Whether no further stream can be opened, now or later.
    pub(super) fn is_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut sender = self.sender.borrow_mut();
        // An error means that the connection was closed, or that the endpoint has sent GOAWAY.
        self.retired.get() || matches!(sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Whether a further stream can be opened now.
    pub(super) fn has_room(&self) -> bool {
        let limit = self.sender.borrow().current_max_send_streams();
        self.streams.get() < limit.min(STREAMS as usize)
    }

    /// An exchange on a stream of its own, which has not begun.
    pub(super) fn stream(self: &Rc<Self>) -> Stream {
        Stream::new(Rc::clone(self))
    }

    /// The destination of the connection.
    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Whether no stream is in use.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// When the last stream ended.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }

    /// Number of streams so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// The endpoint that the connection was made for.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether these fields are larger, or more, than a head may have. h2 drops fields beyond
    /// 24,576 and does not tell.
    fn is_too_large(&self, fields: &HeaderMap) -> bool {
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + FIELD_OVERHEAD
        };
        fields.len() > MAX_HEADERS || fields.iter().map(field).sum::<usize>() > self.max_head
    }

    /// To be called when something was received on a stream.
    fn note_received(&self) {
        self.received.set(self.received.get().wrapping_add(1));
    }

    /// To be called when a stream has ended, with its timer.
    fn end_stream(&self, timer: Option<Pin<Box<Sleep>>>) {
        self.streams.set(self.streams.get().saturating_sub(1));
        if self.is_idle() {
            self.idle_since.set(Instant::now());
        }
        self.timers.borrow_mut().extend(timer);
        self.freed.notify_waiters();
    }

    /// What an error of `h2` means for the exchange of one of its streams.
    fn error(&self, error: h2::Error) -> Error {
        if self.state.unresponsive.get() {
            return Error::Unresponsive;
        }
        let reason = error.reason();
        if error.is_remote() && error.is_go_away() {
            // A stream gets this error only if it is above the last one that the endpoint has
            // processed (RFC 9113, 6.8).
            return Error::GoneAway;
        }
        if error.is_remote() && reason == Some(h2::Reason::REFUSED_STREAM) {
            self.retired.set(true);
            return Error::Refused;
        }
        if error.is_io() {
            let io = error.into_io();
            return io.map_or(Error::Closed, Error::Io);
        }
        match reason {
            // A body that ends so has not ended in order.
            Some(h2::Reason::NO_ERROR) if error.is_remote() => {
                Error::Reset(h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR.into())
            }
            Some(reason) if error.is_remote() => Error::Reset(reason, error),
            _ => Error::Response(error.into()),
        }
    }
}
