//! gRPC on the client's side: which requests are gRPC, and how the gateway answers them itself.
//!
//! Such a response has no body: its only head has the status that gRPC clients read, and ends the
//! stream (gRPC over HTTP/2, "Trailers-Only"). Source of the statuses and messages: Kong 3.9.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The trailers that tell how a call has ended. Source: gRPC over HTTP/2, and google.rpc.
pub(super) const STATUS_TRAILERS: [&str; 3] =
    ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// The media type of gRPC.
const MEDIA_TYPE: &str = "application/grpc";

/// A status of gRPC. Source: gRPC, "Status codes and their use in gRPC".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrpcStatus {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl GrpcStatus {
    /// The status that stands for one of HTTP.
    pub(super) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            429 => Self::ResourceExhausted,
            499 => Self::Canceled,
            501 => Self::Unimplemented,
            503 => Self::Unavailable,
            504 => Self::DeadlineExceeded,
            200..=299 => Self::Ok,
            400..=499 => Self::InvalidArgument,
            500..=599 => Self::Internal,
            _ => Self::Unknown,
        }
    }

    /// Its name, which is the message of most errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Canceled => "Canceled",
            Self::Unknown => "Unknown",
            Self::InvalidArgument => "InvalidArgument",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::PermissionDenied => "PermissionDenied",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::Unimplemented => "Unimplemented",
            Self::Internal => "Internal",
            Self::Unavailable => "Unavailable",
            Self::Unauthenticated => "Unauthenticated",
        }
    }
}

/// Whether a request with these headers is gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    media_type.is_some_and(|media_type| media_type.starts_with(MEDIA_TYPE.as_bytes()))
}

/// Whether these headers or trailers tell the status of a call.
pub(super) fn has_status(fields: &HeaderMap) -> bool {
    fields.contains_key(GRPC_STATUS)
}

/// Whether a response with these headers has to tell the status of its call in trailers. One of
/// gRPC-Web has no trailers.
pub(super) fn owes_status(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = media_type.and_then(|media_type| media_type.strip_prefix(MEDIA_TYPE.as_bytes()));
    let is_grpc = rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')));
    is_grpc && !has_status(headers)
}

/// Gives a response the form that gRPC clients read. A status that it already has stays.
pub(super) fn answer<B>(response: &mut Response<B>, status: GrpcStatus, message: &str) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    let number = HeaderValue::from(status as u16);
    headers.entry(GRPC_STATUS).or_insert(number);
    if !message.is_empty()
        && let Ok(message) = HeaderValue::try_from(encoded(message))
    {
        headers.entry(GRPC_MESSAGE).or_insert(message);
    }
}

/// A message with the bytes escaped that gRPC does not allow in it (gRPC over HTTP/2,
/// "Status-Message").
fn encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_of_http_has_one_of_grpc() {
        let expected = [
            (200, 0),
            (204, 0),
            (302, 2),
            (400, 3),
            (401, 16),
            (403, 7),
            (404, 5),
            (408, 3),
            (409, 6),
            (426, 3),
            (429, 8),
            (499, 1),
            (500, 13),
            (501, 12),
            (502, 13),
            (503, 14),
            (504, 4),
        ];
        for (http, grpc) in expected {
            let status = StatusCode::from_u16(http).map(GrpcStatus::of);
            assert_eq!(
                status.map(|status| status as u16).ok(),
                Some(grpc),
                "{http}"
            );
        }
    }

    #[test]
    fn a_call_without_a_status_in_its_head_has_to_tell_it_in_trailers() {
        let owes = |fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            owes_status(&fields.collect())
        };
        for media_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;a=b",
        ] {
            assert!(owes(&[("content-type", media_type)]), "{media_type}");
            assert!(!owes(&[("content-type", media_type), ("grpc-status", "7")]));
        }
        for media_type in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "text/html",
        ] {
            assert!(!owes(&[("content-type", media_type)]), "{media_type}");
        }
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(encoded("100 % ä\n"), "100 %25 %C3%A4%0A");
    }
}
