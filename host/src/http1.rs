//! HTTP/1.1 as bytes (RFC 9112): heads of responses, and where bodies and requests end. What speaks
//! it is elsewhere: the proxy's connections, and probes.

mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod requests;
mod trailers;

use std::io;

use http::{HeaderMap, HeaderName, Response, StatusCode};
use thiserror::Error;

pub(crate) use framing::Framing;
pub(crate) use head::parse as parse_head;
pub(crate) use requests::{BodyKind, Part, Requests};
pub(crate) use trailers::passed_on as trailers_passed_on;

/// Why an exchange with an endpoint broke off.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The system's word for it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The endpoint closed the connection.
    #[error("the endpoint closed the connection too early")]
    Closed,
    /// What it sent is no head of a response.
    #[error("the head of the response is malformed: {0}")]
    Malformed(#[from] httparse::Error),
    /// The head goes on past the limit.
    #[error("the head of the response is larger than {0} bytes")]
    TooLarge(usize),
    /// It has more headers than can be held, however short they are.
    #[error("the head of the response has more than {0} headers")]
    TooManyHeaders(usize),
    /// It is not clear where the body ends.
    #[error("the body of the response is malformed: {0}")]
    Framing(&'static str),
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    /// Status and headers, without those for one hop only.
    pub(crate) response: Response<()>,
    /// How long its body is.
    pub(crate) framing: Framing,
    /// Whether another request may follow on the connection.
    pub(crate) persistent: bool,
}

impl Head {
    /// Whether the answer proper is still to come, as it is after all others of the first class
    /// than one that changes the protocol.
    pub(crate) fn is_interim(&self) -> bool {
        let status = self.response.status();
        status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// The elements of a comma-separated list.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Whether a header that holds a comma-separated list has this element, in any case.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values
        .any(|value| list(value.as_bytes()).any(|sent| sent.eq_ignore_ascii_case(token.as_bytes())))
}
