//! A request that is being sent to an endpoint, as HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use crate::connect::EndpointStream;
use crate::proxy::headers::{RequestHead, field};
use crate::proxy::upload::{BodyError, Stage, Upload};

/// The part of a request that is still to be sent.
#[derive(Default)]
pub(super) struct Output {
    /// The head, or the framing around the pieces of a chunked body.
    text: Vec<u8>,
    /// Number of bytes of `text` that were sent.
    sent: usize,
    /// The piece of the body that follows `text`.
    piece: Bytes,
    /// The body that the pieces are read from, until its end.
    body: Option<Rc<Upload>>,
    /// The same body, until the endpoint has taken a byte of it.
    untaken: Option<Rc<Upload>>,
    chunked: bool,
    /// Whether the endpoint has taken a byte of this request.
    begun: bool,
    /// Whether the stream may still hold some of the bytes: TLS encrypts them into records before
    /// it sends them.
    kept: bool,
    /// The error because of which nothing more can be sent. The endpoint may have answered anyway.
    failed: Option<io::Error>,
}

impl Output {
    /// Begins with the head of a request. Its body follows as it is received.
    pub(super) fn begin(&mut self, body: Option<Rc<Upload>>, head: &RequestHead<'_>) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        head.write_http1(&mut text);
        if let Some(body) = &body {
            body.rewind();
        }
        *self = Self {
            text,
            untaken: body.clone(),
            chunked: body.as_ref().is_some_and(|body| body.length().is_none()),
            body,
            ..Self::default()
        };
    }

    /// Whether the endpoint has taken a byte of this request.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// The error because of which nothing more can be sent, if there is one.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Sends as much as possible. An error of the endpoint's connection is stored and not returned,
    /// because a response of the endpoint may still be read.
    pub(super) fn poll_send(
        &mut self,
        stream: &mut EndpointStream,
        cx: &mut Context<'_>,
    ) -> Result<(), BodyError> {
        if self.is_done() || self.failed.is_some() {
            return Ok(());
        }
        loop {
            let waiting = self.poll_gather(cx)?.is_pending();
            match self.poll_flush(stream, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if waiting || self.is_done() => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error);
                    return Ok(());
                }
            }
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.is_flushed()
    }

    fn is_flushed(&self) -> bool {
        self.sent == self.text.len() && self.piece.is_empty() && !self.kept
    }

    /// Takes the next piece of the body, unless the last one is still being sent. Pending while the
    /// client has not sent it.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, BodyError> {
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
            None => self.end_body(None),
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
                Err(frame) => self.end_body(frame.into_trailers().ok()),
            },
        }
        Ok(Poll::Ready(()))
    }

    fn end_body(&mut self, trailers: Option<HeaderMap>) {
        if self.chunked {
            self.text.extend_from_slice(b"0\r\n");
            for (name, value) in trailers.iter().flat_map(HeaderMap::iter) {
                field(&mut self.text, name.as_str(), value.as_bytes());
            }
            self.text.extend_from_slice(b"\r\n");
        }
        self.untaken = None;
        if let Some(body) = self.body.take() {
            body.finish();
        }
    }

    fn poll_flush(
        &mut self,
        stream: &mut EndpointStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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
            self.kept = matches!(stream, EndpointStream::Tls(_));
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
