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
use super::list;
use super::{Error, Head};

/// Number of headers that are parsed on the stack. For more headers, memory is allocated: only the
/// bytes of a head are limited.
const FIELDS: usize = 128;

/// Largest number of headers: [`HeaderMap`] can hold this many together with [`ADDED`]. They take
/// at least 96,000 bytes, so with most settings the limit of bytes is reached first.
pub(crate) const MAX_HEADERS: usize = 24_000;

/// Bytes of the shortest header line: `a:` and CR LF.
const SHORTEST: usize = 4;

/// Number of headers that the gateway adds to a response.
const ADDED: usize = 6;

/// Takes the head of a response from the received bytes; `None` while it is incomplete. `limit` is
/// the longest head, in bytes. `bodiless` says that the response has no body because of the method,
/// such as `HEAD`.
pub(crate) fn parse(
    input: &mut BytesMut,
    limit: usize,
    bodiless: bool,
) -> Result<Option<Head>, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut more = Vec::new();
    let mut parsed = httparse::Response::new(&mut []);
    let status = match parse_into(&mut parsed, input, &mut fields) {
        Err(httparse::Error::TooManyHeaders) => {
            let most = input.len().min(limit) / SHORTEST + 1;
            more.resize_with(most, MaybeUninit::uninit);
            parsed = httparse::Response::new(&mut []);
            parse_into(&mut parsed, input, &mut more)
        }
        status => status,
    };
    let length = match status {
        Ok(httparse::Status::Complete(length)) if length <= limit => length,
        Ok(httparse::Status::Partial) if input.len() < limit => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Error::TooLarge(limit)),
        Err(error) => return Err(error.into()),
    };
    // The head is copied once, so that the header values do not keep the buffer of the body alive.
    let text = Bytes::copy_from_slice(&input[..length]);
    let start = input.as_ptr().addr();
    let http_1_1 = parsed.version == Some(1);
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(httparse::Error::Status)?;
    let mut reading = Reading {
        keeps: kept(status),
        ..Reading::default()
    };
    if parsed.headers.len() > MAX_HEADERS {
        return Err(Error::TooManyHeaders(MAX_HEADERS));
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ADDED);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| httparse::Error::HeaderName)?;
        if reading.see(&name, field.value)? {
            let at = field.value.as_ptr().addr() - start;
            headers.append(name, value_of(text.slice(at..at + field.value.len())));
        }
    }
    if reading.chunked && reading.length.is_some() {
        // A mistake or an attack (RFC 9112, 6.3), which nginx refuses as well.
        return Err(Error::Framing("it has both a length and chunks"));
    }
    for name in reading
        .named
        .iter()
        .filter(|name| Some(*name) != reading.keeps.as_ref())
    {
        headers.remove(name);
    }
    if !reading.chunked {
        // Only a chunked body has trailers.
        headers.remove(TRAILER);
    }
    let mut response = Response::new(());
    let sent = parsed.reason.filter(|reason| !reason.is_empty());
    if sent.is_none() || sent != status.canonical_reason() {
        let sent = sent.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
        // The reason phrase may be missing (RFC 9112, 4). For a status that it does not know, hyper
        // would write `<none>`.
        let unknown = status.canonical_reason().is_none();
        let none = || unknown.then(|| ReasonPhrase::from_static(b""));
        if let Some(reason) = sent.or_else(none) {
            response.extensions_mut().insert(reason);
        }
    }
    input.advance(length);
    let without_body = bodiless || status.is_informational() || status == StatusCode::NO_CONTENT;
    let framing = match reading.length {
        Some(length) if status == StatusCode::NOT_MODIFIED && !reading.chunked => {
            Framing::Described(length)
        }
        _ if without_body || status == StatusCode::NOT_MODIFIED => Framing::Length(0),
        _ if reading.chunked => Framing::chunked(limit, std::mem::take(&mut reading.named)),
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    };
    if let Some(length) = reading.length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Some(Head {
        response,
        framing,
        // Chunks in HTTP/1.0 are a mistake or an attack (RFC 9112, 6.1). The connection is not used
        // again.
        persistent: !reading.close && (http_1_1 || reading.keep_alive && !reading.chunked),
    }))
}

fn parse_into<'h, 'b>(
    parsed: &mut httparse::Response<'h, 'b>,
    input: &'b [u8],
    fields: &'h mut [MaybeUninit<httparse::Header<'b>>],
) -> httparse::Result<usize> {
    // A proxy has to remove whitespace before the colon (RFC 9112, 5.1).
    httparse::ParserConfig::default()
        .allow_spaces_after_header_name_in_responses(true)
        .parse_response_with_uninit_headers(parsed, input, fields)
}

/// The value of a header that was parsed.
#[expect(
    unsafe_code,
    reason = "to look at each byte again takes a hundredth of the gateway's work for a request"
)]
fn value_of(parsed: Bytes) -> HeaderValue {
    // SAFETY: the parser has found only visible ASCII, blanks, tabs and bytes from 128 in it, which
    // are the bytes that a `HeaderValue` may have. A test compares both for every byte.
    unsafe { HeaderValue::from_maybe_shared_unchecked(parsed) }
}

/// The hop-by-hop header that this status is about: the protocols that the endpoint changes to or
/// asks for, which a 426 must name (RFC 9110, 15.5.22), or what a proxy asks for.
fn kept(status: StatusCode) -> Option<HeaderName> {
    match status {
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED => Some(UPGRADE),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Some(PROXY_AUTHENTICATE),
        _ => None,
    }
}

/// The values of the hop-by-hop headers.
#[derive(Default)]
struct Reading {
    /// The hop-by-hop header that is passed on.
    keeps: Option<HeaderName>,
    close: bool,
    keep_alive: bool,
    chunked: bool,
    length: Option<u64>,
    /// Headers that `Connection` names as hop-by-hop.
    named: Vec<HeaderName>,
}

impl Reading {
    /// Reads a header. Returns whether it is passed on to the client.
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
                let length = length(value).ok_or(Error::Framing("its length is not a number"))?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(Error::Framing("it has two lengths"));
                }
                self.length = Some(length);
                Ok(false)
            }
            TRANSFER_ENCODING => {
                // As in nginx: the gateway decodes no other coding, and must not pass one on.
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Error::Framing("its transfer encoding is not just chunked"));
                }
                self.chunked = true;
                Ok(false)
            }
            UPGRADE | PROXY_AUTHENTICATE => Ok(self.keeps.as_ref() == Some(name)),
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
    fn the_head_is_taken_and_the_body_stays_in_the_input() {
        let mut input = BytesMut::from("HTTP/1.1 200 Fine\r\nA: b\r\nContent-Length: 2\r\n\r\nhi");
        let head = parse(&mut input, 1000, false).unwrap().unwrap();
        assert_eq!(head.response.headers()["a"], "b");
        assert_eq!(head.response.headers()["content-length"], "2");
        let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Fine");
        assert!(head.persistent && matches!(head.framing, Framing::Length(2)));
        assert_eq!(&input[..], b"hi");
    }

    /// The parser looks at many bytes at once where there are as many.
    #[test]
    fn every_value_that_is_parsed_is_valid() {
        for byte in 0..=u8::MAX {
            for at in 1..70 {
                let mut value = [b'a'; 100];
                value[at] = byte;
                let text = [b"HTTP/1.1 204 OK\r\na: ", &value[..], b"\r\n\r\n"].concat();
                let head = parse(&mut BytesMut::from(&text[..]), 1000, false);
                let is_valid = HeaderValue::from_bytes(&value).is_ok();
                assert_eq!(
                    head.is_ok_and(|head| head.is_some()),
                    is_valid,
                    "{byte} at {at}"
                );
            }
        }
    }

    #[test]
    fn hop_by_hop_headers_are_removed() {
        let head = whole(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Transfer-Encoding: chunked\r\nTrailer: x\r\nUpgrade: h2c\r\nB: c\r\n\r\n",
        );
        // `Trailer` is passed on.
        assert_eq!(head.response.headers().len(), 2);
        assert_eq!(head.response.headers()["trailer"], "x");
        assert_eq!(head.response.headers()["b"], "c");
        assert!(matches!(head.framing, Framing::Chunked(_)));
        let head = whole("HTTP/1.1 200 OK\r\nTrailer: x\r\nContent-Length: 0\r\n\r\n");
        assert!(!head.response.headers().contains_key("trailer"));
    }

    #[test]
    fn a_status_keeps_the_hop_by_hop_header_that_it_is_about() {
        let fields = "Connection: Upgrade, proxy-authenticate\r\nUpgrade: x\r\n\
                      Proxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
        for (status, kept) in [
            ("101 Switching Protocols", Some("upgrade")),
            ("426 Upgrade Required", Some("upgrade")),
            (
                "407 Proxy Authentication Required",
                Some("proxy-authenticate"),
            ),
            ("200 OK", None),
        ] {
            let head = whole(&format!("HTTP/1.1 {status}\r\n{fields}"));
            let headers = head.response.headers();
            for name in ["upgrade", "proxy-authenticate"] {
                assert_eq!(
                    headers.contains_key(name),
                    kept == Some(name),
                    "{status} {name}"
                );
            }
            assert!(!headers.contains_key("connection"));
        }
    }

    #[test]
    fn the_framing_follows_rfc_9112() {
        let none = |head: &Head| matches!(head.framing, Framing::Length(0));
        assert!(none(&whole("HTTP/1.1 204 No Content\r\n\r\n")));
        assert!(none(&whole("HTTP/1.1 304 Not Modified\r\n\r\n")));
        let described = whole("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n");
        assert!(matches!(described.framing, Framing::Described(9)));
        assert!(described.framing.is_done());
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
    fn an_ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: ",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked;a=b",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding:",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
        ] {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
            assert!(matches!(head, Err(Error::Framing(_))), "{fields}");
        }
    }

    #[test]
    fn persistence_follows_the_version_and_connection() {
        assert!(!whole("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").persistent);
        assert!(!whole("HTTP/1.1 200 OK\r\nConnection: close, keep-alive\r\n\r\n").persistent);
        assert!(!whole("HTTP/1.0 200 OK\r\n\r\n").persistent);
        let kept = "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n";
        assert!(whole(&format!("{kept}\r\n")).persistent);
        assert!(!whole(&format!("{kept}Transfer-Encoding: chunked\r\n\r\n")).persistent);
    }

    #[test]
    fn the_bytes_of_a_head_are_limited_and_not_its_headers() {
        let many = |count: usize| {
            let lines: String = (0..count).map(|n| format!("a{n}: {n}\r\n")).collect();
            let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            parse(&mut BytesMut::from(&*text), 1 << 20, false)
        };
        for count in [1, 127, 128, 129, 5000, MAX_HEADERS] {
            let head = many(count).unwrap().unwrap();
            assert_eq!(head.response.headers().len(), count);
        }
        assert!(matches!(
            many(MAX_HEADERS + 1),
            Err(Error::TooManyHeaders(MAX_HEADERS))
        ));
        // The map has room for the headers that are added later.
        let mut headers = many(MAX_HEADERS)
            .unwrap()
            .unwrap()
            .response
            .headers()
            .clone();
        for number in 0..ADDED {
            let name = HeaderName::try_from(format!("added-{number}")).unwrap();
            headers
                .try_insert(name, HeaderValue::from_static("x"))
                .unwrap();
        }
        let short = "HTTP/1.1 200 OK\r\n".to_owned() + &"a:\r\n".repeat(200);
        assert!(matches!(head(&short), Ok(None)));
        let head = parse(&mut BytesMut::from(&*(short + "\r\n")), 1000, false);
        assert_eq!(head.unwrap().unwrap().response.headers().len(), 200);
    }

    #[test]
    fn whitespace_before_the_colon_is_removed() {
        let sent = "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length \t: 3\r\n\r\n";
        let head = whole(sent);
        assert_eq!(head.response.headers()["a"], "b");
        assert!(matches!(head.framing, Framing::Length(3)));
        for wrong in ["A b: c", " A: b", ": b", "A"] {
            let sent = format!("HTTP/1.1 200 OK\r\n{wrong}\r\n\r\n");
            assert!(
                matches!(super::tests::head(&sent), Err(Error::Malformed(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_valid_reason_phrase_is_passed_on() {
        let reason = |line: &str| {
            let head = whole(&format!("{line}\r\n\r\n"));
            let reason = head.response.extensions().get::<ReasonPhrase>();
            reason.map(|reason| String::from_utf8(reason.as_bytes().to_vec()).unwrap())
        };
        assert_eq!(reason("HTTP/1.1 200 OK"), None);
        assert_eq!(reason("HTTP/1.1 200 Fine by me"), Some("Fine by me".into()));
        assert_eq!(reason("HTTP/1.1 599 Odd"), Some("Odd".into()));
        // hyper would write `<none>` for these.
        for line in ["HTTP/1.1 599 ", "HTTP/1.1 599", "HTTP/1.1 799 caf\u{e9}"] {
            assert_eq!(reason(line), Some(String::new()), "{line}");
        }
        assert_eq!(reason("HTTP/1.1 404 "), None);
    }

    #[test]
    fn a_head_longer_than_the_limit_is_refused_complete_or_not() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1000));
        assert!(matches!(head(&long), Err(Error::TooLarge(1000))));
        assert!(matches!(head(&long[..1000]), Err(Error::TooLarge(1000))));
        assert!(head("HTTP/1.1 200 OK\r\nA: b").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_input_causes_a_panic(sent in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from("HTTP/1.1 200 OK\r\n");
            input.extend_from_slice(&sent);
            let _ = parse(&mut input, 1000, false);
        }
    }
}
