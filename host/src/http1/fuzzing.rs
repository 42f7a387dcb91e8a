//! Properties that hold for everything endpoints send; see `crate::fuzzing`.

use bytes::BytesMut;
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};

use super::framing::Framing;
use super::head;

/// The result of parsing a response.
#[derive(Debug, PartialEq)]
struct Read {
    head: Option<(StatusCode, HeaderMap)>,
    body: Vec<u8>,
    /// Whether the response has ended; `None` if it is malformed.
    done: Option<bool>,
    /// The trailers that are passed on; `None` if they are malformed.
    trailers: Option<HeaderMap>,
    /// The bytes after the end of the response.
    rest: Vec<u8>,
}

/// The first byte selects the method and the limit of the head; the second is the size of the
/// pieces that the rest arrives in. The result must not depend on the size of the pieces.
pub fn response(input: &[u8]) {
    let Some((&[flags, step], sent)) = input.split_first_chunk() else {
        return;
    };
    let limit = if flags & 2 == 0 { 1 << 15 } else { 64 };
    let bodiless = flags & 1 == 1;
    let whole = read(sent, sent.len().max(1), limit, bodiless);
    let pieces = read(sent, usize::from(step).max(1), limit, bodiless);
    assert_eq!(whole, pieces);
}

fn read(sent: &[u8], step: usize, limit: usize, bodiless: bool) -> Read {
    let mut read = Read {
        head: None,
        body: Vec::new(),
        done: Some(false),
        trailers: None,
        rest: Vec::new(),
    };
    let mut input = BytesMut::new();
    let mut framing: Option<Framing> = None;
    let mut pieces = sent.chunks(step);
    loop {
        let step = match &mut framing {
            None if input.is_empty() => Ok(false),
            None => head::parse(&mut input, limit, bodiless).map(|head| {
                head.is_some_and(|head| {
                    let (parts, ()) = head.response.into_parts();
                    if !parts.status.is_informational() {
                        check(&parts.headers, &head.framing, bodiless);
                        read.head = Some((parts.status, parts.headers));
                        framing = Some(head.framing);
                    }
                    true
                })
            }),
            Some(framing) => framing.take(&mut input).map(|piece| {
                let piece = piece.unwrap_or_default();
                read.body.extend_from_slice(&piece);
                !piece.is_empty()
            }),
        };
        match step {
            Ok(true) => continue,
            Ok(false) => {}
            Err(_) => {
                read.done = None;
                return read;
            }
        }
        if let Some(framing) = framing.as_mut().filter(|framing| framing.is_done()) {
            let trailers = framing.take_trailers();
            read.trailers = trailers.ok().map(Option::unwrap_or_default);
            read.done = Some(true);
            read.rest = input.to_vec();
            read.rest.extend(pieces.flatten());
            return read;
        }
        let Some(piece) = pieces.next() else {
            return read;
        };
        input.extend_from_slice(piece);
    }
}

/// The headers for the client have no hop-by-hop header and no wrong length.
fn check(headers: &HeaderMap, framing: &Framing, bodiless: bool) {
    for hop in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        assert!(!headers.contains_key(&hop), "{hop}");
    }
    let told = headers.get_all(CONTENT_LENGTH).iter();
    let told: Vec<_> = told.map(|length| length.as_bytes()).collect();
    match (framing.left(), told.as_slice()) {
        (_, []) => {}
        (Some(left), [length]) => {
            assert!(left == 0 || bodiless || *length == left.to_string().as_bytes());
        }
        (None, [_]) => panic!("a length that is none"),
        (_, several) => panic!("{} lengths", several.len()),
    }
}
