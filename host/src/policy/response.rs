//! A response on its way to the client.

use std::any::Any;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, response};

use super::identity::Subject;
use super::request::Client;
use super::request::MatchedIds;
use super::request_trace::RequestTrace;

/// The head of a response as an endpoint has sent it, without hop-by-hop headers.
pub struct Received<'r> {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The head of the request, as the policies have left it.
    pub request: &'r http::request::Parts,
    pub(crate) kept: &'r mut Option<Box<dyn Any>>,
}

impl Received<'_> {
    /// What the present policy has kept in the access phase of this request.
    pub fn kept<T: Any>(&mut self) -> Option<&mut T> {
        self.kept.as_mut()?.downcast_mut()
    }
}

/// A response whose head is known, on its way to the client.
pub struct Response<'r> {
    /// Status and headers.
    pub head: &'r mut response::Parts,
    /// Who made it.
    pub source: Source,
    /// The head of the request, as the policies have left it.
    pub request: &'r http::request::Parts,
    /// The client and its connection.
    pub client: Client<'r>,
    /// What the request was matched to; `None` for a request without a route.
    pub matched: Option<MatchedIds<'r>>,
    /// Who the request is from.
    pub subject: &'r Subject,
    /// The trace that the request belongs to, if a policy has begun one.
    pub trace: Option<&'r RequestTrace>,
    /// What replaces the body.
    pub(crate) body: Option<Bytes>,
    pub(crate) kept: Option<Box<dyn Any>>,
}

/// Who made a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An endpoint.
    Endpoint,
    /// The gateway.
    Gateway,
}

impl Response<'_> {
    /// What the present policy has kept in an earlier phase of this request.
    pub fn kept<T: Any>(&mut self) -> Option<&mut T> {
        self.kept.as_mut()?.downcast_mut()
    }

    /// Keeps something for the later phases of the present policy.
    pub fn keep(&mut self, kept: impl Any) {
        self.kept = Some(Box::new(kept));
    }

    /// Replaces the body, and has its length in the head. What an endpoint still sends is read and
    /// discarded.
    pub fn replace_body(&mut self, body: impl Into<Bytes>) {
        self.body = Some(body.into());
    }
}

/// Reads or changes the body of a response as it passes.
pub trait BodyFilter {
    /// What is sent in place of a piece of the body; nothing if it is empty.
    fn data(&mut self, piece: Bytes) -> Bytes;

    /// Sees the trailers of a complete body, before [`BodyFilter::end`], and may take some.
    fn trailers(&mut self, trailers: &mut HeaderMap) {
        let _ = trailers;
    }

    /// What is sent at the end of a complete body, after [`BodyFilter::data`] has seen all of it:
    /// not at all for an empty one. It is not called for a body that breaks off. A response without
    /// a body, such as that to a `HEAD` request, ends at once, and what is returned is not sent.
    fn end(&mut self) -> Bytes {
        Bytes::new()
    }

    /// Whether the body keeps its length, so that a `Content-Length` remains right.
    fn keeps_length(&self) -> bool;
}
