//! The byte stream of a client's connection, below hyper.
//!
//! This stream makes up for five properties of hyper. hyper moves the end of a response into its
//! own buffer and drops the body: for the gateway the request is over, while a slow client may need
//! minutes to read the rest. hyper discards that buffer when a body ends in an error. When a client
//! closes its sending side, hyper treats the client as disconnected. Where trailers end with a bare
//! line feed, hyper waits for more. And hyper answers a malformed head without a body. So the
//! stream tracks how far a request was received and which bytes were sent, and handles these cases.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::backlog::{Backlog, Phase, Sending};
use super::head_size::{HeadExcess, HeadLimit};
use super::page;
use super::preface::{self, Opening};
use super::request_id::RequestId;
use super::request_line::RequestLine;
use super::respond::Reject;
use crate::config::ResponseHeaders;
use crate::http1::{Excess, Part, Requests};
use crate::listener::Transport;
use crate::tls::H2;

/// How long the rest of a refused request is read before the connection is closed, and how many
/// bytes of it. If a connection is closed with unread bytes, it is reset, and the client can lose
/// the response (RFC 9112, 9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 * 1024);

/// Pieces of a response with at most so many bytes are copied into one before they are written.
const COPIED: usize = 2048;

thread_local! {
    /// Where a worker makes such a copy.
    static COPY: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COPIED));
}

/// The stream of a client's connection.
pub(super) struct ClientStream {
    stream: Transport,
    backlog: Backlog,
    /// Tracks where requests end in the bytes that were passed to hyper.
    requests: Requests,
    /// The position in the request line, whose target may have to be encoded.
    line: RequestLine,
    limit: HeadLimit,
    /// Bytes that were read and are passed to hyper later.
    rest: Bytes,
    /// The response that replaces hyper's own response to a malformed head.
    page: Option<Bytes>,
    /// That response, once it was begun.
    refused: Option<Refused>,
    /// Which headers the gateway adds to responses.
    headers: ResponseHeaders,
    /// The start of the current head, if it is kept for the log of requests.
    head: Option<Vec<u8>>,
    /// Number of bytes that were read and discarded after the gateway closed its sending side.
    lingered: usize,
    linger: Option<Pin<Box<Sleep>>>,
}

/// Most bytes of a head that are kept for the log of requests.
const MAX_KEPT_HEAD: usize = 1024;

/// The response to a malformed head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    pub(super) id: RequestId,
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    /// In bytes.
    pub(super) length: usize,
    /// Bytes of its body.
    pub(super) body: usize,
}

impl ClientStream {
    /// `limit` is that of the heads of requests, and of their trailers.
    pub(super) fn new(stream: Transport, backlog: Backlog, limit: HeadLimit) -> Self {
        Self {
            stream,
            backlog,
            requests: Requests::new(limit.bytes),
            line: RequestLine::default(),
            limit,
            rest: Bytes::new(),
            page: None,
            refused: None,
            headers: ResponseHeaders::default(),
            head: None,
            lingered: 0,
            linger: None,
        }
    }

    /// Adds these headers to responses.
    pub(super) fn with_headers(mut self, headers: ResponseHeaders) -> Self {
        self.headers = headers;
        self
    }

    /// Keeps the start of each head, for the record of a request whose head cannot be read.
    pub(super) fn keep_heads(mut self) -> Self {
        self.head = Some(Vec::new());
        self
    }

    /// The response to a malformed head, if there was one.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// Number of bytes of a head that was not served, and its start, if heads are kept.
    pub(super) fn unserved_head(&self) -> (usize, &[u8]) {
        let start = self.head.as_deref().unwrap_or_default();
        (self.requests.unserved_head(), start)
    }

    /// Keeps the start of a head.
    fn keep(&mut self, read: &[u8]) {
        if let Some(head) = &mut self.head {
            if self.requests.is_between() {
                head.clear();
            }
            let room = MAX_KEPT_HEAD.saturating_sub(head.len()).min(read.len());
            head.extend_from_slice(read.get(..room).unwrap_or_default());
        }
    }

    /// Puts back the bytes of the next request that were already read.
    pub(super) fn rewind(&mut self, read: Bytes) {
        self.requests = Requests::new(self.limit.bytes);
        self.line = RequestLine::default();
        self.rest = match (read.is_empty(), self.rest.is_empty()) {
            (true, _) => std::mem::take(&mut self.rest),
            (_, true) => read,
            _ => [&*read, &*self.rest].concat().into(),
        };
    }

    /// Returns the protocol of the connection: over TLS the one of the handshake, otherwise by its
    /// first bytes, which can still be read. A call that is dropped loses no bytes.
    pub(super) async fn opening(&mut self) -> io::Result<Opening> {
        if let Transport::Tls(_) = self.stream {
            return match self.stream.protocol() {
                Some(H2) => Ok(Opening::Http2),
                _ => self.readable().await.map(|()| Opening::Http1),
            };
        }
        let mut bytes = [0; preface::LENGTH];
        while self.rest.len() < preface::LENGTH {
            let wanted = &mut bytes[self.rest.len()..];
            if self.rest.is_empty() {
                // Usually all of them are there, and need not be copied.
                let length = self.stream.socket().peek(wanted).await?;
                match preface::opening(&wanted[..length]) {
                    Opening::Undecided => {}
                    decided => return Ok(decided),
                }
            }
            let length = self.stream.read(wanted).await?;
            if length == 0 {
                return Ok(Opening::Http1);
            }
            self.rest = [&*self.rest, &wanted[..length]].concat().into();
            match preface::opening(&self.rest) {
                Opening::Undecided => {}
                decided => return Ok(decided),
            }
        }
        Ok(preface::opening(&self.rest))
    }

    /// The bare stream of a connection that has not been read from by hyper, and the bytes that
    /// were read of it.
    pub(super) fn into_parts(self) -> (Transport, Bytes) {
        (self.stream, self.rest)
    }

    /// Waits until there are bytes to read, or the client has closed its sending side.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        if self.rest.is_empty() {
            self.stream.readable().await?;
        }
        Ok(())
    }

    /// Whether there are bytes to read. This asks the system, because the runtime may not have been
    /// notified yet.
    pub(super) fn has_bytes(&mut self) -> bool {
        !self.rest.is_empty() || self.stream.has_bytes()
    }

    /// The client has closed its sending side. This is hidden from hyper while a request is
    /// received in full and not answered: hyper would close the connection, and so abort the
    /// request.
    fn poll_half_closed(&mut self) -> Poll<io::Result<()>> {
        let unanswered = matches!(self.backlog.phase(), Phase::Serving | Phase::Answered);
        if !unanswered || self.requests.is_within_body() {
            return Poll::Ready(Ok(()));
        }
        if !self.backlog.is_half_closed() {
            self.backlog.set_sending(Sending::Closed);
        }
        // A reset that follows the end of the client's bytes can be found only here. It does not
        // wake this task, so the worker wakes it at intervals.
        match self.stream.take_error() {
            Ok(None) => Poll::Pending,
            Ok(Some(error)) | Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Reads no more bytes from the client, as if it had closed its sending side. hyper is told
    /// once the request is answered.
    fn poll_last(&self) -> Poll<io::Result<()>> {
        match self.backlog.phase() {
            Phase::Serving | Phase::Answered => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    /// The response in place of one that hyper makes itself, whose start was written.
    fn refusal(&mut self, written: &[u8]) -> Option<Bytes> {
        let reject = match status_of(written)? {
            // hyper does not tell which part of a head is too large.
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                match self.requests.excess(self.limit.fields) {
                    Excess::Line => Reject::HttpServer(StatusCode::URI_TOO_LONG),
                    Excess::Length => Reject::HttpServer(StatusCode::PAYLOAD_TOO_LARGE),
                    Excess::Bytes => HeadExcess::Bytes.into(),
                    Excess::Fields => HeadExcess::Fields.into(),
                }
            }
            status => Reject::HttpServer(status),
        };
        let page = page::refusal(&reject, self.headers);
        self.refused = Some(Refused {
            id: page.id,
            status: page.status,
            reason: page.reason,
            length: page.bytes.len(),
            body: page.body,
        });
        Some(page.bytes)
    }

    /// Takes note of the body that follows the last head.
    fn take_announced(&mut self) {
        if let Some(body) = self.backlog.take_announced() {
            self.requests.announce(body);
        }
    }

    /// Reads the available bytes, and passes on those that belong to one part of a request. Returns
    /// their number, which may be 0, or `None` at the end of the client's bytes.
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        self.take_announced();
        let before = buf.filled().len();
        let again = !self.rest.is_empty();
        let line = self.line;
        if again {
            let length = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest[..length]);
        } else {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        }
        let read = &buf.filled()[before..];
        if read.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let part = match self.backlog.phase() {
            Phase::Tunnel => Part::All,
            _ => {
                if (self.requests.is_between() || line.has_begun())
                    && let Some(encoded) = self.line.encoded(read)
                {
                    // They are longer than what was read, so they are read again.
                    let unread = self.rest.get(read.len()..).unwrap_or_default();
                    self.rest = [&*encoded, unread].concat().into();
                    self.line = line;
                    buf.set_filled(before);
                    return self.poll_part(cx, buf);
                }
                self.keep(read);
                let part = self.requests.pass(read);
                if self.requests.has_two_lengths() {
                    // The connection ends with this request.
                    self.backlog.note_two_lengths();
                }
                part
            }
        };
        let length = match part {
            Part::All => read.len(),
            Part::Until(length) | Part::BareLineFeed(length) | Part::Malformed(length) => length,
        };
        if again {
            self.rest.advance(length);
        } else if length < read.len() {
            self.rest = Bytes::copy_from_slice(&read[length..]);
        }
        match part {
            // hyper accepts only CR LF as the end of such a line, and would wait for it.
            Part::BareLineFeed(_) => {
                self.rest = [b"\r", &*self.rest].concat().into();
                self.backlog.set_last();
            }
            Part::Malformed(0) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            _ => {}
        }
        buf.set_filled(before + length);
        Poll::Ready(Ok(Some(length)))
    }

    /// Notes the result of a write.
    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        let unsent = written.is_pending() || self.stream.has_unsent();
        self.backlog.set_unsent(unsent);
        if self.backlog.is_half_closed() && written.is_ready() {
            self.backlog.set_sending(Sending::Tried);
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.backlog.is_last() {
                this.take_announced();
                if this.requests.is_between() {
                    return this.poll_last();
                }
            }
            match ready!(this.poll_part(cx, buf))? {
                None => return this.poll_half_closed(),
                // The next byte is a bare line feed: the carriage return that it lacks is passed on
                // next.
                Some(0) => {}
                Some(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for ClientStream {
    /// hyper writes until it is done or the write is pending. So the result of the last write tells
    /// whether there are unsent bytes, besides those that TLS holds.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let page = match &mut this.page {
            None if this.backlog.phase() == Phase::Idle => this.refusal(buf),
            page => page.take(),
        };
        let written = match page {
            None => Pin::new(&mut this.stream).poll_write(cx, buf),
            Some(mut page) => loop {
                match Pin::new(&mut this.stream).poll_write(cx, &page) {
                    Poll::Ready(Ok(0)) => {
                        break Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(written)) => page.advance(written),
                    Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                    Poll::Pending => {
                        this.page = Some(page);
                        break Poll::Pending;
                    }
                }
                if page.is_empty() {
                    break Poll::Ready(Ok(buf.len()));
                }
            },
        };
        this.note_written(&written);
        written
    }

    /// A small response is sent from one buffer: copying a kilobyte costs less than a vectored
    /// write. The pieces of a large body are not copied.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length > COPIED {
            // What hyper itself answers is small.
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
            self.note_written(&written);
            return written;
        }
        COPY.with_borrow_mut(|copy| {
            copy.clear();
            for buf in bufs {
                copy.extend_from_slice(buf);
            }
            self.poll_write(cx, copy)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when it has written its whole buffer. Over TLS, the system may not have all of
    /// these bytes yet.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.backlog.has_unsent() {
            self.backlog.set_unsent(false);
        }
        if self.backlog.phase() == Phase::Answered {
            self.backlog.enter(Phase::Idle);
            if self.backlog.is_half_closed() || self.backlog.is_last() {
                // hyper may now be told that the client sends no more bytes.
                cx.waker().wake_by_ref();
            }
        }
        self.backlog.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            this.take_announced();
            // Without this phase, the connection would look idle while the rest of a refused
            // request is read, and that rest could be taken for the next request.
            this.backlog.enter(Phase::Closing);
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let unread = this.requests.is_within_body() || this.backlog.is_last();
            if !unread && this.refused.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
        let timer = (this.linger).get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER.0)));
        let mut bytes = [0; 4096];
        while this.lingered < LINGER.1 {
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    this.lingered += read.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return timer.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of a response that hyper makes itself, which is the response to a malformed head. It
/// is at the start of the written bytes, since nothing else is written while the connection is
/// idle.
fn status_of(head: &[u8]) -> Option<StatusCode> {
    let code = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))?;
    StatusCode::from_bytes(code).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_head_is_its_first_number() {
        let status = status_of(b"HTTP/1.1 431 Request Header Fields Too Large\r\n");
        assert_eq!(status.unwrap(), 431);
        assert_eq!(status_of(b"HTTP/1.1 4"), None);
        assert_eq!(status_of(b"x"), None);
    }
}
