//! `request-size-limiting`: refuses requests with large bodies. Source: Kong 3.9,
//! `request-size-limiting`.

use http::StatusCode;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap, TRANSFER_ENCODING};

use super::answer::Answer;
use super::request::Request;
use super::{Access, DryRun, Policy};
use crate::entity::plugin::request_size_limiting::{Config, SizeUnit};

/// Refuses requests with large bodies.
#[derive(Debug)]
pub(super) struct RequestSizeLimiting {
    /// Bytes of the longest body.
    most: u64,
    needs_length: bool,
}

impl RequestSizeLimiting {
    pub(super) fn new(config: &Config) -> Self {
        let unit: u64 = match config.size_unit {
            SizeUnit::Megabytes => 1 << 20,
            SizeUnit::Kilobytes => 1 << 10,
            SizeUnit::Bytes => 1,
        };
        // Every body is longer than a negative size.
        let size = u64::try_from(config.allowed_payload_size).unwrap_or(0);
        Self {
            most: size.saturating_mul(unit),
            needs_length: config.require_content_length,
        }
    }
}

/// The answer to a request with a longer body. A client that waits for consent to send the body is
/// told with another status that it does not get it. Source: Kong.
fn refusal(headers: &HeaderMap) -> Answer {
    let expected = headers
        .get(EXPECT)
        .map_or(&b""[..], |value| value.as_bytes());
    let status = match expected.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
        true => StatusCode::EXPECTATION_FAILED,
        false => StatusCode::PAYLOAD_TOO_LARGE,
    };
    Answer::error(status, "Request size limit exceeded")
}

impl Policy for RequestSizeLimiting {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let headers = &request.head.headers;
        let has_length = headers.contains_key(CONTENT_LENGTH);
        if self.needs_length && !has_length && !headers.contains_key(TRANSFER_ENCODING) {
            let message = "A valid Content-Length header is required";
            return Answer::error(StatusCode::LENGTH_REQUIRED, message).into();
        }
        let Some(body) = request.body else {
            return Access::PASS;
        };
        let refused = match body.length() {
            Some(length) => (length > self.most).then(|| refusal(headers)),
            // The body is counted as it is passed on.
            None => body.limit(self.most, refusal(headers)),
        };
        refused.map_or(Access::PASS, Access::from)
    }
}
