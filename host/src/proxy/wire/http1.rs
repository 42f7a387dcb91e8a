//! HTTP/1.1 with endpoints (RFC 9112): one connection, one request at a time.
//!
//! hyper's client is not used. It runs a task for each connection, passes every request and
//! response to that task, and needs each request as a map of headers. In the profile of a proxied
//! request, this took more than a quarter of the time outside the kernel. Here the task of the
//! client's connection reads and writes the endpoint's connection as well, and the head of a
//! request is written once, as bytes.

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
use super::{Destination, Error};
use crate::connect::EndpointStream;
use crate::endpoint::{ConnectionPermit, Endpoint};
use crate::http1::{self, Framing};
use crate::proxy::headers::RequestHead;
use crate::proxy::upload::Upload;

/// Size of the read buffer, in bytes: at first, and after a read has filled it. For a client that
/// stalls it is held twice: in this buffer, until the allocator gives it back, and in hyper's
/// buffer.
const READ: (usize, usize) = (8 * 1024, 48 * 1024);

/// A connection to an endpoint.
pub(in crate::proxy) struct Connection {
    stream: EndpointStream,
    /// Bytes that were received and not parsed yet.
    input: BytesMut,
    /// Size of the buffer for the next read, in bytes.
    room: usize,
    max_head: usize,
    output: Output,
    /// The part of the current response's body that is still to be read.
    framing: Framing,
    persistent: bool,
    /// Whether a part of the head, or an interim response, was received.
    has_progressed: bool,
    /// The timer of the request in flight. It is kept with the connection, since resetting a timer
    /// costs far less than making one.
    pub(super) timer: Pin<Box<Sleep>>,
    /// The destination of the connection.
    pub(super) destination: Destination,
    /// The endpoint that the connection was made for. Another endpoint with the same destination
    /// may use it as well.
    endpoint: Arc<Endpoint>,
    /// Counts the connection among those of the endpoint.
    permit: ConnectionPermit,
    /// Number of requests sent so far.
    pub(super) requests: u32,
    /// When the last request was answered in full.
    pub(super) idle_since: Instant,
}

impl Connection {
    pub(super) fn new(
        stream: EndpointStream,
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
            has_progressed: false,
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
        self.has_progressed = false;
        self.requests += 1;
    }

    /// Whether the endpoint has taken a byte of the request.
    pub(super) fn begun(&self) -> bool {
        self.output.begun()
    }

    /// Whether another request was sent on the connection before this one, and no byte was received
    /// since.
    pub(super) fn is_unanswered_reuse(&self) -> bool {
        self.requests > 1 && self.input.is_empty()
    }

    /// Sends the request, and waits for the head of the response at the same time. `bodiless` says
    /// that the response has no body because of the method, such as `HEAD`.
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
            self.has_progressed = true;
        }
    }

    /// Whether a part of the head, or an interim response, was received since this was last asked.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progressed)
    }

    /// The next frame of the body of a response; `None` at its end. The rest of the request is sent
    /// at the same time.
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

    /// The endpoint that the connection was made for.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether another request may follow on the connection.
    pub(super) fn is_reusable(&self) -> bool {
        // Bytes after the end of a response must not be taken for the response to a later request.
        self.persistent && self.output.is_done() && self.input.is_empty()
    }

    /// As [`super::Connection::is_stale`].
    pub(super) fn is_stale(&mut self, ask: bool) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        // This never waits, and makes no system call unless the runtime was notified. Over TLS the
        // received bytes may be for the session alone; then the connection is not stale.
        let polled = Pin::new(&mut self.stream).poll_read(&mut cx, &mut read);
        polled.is_ready() || (ask && self.stream.has_unread())
    }

    /// The part of the response's body that is still to be read.
    pub(super) fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Whether the whole body of the response has been received, even if it is not read yet.
    pub(super) fn has_whole_body(&self) -> bool {
        let received = |left| left <= self.input.len() as u64;
        self.framing.is_done() || self.framing.left().is_some_and(received)
    }

    /// Takes a body of known length that was received as a whole, if nothing of the request is
    /// still to be sent.
    pub(super) fn take_whole_body(&mut self) -> Option<Bytes> {
        let is_whole = matches!(self.framing, Framing::Length(1..)) && self.has_whole_body();
        if is_whole && self.output.is_done() {
            // Neither can fail, nor give a part: the length is known.
            self.framing.take(&mut self.input).ok().flatten()
        } else {
            None
        }
    }

    /// Gives back memory that only large responses need, before the connection is idle.
    pub(super) fn rest(&mut self, now: Instant) {
        self.idle_since = now;
        if self.room > READ.0 {
            self.room = READ.0;
            self.input = BytesMut::new();
        }
    }

    /// Gives back memory while the client reads nothing.
    pub(super) fn yield_memory(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// The bare connection, after a change of protocol, with the bytes that were received after it.
    /// The connection counts as open while the permit lives, so the permit has to be dropped last.
    pub(super) fn into_parts(self) -> (ConnectionPermit, EndpointStream, BytesMut) {
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

    /// Sends as much of the request as possible.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        (self.output.poll_send(&mut self.stream, cx)).map_err(Error::Client)
    }
}
