//! The byte stream of a connection, below h2: it finds heads and trailers that h2 may have to cut.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{STREAMS, State};
use crate::connect::EndpointStream;
use crate::proxy::streams::{FrameMeter, Frames};

/// The stream of an endpoint's connection.
pub(super) struct WatchedStream {
    stream: EndpointStream,
    received: FrameMeter,
    state: Rc<State>,
}

impl WatchedStream {
    /// Heads and trailers whose compressed form is larger than `max_head` bytes are noted in
    /// `state`.
    pub(super) fn new(stream: EndpointStream, max_head: usize, state: Rc<State>) -> Self {
        Self {
            stream,
            received: FrameMeter::after(0, max_head),
            state,
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let mut frames = Frames::default();
        this.received.pass(&buf.filled()[before..], &mut frames);
        if !frames.oversized.is_empty() {
            let mut oversized = this.state.oversized.borrow_mut();
            oversized.extend(frames.oversized.iter().map(|fields| fields.stream));
            // Each stream takes its own number back when it ends.
            if oversized.len() > STREAMS as usize {
                let error = "the endpoint sends too many heads that are too large";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
