//! The transfer codings that a request may have (RFC 9112, 6.1).
//!
//! hyper looks only at the last coding, and decodes `chunked`. With `gzip, chunked` the result
//! would be a body that looks plain and is still compressed. With `chunked, chunked`, two servers
//! could disagree on where the body ends. The gateway decodes no other coding and passes none on,
//! so it refuses such a request, as nginx does.

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, StatusCode};

/// The message for a refused request: it says what the client has to change.
pub(crate) const REFUSAL: &str = "Transfer-Encoding can be chunked only, once";

/// The status for a request whose transfer coding is not exactly one `chunked`: 501 for an unknown
/// coding, 400 for an invalid list.
pub(crate) fn refusal(headers: &HeaderMap) -> Option<StatusCode> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let first = values.next()?;
    if values.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return None;
    }
    let mut codings = headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    Some(
        if codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked")) {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::NOT_IMPLEMENTED
        },
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn refused(values: &[&'static str]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRANSFER_ENCODING, HeaderValue::from_static(value));
        }
        refusal(&headers).map(|status| status.as_u16())
    }

    #[test]
    fn only_a_single_chunked_is_accepted() {
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&["chunked"]), None);
        assert_eq!(refused(&["Chunked"]), None);
        for unknown in [
            "gzip, chunked",
            "chunked, gzip",
            "identity",
            "chunked;a=b",
            "x",
        ] {
            assert_eq!(refused(&[unknown]), Some(501), "{unknown}");
        }
        assert_eq!(refused(&["gzip", "chunked"]), Some(501));
        for repeated in ["chunked, chunked", "chunked,", ",chunked", ""] {
            assert_eq!(refused(&[repeated]), Some(400), "{repeated}");
        }
        assert_eq!(refused(&["chunked", "chunked"]), Some(400));
    }
}
