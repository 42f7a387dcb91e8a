//! The byte stream of an HTTP/2 connection, below hyper. It counts the frames that pass.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::client_stream::ClientStream;
use super::super::preface;
use super::super::streams::{FrameMeter, Frames, Streams, Traffic};
use crate::listener::Transport;

/// The stream of a client's connection.
pub(super) struct MeteredStream {
    stream: Transport,
    /// Bytes that were read before and are passed to hyper first.
    rest: Bytes,
    traffic: Rc<Traffic>,
    received: FrameMeter,
    sent: FrameMeter,
}

impl MeteredStream {
    /// The stream of a connection of which hyper has not read anything.
    ///
    /// Trailers whose compressed form is larger than `max_trailers` bytes end it.
    pub(super) fn new(stream: ClientStream, streams: &Streams, max_trailers: usize) -> Self {
        let (stream, rest) = stream.into_parts();
        Self {
            stream,
            rest,
            traffic: Rc::clone(&streams.traffic),
            received: FrameMeter::after(preface::LENGTH, max_trailers),
            sent: FrameMeter::after(0, usize::MAX),
        }
    }

    /// Notes the result of a write of `slices`, and counts the frames in the bytes that were sent.
    fn note_written<'a>(
        &mut self,
        slices: impl IntoIterator<Item = &'a [u8]>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(written)?;
        let mut length = written;
        let mut frames = Frames::default();
        for slice in slices {
            let passed = length.min(slice.len());
            self.sent.pass(&slice[..passed], &mut frames);
            length -= passed;
        }
        self.traffic.send(&frames);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for MeteredStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.rest.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let length = this.rest.len().min(buf.remaining());
            buf.put_slice(&this.rest[..length]);
            this.rest.advance(length);
        }
        let mut frames = Frames::default();
        this.received.pass(&buf.filled()[before..], &mut frames);
        this.traffic.receive(&frames);
        if this.traffic.is_flooded() {
            let error = "the client sends too many frames without content";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        if frames.oversized.iter().any(|fields| fields.is_trailers) {
            // h2 may have to cut them, and would not tell.
            let error = "the trailers of a request are too large";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeteredStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.note_written([buf], written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.note_written(bufs.iter().map(|slice| &**slice), written)
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
