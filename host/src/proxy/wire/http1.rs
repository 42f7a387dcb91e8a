//! HTTP/1.1 with endpoints (RFC 9112): one connection, one request at a time.
//!
//! Not hyper's client: that keeps a task for each connection, to which every request and response
//! is handed over, and wants each request as a map of headers. Here the task of the client's
//! connection reads and writes the endpoint's as well, and the head of a request is written once,
//! as bytes. In the profile of a proxied request that was more than a quarter of the time outside
//! the kernel.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Sleep;

use super::output::Output;
use super::{Destination, Error, Stream};
use crate::endpoint::{ConnectionPermit, Endpoint};
use crate::http1::{self, Framing};
use crate::proxy::headers::RequestHead;
use crate::proxy::upload::Upload;

/// Room for what one read may bring, in bytes: at first, and once reads have filled it. A client
/// that stalls holds it twice: as it was read, until the allocator gives it back, and in hyper's
/// buffer.
const READ: (usize, usize) = (8 * 1024, 48 * 1024);

/// A connection to an endpoint.
pub(in crate::proxy) struct Connection {
    stream: Stream,
    /// Received, and not yet taken.
    input: BytesMut,
    /// Room for the next read.
    room: usize,
    max_head: usize,
    output: Output,
    /// What is still to come of the response at hand.
    framing: Framing,
    persistent: bool,
    /// The timer of the request in flight. It lives as long as the connection, since moving a timer
    /// forward costs far less than making one.
    pub(super) timer: Pin<Box<Sleep>>,
    /// Where it leads.
    pub(super) destination: Destination,
    /// The endpoint that it was made for; another one for the same destination may use it as well.
    endpoint: Arc<Endpoint>,
    /// Counts it among those of the endpoint.
    permit: ConnectionPermit,
    /// Requests sent so far.
    pub(super) requests: u32,
    /// When the last of them was answered in full.
    pub(super) idle_since: Instant,
}

impl Connection {
    pub(super) fn new(
        stream: Stream,
        destination: Destination,
        endpoint: Arc<Endpoint>,
        permit: ConnectionPermit,
        max_head: usize,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            input: BytesMut::new(),
            room: READ.0,
            max_head,
            output: Output::default(),
            framing: Framing::Length(0),
            persistent: true,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            destination,
            endpoint,
            permit,
            requests: 0,
            idle_since: now,
        }
    }

    /// Begins an exchange. [`Connection::poll_head`] sends the request.
    pub(super) fn begin(&mut self, body: Option<Rc<Upload>>, head: &RequestHead<'_>) {
        self.output.begin(body, head);
        self.requests += 1;
    }

    /// Whether the endpoint has taken a byte of the request.
    pub(super) fn begun(&self) -> bool {
        self.output.begun()
    }

    /// Whether another request was sent on it before this one, and nothing was received since.
    pub(super) fn is_unanswered_reuse(&self) -> bool {
        self.requests > 1 && self.input.is_empty()
    }

    /// Sends the request, and waits for the head of the response meanwhile. `bodiless` says that
    /// the method leaves no room for a body, as `HEAD` does.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        bodiless: bool,
    ) -> Poll<Result<Response<()>, Error>> {
        self.poll_send(cx)?;
        loop {
            while !self.input.is_empty() {
                let Some(head) = http1::parse_head(&mut self.input, self.max_head, bodiless)?
                else {
                    break;
                };
                if !head.is_interim() {
                    self.persistent = head.persistent;
                    self.framing = head.framing;
                    return Poll::Ready(Ok(head.response));
                }
            }
            if ready!(self.poll_read(cx))? == 0 {
                let failed = self.output.take_failure();
                return Poll::Ready(Err(failed.map_or(Error::Closed, Error::Io)));
            }
        }
    }

    /// The next frame of the body of a response; none at its end. What is left of the request is
    /// sent meanwhile.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_send(cx)?;
        loop {
            if let Some(piece) = self.framing.take(&mut self.input)? {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.framing.is_done() {
                let trailers = self.framing.take_trailers()?;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if ready!(self.poll_read(cx))? == 0 {
                self.framing.end()?;
                self.persistent = false;
            }
        }
    }

    /// The endpoint that it was made for.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether another request may follow.
    pub(super) fn is_reusable(&self) -> bool {
        // Whatever was sent past the end of a response is no answer to a later request.
        self.persistent && self.output.is_done() && self.input.is_empty()
    }

    /// As [`super::Connection::is_stale`].
    pub(super) fn is_stale(&mut self, ask: bool) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        // Nothing is waited for, and without news no system call is made. Over TLS what comes may
        // be for the session alone, which is no news.
        let polled = Pin::new(&mut self.stream).poll_read(&mut cx, &mut read);
        polled.is_ready() || (ask && self.stream.has_news())
    }

    /// What is still to come of the body of a response.
    pub(super) fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Whether all that is left of the body of a response has been received.
    pub(super) fn has_whole_body(&self) -> bool {
        let received = |left| left <= self.input.len() as u64;
        self.framing.is_done() || self.framing.left().is_some_and(received)
    }

    /// Gives back memory that only large responses need, before the connection is idle.
    pub(super) fn rest(&mut self, now: Instant) {
        self.idle_since = now;
        if self.room > READ.0 {
            self.room = READ.0;
            self.input = BytesMut::new();
        }
    }

    /// Gives back memory while the client takes nothing.
    pub(super) fn yield_memory(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// The bare connection, after a change of protocol, with what was received on it since.
    /// It counts for as long as the first part lives, which is to go last.
    pub(super) fn into_parts(self) -> (ConnectionPermit, Stream, BytesMut) {
        (self.permit, self.stream, self.input)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(self.room);
        let read = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        if read >= self.room {
            self.room = READ.1;
        }
        Poll::Ready(Ok(read))
    }

    /// Sends what can be sent of the request.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        (self.output.poll_send(&mut self.stream, cx)).map_err(Error::Client)
    }
}
