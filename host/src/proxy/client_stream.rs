//! The bytes of a client's connection, and what only they tell.
//!
//! hyper takes the end of a response into its own buffer and lets go of the body: the request is
//! over for us, while a slow client may need minutes for what is left. It forgets that buffer when
//! a body ends in an error, takes the end of what a client sends for the end of the client, waits
//! for more where trailers end with a bare line feed, and answers a malformed head without a body.
//! So the stream below hyper knows how far a request has come and what has left, and sees to these.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::page;
use crate::http1::{BodyKind, Part, Requests};

/// How long the rest of a request that was refused is read before the connection is closed, and how
/// much of it, in bytes: closed with unread bytes, the connection would be reset, which can cost
/// the client the answer (RFC 9112, 9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 * 1024);

/// How far the request at hand has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The head of the next one has not come.
    Idle,
    /// Its head has come, and it is not answered.
    Serving,
    /// Its answer is on its way, whole.
    Answered,
    /// The connection speaks another protocol by now.
    Tunnel,
}

/// Whether the client may send more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Sending {
    /// As far as is known.
    Open,
    /// It has closed its sending side while its request is not answered.
    Closed,
    /// It was sent something after that. If it has closed the other side as well, its system
    /// answers that with a reset.
    Tried,
}

/// Where a connection stands. Shared with its stream, which hyper wants to be able to send to other
/// threads, though ours stays on its worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    /// The body that follows the head which has come last, until the stream has heard of it.
    announced: AtomicU64,
    /// Whether bytes that are ready for the client wait to be taken.
    unsent: AtomicBool,
    sending: AtomicU8,
    /// Whether the request at hand is the last one: its end is one that other servers may not take
    /// for one.
    last: AtomicBool,
    /// Whether a response waits for the next flush.
    watched: AtomicBool,
    /// Wakes that response.
    watcher: Mutex<Option<Waker>>,
}

/// As [`Shared::announced`] has it: none, a chunked one, or one more than its length.
const NOT_ANNOUNCED: u64 = 0;
const CHUNKED: u64 = u64::MAX;

impl Backlog {
    /// Whether a client has yet to take bytes that are ready for it.
    pub(super) fn has_unsent(&self) -> bool {
        self.0.unsent.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Relaxed) {
            1 => Phase::Serving,
            2 => Phase::Answered,
            3 => Phase::Tunnel,
            _ => Phase::Idle,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        if self.phase() != Phase::Tunnel {
            self.0.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// The head of a request has come, and a body of this kind follows.
    pub(super) fn begin(&self, body: BodyKind) {
        let announced = match body {
            BodyKind::Chunked => CHUNKED,
            BodyKind::Length(length) => length.saturating_add(1).min(CHUNKED - 1),
        };
        self.0.announced.store(announced, Ordering::Relaxed);
        self.enter(Phase::Serving);
    }

    fn take_announced(&self) -> Option<BodyKind> {
        match self.0.announced.load(Ordering::Relaxed) {
            NOT_ANNOUNCED => None,
            announced => {
                self.0.announced.store(NOT_ANNOUNCED, Ordering::Relaxed);
                Some(match announced {
                    CHUNKED => BodyKind::Chunked,
                    more => BodyKind::Length(more - 1),
                })
            }
        }
    }

    fn sending(&self) -> Sending {
        match self.0.sending.load(Ordering::Relaxed) {
            1 => Sending::Closed,
            2 => Sending::Tried,
            _ => Sending::Open,
        }
    }

    fn set_sending(&self, sending: Sending) {
        self.0.sending.store(sending as u8, Ordering::Relaxed);
    }

    /// Whether the client has closed its sending side while its request is not answered.
    pub(super) fn is_half_closed(&self) -> bool {
        self.sending() != Sending::Open
    }

    /// Whether bytes were sent to a client after it had closed its sending side. If it has closed
    /// the other one as well, its system answers them with a reset.
    pub(super) fn is_tried(&self) -> bool {
        self.sending() == Sending::Tried
    }

    /// Whether no other request will be read from the connection.
    pub(super) fn is_last(&self) -> bool {
        self.0.last.load(Ordering::Relaxed)
    }

    /// From here on, [`Backlog::poll_flushed`] waits for the next flush.
    pub(super) fn watch(&self) {
        self.0.watched.store(true, Ordering::Relaxed);
    }

    /// Ready once the connection has been flushed: hyper does that only when its own buffer is
    /// empty, so all that it was given before is with the system by then.
    pub(super) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.0.watched.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *self.0.watcher.lock() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn flushed(&self) {
        if self.0.watched.load(Ordering::Relaxed) {
            self.0.watched.store(false, Ordering::Relaxed);
            if let Some(watcher) = self.0.watcher.lock().take() {
                watcher.wake();
            }
        }
    }
}

/// The stream of a client's connection.
pub(super) struct ClientStream {
    stream: TcpStream,
    backlog: Backlog,
    /// Where requests end in what was handed over.
    requests: Requests,
    max_trailers: usize,
    /// Read, and to be handed over later.
    rest: Bytes,
    /// What is sent in place of hyper's answer to a malformed head.
    page: Option<Bytes>,
    /// Whether that was sent.
    refused: bool,
    /// Read after the end, in bytes.
    lingered: usize,
    linger: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    /// The trailers of a request may take `max_trailers` bytes.
    pub(super) fn new(stream: TcpStream, backlog: Backlog, max_trailers: usize) -> Self {
        Self {
            stream,
            backlog,
            requests: Requests::new(max_trailers),
            max_trailers,
            rest: Bytes::new(),
            page: None,
            refused: false,
            lingered: 0,
            linger: None,
        }
    }

    /// Gives back what was read of the next request.
    pub(super) fn rewind(&mut self, read: Bytes) {
        self.requests = Requests::new(self.max_trailers);
        self.rest = match (read.is_empty(), self.rest.is_empty()) {
            (true, _) => std::mem::take(&mut self.rest),
            (_, true) => read,
            _ => [&*read, &*self.rest].concat().into(),
        };
    }

    /// Waits until there is something to be read, or the client has closed its side.
    pub(super) async fn readable(&self) -> io::Result<()> {
        if self.rest.is_empty() {
            self.stream.readable().await?;
        }
        Ok(())
    }

    /// Whether the system has something to be read, of which the runtime may not have heard yet.
    pub(super) fn has_bytes(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        !self.rest.is_empty()
            || SockRef::from(&self.stream)
                .peek(&mut byte)
                .is_ok_and(|read| read > 0)
    }

    /// The client will send nothing more. As long as its request has come whole and is not
    /// answered, that is not for hyper to know: it would end the connection, and with it the
    /// request.
    fn poll_half_closed(&mut self) -> Poll<io::Result<()>> {
        let unanswered = matches!(self.backlog.phase(), Phase::Serving | Phase::Answered);
        if !unanswered || self.requests.is_within_body() {
            return Poll::Ready(Ok(()));
        }
        if !self.backlog.is_half_closed() {
            self.backlog.set_sending(Sending::Closed);
        }
        // A reset that came after the end shows here only. Nothing wakes this task for it; the
        // worker does, now and then.
        match self.stream.take_error() {
            Ok(None) => Poll::Pending,
            Ok(Some(error)) | Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Nothing more is read of what the client sends, as if it had ended; hyper hears of that once
    /// the request is answered.
    fn poll_last(&self) -> Poll<io::Result<()>> {
        match self.backlog.phase() {
            Phase::Serving | Phase::Answered => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Reads what is there, and hands over what belongs to one part of a request. Returns the
    /// number of bytes, which may be none.
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        let before = buf.filled().len();
        let again = !self.rest.is_empty();
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
        if let Some(body) = self.backlog.take_announced() {
            self.requests.announce(body);
        }
        let part = match self.backlog.phase() {
            Phase::Tunnel => Part::All,
            _ => self.requests.pass(read),
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
            // hyper takes CR LF alone for the end of such a line, and would wait for it.
            Part::BareLineFeed(_) => {
                self.rest = [b"\r", &*self.rest].concat().into();
                self.backlog.0.last.store(true, Ordering::Relaxed);
            }
            Part::Malformed(0) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            _ => {}
        }
        buf.set_filled(before + length);
        Poll::Ready(Ok(Some(length)))
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
            if this.backlog.is_last() && this.requests.is_between() {
                return this.poll_last();
            }
            match ready!(this.poll_part(cx, buf))? {
                None => return this.poll_half_closed(),
                // A line feed that nothing stands before: its carriage return is handed over next.
                Some(0) => {}
                Some(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for ClientStream {
    /// Whoever writes goes on until it is done or has to wait, so the last word tells which.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let shared = &this.backlog.0;
        let page = match &mut this.page {
            None if this.backlog.phase() == Phase::Idle => status_of(buf).map(page::refusal),
            page => page.take(),
        };
        let written = match page {
            None => Pin::new(&mut this.stream).poll_write(cx, buf),
            Some(mut page) => {
                this.refused = true;
                loop {
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
                }
            }
        };
        shared.unsent.store(written.is_pending(), Ordering::Relaxed);
        if this.backlog.is_half_closed() && written.is_ready() {
            this.backlog.set_sending(Sending::Tried);
        }
        written
    }

    /// hyper flushes once it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.backlog.phase() == Phase::Answered {
            self.backlog.enter(Phase::Idle);
            if self.backlog.is_half_closed() || self.backlog.is_last() {
                // hyper may know now that nothing more comes.
                cx.waker().wake_by_ref();
            }
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.backlog.flushed();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            let unread = this.requests.is_within_body() || this.backlog.is_last();
            if !unread && !this.refused {
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

/// The status of a response that hyper makes by itself, which is one to a malformed head. It begins
/// what is written, since nothing else is written while the connection is idle.
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
    fn a_tunnel_stays_one() {
        let backlog = Backlog::default();
        assert_eq!(backlog.phase(), Phase::Idle);
        for phase in [Phase::Serving, Phase::Answered, Phase::Idle, Phase::Tunnel] {
            backlog.enter(phase);
            assert_eq!(backlog.phase(), phase);
        }
        backlog.enter(Phase::Answered);
        assert_eq!(backlog.phase(), Phase::Tunnel);
    }

    #[test]
    fn the_stream_hears_of_a_body_once() {
        let backlog = Backlog::default();
        for body in [
            BodyKind::Length(0),
            BodyKind::Length(u64::MAX - 2),
            BodyKind::Chunked,
        ] {
            assert_eq!(backlog.take_announced(), None);
            backlog.begin(body);
            assert_eq!(backlog.take_announced(), Some(body));
        }
    }

    #[test]
    fn the_status_of_a_head_is_its_first_number() {
        let status = status_of(b"HTTP/1.1 431 Request Header Fields Too Large\r\n");
        assert_eq!(status.unwrap(), 431);
        assert_eq!(status_of(b"HTTP/1.1 4"), None);
        assert_eq!(status_of(b"x"), None);
    }
}
