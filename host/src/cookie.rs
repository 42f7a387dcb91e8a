//! Cookies of requests.

use http::header::{COOKIE, HeaderMap};

/// The value of a cookie (RFC 6265, 5.4). A `Cookie` header holds the cookies of every application
/// of its host. Some of them are not valid UTF-8, so the header is read as bytes.
pub(crate) fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(COOKIE).iter().find_map(|line| {
        let mut pairs = line.as_bytes().split(|byte| *byte == b';');
        pairs.find_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=").filter(|value| !value.is_empty())
        })
    })
}
