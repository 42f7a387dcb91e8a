//! The answer to a request head that hyper cannot parse: an error in Kong's form.
//!
//! hyper answers such a head itself, without a body, and has no setting for that. So the stream
//! below hyper writes another answer in its place. The stream recognises hyper's own answer by the
//! time: it comes while no request is being answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer::Peer;
use crate::listener::Transport;
use crate::proxy::PRODUCT;

/// The state of the current request.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

const IDLE: u8 = 0;
const BEING_ANSWERED: u8 = 1;
/// hyper has the whole answer, and may not have written it yet.
const ANSWERED: u8 = 2;

impl Progress {
    /// A request has arrived.
    pub(super) fn begin(&self) {
        self.0.store(BEING_ANSWERED, Ordering::Relaxed);
    }

    /// Whether all answers so far were written.
    pub(super) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == IDLE
    }
}

/// The body of an answer; its end is recorded in `progress`.
pub(super) struct Noted<B> {
    body: B,
    progress: Progress,
}

impl<B> Noted<B> {
    pub(super) fn new(body: B, progress: Progress) -> Self {
        Self { body, progress }
    }
}

impl<B> Drop for Noted<B> {
    fn drop(&mut self) {
        self.progress.0.store(ANSWERED, Ordering::Relaxed);
    }
}

impl<B: Body + Unpin> Body for Noted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stream of a client's connection.
pub(super) struct Stream {
    stream: Arc<Mutex<Transport>>,
    progress: Progress,
    /// The part of the answer in place of hyper's that is still to be written.
    rest: Bytes,
}

impl Stream {
    pub(super) fn new(stream: Transport, progress: Progress) -> Self {
        Self {
            stream: Arc::new(Mutex::new(stream)),
            progress,
            rest: Bytes::new(),
        }
    }

    pub(super) fn peer(&self) -> Peer {
        Peer::new(&self.stream)
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut *self.stream.lock()).poll_write(cx, &self.rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx))?;
        if self.progress.0.load(Ordering::Relaxed) == IDLE
            && let Some(status) = status_of(buf)
        {
            self.rest = answer(status);
            // This is the last write of hyper, which then flushes.
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut *self.stream.lock()).poll_write(cx, buf)
    }

    /// hyper flushes once it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        let progress = &self.progress.0;
        let _ = progress.compare_exchange(ANSWERED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
        Pin::new(&mut *self.stream.lock()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut *self.stream.lock()).poll_shutdown(cx)
    }
}

/// The status of the head that a buffer begins with.
fn status_of(buf: &[u8]) -> Option<StatusCode> {
    let code = buf.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    StatusCode::from_bytes(code).ok()
}

/// A whole answer, after which the connection ends. It contains nothing that must be hidden from a
/// web page, so any page may read it: which page asks is not known.
fn answer(status: StatusCode) -> Bytes {
    let message = match status {
        StatusCode::BAD_REQUEST => "the head of the request is not valid HTTP/1.1",
        StatusCode::URI_TOO_LONG => "the target of the request is too long",
        _ => "the head of the request is larger than the setting max_header_size allows",
    };
    let body = json!({ "message": message }).to_string();
    let reason = status.canonical_reason().unwrap_or_default();
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\n\
         server: {PRODUCT}\r\naccess-control-allow-origin: *\r\ndate: {date}\r\nconnection: close\r\n\r\n{body}",
        status.as_str(),
        body.len(),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_head_is_its_first_number() {
        let status = status_of(b"HTTP/1.1 431 Request Header Fields Too Large\r\n");
        assert_eq!(status, Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        assert_eq!(status_of(b"HTTP/1.1 4"), None);
        assert_eq!(status_of(b"{}"), None);
    }
}
