//! How large the head of a request may be, and its trailers.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::respond::Reject;
use crate::config;

/// Bytes that a field of a head takes in HTTP/1.1 besides its name and its value.
const SEPARATORS: usize = ": \r\n".len();

/// The settings `max_header_size` and `max_headers`.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimit {
    /// Most bytes.
    pub(super) bytes: usize,
    /// Most fields.
    pub(super) fields: usize,
}

/// Which limit a head exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadExcess {
    /// `max_header_size`.
    Bytes,
    /// `max_headers`.
    Fields,
}

impl From<HeadExcess> for Reject {
    fn from(excess: HeadExcess) -> Self {
        match excess {
            HeadExcess::Bytes => Self::HttpServer(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            HeadExcess::Fields => Self::TooManyHeaders,
        }
    }
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

    /// The limit that these fields exceed: they take too many bytes with those of a first line, or
    /// they are too many.
    pub(super) fn exceeded(self, first_line: usize, fields: &HeaderMap) -> Option<HeadExcess> {
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + SEPARATORS
        };
        let size = fields.iter().map(field).sum::<usize>() + first_line;
        if size > self.bytes {
            Some(HeadExcess::Bytes)
        } else {
            (fields.len() > self.fields).then_some(HeadExcess::Fields)
        }
    }
}
