//! The answer to a request head that hyper cannot parse: an error in Kong's form.
//!
//! hyper answers such a head itself, without a body, and has no setting for that. So the stream
//! below hyper writes another answer in its place. The stream recognises hyper's own answer by the
//! time: it comes while no request is being answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::peer::Peer;
use crate::listener::Transport;
use crate::proxy::PRODUCT;

/// How long the rest of a request is read after its answer, before the connection is closed:
/// without a byte, and in all. If a connection is closed with unread bytes, it is reset, and the
/// client can lose the answer (RFC 9112, 9.6). Source: nginx, `lingering_timeout` and
/// `lingering_time`.
const LINGER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// The state of the current request.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// [`IDLE`], [`BEING_ANSWERED`] or [`ANSWERED`].
    phase: AtomicU8,
    /// Whether a part of the request was not read.
    has_unread: AtomicBool,
}

const IDLE: u8 = 0;
const BEING_ANSWERED: u8 = 1;
/// hyper has the whole answer, and may not have written it yet.
const ANSWERED: u8 = 2;

impl Progress {
    /// A request has arrived.
    pub(super) fn begin(&self) {
        self.0.phase.store(BEING_ANSWERED, Ordering::Relaxed);
    }

    /// Says whether a part of the request was not read when its answer was ready.
    pub(super) fn set_unread(&self, has_unread: bool) {
        self.0.has_unread.store(has_unread, Ordering::Relaxed);
    }

    /// Whether all answers so far were written.
    pub(super) fn is_idle(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == IDLE
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
        self.progress.0.phase.store(ANSWERED, Ordering::Relaxed);
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
    /// Set once all was written and the rest of the request is read: until when without a byte, and
    /// until when in all.
    linger: Option<(Pin<Box<Sleep>>, Instant)>,
}

impl Stream {
    pub(super) fn new(stream: Transport, progress: Progress) -> Self {
        Self {
            stream: Arc::new(Mutex::new(stream)),
            progress,
            rest: Bytes::new(),
            linger: None,
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
        if self.progress.is_idle()
            && let Some(status) = status_of(buf)
        {
            self.progress.set_unread(true);
            self.rest = answer(status);
            // This is the last write of hyper, which then flushes.
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut *self.stream.lock()).poll_write(cx, buf)
    }

    /// hyper flushes once it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        let phase = &self.progress.0.phase;
        let _ = phase.compare_exchange(ANSWERED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
        Pin::new(&mut *self.stream.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        let mut stream = this.stream.lock();
        if this.linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            if !this.progress.0.has_unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let (timer, end) = this.linger.get_or_insert_with(|| {
            let now = Instant::now();
            (Box::pin(sleep_until(now + LINGER.0)), now + LINGER.1)
        });
        let mut bytes = [0; 4096];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= *end {
                        return Poll::Ready(Ok(()));
                    }
                    timer.as_mut().reset((now + LINGER.0).min(*end));
                }
                // The client has closed the connection, or it has failed.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return timer.as_mut().poll(cx).map(Ok),
            }
        }
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
        _ => {
            "the head of the request is larger than the setting max_header_size allows, or has more \
             fields than max_headers"
        }
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
