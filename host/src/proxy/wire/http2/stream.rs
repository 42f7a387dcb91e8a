//! An exchange on a stream of a connection.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Frame;
use tokio::time::Sleep;

use super::Connection;
use super::sending::Sending;
use crate::http1::{trailers_of_grpc, trailers_passed_on};
use crate::proxy::grpc;
use crate::proxy::headers::RequestHead;
use crate::proxy::upload::Upload;
use crate::proxy::wire::Error;

/// An exchange on a stream of a connection. The stream is reset when this is dropped before its
/// end.
pub(in crate::proxy) struct Stream {
    sending: Option<Sending>,
    received: Received,
    /// Bytes of the response's body that are left, if that is known.
    left: Option<u64>,
    /// The length that the head gives for a body that the response does not have, as in a 304.
    described: Option<u64>,
    /// Whether the response is one of gRPC, whose trailers are metadata of the call.
    is_grpc: bool,
    /// Whether the request may be a call of gRPC: no other method than POST is.
    is_post: bool,
    /// Whether the response of a call has not told its status yet, which has to come in the
    /// trailers.
    owes_status: bool,
    /// Whether an interim response was received.
    has_progressed: bool,
    /// Why the request could not be sent.
    failed: Option<Error>,
    /// Whether the connection has served another request before and no other one was on it when
    /// this one began.
    is_reuse: bool,
    /// Whether no stream was opened on the connection before this one.
    is_first: bool,
    /// What [`Connection::received`] was when this one began.
    received_before: u32,
    /// The timer, once it was used.
    timer: Option<Pin<Box<Sleep>>>,
    connection: Rc<Connection>,
}

/// Why a response is refused whose fields exceed the setting `max_header_size`.
const HEAD_TOO_LARGE: &str = "its head is larger than max_header_size allows";
const TRAILERS_TOO_LARGE: &str = "its trailers are larger than max_header_size allows";

/// Why the response of a call has broken off, although its stream has ended in order.
const NO_STATUS: &str = "it is gRPC without a grpc-status";

/// What was received of the response.
enum Received {
    /// The request has not begun.
    Nothing,
    /// Its head is awaited.
    Awaited(ResponseFuture),
    /// Its body is being received.
    Body(RecvStream),
    /// The whole of it.
    Whole,
}

impl Stream {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        let is_idle = connection.streams.replace(connection.streams.get() + 1) == 0;
        let before = connection
            .requests
            .replace(connection.requests.get().saturating_add(1));
        let timer = connection.timers.borrow_mut().pop();
        Self {
            sending: None,
            received: Received::Nothing,
            left: None,
            described: None,
            is_grpc: false,
            is_post: false,
            owes_status: false,
            has_progressed: false,
            failed: None,
            is_reuse: before > 0 && is_idle,
            is_first: before == 0,
            received_before: connection.received.get(),
            timer,
            connection,
        }
    }

    /// Begins the exchange.
    pub(in super::super) fn begin(&mut self, body: Option<Rc<Upload>>, head: &RequestHead<'_>) {
        let request = match head.http2(self.connection.destination().tls.is_some()) {
            Ok(request) => request,
            Err(error) => {
                self.failed = Some(Error::Request(error));
                return;
            }
        };
        self.is_post = request.method() == Method::POST;
        if let Some(body) = &body {
            body.rewind();
        }
        // A copy, since the original would refuse a second request while the endpoint allows no
        // further stream.
        let mut sender = self.connection.sender.borrow().clone();
        match sender.send_request(request, body.is_none()) {
            Ok((response, stream)) => {
                self.sending = Some(Sending::new(stream, body));
                self.received = Received::Awaited(response);
            }
            Err(error) => self.failed = Some(self.connection.error(error)),
        }
    }

    /// Whether the endpoint may have received something of the request.
    pub(in super::super) fn begun(&self) -> bool {
        self.sending.is_some()
    }

    /// Whether the connection was idle before this exchange, after others, and nothing was received
    /// since.
    pub(in super::super) fn is_unanswered_reuse(&self) -> bool {
        self.is_reuse && matches!(self.received, Received::Nothing | Received::Awaited(_))
    }

    /// Whether no stream was opened on the connection before this one.
    pub(in super::super) fn is_first(&self) -> bool {
        self.is_first
    }

    pub(in super::super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Error>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        self.poll_send(cx)?;
        let Received::Awaited(response) = &mut self.received else {
            return Poll::Pending;
        };
        // Before the head, since h2 discards them with it. An error is that of the head.
        while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
            self.has_progressed = true;
            self.connection.note_received();
        }
        let response = ready!(Pin::new(response).poll(cx));
        self.connection.note_received();
        let response = response.map_err(|error| self.connection.error(error))?;
        let (mut head, body) = response.into_parts();
        // h2 tells of a head that it has cut.
        if self.connection.is_too_large(&head.headers) {
            return Poll::Ready(Err(Error::Response(HEAD_TOO_LARGE.into())));
        }
        // The endpoint has accepted the request, so it is not sent again.
        if let Some(sending) = &mut self.sending {
            sending.release_kept_body();
        }
        self.is_grpc = grpc::is_grpc(&head.headers);
        let is_call = self.is_grpc && self.is_post && head.status == StatusCode::OK;
        self.owes_status = is_call && grpc::owes_status(&head.headers);
        let length = take_length(&mut head.headers)?;
        if body.is_end_stream() {
            if self.owes_status {
                return Poll::Ready(Err(Error::Response(NO_STATUS.into())));
            }
            let is_described = head.status == StatusCode::NOT_MODIFIED;
            self.described = length.filter(|_| is_described);
            self.left = Some(0);
        } else {
            self.left = length;
        }
        self.received = Received::Body(body);
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Poll::Ready(Ok(response))
    }

    /// Whether an interim response was received since this was last asked.
    pub(in super::super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progressed)
    }

    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_send(cx)?;
        let Received::Body(body) = &mut self.received else {
            return Poll::Ready(None);
        };
        let connection = &self.connection;
        while let Some(piece) = ready!(body.poll_data(cx)) {
            connection.note_received();
            let piece = piece.map_err(|error| connection.error(error))?;
            // The endpoint may send as much again. hyper asks for the next piece when it has sent
            // this one, so the client's pace is the endpoint's.
            let released = body.flow_control().release_capacity(piece.len());
            released.map_err(|error| connection.error(error))?;
            self.left = (self.left).map(|left| left.saturating_sub(piece.len() as u64));
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        let trailers = ready!(body.poll_trailers(cx));
        let trailers = trailers.map_err(|error| connection.error(error))?;
        let stream = || Some(body.stream_id());
        if let Some(trailers) = &trailers
            && (connection.state.take_oversized(stream) || connection.is_too_large(trailers))
        {
            return Poll::Ready(Some(Err(Error::Response(TRAILERS_TOO_LARGE.into()))));
        }
        if self.owes_status && !trailers.as_ref().is_some_and(grpc::has_status) {
            return Poll::Ready(Some(Err(Error::Response(NO_STATUS.into()))));
        }
        self.received = Received::Whole;
        let trailers = trailers.and_then(|trailers| match self.is_grpc {
            true => trailers_of_grpc(trailers),
            false => trailers_passed_on(&trailers, |_| false),
        });
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Sends as much of the request as possible.
    pub(in super::super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match &mut self.sending {
            Some(sending) => sending.poll_send(cx).map_err(Error::Client),
            None => Ok(()),
        }
    }

    /// To be called when the endpoint has sent nothing on this stream for too long. If it was
    /// silent on all others as well, the connection is probably dead, and serves no further
    /// requests.
    pub(in super::super) fn note_timeout(&self) {
        if self.connection.received.get() == self.received_before {
            self.connection.retired.set(true);
        }
    }

    /// The timer of the exchange.
    pub(in super::super) fn timer(&mut self) -> Pin<&mut Sleep> {
        let new = || Box::pin(tokio::time::sleep_until(Instant::now().into()));
        self.timer.get_or_insert_with(new).as_mut()
    }

    /// Whether the body of the response has been read to its end.
    pub(in super::super) fn is_body_done(&self) -> bool {
        match &self.received {
            // A call that still has to tell its status has not ended in order.
            Received::Body(body) => body.is_end_stream() && !self.owes_status,
            Received::Whole => true,
            Received::Nothing | Received::Awaited(_) => false,
        }
    }

    /// Bytes of the response's body that are left, if that is known.
    pub(in super::super) fn body_left(&self) -> Option<u64> {
        self.described.or(self.left)
    }

    /// The length that the head gives for a body that the response does not have, as in a 304.
    pub(in super::super) fn described_length(&self) -> Option<u64> {
        self.described
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection
            .state
            .take_oversized(|| match &self.received {
                Received::Awaited(response) => Some(response.stream_id()),
                Received::Body(body) => Some(body.stream_id()),
                Received::Nothing | Received::Whole => None,
            });
        self.connection.end_stream(self.timer.take());
    }
}

/// The length that a head gives. The same length given several times becomes one field.
fn take_length(headers: &mut HeaderMap) -> Result<Option<u64>, Error> {
    let mut given = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = given.next() else {
        return Ok(None);
    };
    let (mut is_repeated, mut is_same) = (false, true);
    for other in given {
        is_repeated = true;
        is_same &= other == first;
    }
    let digits = first.to_str().ok().filter(|_| is_same);
    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse().ok());
    let length = length.ok_or_else(|| Error::Response("its content-length is invalid".into()))?;
    if is_repeated {
        let first = first.clone();
        headers.insert(CONTENT_LENGTH, first);
    }
    Ok(Some(length))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn lengths_that_contradict_each_other_are_no_valid_response() {
        let taken = |lengths: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for length in lengths {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let length = take_length(&mut headers);
            length.map(|length| (length, headers.get_all(CONTENT_LENGTH).iter().count()))
        };
        assert_eq!(taken(&[]).unwrap(), (None, 0));
        assert_eq!(taken(&["5"]).unwrap(), (Some(5), 1));
        assert_eq!(taken(&["5", "5"]).unwrap(), (Some(5), 1));
        for invalid in [&["5", "6"][..], &["5", "5", "6"], &["+5"], &[""], &["5, 6"]] {
            assert!(taken(invalid).is_err(), "{invalid:?}");
        }
    }
}
