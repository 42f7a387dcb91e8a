//! The bytes of a client's connection, and what only they tell.
//!
//! hyper takes the end of a response into its own buffer and lets go of the body: the request is
//! over for us, while a slow client may need minutes for what is left. It forgets that buffer when
//! a body ends in an error, takes the end of what a client sends for the end of the client, ends a
//! chunked body at CR LF only, and answers a malformed head without a body. So the stream below
//! hyper knows how far a request has come and what has left, and sees to these.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
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
    /// Its head has come, and its body is coming.
    Uploading,
    /// It has come whole, and is not answered.
    Received,
    /// Its answer is on its way, whole.
    Answered,
    /// The connection speaks another protocol by now.
    Tunnel,
}

/// Where a connection stands. Shared with its stream, which hyper wants to be able to send to other
/// threads, though ours stays on its worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    /// Whether bytes that are ready for the client wait to be taken.
    unsent: AtomicBool,
    /// Whether the client has closed its sending side.
    half_closed: AtomicBool,
    /// Whether it was sent something after that.
    sent_since: AtomicBool,
    /// Whether the handler has taken all that hyper has read of the body, and waits for more.
    starved: AtomicBool,
    /// Whether the last request was answered before it had come whole.
    cut: AtomicBool,
    /// Where the last byte that was read ends in memory, if it is a line feed of a chunked body without
    /// a carriage return; else 0.
    bare_at: AtomicUsize,
    /// The same while hyper waits for more of a body: where the last byte that it has got ends in memory, if
    /// that is a line feed without a carriage return; else 0.
    stuck_at: AtomicUsize,
    /// Whether a response waits for the next flush.
    watched: AtomicBool,
    /// Wakes that response.
    watcher: Mutex<Option<Waker>>,
}

impl Backlog {
    /// Whether a client has yet to take bytes that are ready for it.
    pub(super) fn has_unsent(&self) -> bool {
        self.0.unsent.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Relaxed) {
            1 => Phase::Uploading,
            2 => Phase::Received,
            3 => Phase::Answered,
            4 => Phase::Tunnel,
            _ => Phase::Idle,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        let last = self.phase();
        if last == Phase::Tunnel {
            return;
        }
        let cut = phase == Phase::Answered && last == Phase::Uploading;
        if cut || phase == Phase::Received {
            self.0.cut.store(cut, Ordering::Relaxed);
        }
        if last == Phase::Answered {
            // What was read by then is of another request.
            self.0.bare_at.store(0, Ordering::Relaxed);
            self.0.stuck_at.store(0, Ordering::Relaxed);
        }
        if matches!(last, Phase::Idle | Phase::Answered) && phase != Phase::Answered {
            self.0.starved.store(false, Ordering::Relaxed);
        }
        self.0.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The handler waits for more of the body than hyper has read. If the client will send no more, hyper
    /// may know now: the body has broken off.
    pub(super) fn starve(&self, cx: &Context<'_>) {
        if !self.0.starved.swap(true, Ordering::Relaxed) && self.is_half_closed() {
            // The task that reads from the client is this one.
            cx.waker().wake_by_ref();
        }
    }

    /// Whether the client has closed its sending side while its request is not answered.
    pub(super) fn is_half_closed(&self) -> bool {
        self.0.half_closed.load(Ordering::Relaxed)
    }

    /// Whether bytes were sent to a client after it had closed its sending side. If it has closed
    /// the other one as well, its system answers them with a reset.
    pub(super) fn is_tried(&self) -> bool {
        self.0.sent_since.load(Ordering::Relaxed)
    }

    /// Whether a chunked body has ended, though not for hyper: with a line feed that is none of its
    /// data, which ends at `data_end`, and lacks the carriage return. hyper refuses such a line
    /// feed wherever data may follow it, and waits for more after the last chunk. nginx takes it
    /// for the end.
    pub(super) fn ends_bare(&self, data_end: usize) -> bool {
        let at = self.0.stuck_at.load(Ordering::Relaxed);
        at != 0 && at != data_end
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
    /// Read before, and to be read again.
    rest: Bytes,
    /// The last byte that was read.
    last_byte: u8,
    /// What is sent in place of hyper's answer to a malformed head.
    page: Option<Bytes>,
    /// Read after the end, in bytes.
    lingered: usize,
    linger: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub(super) fn new(stream: TcpStream, backlog: Backlog) -> Self {
        Self {
            stream,
            backlog,
            rest: Bytes::new(),
            last_byte: 0,
            page: None,
            lingered: 0,
            linger: None,
        }
    }

    /// Gives back what was read of it.
    pub(super) fn rewind(&mut self, rest: Bytes) {
        self.rest = rest;
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

    /// The client will send nothing more. As long as its request is not answered, that is not for
    /// hyper to know: it would end the connection, and with it the request.
    fn poll_half_closed(&mut self) -> Poll<io::Result<()>> {
        let shared = &self.backlog.0;
        match self.backlog.phase() {
            Phase::Received | Phase::Answered => {}
            // The end may have come with the last bytes of the body, which the handler has yet to take.
            Phase::Uploading if !shared.starved.load(Ordering::Relaxed) => {}
            _ => return Poll::Ready(Ok(())),
        }
        if !shared.half_closed.swap(true, Ordering::Relaxed) {
            shared.sent_since.store(false, Ordering::Relaxed);
        }
        // A reset that came after the end shows here only. Nothing wakes this task for it; the
        // worker does, now and then.
        match self.stream.take_error() {
            Ok(None) => Poll::Pending,
            Ok(Some(error)) | Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Notes whether a read ended in a bare line feed.
    fn note_end(&mut self, read: &[u8]) {
        let (before, last) = match read {
            [.., before, last] => (*before, *last),
            [last] => (self.last_byte, *last),
            [] => return,
        };
        self.last_byte = last;
        let shared = &self.backlog.0;
        let bare = last == b'\n'
            && before != b'\r'
            && match self.backlog.phase() {
                Phase::Uploading => true,
                Phase::Idle => has_chunks(read),
                _ => false,
            };
        if bare || shared.bare_at.load(Ordering::Relaxed) != 0 {
            let at = read.as_ptr_range().end.addr();
            shared
                .bare_at
                .store(if bare { at } else { 0 }, Ordering::Relaxed);
            shared.stuck_at.store(0, Ordering::Relaxed);
        }
    }

    /// hyper waits for more, and so has taken all that was read.
    fn note_wait(&mut self, cx: &Context<'_>) {
        let shared = &self.backlog.0;
        let at = shared.bare_at.load(Ordering::Relaxed);
        if at != 0 && shared.stuck_at.swap(at, Ordering::Relaxed) != at {
            // The task that reads the body is this one.
            cx.waker().wake_by_ref();
        }
    }
}

/// Whether what follows the last head, or what looks like one, begins as a chunked body does. Heads
/// may end in bare line feeds as well, and have no line of a number alone.
fn has_chunks(read: &[u8]) -> bool {
    let head = read.windows(4).rposition(|bytes| bytes == b"\r\n\r\n");
    let body = head.map_or(&[][..], |head| &read[head + 4..]);
    let digits = body.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let after = &body[digits.clone().count()..];
    digits.count() > 0 && (after.starts_with(b"\r\n") || after.starts_with(b";"))
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            let length = this.rest.len().min(buf.remaining());
            buf.put_slice(&this.rest[..length]);
            this.rest.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf)? {
            Poll::Ready(()) => {}
            Poll::Pending => {
                this.note_wait(cx);
                return Poll::Pending;
            }
        }
        let read = &buf.filled()[before..];
        if read.is_empty() && buf.remaining() > 0 {
            return this.poll_half_closed();
        }
        this.note_end(read);
        this.backlog.0.starved.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
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
                shared.cut.store(true, Ordering::Relaxed);
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
        if shared.half_closed.load(Ordering::Relaxed) && written.is_ready() {
            shared.sent_since.store(true, Ordering::Relaxed);
        }
        written
    }

    /// hyper flushes once it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.backlog.phase() == Phase::Answered {
            self.backlog.enter(Phase::Idle);
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
            if !this.backlog.0.cut.load(Ordering::Relaxed) {
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
    fn a_tunnel_stays_one_and_an_early_answer_is_known() {
        let backlog = Backlog::default();
        assert_eq!(backlog.phase(), Phase::Idle);
        for phase in [Phase::Uploading, Phase::Received, Phase::Answered] {
            backlog.enter(phase);
            assert_eq!(backlog.phase(), phase);
        }
        assert!(!backlog.0.cut.load(Ordering::Relaxed));
        backlog.enter(Phase::Uploading);
        backlog.enter(Phase::Answered);
        assert!(backlog.0.cut.load(Ordering::Relaxed));
        backlog.enter(Phase::Tunnel);
        backlog.enter(Phase::Answered);
        assert_eq!(backlog.phase(), Phase::Tunnel);
    }

    #[test]
    fn a_head_that_ends_in_bare_line_feeds_is_no_chunk() {
        let head = "POST / HTTP/1.1\r\nhost: h\r\n\r\n";
        for body in ["0\r\n\n", "1f;x\r\n\n", "3\r\na\r\n\r\nb\r\n\n"] {
            assert!(has_chunks(format!("{head}{body}").as_bytes()), "{body:?}");
        }
        for other in ["", "DEAD / HTTP/1.1\nhost: h\n\n", "0\n\n"] {
            assert!(
                !has_chunks(format!("{head}{other}").as_bytes()),
                "{other:?}"
            );
        }
        assert!(!has_chunks(b"POST / HTTP/1.1\nhost: h\n\n"));
    }

    #[test]
    fn the_status_of_a_head_is_its_first_number() {
        let status = status_of(b"HTTP/1.1 431 Request Header Fields Too Large\r\n");
        assert_eq!(status.unwrap(), 431);
        assert_eq!(status_of(b"HTTP/1.1 4"), None);
        assert_eq!(status_of(b"x"), None);
    }
}
