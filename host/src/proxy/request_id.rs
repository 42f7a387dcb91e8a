//! The id of a request.

use http::HeaderValue;

use crate::request_log;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Identifies a request in headers, error bodies and the log: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestId([u8; 32]);

impl RequestId {
    pub(super) fn new() -> Self {
        let mut text = [0; 32];
        let bytes = fastrand::u128(..).to_le_bytes();
        for (digits, byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
            *digits = [
                DIGITS[usize::from(byte & 15)],
                DIGITS[usize::from(byte >> 4)],
            ];
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
