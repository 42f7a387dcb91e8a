//! The body of a request to the Admin API, with a limit on the time between its parts.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::Sleep;

/// The client has sent nothing for too long.
#[derive(Debug, Error)]
#[error("no more of the body came in time")]
pub(super) struct TooSlow;

/// A body that ends with [`TooSlow`] when no part of it arrives for `patience`.
pub(super) struct Paced<B> {
    body: B,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, patience: Duration) -> Self {
        Self {
            body,
            patience,
            timer: Box::pin(tokio::time::sleep(patience)),
            waiting: false,
        }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if !this.waiting {
            this.waiting = true;
            let due = Instant::now() + this.patience;
            this.timer.as_mut().reset(due.into());
        }
        ready!(this.timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
