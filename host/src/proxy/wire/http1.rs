//! HTTP/1.1 with endpoints (RFC 9112): one connection, one request at a time.
//!
//! Not hyper's client: that keeps a task for each connection, to which every request and response is
//! handed over, and wants each request as a map of headers. Here the task of the client's connection
//! reads and writes the endpoint's as well, and the head of a request is written once, as bytes. In the
//! profile of a proxied request that was more than a quarter of the time outside the kernel.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::{Destination, Stream};
use crate::endpoint::{ConnectionPermit, Endpoint};
use crate::http1::{self, Error, Framing, Head};
use crate::proxy::upload::{Stage, Upload};

/// Room for what one read may bring, in bytes: at first, and once reads have filled it. A client that
/// stalls holds it twice: as it was read, until the allocator gives it back, and in hyper's buffer.
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
    persistent: bool,
    /// The timer of the request in flight. It lives as long as the connection, since moving a timer
    /// forward costs far less than making one.
    pub(in crate::proxy) timer: Pin<Box<Sleep>>,
    /// Where it leads.
    pub(in crate::proxy) destination: Destination,
    /// The endpoint that it was made for; another one for the same destination may use it as well.
    endpoint: Arc<Endpoint>,
    /// Counts it among those of the endpoint.
    permit: ConnectionPermit,
    /// Requests sent so far.
    pub(in crate::proxy) requests: u32,
    /// When the last of them was answered in full.
    pub(in crate::proxy) idle_since: Instant,
}

/// What is on its way to the endpoint.
#[derive(Default)]
struct Output {
    /// The head, or what stands around the pieces of a chunked body.
    text: Vec<u8>,
    /// Sent of it.
    sent: usize,
    /// The piece of the body that follows.
    piece: Bytes,
    /// The body that pieces come from, until its end.
    body: Option<Rc<Upload>>,
    /// The same, until the endpoint has taken a byte of it.
    untaken: Option<Rc<Upload>>,
    chunked: bool,
    /// Whether the endpoint has taken a byte of this request.
    begun: bool,
    /// Whether the stream may keep some of it back: TLS seals what it is given.
    kept: bool,
    /// Why the endpoint takes no more. It may have answered all the same.
    failed: Option<io::Error>,
}

impl Connection {
    pub(in crate::proxy) fn new(
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
            persistent: true,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            destination,
            endpoint,
            permit,
            requests: 0,
            idle_since: now,
        }
    }

    /// Begins an exchange: `write` writes the head of the request. [`Connection::poll_head`] sends it.
    pub(in crate::proxy) fn begin(
        &mut self,
        body: Option<Rc<Upload>>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut text = std::mem::take(&mut self.output.text);
        text.clear();
        write(&mut text);
        self.requests += 1;
        if let Some(body) = &body {
            body.rewind();
        }
        self.output = Output {
            text,
            untaken: body.clone(),
            chunked: body.as_ref().is_some_and(|body| body.length().is_none()),
            body,
            ..Output::default()
        };
    }

    /// Whether the endpoint has taken a byte of the request.
    pub(in crate::proxy) fn begun(&self) -> bool {
        self.output.begun
    }

    /// Whether nothing has been received since the last response.
    pub(in crate::proxy) fn is_silent(&self) -> bool {
        self.input.is_empty()
    }

    /// Sends the request, and waits for the head of the response meanwhile. `bodiless` says that the
    /// method leaves no room for a body, as `HEAD` does.
    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        bodiless: bool,
    ) -> Poll<Result<Head, Error>> {
        self.poll_send(cx)?;
        loop {
            while !self.input.is_empty() {
                let Some(head) = http1::parse_head(&mut self.input, self.max_head, bodiless)?
                else {
                    break;
                };
                if !head.is_interim() {
                    self.persistent = head.persistent;
                    return Poll::Ready(Ok(head));
                }
            }
            if ready!(self.poll_read(cx))? == 0 {
                let failed = self.output.failed.take();
                return Poll::Ready(Err(failed.map_or(Error::Closed, Error::Io)));
            }
        }
    }

    /// The next piece of the body of a response; none at its end. What is left of the request is
    /// sent meanwhile.
    pub(in crate::proxy) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        framing: &mut Framing,
    ) -> Poll<Option<Result<Bytes, Error>>> {
        self.poll_send(cx)?;
        loop {
            if let Some(piece) = framing.take(&mut self.input)? {
                return Poll::Ready(Some(Ok(piece)));
            }
            if framing.is_done() {
                return Poll::Ready(None);
            }
            if ready!(self.poll_read(cx))? == 0 {
                framing.end()?;
                self.persistent = false;
            }
        }
    }

    /// Whether it leads to where nothing is sent any more.
    pub(in crate::proxy) fn endpoint_leaving(&self) -> bool {
        self.endpoint.is_leaving()
    }

    /// Whether it is to be closed, being idle, so that another one can be made. Who is told so closes it.
    pub(in crate::proxy) fn claim_reclaim(&self) -> bool {
        self.endpoint.takes_a_connection()
    }

    /// Whether another request may follow.
    pub(in crate::proxy) fn is_reusable(&self) -> bool {
        // Whatever was sent past the end of a response is no answer to a later request.
        self.persistent && self.output.is_done() && self.input.is_empty()
    }

    /// Whether the endpoint has closed an idle connection, or sent what no request asked for: neither
    /// may become the answer to the next request. The runtime knows of what had arrived when it
    /// last looked at its sockets; with `ask` the system is asked, at the cost of a call.
    pub(in crate::proxy) fn is_stale(&mut self, ask: bool) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        // Nothing is waited for, and without news no system call is made. Over TLS what comes may be
        // for the session alone, which is no news.
        let polled = Pin::new(&mut self.stream).poll_read(&mut cx, &mut read);
        polled.is_ready() || (ask && self.stream.has_news())
    }

    /// Whether all that is left of a body has been received.
    pub(in crate::proxy) fn has_all_of(&self, framing: &Framing) -> bool {
        let received = |left| left <= self.input.len() as u64;
        framing.is_done() || framing.left().is_some_and(received)
    }

    /// Gives back memory that only large responses need, before the connection is idle.
    pub(in crate::proxy) fn rest(&mut self, now: Instant) {
        self.idle_since = now;
        if self.room > READ.0 {
            self.room = READ.0;
            self.input = BytesMut::new();
        }
    }

    /// Gives back memory while the client takes nothing.
    pub(in crate::proxy) fn yield_memory(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// The bare connection, after a change of protocol, with what was received on it since.
    /// It counts for as long as the first part lives, which is to go last.
    pub(in crate::proxy) fn into_parts(self) -> (ConnectionPermit, Stream, BytesMut) {
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

    /// Sends what can be sent. That the endpoint takes no more is noted and not returned: what it
    /// answered may be there to be read.
    pub(in crate::proxy) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.output.is_done() || self.output.failed.is_some() {
            return Ok(());
        }
        loop {
            let waiting = self
                .output
                .poll_gather(cx)
                .map_err(Error::Client)?
                .is_pending();
            match self.output.poll_flush(&mut self.stream, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if waiting || self.output.is_done() => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.output.failed = Some(error);
                    return Ok(());
                }
            }
        }
    }
}

impl Output {
    fn is_done(&self) -> bool {
        self.body.is_none() && self.is_flushed()
    }

    fn is_flushed(&self) -> bool {
        self.sent == self.text.len() && self.piece.is_empty() && !self.kept
    }

    /// Takes the next piece of the body, unless the last one is still on its way. Pending while the
    /// client has to send it.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, hyper::Error> {
        let Some(body) = &self.body else {
            return Ok(Poll::Ready(()));
        };
        if !self.piece.is_empty() {
            return Ok(Poll::Ready(()));
        }
        let Poll::Ready(frame) = body.poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        match frame {
            None => self.end_body(),
            Some(frame) => match frame?.into_data() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    if self.chunked {
                        let size = format!("{:x}\r\n", piece.len());
                        self.text.extend_from_slice(size.as_bytes());
                    } else if body.stage() == Stage::Done {
                        self.body = None;
                    }
                    self.piece = piece;
                }
                // nginx and Kong leave trailers out as well.
                Err(_trailers) => self.end_body(),
            },
        }
        Ok(Poll::Ready(()))
    }

    fn end_body(&mut self) {
        if self.chunked {
            self.text.extend_from_slice(b"0\r\n\r\n");
        }
        self.untaken = None;
        if let Some(body) = self.body.take() {
            body.finish();
        }
    }

    fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.text.len() || !self.piece.is_empty() {
            let text = &self.text[self.sent..];
            let written = if self.piece.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, text))?
            } else {
                let both = [io::IoSlice::new(text), io::IoSlice::new(&self.piece)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &both))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            self.kept = matches!(stream, Stream::Tls(_));
            let of_text = written.min(self.text.len() - self.sent);
            self.sent += of_text;
            let of_piece = written - of_text;
            if of_piece > 0 {
                if let Some(body) = self.untaken.take() {
                    body.hand_over();
                }
                self.piece.advance(of_piece);
                if self.piece.is_empty() {
                    self.text.clear();
                    self.sent = 0;
                    if self.chunked {
                        self.text.extend_from_slice(b"\r\n");
                    }
                }
            }
        }
        if self.kept {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.kept = false;
        }
        Poll::Ready(Ok(()))
    }
}
