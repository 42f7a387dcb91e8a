//! The body of a response to the client. On its way it passes the filters of the request's
//! policies, which get a record of the request at its end.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::client::ClientRequest;
use super::download::{Content, Error};
use super::policies::{Finish, Passed};
use super::streams::{BodyPart, Sent};
use crate::request_log;

/// The body of a response to the client. The request ends when it is dropped.
pub(super) struct ResponseBody {
    content: Content,
    request: ClientRequest,
    /// Whether the response has no body, whatever its content is.
    is_omitted: bool,
    /// What is left to do for the policies of the request, if it has any.
    finish: Option<Box<Finish>>,
    /// Why the response has broken off, until the HTTP/2 client was sent what came before.
    broken: Option<(Error, Rc<Sent>)>,
}

impl ResponseBody {
    pub(super) fn new(
        content: Content,
        request: ClientRequest,
        finish: Option<Box<Finish>>,
    ) -> Self {
        request.answer(content.stalled_body());
        Self {
            content,
            request,
            is_omitted: false,
            finish,
            broken: None,
        }
    }

    /// Has the response end with its head.
    pub(super) fn omit(&mut self) {
        self.is_omitted = true;
    }

    fn log_scope(&self) -> request_log::Scope {
        request_log::enter(Some(self.request.id.digits()))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let _scope = self.log_scope();
        let content = std::mem::replace(&mut self.content, Content::Own(None));
        if let Some(stream) = self.request.stream() {
            stream.release();
        }
        let tunnel = match content {
            Content::Tunnel(tunnel) => Some(tunnel),
            Content::Own(_) | Content::Streamed(_) => None,
        };
        if let Some(mut finish) = self.finish.take() {
            let ClientRequest { client, id, .. } = &self.request;
            match tunnel {
                Some(tunnel) => {
                    let (client, id) = (Rc::clone(client), *id);
                    tunnel.at_end(move |passed| {
                        let _scope = request_log::enter(Some(id.digits()));
                        finish.add_passed(passed);
                        finish.record(&client, &id);
                    });
                }
                None => finish.record(client, id),
            }
        }
    }
}

impl ResponseBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(trailers) = self.finish.as_mut().and_then(|finish| finish.trailers()) {
                return Poll::Ready(Some(Ok(trailers)));
            }
            let frame = ready!(self.content.poll_frame(&self.request.client, cx));
            let is_last = self.content.is_done();
            let Some(finish) = &mut self.finish else {
                return Poll::Ready(frame);
            };
            match finish.pass(frame, is_last) {
                Passed::Nothing => {}
                Passed::Frame(frame) => return Poll::Ready(frame),
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = BodyPart;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<BodyPart>, Error>>> {
        let this = self.get_mut();
        let _scope = this.log_scope();
        if let Some((_, sent)) = &this.broken {
            ready!(sent.poll_sent(cx));
            return Poll::Ready(this.broken.take().map(|(error, _)| Err(error)));
        }
        let polled = this.poll_next(cx);
        if let Some(stream) = this.request.stream() {
            match polled {
                Poll::Ready(Some(Err(error))) => {
                    stream.stall(this.request.now());
                    let (_, sent) = this.broken.insert((error, Rc::default()));
                    return Poll::Ready(Some(Ok(Frame::data(BodyPart::mark(sent)))));
                }
                Poll::Ready(Some(Ok(_))) => stream.stall(this.request.now()),
                _ => stream.go_on(),
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(BodyPart::from))))
    }

    fn is_end_stream(&self) -> bool {
        if self.is_omitted {
            return true;
        }
        // The error is still to come.
        if self.broken.is_some() {
            return false;
        }
        if self
            .finish
            .as_ref()
            .is_some_and(|finish| finish.has_filters())
        {
            return false;
        }
        self.content.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let is_kept = self
            .finish
            .as_ref()
            .is_none_or(|finish| finish.keeps_length());
        let length = self.content.length().filter(|_| is_kept);
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
