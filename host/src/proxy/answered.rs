//! The last step of an answer: it becomes the response of a connection.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};
use http::{Response, StatusCode, Version};
use hyper::body::Body;

use super::client::ClientRequest;
use super::download::Content;
use super::policies::Finish;
use super::response_body::ResponseBody;

/// The answer to a request, before it is the response of a connection.
pub(super) struct Answered {
    pub(super) response: Response<Content>,
    /// What is done when the body ends.
    pub(super) finish: Option<Box<Finish>>,
    /// That of the request.
    pub(super) version: Version,
    pub(super) is_bodiless: bool,
}

/// Says that the connection ends after this response. `Upgrade`, as a 426 has it, needs its own
/// option (RFC 9110, 7.8).
pub(super) fn close_after(headers: &mut HeaderMap) {
    let options = match headers.contains_key(UPGRADE) {
        true => "close, Upgrade",
        false => "close",
    };
    headers.insert(CONNECTION, HeaderValue::from_static(options));
}

impl Answered {
    /// The response as the connection of the client needs it.
    pub(super) fn into_response(self, from: ClientRequest) -> Response<ResponseBody> {
        let Self {
            mut response,
            finish,
            version,
            is_bodiless,
        } = self;
        frame_bodiless(&mut response);
        // A tunnel ends the connection anyhow, and `close` would undo the change of protocol.
        if from.is_last() && !matches!(response.body(), Content::Tunnel(_)) {
            close_after(response.headers_mut());
        }
        let is_framed = finish.as_ref().is_none_or(|finish| finish.keeps_length());
        if version < Version::HTTP_11 && (response.body().length().is_none() || !is_framed) {
            // The end of the connection marks the end of the body. With HTTP/1.1, hyper would
            // promise to keep the connection open.
            *response.version_mut() = Version::HTTP_10;
        }
        let mut response = response.map(|content| ResponseBody::new(content, from, finish));
        if version == Version::HTTP_2 && is_bodiless {
            omit_body(&mut response);
        }
        response
    }
}

/// Removes what must not frame a response that has no body because of its status. A 204 has no
/// `Content-Length`, which the endpoint may have sent all the same (RFC 9110, 8.6). That of a 304
/// is the length of a representation, which the body of a policy is not.
fn frame_bodiless(response: &mut Response<Content>) {
    let status = response.status();
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && let Content::Own(body) = response.body_mut()
    {
        *body = None;
    }
}

/// Has hyper end the response with its head. hyper does so by itself over HTTP/1.1.
fn omit_body(response: &mut Response<ResponseBody>) {
    if let Some(length) = response.body().size_hint().exact()
        && length > 0
    {
        let headers = response.headers_mut();
        headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response.body_mut().omit();
}
