//! What is left of a request's body when the answer is ready.
//!
//! hyper closes a connection whose request it has not read to the end: the next request on it would
//! find nobody, and the bytes that nobody reads can cost the client even the answer (RFC 9112, 9.6).
//! So a short rest is read and forgotten first, as nginx's lingering close does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// The longest rest that is read, in bytes: past it, a new connection costs less.
const MOST: u64 = 64 * 1024;

/// How long the answer waits for the rest.
const PATIENCE: Duration = Duration::from_secs(1);

/// A frame of a body, as it is polled for.
pub(crate) type PolledFrame = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

/// Reads and forgets what `poll` gives until its end, unless that is too much or takes too long.
/// `least` is what is known to be left, in bytes.
pub(crate) async fn discard(least: u64, mut poll: impl FnMut(&mut Context<'_>) -> PolledFrame) {
    if least > MOST {
        return;
    }
    let reading = async {
        let mut read = 0;
        while read <= MOST
            && let Some(Ok(frame)) = std::future::poll_fn(&mut poll).await
        {
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    // Who takes longer loses the connection.
    let _ = tokio::time::timeout(PATIENCE, reading).await;
}

/// A body given to a handler that may read all of it, some, or nothing.
pub(crate) struct ReturnableBody {
    body: Option<Incoming>,
    owner: Option<oneshot::Sender<Incoming>>,
}

/// Where a returnable body comes back to.
pub(crate) struct ReturnedBody(oneshot::Receiver<Incoming>);

impl ReturnableBody {
    pub(crate) fn new(body: Incoming) -> (Self, ReturnedBody) {
        let (owner, back) = oneshot::channel();
        let returnable = Self {
            body: Some(body),
            owner: Some(owner),
        };
        (returnable, ReturnedBody(back))
    }
}

impl Drop for ReturnableBody {
    fn drop(&mut self) {
        if let (Some(body), Some(owner)) = (self.body.take(), self.owner.take()) {
            // The owner has gone when the client has.
            let _ = owner.send(body);
        }
    }
}

impl ReturnedBody {
    /// Discards what the handler has left.
    pub(crate) async fn discard(mut self) {
        if let Ok(mut body) = self.0.try_recv()
            && !body.is_end_stream()
        {
            let least = body.size_hint().lower();
            discard(least, |cx| Pin::new(&mut body).poll_frame(cx)).await;
        }
    }
}

impl Body for ReturnableBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}
