//! Where the requests of a connection end, among the bytes that a client sends (RFC 9112, 2.1 and
//! 7.1).
//!
//! hyper parses requests, and reads ahead. It must not take bytes of the next request for a body,
//! and must not wait for a body that has ended. So the stream below hyper follows the framing, and
//! passes on one part at a time: a head, then its body, then the next head. This module does not
//! interpret heads: hyper does, and the proxy announces which kind of body follows.

use super::framing::{Chunked, Passed};
use super::length_fields::LengthFields;

/// The position in the requests of a connection.
#[derive(Debug)]
pub(crate) struct Requests {
    state: RequestState,
    /// Longest head, and longest trailers of a body, in bytes.
    limit: usize,
    /// Bytes of the current head that were received.
    head: usize,
    /// Whether the request line of the current head ends within the limit. Only known of a head
    /// that is longer than the limit.
    line_fits: bool,
    /// Lines of the current head that have ended, the request line included. Only known of a head
    /// that did not come as a whole, or that is longer than [`FEW_FIELDS`].
    lines: usize,
    /// What the current head says of its body.
    lengths: LengthFields,
}

/// Longest head, in bytes, that has at most 100 fields for certain: a field has three bytes at
/// least, and a limit of fewer fields cannot be set.
const FEW_FIELDS: usize = 300;

/// What is too large about the head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// The request line.
    Line,
    /// The length that it gives for its body: hyper cannot count so far.
    Length,
    /// Its size.
    Bytes,
    /// The number of its fields.
    Fields,
}

/// The body of a request, as its head announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// A body of this many bytes, which may be 0.
    Length(u64),
    /// A chunked body.
    Chunked,
}

/// How many of the received bytes belong to the current part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of them.
    All,
    /// This many bytes; then the part ends.
    Until(usize),
    /// This many bytes; the next byte is a line feed that ends a trailer line without a carriage
    /// return.
    BareLineFeed(usize),
    /// This many bytes; the bytes after them are not a valid chunked body.
    Malformed(usize),
}

/// The part of a request that the next byte belongs to.
#[derive(Debug)]
enum RequestState {
    Head(Line),
    /// A head has ended, and its body is not announced yet.
    HeadEnd,
    Length(u64),
    Chunked(Chunked),
    Broken,
}

/// The position in a head. A head ends with its first empty line; empty lines before the head do
/// not count (RFC 9112, 2.2). A line may end in a bare line feed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Line {
    /// No byte of the head was received.
    None,
    Within,
    /// After a line feed.
    Start,
    /// After a line feed and a carriage return.
    Return,
}

impl Requests {
    /// The position before the first request. A head, and the trailers of a body, may take `limit`
    /// bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: RequestState::Head(Line::None),
            limit,
            head: 0,
            line_fits: false,
            lines: 0,
            lengths: LengthFields::default(),
        }
    }

    /// What is too large about the current head, which hyper has refused for its size. A request
    /// may have `max_fields` header fields, at least 100.
    pub(crate) fn excess(&self, max_fields: usize) -> Excess {
        let is_long = self.head > self.limit;
        if is_long && !self.line_fits {
            Excess::Line
        } else if self.lengths.is_huge() {
            Excess::Length
        } else if !is_long && self.lines > max_fields {
            Excess::Fields
        } else {
            Excess::Bytes
        }
    }

    /// Whether the current head gives the length of its body twice, by a number and by a transfer
    /// coding.
    pub(crate) fn has_two_lengths(&self) -> bool {
        self.lengths.are_two()
    }

    /// Notes bytes of the current head.
    fn measure(&mut self, head: &[u8], is_whole: bool) {
        self.lengths.read(head);
        let head = match self.head {
            // Empty lines may precede the request line.
            0 => head.trim_ascii_start(),
            _ => head,
        };
        // Nearly every head is short and received whole. Its bytes are not looked at again.
        if !is_whole || self.head + head.len() > self.limit {
            let room = self.limit.saturating_sub(self.head).min(head.len());
            self.line_fits |= head[..room].contains(&b'\n');
        }
        if !is_whole || self.head + head.len() > FEW_FIELDS {
            self.lines += head.iter().filter(|byte| **byte == b'\n').count();
        }
        self.head += head.len();
    }

    /// Whether the last request was received in full, and no byte of the next one.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, RequestState::Head(Line::None))
    }

    /// Bytes that were received of a head that has not ended, or whose body was not announced.
    pub(crate) fn unserved_head(&self) -> usize {
        match self.state {
            RequestState::Head(Line::None) => 0,
            RequestState::Head(_) | RequestState::HeadEnd => self.head,
            RequestState::Length(_) | RequestState::Chunked(_) | RequestState::Broken => 0,
        }
    }

    /// Whether the position is within the body of a request.
    pub(crate) fn is_within_body(&self) -> bool {
        matches!(
            self.state,
            RequestState::Length(_) | RequestState::Chunked(_) | RequestState::Broken
        )
    }

    /// Announces the kind of body that follows the head which has ended.
    pub(crate) fn announce(&mut self, body: BodyKind) {
        if matches!(self.state, RequestState::HeadEnd) {
            self.state = match body {
                BodyKind::Length(0) => RequestState::Head(Line::None),
                BodyKind::Length(length) => RequestState::Length(length),
                BodyKind::Chunked => RequestState::Chunked(Chunked::new(self.limit)),
            };
            (self.head, self.line_fits, self.lines) = (0, false, 0);
            self.lengths = LengthFields::default();
        }
    }

    /// Advances over the received bytes, to the end of the current part of a request at most. The
    /// caller passes the remaining bytes again.
    pub(crate) fn pass(&mut self, received: &[u8]) -> Part {
        let (part, next) = match &mut self.state {
            // No body was announced: hyper takes the lines that ended here for the start of a head,
            // and waits for more.
            RequestState::HeadEnd => {
                self.state = RequestState::Head(Line::None);
                return self.pass(received);
            }
            RequestState::Head(line) => match line.end_of_head(received) {
                None => {
                    self.measure(received, false);
                    (Part::All, None)
                }
                Some(end) => {
                    self.measure(&received[..end], true);
                    (Part::Until(end), Some(RequestState::HeadEnd))
                }
            },
            RequestState::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let end = most.min(received.len());
                *left -= end as u64;
                let next = (*left == 0).then_some(RequestState::Head(Line::None));
                (Part::Until(end), next)
            }
            RequestState::Chunked(chunked) => match chunked.pass(received) {
                Passed::All => (Part::All, None),
                Passed::Done(end) => (Part::Until(end), Some(RequestState::Head(Line::None))),
                Passed::BareLineFeed(at) => (Part::BareLineFeed(at), None),
                Passed::Malformed(at) => (Part::Malformed(at), Some(RequestState::Broken)),
            },
            RequestState::Broken => (Part::Malformed(0), None),
        };
        if let Some(next) = next {
            self.state = next;
        }
        match part {
            Part::Until(end) if end == received.len() => Part::All,
            part => part,
        }
    }
}

impl Line {
    /// The end of the head, if it is in these bytes.
    fn end_of_head(&mut self, received: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = received.get(at) {
            let next = match (*self, byte) {
                (Self::None, b'\r' | b'\n') => Self::None,
                (Self::Start | Self::Return, b'\n') => return Some(at + 1),
                (Self::Start, b'\r') => Self::Return,
                (_, b'\n') => Self::Start,
                _ => Self::Within,
            };
            *self = next;
            at += 1;
            if next == Self::Within {
                // Every byte of every head passes through here, so most are checked many at a time.
                at += empty_line(&received[at..]);
            }
        }
        None
    }
}

/// How many bytes can be skipped within a head: up to the end of a line that an empty line may
/// follow, or all of them.
fn empty_line(bytes: &[u8]) -> usize {
    const STEP: usize = 32;
    let mut at = 0;
    while let Some(ahead) = bytes[at..].first_chunk::<{ STEP + 2 }>() {
        // There is no branch for each byte, so that the compiler can vectorise the loop.
        let mut found = false;
        for i in 0..STEP {
            let line_feed = |at: usize| ahead[i + at] == b'\n';
            let crlf = (ahead[i + 1] == b'\r') & line_feed(2);
            found |= line_feed(0) & (line_feed(1) | crlf);
        }
        if found {
            break;
        }
        at += STEP;
    }
    let line = bytes[at..].iter().position(|byte| *byte == b'\n');
    line.map_or(bytes.len(), |line| at + line)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Passes `sent` in pieces of these sizes, in turn. Returns the parts, and the result at the
    /// end.
    fn parts(sent: &[u8], kinds: &[BodyKind], sizes: &[usize]) -> (Vec<Vec<u8>>, Part) {
        let mut requests = Requests::new(1000);
        let (mut kinds, mut sizes) = (kinds.iter().cycle(), sizes.iter().cycle());
        let (mut parts, mut part) = (Vec::new(), Vec::new());
        let mut rest = sent.to_vec();
        while !rest.is_empty() {
            let size = rest.len().min(*sizes.next().unwrap());
            let in_body = requests.is_within_body();
            let (passed, ends) = match requests.pass(&rest[..size]) {
                Part::All => (size, false),
                Part::Until(end) => (end, true),
                Part::BareLineFeed(at) => {
                    part.extend_from_slice(&rest[..at]);
                    rest.splice(..at, *b"\r");
                    continue;
                }
                malformed @ Part::Malformed(_) => return (parts, malformed),
            };
            part.extend_from_slice(&rest[..passed]);
            rest.drain(..passed);
            let head_ended = matches!(requests.state, RequestState::HeadEnd);
            let whole = head_ended || (in_body && requests.is_between());
            assert!(whole || !ends);
            if whole {
                parts.push(std::mem::take(&mut part));
            }
            if head_ended {
                requests.announce(*kinds.next().unwrap());
            }
        }
        (parts, Part::All)
    }

    fn texts(parts: Vec<Vec<u8>>) -> Vec<String> {
        let texts = parts.into_iter().map(String::from_utf8);
        texts.map(Result::unwrap).collect()
    }

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        for head in [
            "GET / HTTP/1.1\r\nhost: h\r\n\r\n",
            "GET / HTTP/1.1\nhost: h\n\n",
            "GET / HTTP/1.1\r\nhost: h\n\r\n",
            "\r\n\nGET / HTTP/1.1\r\n\n",
            "GET / HTTP/1.1\r\nhost: a-name-that-is-longer-than-what-is-looked-at-in-one-step\r\n\r\n",
            "GET / HTTP/1.1\r\nx: 1234567890123\r\ny: 1234567890123\r\nz: 12345678901234\r\n\r\n",
        ] {
            for size in 1..=head.len() {
                let two = format!("{head}{head}");
                let (got, _) = parts(two.as_bytes(), &[BodyKind::Length(0)], &[size]);
                assert_eq!(texts(got), [head, head], "{size}");
            }
        }
    }

    #[test]
    fn a_request_line_longer_than_the_limit_is_told_from_long_headers() {
        let line = |length: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(length - 16));
        let headers = |length: usize| format!("a: {}\r\n", "x".repeat(length - 5));
        for (head, long) in [
            (line(101), true),
            (line(101) + &headers(50), true),
            (line(100) + &headers(50), false),
            (line(20) + &headers(200), false),
            (line(20) + &headers(50), false),
            (format!("\r\n\r\n{}", line(200)), true),
        ] {
            for ending in ["", "\r\n"] {
                let sent = format!("{head}{ending}");
                for size in 1..=sent.len() {
                    let mut requests = Requests::new(100);
                    for piece in sent.as_bytes().chunks(size) {
                        requests.pass(piece);
                    }
                    let line = requests.excess(100) == Excess::Line;
                    assert_eq!(line, long, "{sent:?} {size}");
                }
            }
        }
    }

    #[test]
    fn too_many_fields_are_told_from_too_many_bytes() {
        let fields = |count: usize, value: &str| format!("a:{value}\n").repeat(count);
        for (fields, excess) in [
            (fields(101, ""), Excess::Fields),
            (fields(100, "") + "b", Excess::Fields),
            (fields(101, "12345678"), Excess::Bytes),
            (fields(98, ""), Excess::Bytes),
        ] {
            for ending in ["", "\r\n"] {
                let sent = format!("GET / HTTP/1.1\r\n{fields}{ending}");
                for size in 1..=sent.len() {
                    let mut requests = Requests::new(1000);
                    for piece in sent.as_bytes().chunks(size) {
                        requests.pass(piece);
                    }
                    assert_eq!(requests.excess(100), excess, "{sent:?} {size}");
                }
            }
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let head = "POST / HTTP/1.1\r\n\r\n";
        let chunked = "3;x=y\r\n\r\n\r\r\n0\r\na: b\r\n\r\n";
        let sent = format!("{head}{chunked}{head}abc{head}");
        let kinds = [BodyKind::Chunked, BodyKind::Length(3), BodyKind::Length(0)];
        for size in 1..=sent.len() {
            let (got, end) = parts(sent.as_bytes(), &kinds, &[size]);
            assert_eq!(texts(got), [head, chunked, head, "abc", head], "{size}");
            assert_eq!(end, Part::All);
        }
    }

    #[test]
    fn a_bare_line_feed_ends_a_line_of_trailers_and_no_other() {
        let head = "POST / HTTP/1.1\r\n\r\n";
        for (ending, normal) in [
            ("0\r\n\n", "0\r\n\r\n"),
            ("3\r\n\n\n\n\r\n0\r\n\n", "3\r\n\n\n\n\r\n0\r\n\r\n"),
            ("0\r\na: b\n\n", "0\r\na: b\r\n\r\n"),
            ("0\r\na: b\n\r\n", "0\r\na: b\r\n\r\n"),
            ("0\r\na: b\nc: d\r\n\n", "0\r\na: b\r\nc: d\r\n\r\n"),
        ] {
            let sent = format!("{head}{ending}{head}");
            for size in 1..=sent.len() {
                let kinds = [BodyKind::Chunked, BodyKind::Length(0)];
                let (got, _) = parts(sent.as_bytes(), &kinds, &[size]);
                assert_eq!(texts(got), [head, normal, head], "{ending:?} {size}");
            }
        }
        for wrong in [
            "0\n\r\n",
            "0\n\n",
            "1\na\r\n",
            "1;x\n",
            "1\r\na\n0\r\n\r\n",
            "x",
        ] {
            let sent = format!("{head}{wrong}{head}");
            for size in 1..=sent.len() {
                let (got, end) = parts(sent.as_bytes(), &[BodyKind::Chunked], &[size]);
                assert_eq!(texts(got), [head], "{wrong:?}");
                assert!(matches!(end, Part::Malformed(_)), "{wrong:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_parts_do_not_depend_on_the_size_of_the_pieces(
            sent in prop::collection::vec(prop::sample::select(b"\r\n\n0a1; :".to_vec()), 0..200),
            sizes in prop::collection::vec(1_usize..50, 1..8),
            kinds in prop::collection::vec(prop::sample::select(vec![
                BodyKind::Length(0), BodyKind::Length(7), BodyKind::Chunked,
            ]), 1..4),
        ) {
            let (whole, end) = parts(&sent, &kinds, &[usize::MAX]);
            let (pieces, piecewise) = parts(&sent, &kinds, &sizes);
            prop_assert_eq!(whole, pieces);
            prop_assert_eq!(
                matches!(end, Part::Malformed(_)),
                matches!(piecewise, Part::Malformed(_))
            );
        }
    }
}
