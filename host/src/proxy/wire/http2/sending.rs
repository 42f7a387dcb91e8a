//! The body of a request that is being sent to an endpoint, as HTTP/2.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::proxy::upload::{BodyError, Stage, Upload};

/// How much of a body that nothing else keeps is kept by this try, in bytes. An endpoint may refuse
/// a stream of which it has received the start, and then the request is sent again.
const MAX_KEPT_BODY: usize = 32 * 1024;

/// The part of a body that is still to be sent.
pub(super) struct Sending {
    stream: SendStream<Bytes>,
    /// The body that the pieces are read from, until its end.
    body: Option<Rc<Upload>>,
    /// The same body, while it can be sent again from its start.
    kept: Option<Rc<Upload>>,
    /// The piece that is being sent.
    piece: Bytes,
    /// Bytes that were sent.
    sent: usize,
}

impl Sending {
    pub(super) fn new(stream: SendStream<Bytes>, body: Option<Rc<Upload>>) -> Self {
        Self {
            stream,
            kept: body.clone(),
            body,
            piece: Bytes::new(),
            sent: 0,
        }
    }

    /// Sends as much as the endpoint takes. An error of the endpoint ends the sending and is not
    /// returned, because the endpoint may have answered.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        while let Some(body) = &self.body {
            if self.piece.is_empty() {
                match body.poll_frame(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(None) => self.end(None),
                    Poll::Ready(Some(frame)) => match frame?.into_data() {
                        Ok(piece) => {
                            self.stream.reserve_capacity(piece.len());
                            self.piece = piece;
                        }
                        Err(frame) => self.end(frame.into_trailers().ok()),
                    },
                }
            } else if self.poll_piece(cx).is_pending() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends as much of the piece as the endpoint takes at once.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let room = match self.stream.capacity() {
            0 => match self.stream.poll_capacity(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(room))) => room,
                Poll::Ready(None | Some(Err(_))) => {
                    self.give_up();
                    return Poll::Ready(());
                }
            },
            room => room,
        };
        let piece = self.piece.split_to(room.min(self.piece.len()));
        if piece.is_empty() {
            return Poll::Ready(());
        }
        let is_last = self.piece.is_empty()
            && (self.body.as_ref()).is_some_and(|body| {
                // A body of unknown length may end with trailers.
                body.length().is_some() && body.stage() == Stage::Done
            });
        self.sent += piece.len();
        if self.sent > MAX_KEPT_BODY {
            self.release_kept_body();
        }
        if self.stream.send_data(piece, is_last).is_err() {
            self.give_up();
        } else if is_last {
            self.finish();
        }
        Poll::Ready(())
    }

    /// The body cannot be sent again from now on, unless something else keeps it.
    pub(super) fn release_kept_body(&mut self) {
        if let Some(body) = self.kept.take() {
            body.hand_over();
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        // An error means that the stream has ended; the response says why.
        let _ = match trailers {
            None => self.stream.send_data(Bytes::new(), true),
            Some(trailers) => self.stream.send_trailers(trailers),
        };
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(body) = self.body.take() {
            body.finish();
        }
    }

    /// Sends no more: the endpoint has closed the stream.
    fn give_up(&mut self) {
        self.piece = Bytes::new();
        self.body = None;
    }
}
