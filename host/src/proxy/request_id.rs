//! The id of a request.

use http::HeaderValue;

use crate::request_log;

/// Identifies a request in headers, error bodies and the log: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestId([u8; 32]);

impl RequestId {
    pub(super) fn new() -> Self {
        let mut text = [0; 32];
        let mut bits = fastrand::u128(..);
        for digit in &mut text {
            *digit = b"0123456789abcdef"[(bits & 15) as usize];
            bits >>= 4;
        }
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The digits, as the log writes them.
    pub(super) fn digits(&self) -> request_log::Id {
        self.0
    }

    /// The id as a header value.
    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}
