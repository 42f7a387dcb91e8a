//! The bytes of a client's connection, and whether some of them wait to be taken.
//!
//! hyper takes the end of a response into its own buffer and lets go of the body: the request is
//! over for us, while a slow client may need minutes for what is left. It also forgets that buffer
//! when a body ends in an error. Only the stream below hyper knows what has left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Whether a client has yet to take bytes that are ready for it. Shared with the connection's stream,
/// which hyper wants to be able to send to other threads, though ours stays on its worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Whether the last write had to wait.
    waiting: AtomicBool,
    /// Whether a response waits for the next flush.
    watched: AtomicBool,
    /// Wakes that response.
    watcher: Mutex<Option<Waker>>,
}

impl Backlog {
    pub(super) fn is_there(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed)
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
pub(super) struct Outgoing {
    stream: TcpStream,
    backlog: Backlog,
}

impl Outgoing {
    pub(super) fn new(stream: TcpStream, backlog: Backlog) -> Self {
        Self { stream, backlog }
    }
}

impl AsyncRead for Outgoing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Outgoing {
    /// Whoever writes goes on until it is done or has to wait, so the last word tells which.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        let waiting = written.is_pending();
        self.backlog.0.waiting.store(waiting, Ordering::Relaxed);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.backlog.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
