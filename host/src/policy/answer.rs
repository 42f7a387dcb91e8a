//! The answer of a policy to a request.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The answer of a policy to a request.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Headers, besides those that every answer of the gateway has and those of the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: AnswerBody,
    /// Whether the answer once came from an endpoint, as one from a cache: it then has the headers
    /// of a proxied response.
    pub proxied: bool,
}

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// An error in the format that the client accepts, with the id of the request. Source: Kong,
    /// `kong.response.error`.
    Error(String),
    /// A JSON object with a message. Source: Kong, `kong.response.exit` with a table.
    Message(String),
    /// These bytes. The answer's headers say what they are.
    Raw(Bytes),
}

impl Answer {
    /// An error in the format that the client accepts.
    pub fn error(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, AnswerBody::Error(message.into()))
    }

    /// A JSON object with a message.
    pub fn message(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, AnswerBody::Message(message.into()))
    }

    /// An answer with these bytes as its body.
    pub fn raw(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, AnswerBody::Raw(body.into()))
    }

    fn new(status: StatusCode, body: AnswerBody) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body,
            proxied: false,
        }
    }

    /// Adds a header; one whose value is no valid header value is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}
