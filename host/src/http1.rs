//! HTTP/1.1 as bytes (RFC 9112): heads of responses, and where bodies and requests end. The proxy's
//! connections and the probes use it.

mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod length_fields;
mod requests;
mod trailers;

use std::io;

use http::{HeaderMap, HeaderName, Response, StatusCode};
use thiserror::Error;

pub(crate) use framing::Framing;
pub(crate) use head::{MAX_HEADERS, parse as parse_head};
pub(crate) use requests::{BodyKind, Excess, Part, Requests};
pub(crate) use trailers::passed_on as trailers_passed_on;
pub(crate) use trailers::passed_on_of_grpc as trailers_of_grpc;

/// Why an exchange with an endpoint broke off.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// An error of the system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The endpoint closed the connection.
    #[error("the endpoint closed the connection too early")]
    Closed,
    /// The endpoint sent bytes that are not the head of a response.
    #[error("the head of the response is malformed: {0}")]
    Malformed(#[from] httparse::Error),
    /// The head is longer than the limit.
    #[error("the head of the response is larger than {0} bytes")]
    TooLarge(usize),
    /// The head has more headers than a [`HeaderMap`] can hold, however short they are.
    #[error("the head of the response has more than {0} headers")]
    TooManyHeaders(usize),
    /// The end of the body is ambiguous, or the body is malformed.
    #[error("the body of the response is malformed: {0}")]
    Framing(&'static str),
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    /// Status and headers, without the hop-by-hop headers.
    pub(crate) response: Response<()>,
    /// The framing of the body.
    pub(crate) framing: Framing,
    /// Whether another request may follow on the connection.
    pub(crate) persistent: bool,
}

impl Head {
    /// Whether this response is interim, and the final one follows. All 1xx responses are interim
    /// except 101, which changes the protocol.
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

/// Whether a header that holds a comma-separated list has this element, ignoring case.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values
        .any(|value| list(value.as_bytes()).any(|sent| sent.eq_ignore_ascii_case(token.as_bytes())))
}
