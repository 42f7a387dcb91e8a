//! Bytes that are passed between two streams in both directions: the streams of a tunnel. A side of
//! a tunnel has to read what it is sent, and its bytes show that the tunnel is in use.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// When a byte last passed through a tunnel, in either direction.
#[derive(Debug, Clone)]
pub(crate) struct LastMove(Rc<Cell<Instant>>);

impl LastMove {
    pub(crate) fn now() -> Self {
        Self(Rc::new(Cell::new(Instant::now())))
    }

    /// Notes that bytes pass now.
    pub(crate) fn note(&self) {
        self.0.set(Instant::now());
    }

    /// How long no byte has passed.
    pub(crate) fn age(&self) -> Duration {
        self.0.get().elapsed()
    }

    /// Pretends that the last byte passed earlier.
    #[cfg(test)]
    pub(crate) fn backdate(&self, by: Duration) {
        self.0
            .set(self.0.get().checked_sub(by).unwrap_or_else(Instant::now));
    }

    /// Waits until no byte has passed for `patience`.
    pub(crate) async fn is_past(&self, patience: Duration) {
        loop {
            let due = self.0.get() + patience;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due.into()).await;
        }
    }
}

/// A stream of a tunnel.
pub(crate) struct Side<S> {
    stream: S,
    last_move: LastMove,
    /// Longest wait between two writes.
    write_timeout: Duration,
    /// Bytes that were read from it.
    read: u64,
    /// Bytes that were written to it.
    written: u64,
    /// Its first error.
    failure: Option<io::ErrorKind>,
    /// The timer of the write timeout; it runs while the other end does not read.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Side<S> {
    pub(crate) fn new(stream: S, last_move: &LastMove, write_timeout: Duration) -> Self {
        Self {
            stream,
            last_move: last_move.clone(),
            write_timeout,
            read: 0,
            written: 0,
            failure: None,
            stuck: None,
        }
    }

    /// Bytes that were read from it.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// Bytes that were written to it.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The kind of its first error, if it has broken.
    pub(crate) fn failure(&self) -> Option<io::ErrorKind> {
        self.failure
    }

    fn moved(&self) {
        self.last_move.note();
    }

    /// Notes an error of its stream. That a peer over TLS closes without `close_notify`, as many
    /// do, is none: rustls alone reports it.
    fn noted<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            self.failure.get_or_insert(error.kind());
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        this.noted(outcome)?;
        this.read += (buf.filled().len() - before) as u64;
        this.moved();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write(cx, buf) {
            this.stuck = None;
            this.written += *written.as_ref().unwrap_or(&0) as u64;
            this.moved();
            return Poll::Ready(this.noted(written));
        }
        let timeout = this.write_timeout;
        let stuck = this
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(this.noted(Err(io::ErrorKind::TimedOut.into())))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        Poll::Ready(this.noted(outcome))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = ready!(Pin::new(&mut this.stream).poll_shutdown(cx));
        Poll::Ready(this.noted(outcome))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_side_that_reads_nothing_times_out() {
        let (near, mut far) = duplex(4);
        let last_move = LastMove::now();
        let mut side = Side::new(near, &last_move, Duration::from_millis(20));
        let outcome = side.write_all(b"more than fits").await;
        assert_eq!(
            outcome.map_err(|error| error.kind()),
            Err(io::ErrorKind::TimedOut)
        );
        assert_eq!(side.failure(), Some(io::ErrorKind::TimedOut));
        let mut taken = [0; 4];
        assert!(far.read_exact(&mut taken).await.is_ok());
        assert_eq!(&taken, b"more");
    }

    #[tokio::test]
    async fn every_byte_restarts_the_idle_time() {
        let (near, mut far) = duplex(4);
        let last_move = LastMove::now();
        let start = last_move.0.get();
        let mut side = Side::new(near, &last_move, Duration::from_secs(60));
        assert!(far.write_all(b"x").await.is_ok());
        let mut byte = [0];
        assert!(side.read_exact(&mut byte).await.is_ok());
        let read = last_move.0.get();
        assert!(read > start);
        assert!(side.write_all(b"y").await.is_ok());
        assert!(last_move.0.get() > read);
        let patience = Duration::from_millis(20);
        last_move.is_past(patience).await;
        assert!(last_move.0.get().elapsed() >= patience);
    }
}
