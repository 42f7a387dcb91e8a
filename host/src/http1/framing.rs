//! Where the body of a response ends (RFC 9112, 6 and 7.1).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};

use super::{Error, trailers};

/// The part of a body that is still to be read.
#[derive(Debug)]
pub(crate) enum Framing {
    /// A body with this many bytes left.
    Length(u64),
    /// No body, although the head gives the length of one: a 304 gives the length of the
    /// representation that is still valid.
    Described(u64),
    /// A chunked body.
    Chunked(Chunked),
    /// All bytes until the connection is closed.
    Close,
}

/// The position in a chunked body.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: ChunkState,
    /// Number of bytes of extensions and trailers since the last chunk.
    lines: usize,
    /// Largest allowed value of `lines`.
    max_lines: usize,
    /// The trailer lines that were read.
    trailers: Vec<u8>,
    /// Headers that `Connection` has named as hop-by-hop.
    hops: Vec<HeaderName>,
}

/// Digits of the size of a chunk.
const MOST_DIGITS: u8 = 64;

/// The part of a chunked body that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ChunkState {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    Done,
}

impl Default for ChunkState {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Framing {
    /// A chunked body, at its start. Between two chunks, and after the last one, extensions and
    /// trailers may take `max_lines` bytes. Trailers in `hops` are not passed on.
    pub(super) fn chunked(max_lines: usize, hops: Vec<HeaderName>) -> Self {
        Self::Chunked(Chunked {
            hops,
            ..Chunked::new(max_lines)
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Described(_) => true,
            Self::Chunked(chunked) => chunked.state == ChunkState::Done,
            Self::Close => false,
        }
    }

    /// The length that is left, or that the head of a 304 gives, if it is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) | Self::Described(left) => Some(*left),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// Takes the next piece of the body from the received bytes; `None` if more bytes are needed or
    /// the body has ended.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Length(left) => Ok(up_to(input, left)),
            Self::Described(_) => Ok(None),
            Self::Chunked(chunked) => chunked.take(input),
            Self::Close if input.is_empty() => Ok(None),
            Self::Close => Ok(Some(input.split().freeze())),
        }
    }

    /// Takes the trailers of a body that has ended, if any are to be passed on.
    pub(crate) fn take_trailers(&mut self) -> Result<Option<HeaderMap>, Error> {
        match self {
            Self::Chunked(chunked) if !chunked.trailers.is_empty() => {
                let trailers = trailers::parse(&std::mem::take(&mut chunked.trailers))?;
                let is_hop = |name: &HeaderName| chunked.hops.contains(name);
                Ok(trailers::passed_on(&trailers, is_hop))
            }
            _ => Ok(None),
        }
    }

    /// To be called when the connection was closed. Returns an error if the body was not complete.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match self {
            Self::Close => {
                *self = Self::Length(0);
                Ok(())
            }
            _ => Err(Error::Closed),
        }
    }
}

fn up_to(input: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX);
    let length = most.min(input.len());
    *left -= length as u64;
    (length > 0).then(|| input.split_to(length).freeze())
}

/// How many of the received bytes belong to a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// All of them.
    All,
    /// This many bytes; then the body ends.
    Done(usize),
    /// This many bytes; the next byte is a line feed that ends a trailer line without a carriage
    /// return.
    BareLineFeed(usize),
    /// This many bytes; the bytes after them are not valid.
    Malformed(usize),
}

impl Chunked {
    /// The start of a body; see [`Framing::chunked`].
    pub(super) fn new(max_lines: usize) -> Self {
        Self {
            state: ChunkState::default(),
            lines: 0,
            max_lines,
            trailers: Vec::new(),
            hops: Vec::new(),
        }
    }

    /// Advances over the received bytes without taking them.
    pub(super) fn pass(&mut self, received: &[u8]) -> Passed {
        let mut at = 0;
        while let Some(&byte) = received.get(at) {
            if let ChunkState::Data { left } = &mut self.state {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let length = most.min(received.len() - at);
                *left -= length as u64;
                at += length;
                if *left == 0 {
                    self.state = ChunkState::DataReturn;
                }
                self.lines = 0;
                continue;
            }
            if byte == b'\n' && matches!(self.state, ChunkState::TrailerStart | ChunkState::Trailer)
            {
                return Passed::BareLineFeed(at);
            }
            match self.after(byte) {
                Ok(state) => self.state = state,
                Err(_) => return Passed::Malformed(at),
            }
            at += 1;
            if self.state == ChunkState::Done {
                return Passed::Done(at);
            }
        }
        Passed::All
    }

    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        while !input.is_empty() && self.state != ChunkState::Done {
            if let ChunkState::Data { left } = &mut self.state {
                let piece = up_to(input, left);
                if *left == 0 {
                    self.state = ChunkState::DataReturn;
                }
                self.lines = 0;
                return Ok(piece);
            }
            let byte = input.get_u8();
            let state = self.after(byte)?;
            if matches!(state, ChunkState::Trailer | ChunkState::TrailerEnd)
                || self.state == ChunkState::TrailerEnd
            {
                self.trailers.push(byte);
            }
            self.state = state;
        }
        Ok(None)
    }

    fn after(&mut self, byte: u8) -> Result<ChunkState, Error> {
        let line = |chunked: &mut Self, state| {
            chunked.lines += 1;
            if chunked.lines > chunked.max_lines {
                return Err(Error::Framing("extensions or trailers are too long"));
            }
            Ok(state)
        };
        match (self.state, byte) {
            (ChunkState::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                // Fifteen digits are up to an exbibyte, and cannot overflow. Zeros may come before
                // them (RFC 9112, 7.1), but no client needs many.
                if size >> 56 != 0 || digits == MOST_DIGITS {
                    return Err(Error::Framing("a chunk is too large"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Ok(ChunkState::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                })
            }
            (ChunkState::Size { digits: 1.., size }, b'\r') => Ok(ChunkState::SizeEnd { size }),
            (ChunkState::Size { digits: 1.., size }, b';' | b' ' | b'\t') => {
                Ok(ChunkState::Extension { size })
            }
            (ChunkState::Size { .. }, _) => {
                Err(Error::Framing("the size of a chunk is not a number"))
            }
            (ChunkState::Extension { size }, b'\r') => Ok(ChunkState::SizeEnd { size }),
            (ChunkState::Extension { .. } | ChunkState::Trailer, b'\n') => {
                Err(Error::Framing("a line ends in a bare line feed"))
            }
            (ChunkState::Extension { size }, _) => line(self, ChunkState::Extension { size }),
            (ChunkState::SizeEnd { size: 0 }, b'\n') => Ok(ChunkState::TrailerStart),
            (ChunkState::SizeEnd { size }, b'\n') => Ok(ChunkState::Data { left: size }),
            (ChunkState::DataReturn, b'\r') => Ok(ChunkState::DataEnd),
            (ChunkState::DataEnd, b'\n') => Ok(ChunkState::default()),
            (ChunkState::TrailerStart, b'\r') => Ok(ChunkState::LastEnd),
            (ChunkState::TrailerStart, b'\n') => {
                Err(Error::Framing("a line ends in a bare line feed"))
            }
            (ChunkState::Trailer, b'\r') => Ok(ChunkState::TrailerEnd),
            (ChunkState::TrailerStart | ChunkState::Trailer, _) => line(self, ChunkState::Trailer),
            (ChunkState::TrailerEnd, b'\n') => Ok(ChunkState::TrailerStart),
            (ChunkState::LastEnd, b'\n') => Ok(ChunkState::Done),
            _ => Err(Error::Framing("a chunk does not end where it should")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINES: usize = 1000;

    /// Feeds `sent` in pieces of these sizes, in turn. Returns the body and the bytes after it.
    fn read(
        framing: &mut Framing,
        sent: &[u8],
        sizes: &[usize],
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let (mut body, mut input, mut rest) = (Vec::new(), BytesMut::new(), sent);
        let mut sizes = sizes.iter().cycle();
        loop {
            while let Some(piece) = framing.take(&mut input)? {
                body.extend_from_slice(&piece);
            }
            if framing.is_done() || rest.is_empty() {
                input.extend_from_slice(rest);
                return Ok((body, input.to_vec()));
            }
            let (next, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            input.extend_from_slice(next);
            rest = later;
        }
    }

    proptest! {
        #[test]
        fn a_chunked_body_is_decoded_the_same_in_pieces_of_any_size(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..8),
            sizes in prop::collection::vec(1_usize..50, 1..8),
            extension in prop::bool::ANY,
            trailer in prop::bool::ANY,
        ) {
            let mut sent = Vec::new();
            for chunk in &chunks {
                let extension = if extension { ";name=\"value\"" } else { "" };
                sent.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n");
            if trailer {
                sent.extend_from_slice(b"Digest: x\r\n");
            }
            sent.extend_from_slice(b"\r\nnext");
            let mut framing = Framing::chunked(LINES, Vec::new());
            let (body, rest) = read(&mut framing, &sent, &sizes).unwrap();
            prop_assert!(framing.is_done());
            let trailers = framing.take_trailers().unwrap();
            let digest = trailers.map(|trailers| trailers["digest"].clone());
            prop_assert_eq!(digest, trailer.then(|| "x".parse().unwrap()));
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(rest, b"next");
        }

        #[test]
        fn no_input_causes_a_panic(sent in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&mut Framing::chunked(LINES, Vec::new()), &sent, &[7]);
        }

        #[test]
        fn a_length_takes_exactly_that_many_bytes(
            length in 0_usize..50,
            sent in prop::collection::vec(any::<u8>(), 50),
        ) {
            let mut framing = Framing::Length(length as u64);
            let (body, rest) = read(&mut framing, &sent, &[3]).unwrap();
            prop_assert_eq!(&body, &sent[..length]);
            prop_assert_eq!(&rest, &sent[length..]);
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let most = "1".repeat(16);
        for wrong in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "1\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1;a\n",
            "0\r\n\n",
            "0\r\na: b\n",
            "0\r\n\rx",
            &most,
        ] {
            let read = read(
                &mut Framing::chunked(LINES, Vec::new()),
                wrong.as_bytes(),
                &[1],
            );
            assert!(matches!(read, Err(Error::Framing(_))), "{wrong:?}");
        }
    }

    #[test]
    fn endless_trailers_are_refused() {
        let sent = format!("0\r\n{}", "a: b\r\n".repeat(LINES));
        assert!(
            read(
                &mut Framing::chunked(LINES, Vec::new()),
                sent.as_bytes(),
                &[1000]
            )
            .is_err()
        );
    }

    #[test]
    fn the_end_of_the_connection_ends_only_a_body_without_other_framing() {
        let mut close = Framing::Close;
        close.end().unwrap();
        assert!(close.is_done());
        assert!(Framing::Length(1).end().is_err());
        assert!(Framing::chunked(LINES, Vec::new()).end().is_err());
    }
}
