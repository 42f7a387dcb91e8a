//! Properties that hold for everything endpoints send, and for the bodies of requests; see
//! `crate::fuzzing`.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Framing;
use super::{BodyKind, Part, Requests, head};

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
        (None, [_]) => panic!("an invalid length"),
        (_, several) => panic!("{} lengths", several.len()),
    }
}

/// What follows the head of a request with a chunked body. The first byte is the size of the pieces
/// that the rest arrives in, which makes no difference. A body that has ended here has ended for
/// hyper too, which would otherwise wait for bytes that the client does not send.
pub fn request_body(input: &[u8]) {
    let Some((&step, sent)) = input.split_first() else {
        return;
    };
    let whole = followed(sent, sent.len().max(1));
    assert_eq!(whole, followed(sent, usize::from(step).max(1)));
    if whole.end == Some(true) {
        assert!(
            is_decided(&whole.passed),
            "hyper waits for more of the body"
        );
    }
}

/// A body that was followed to its end.
#[derive(Debug, PartialEq)]
struct Followed {
    /// What hyper gets of it.
    passed: Vec<u8>,
    /// Whether it has ended; `None` if it is malformed.
    end: Option<bool>,
    /// The bytes after it, or from where it is malformed.
    rest: Vec<u8>,
}

fn followed(sent: &[u8], step: usize) -> Followed {
    let mut requests = Requests::new(1000);
    let head = b"POST / HTTP/1.1\r\n\r\n";
    assert_eq!(requests.pass(head), Part::All);
    requests.announce(BodyKind::Chunked);
    let mut passed = Vec::new();
    let mut pieces = sent.chunks(step);
    let mut piece = Vec::new();
    loop {
        if piece.is_empty() {
            match pieces.next() {
                Some(next) => piece = next.to_vec(),
                None => break,
            }
        }
        let part = requests.pass(&piece);
        let length = match part {
            Part::All => piece.len(),
            Part::Until(length) | Part::BareLineFeed(length) | Part::Malformed(length) => length,
        };
        passed.extend(piece.drain(..length));
        match part {
            Part::BareLineFeed(_) => piece.insert(0, b'\r'),
            Part::Malformed(_) => {
                let rest = [piece, pieces.flatten().copied().collect()].concat();
                return Followed {
                    passed,
                    end: None,
                    rest,
                };
            }
            _ => {}
        }
        if requests.is_between() {
            break;
        }
    }
    Followed {
        passed,
        end: Some(requests.is_between()),
        rest: [piece, pieces.flatten().copied().collect()].concat(),
    }
}

/// A client that sends these bytes, and then nothing.
struct Client<'a>(&'a [u8]);

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        let length = self.0.len().min(buf.remaining());
        let (now, later) = self.0.split_at(length);
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether hyper reads a whole chunked body from these bytes, or refuses it.
fn is_decided(body: &[u8]) -> bool {
    let head: &[u8] = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let sent = [head, body].concat();
    let is_decided = Cell::new(false);
    let service = service_fn(async |request: Request<Incoming>| {
        let _ = request.into_body().collect().await;
        is_decided.set(true);
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let client = TokioIo::new(Client(&sent));
    let mut connection = pin!(http1::Builder::new().serve_connection(client, service));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if is_decided.get() {
            break;
        }
        let _ = connection.as_mut().poll(&mut context);
    }
    is_decided.get()
}
