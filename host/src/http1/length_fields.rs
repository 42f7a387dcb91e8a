//! What the head of a request says of the length of its body, before hyper reads it.
//!
//! hyper keeps one of `Transfer-Encoding` and `Content-Length`, and drops the other. A server
//! before the gateway may have kept the one that hyper drops, and then both disagree on where the
//! next request begins. So such a request is refused, as by nginx, and the bytes have to be looked
//! at for that.

/// The fields of a head that say where the body ends, read over any number of pieces.
#[derive(Debug, Default)]
pub(super) struct LengthFields {
    position: Position,
    has_length: bool,
    has_coding: bool,
    is_huge: bool,
}

/// The position in a line of the head.
#[derive(Debug, Clone, Copy, Default)]
enum Position {
    /// In a line that is none of these fields. The request line is one.
    #[default]
    Other,
    /// At the start of a line.
    Start,
    /// In what may be the name of a field, after this many bytes of it.
    Name(&'static [u8], usize),
    /// In a length, after digits that mean this.
    Length(u64),
}

const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";

/// The first length that hyper refuses as if the head were too large.
const HUGE: u64 = u64::MAX - 1;

impl LengthFields {
    /// Whether the length is given twice, by a number and by a transfer coding.
    pub(super) fn are_two(&self) -> bool {
        self.has_length && self.has_coding
    }

    /// Whether the length is larger than hyper can count.
    pub(super) fn is_huge(&self) -> bool {
        self.is_huge
    }

    /// Reads more of the head.
    pub(super) fn read(&mut self, mut head: &[u8]) {
        while let Some(&byte) = head.first() {
            let (next, passed) = match self.position {
                Position::Other => match line_end(head) {
                    Some(end) => (Position::Start, end + 1),
                    None => (Position::Other, head.len()),
                },
                Position::Start => match byte {
                    b'c' | b'C' => (Position::Name(LENGTH, 1), 1),
                    b't' | b'T' => (Position::Name(CODING, 1), 1),
                    _ => (Position::Other, 0),
                },
                Position::Name(name, at) => match name.get(at) {
                    Some(next) if next.eq_ignore_ascii_case(&byte) => {
                        (Position::Name(name, at + 1), 1)
                    }
                    None if byte == b':' => {
                        let is_length = name == LENGTH;
                        self.has_length |= is_length;
                        self.has_coding |= !is_length;
                        (Position::Length(0), 1)
                    }
                    _ => (Position::Other, 0),
                },
                Position::Length(length) => match byte {
                    b'0'..=b'9' => {
                        let more = length.saturating_mul(10);
                        let length = more.saturating_add(u64::from(byte - b'0'));
                        self.is_huge |= length >= HUGE;
                        (Position::Length(length), 1)
                    }
                    b' ' | b'\t' => (self.position, 1),
                    _ => (Position::Other, 0),
                },
            };
            self.position = next;
            head = head.get(passed..).unwrap_or_default();
        }
    }
}

/// The end of the next line that one of the fields may follow: a line feed before the first letter
/// of a name, or at the end of the bytes.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const STEP: usize = 32;
    // There is no branch for each byte, so that the compiler can vectorise the loop.
    let begins_field = |ahead: &[u8; STEP + 1]| {
        (0..STEP).fold(false, |found, i| {
            let letter = ahead[i + 1] | 0x20;
            found | (ahead[i] == b'\n') & ((letter == b'c') | (letter == b't'))
        })
    };
    let mut at = 0;
    while let Some(ahead) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        if begins_field(ahead) {
            break;
        }
        at += STEP;
    }
    // Most heads end without such a line. The bytes before their last steps are looked at twice.
    if let Some(end) = bytes.last_chunk()
        && at + end.len() > bytes.len()
        && !begins_field(end)
    {
        at = bytes.len() - 1;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == b'\n');
    end.map(|end| at + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str, size: usize) -> LengthFields {
        let mut fields = LengthFields::default();
        for piece in head.as_bytes().chunks(size) {
            fields.read(piece);
        }
        fields
    }

    #[test]
    fn two_lengths_are_found_wherever_they_are() {
        let long = "x: a-value-that-is-longer-than-what-is-looked-at-in-one-step\r\n";
        for (fields, are_two) in [
            ("content-length: 4\r\ntransfer-encoding: chunked\r\n", true),
            ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", true),
            ("TRANSFER-ENCODING:chunked\nCONTENT-LENGTH:4\n", true),
            ("content-length: 4\r\ncontent-length: 4\r\n", false),
            (
                "content-lengths: 4\r\ntransfer-encoding: chunked\r\n",
                false,
            ),
            (
                "x-content-length: 4\r\ntransfer-encoding: chunked\r\n",
                false,
            ),
            (
                "x: content-length: 4\r\ntransfer-encoding: chunked\r\n",
                false,
            ),
            ("te: trailers\r\ncontent-type: a\r\n", false),
        ] {
            for filler in ["", "a: b\r\n", long] {
                let head = format!("POST / HTTP/1.1\r\n{filler}{fields}{filler}\r\n");
                for size in 1..=head.len() {
                    assert_eq!(read(&head, size).are_two(), are_two, "{head} {size}");
                }
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_counted_is_found() {
        for (length, is_huge) in [
            ("18446744073709551613", false),
            ("18446744073709551614", true),
            ("18446744073709551615", true),
            ("99999999999999999999999", true),
            ("5", false),
        ] {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: \t{length}\r\n\r\n");
            for size in 1..=head.len() {
                assert_eq!(read(&head, size).is_huge(), is_huge, "{length} {size}");
            }
        }
    }
}
