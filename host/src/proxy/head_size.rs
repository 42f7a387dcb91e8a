//! How large the head of a request may be, and its trailers.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config;

/// Bytes that a field of a head takes in HTTP/1.1 besides its name and its value.
const SEPARATORS: usize = ": \r\n".len();

/// The settings `max_header_size` and `max_headers`.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimit {
    bytes: usize,
    fields: usize,
}

impl HeadLimit {
    /// For what has no fields of a client.
    pub(super) const NONE: Self = Self {
        bytes: usize::MAX,
        fields: usize::MAX,
    };

    pub(super) fn new(settings: &config::Proxy) -> Self {
        Self {
            bytes: settings.max_header_size,
            fields: settings.max_headers,
        }
    }

    /// Whether these fields are too many, or take too many bytes with those of a first line.
    pub(super) fn is_exceeded(self, first_line: usize, fields: &HeaderMap) -> bool {
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + SEPARATORS
        };
        let size = fields.iter().map(field).sum::<usize>() + first_line;
        size > self.bytes || fields.len() > self.fields
    }
}
