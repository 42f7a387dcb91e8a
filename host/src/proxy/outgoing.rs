//! The bytes of a client's connection, and whether some of them wait to be taken.
//!
//! hyper takes the end of a response into its own buffer and lets go of the body: the request is over for
//! us, while a slow client may need minutes for what is left. Only the stream below hyper knows.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Whether a client has yet to take bytes that are ready for it. Shared with the connection's stream,
/// which hyper wants to be able to send to other threads, though ours stays on its worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<AtomicBool>);

impl Backlog {
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
        self.backlog
            .0
            .store(written.is_pending(), Ordering::Relaxed);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
