//! Where the requests of a connection end, among the bytes that a client sends (RFC 9112, 2.1 and
//! 7.1).
//!
//! hyper reads requests, and reads ahead while it does. What it takes for the body of one request
//! must not be the next one, and a body that has ended must not be waited for. So the stream below
//! hyper follows the framing, and hands over one part at a time: a head, then its body, then the
//! next head. Nothing is decided here about what a head says: hyper reads that, and tells what kind
//! of body follows.

use super::framing::{Chunked, Passed};

/// The place that was reached in the requests of a connection.
#[derive(Debug)]
pub(crate) struct Requests {
    place: Place,
    /// Longest trailers of a body, in bytes.
    max_trailers: usize,
}

/// The body of a request, as its head announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// So many bytes, which may be none.
    Length(u64),
    /// Pieces that say their own lengths.
    Chunked,
}

/// How far what was received belongs to one part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    All,
    /// So many bytes: there the part ends.
    Until(usize),
    /// So many bytes: a line feed follows that ends a line of trailers without a carriage return.
    BareLineFeed(usize),
    /// So many bytes: what follows them is not a chunked body.
    Malformed(usize),
}

#[derive(Debug)]
enum Place {
    Head(Line),
    /// A head has ended, and its body is not announced.
    HeadEnd,
    Length(u64),
    Chunked(Chunked),
    Broken,
}

/// The place in a head. It ends with its first empty line, but for those in front of it (RFC 9112,
/// 2.2). A line may end in a line feed alone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Line {
    /// No byte of the head has come.
    None,
    Within,
    /// After a line feed.
    Start,
    /// After a line feed and a carriage return.
    Return,
}

impl Requests {
    /// Before the first request. The trailers of a body may take `max_trailers` bytes.
    pub(crate) fn new(max_trailers: usize) -> Self {
        Self {
            place: Place::Head(Line::None),
            max_trailers,
        }
    }

    /// Whether a request has come whole, and nothing of the next one.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.place, Place::Head(Line::None))
    }

    /// Whether the body of a request has not come to its end.
    pub(crate) fn is_within_body(&self) -> bool {
        matches!(
            self.place,
            Place::Length(_) | Place::Chunked(_) | Place::Broken
        )
    }

    /// The head that has come to its end is followed by this body.
    pub(crate) fn announce(&mut self, body: BodyKind) {
        if matches!(self.place, Place::HeadEnd) {
            self.place = match body {
                BodyKind::Length(0) => Place::Head(Line::None),
                BodyKind::Length(length) => Place::Length(length),
                BodyKind::Chunked => Place::Chunked(Chunked::new(self.max_trailers)),
            };
        }
    }

    /// Goes over what was received, as far as one part of a request goes. What is left is to be
    /// given again.
    pub(crate) fn pass(&mut self, received: &[u8]) -> Part {
        let (part, next) = match &mut self.place {
            // The reader of heads takes what has ended for a beginning, and waits for more.
            Place::HeadEnd => {
                self.place = Place::Head(Line::None);
                return self.pass(received);
            }
            Place::Head(line) => match line.end_of_head(received) {
                None => (Part::All, None),
                Some(end) => (Part::Until(end), Some(Place::HeadEnd)),
            },
            Place::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let end = most.min(received.len());
                *left -= end as u64;
                let next = (*left == 0).then_some(Place::Head(Line::None));
                (Part::Until(end), next)
            }
            Place::Chunked(chunked) => match chunked.pass(received) {
                Passed::All => (Part::All, None),
                Passed::Done(end) => (Part::Until(end), Some(Place::Head(Line::None))),
                Passed::BareLineFeed(at) => (Part::BareLineFeed(at), None),
                Passed::Malformed(at) => (Part::Malformed(at), Some(Place::Broken)),
            },
            Place::Broken => (Part::Malformed(0), None),
        };
        if let Some(next) = next {
            self.place = next;
        }
        match part {
            Part::Until(end) if end == received.len() => Part::All,
            part => part,
        }
    }
}

impl Line {
    /// Where the head ends, if it does.
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
                // Every byte of every request comes by here, so most are looked at many at a time.
                at += empty_line(&received[at..]);
            }
        }
        None
    }
}

/// How many bytes can be skipped within a line: up to the end of one that an empty line may follow,
/// or all of them.
fn empty_line(bytes: &[u8]) -> usize {
    const STEP: usize = 32;
    let mut at = 0;
    while let Some(ahead) = bytes[at..].first_chunk::<{ STEP + 2 }>() {
        // Without a branch for each byte, so that the compiler makes a few instructions of it.
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

    /// Passes what is sent in pieces of these sizes, in turn; returns the parts, and how it ended.
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
            let head_ended = matches!(requests.place, Place::HeadEnd);
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
        fn requests_are_the_same_however_they_arrive(
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
