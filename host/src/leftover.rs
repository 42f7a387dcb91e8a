//! The rest of a request's body when the response is ready.
//!
//! hyper closes a connection if it has not read the request to its end. The next request on that
//! connection would fail. The unread bytes make the system reset the connection, and the client can
//! then lose even the response (RFC 9112, 9.6). So a short rest is read and discarded first, as
//! nginx's lingering close does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// The longest rest that is read, in bytes. For a longer one, a new connection costs less.
const MAX_REST: u64 = 64 * 1024;

/// How long the response waits for the rest.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of polling a body for a frame.
pub(crate) type PolledFrame<E = hyper::Error> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// Reads and discards the frames of `poll` until the end, unless that is too much or takes too
/// long. `least` is the least number of bytes that are left, as far as is known. Returns whether
/// nothing is left; otherwise hyper closes the connection.
pub(crate) async fn discard<E>(
    least: u64,
    mut poll: impl FnMut(&mut Context<'_>) -> PolledFrame<E>,
) -> bool {
    if least > MAX_REST {
        return false;
    }
    let reading = async {
        let mut read = 0;
        while read <= MAX_REST {
            match std::future::poll_fn(&mut poll).await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
            }
        }
        false
    };
    let read = tokio::time::timeout(READ_TIMEOUT, reading).await;
    read.unwrap_or(false)
}

/// A body that is given to a handler. The handler may read all of it, some of it, or nothing; the
/// rest is returned when it drops the body.
pub(crate) struct ReturnableBody {
    body: Option<Incoming>,
    owner: Option<oneshot::Sender<Incoming>>,
}

/// Receives a returnable body when the handler drops it.
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
            // The receiver was dropped if the client has disconnected.
            let _ = owner.send(body);
        }
    }
}

impl ReturnedBody {
    /// Reads and discards the part that the handler has not read. Returns whether nothing is left,
    /// which is not known while the handler still has the body.
    pub(crate) async fn discard(mut self) -> bool {
        let Ok(mut body) = self.0.try_recv() else {
            return false;
        };
        let least = body.size_hint().lower();
        body.is_end_stream() || discard(least, |cx| Pin::new(&mut body).poll_frame(cx)).await
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
