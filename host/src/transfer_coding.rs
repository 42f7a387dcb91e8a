//! What a request may say of how its body was encoded on the way (RFC 9112, 6.1).
//!
//! hyper looks at the last coding alone and undoes `chunked`: of `gzip, chunked` it would leave a
//! body that looks plain and is not, and of `chunked, chunked` one whose ends two servers place
//! differently. No other coding is undone here, and none is passed on, so a request with one is
//! refused as nginx does.

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, StatusCode};

/// What is wrong with a request that is refused, in words that say what to change.
pub(crate) const REFUSAL: &str = "Transfer-Encoding can be chunked only, once";

/// The status that refuses a request whose body was encoded in another way than as chunks, once:
/// 501 for a coding that is not known here, 400 for a list that cannot be.
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
    fn chunked_once_is_all_that_a_body_may_be() {
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
