//! Heads of responses.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::framing::Framing;
use super::{Error, Head};
use crate::proxy::headers::list;

/// Most headers that a response may have.
const FIELDS: usize = 128;

/// Headers that are added to a response on its way to the client.
const ADDED: usize = 6;

/// Takes the head of a response from what was received; none while it is not whole.
pub(super) fn parse(
    input: &mut BytesMut,
    limit: usize,
    bodiless: bool,
) -> Result<Option<Head>, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let length = match httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        input,
        &mut fields,
    )? {
        httparse::Status::Complete(length) if length <= limit => length,
        httparse::Status::Partial if input.len() < limit => return Ok(None),
        _ => return Err(Error::TooLarge(limit)),
    };
    // One copy, so that the values that are kept do not hold on to the buffer of the body.
    let text = Bytes::copy_from_slice(&input[..length]);
    let start = input.as_ptr().addr();
    let http_1_1 = parsed.version == Some(1);
    let mut reading = Reading::default();
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ADDED);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| httparse::Error::HeaderName)?;
        if reading.see(&name, field.value)? {
            let at = field.value.as_ptr().addr() - start;
            let value = text.slice(at..at + field.value.len());
            let value =
                HeaderValue::from_maybe_shared(value).map_err(|_| httparse::Error::HeaderValue)?;
            headers.append(name, value);
        }
    }
    for name in reading.named.drain(..) {
        headers.remove(name);
    }
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(httparse::Error::Status)?;
    let mut response = Response::new(());
    if let Some(reason) = parsed.reason
        && !reason.is_empty()
        && status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    input.advance(length);
    let without_body = bodiless
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = match reading.length {
        _ if without_body => Framing::Length(0),
        _ if reading.chunked => Framing::chunked(),
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    };
    if let Some(length) = reading.length
        && !reading.chunked
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Some(Head {
        response,
        framing,
        // A length beside chunks is either a mistake or an attack (RFC 9112, 6.3).
        persistent: !reading.close
            && (http_1_1 || reading.keep_alive)
            && !(reading.chunked && reading.length.is_some()),
    }))
}

/// What the headers for one hop say.
#[derive(Default)]
struct Reading {
    close: bool,
    keep_alive: bool,
    chunked: bool,
    length: Option<u64>,
    /// Headers that `Connection` names as meant for one hop.
    named: Vec<HeaderName>,
}

impl Reading {
    /// Reads a header; returns whether the client gets it.
    fn see(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, Error> {
        match *name {
            CONNECTION => {
                for token in list(value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    } else if let Ok(name) = HeaderName::from_bytes(token) {
                        self.named.push(name);
                    }
                }
                Ok(false)
            }
            CONTENT_LENGTH => {
                let length = length(value).ok_or(Error::Framing("its length is no number"))?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(Error::Framing("it has two lengths"));
                }
                self.length = Some(length);
                Ok(false)
            }
            TRANSFER_ENCODING => {
                // As in nginx: no other coding is undone here, and none may be passed on.
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Error::Framing("its transfer encoding is not just chunked"));
                }
                self.chunked = true;
                Ok(false)
            }
            UPGRADE | TRAILER | PROXY_AUTHENTICATE => Ok(false),
            _ => Ok(!matches!(name.as_str(), "keep-alive" | "proxy-connection")),
        }
    }
}

fn length(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Error> {
        parse(&mut BytesMut::from(text), 1000, false)
    }

    fn whole(text: &str) -> Head {
        head(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_taken_and_the_body_left() {
        let mut input = BytesMut::from("HTTP/1.1 200 Fine\r\nA: b\r\nContent-Length: 2\r\n\r\nhi");
        let head = parse(&mut input, 1000, false).unwrap().unwrap();
        assert_eq!(head.response.headers()["a"], "b");
        assert_eq!(head.response.headers()["content-length"], "2");
        let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Fine");
        assert!(head.persistent && matches!(head.framing, Framing::Length(2)));
        assert_eq!(&input[..], b"hi");
    }

    #[test]
    fn what_is_for_one_hop_stays_here() {
        let head = whole(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Transfer-Encoding: chunked\r\nTrailer: x\r\nUpgrade: h2c\r\nB: c\r\n\r\n",
        );
        assert_eq!(head.response.headers().len(), 1);
        assert_eq!(head.response.headers()["b"], "c");
        assert!(matches!(head.framing, Framing::Chunked(_)));
    }

    #[test]
    fn where_a_body_ends_is_read_as_the_rfc_has_it() {
        let none = |head: &Head| matches!(head.framing, Framing::Length(0));
        assert!(none(&whole("HTTP/1.1 204 No Content\r\n\r\n")));
        assert!(none(&whole(
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
        )));
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        let to_head = parse(&mut BytesMut::from(text), 1000, true)
            .unwrap()
            .unwrap();
        assert!(none(&to_head));
        assert_eq!(to_head.response.headers()["content-length"], "9");
        assert!(matches!(
            whole("HTTP/1.1 200 OK\r\n\r\n").framing,
            Framing::Close
        ));
    }

    #[test]
    fn a_body_that_could_end_in_two_places_is_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: ",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
            assert!(matches!(head, Err(Error::Framing(_))), "{fields}");
        }
        // Chunks win over a length, which is not passed on, and the connection is not used again.
        let both =
            whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(!both.persistent && matches!(both.framing, Framing::Chunked(_)));
        assert!(both.response.headers().is_empty());
    }

    #[test]
    fn a_connection_is_kept_as_its_version_has_it() {
        assert!(!whole("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").persistent);
        assert!(!whole("HTTP/1.1 200 OK\r\nConnection: close, keep-alive\r\n\r\n").persistent);
        assert!(!whole("HTTP/1.0 200 OK\r\n\r\n").persistent);
        assert!(whole("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n").persistent);
    }

    #[test]
    fn a_head_past_the_limit_is_refused_whole_or_not() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1000));
        assert!(matches!(head(&long), Err(Error::TooLarge(1000))));
        assert!(matches!(head(&long[..1000]), Err(Error::TooLarge(1000))));
        assert!(head("HTTP/1.1 200 OK\r\nA: b").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_makes_it_panic(sent in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from("HTTP/1.1 200 OK\r\n");
            input.extend_from_slice(&sent);
            let _ = parse(&mut input, 1000, false);
        }
    }
}
