//! Targets of requests over HTTP/1.1 with bytes that hyper refuses, but nginx and Kong do not:
//! quotes, angle brackets and backticks, and bytes that are not UTF-8, such as those of Latin-1.
//! They are percent-encoded before hyper sees them (RFC 3986, 2.1), as they would be when the
//! request is sent.

/// The position in the request lines of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum RequestLine {
    /// No line has begun, or the last one has ended.
    #[default]
    Outside,
    Method,
    Target,
}

impl RequestLine {
    /// Whether a line has begun and not ended.
    pub(super) fn has_begun(self) -> bool {
        self != Self::Outside
    }

    /// Reads bytes that begin a head, or continue its first line. Returns them with the target
    /// encoded; `None` if they stay as they are, as nearly all do.
    pub(super) fn encoded(&mut self, received: &[u8]) -> Option<Vec<u8>> {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let start = match self {
            // Empty lines may precede a head (RFC 9112, 2.2).
            Self::Outside => received.iter().take_while(|byte| is_end(byte)).count(),
            Self::Method | Self::Target => 0,
        };
        let (before, rest) = received.split_at(start);
        let plain = plain(rest);
        let end = match rest.get(plain) {
            Some(b'\n') => plain,
            None => rest.len(),
            Some(_) => {
                let end = rest.iter().position(|byte| *byte == b'\n');
                end.unwrap_or(rest.len())
            }
        };
        let (line, after) = rest.split_at(end);
        let target = match self {
            Self::Target => Some(0),
            Self::Outside | Self::Method => {
                let blank = line.iter().position(|byte| *byte == b' ');
                blank.map(|at| at + 1)
            }
        };
        *self = match (after.is_empty(), target) {
            (false, _) => Self::Outside,
            (true, Some(_)) => Self::Target,
            (true, None) if line.is_empty() => *self,
            (true, None) => Self::Method,
        };
        if plain == end {
            return None;
        }
        let (method, target) = line.split_at(target?);
        // Text in UTF-8 is passed on as it is, where one read has all of it.
        let is_text = std::str::from_utf8(target).is_ok();
        let is_encoded = |byte: u8| is_special(byte) && !(is_text && byte >= 0x80);
        if !target.iter().any(|byte| is_encoded(*byte)) {
            return None;
        }
        let mut written = Vec::with_capacity(received.len() + 64);
        written.extend_from_slice(before);
        written.extend_from_slice(method);
        for byte in target {
            match is_encoded(*byte) {
                true => written.extend_from_slice(&escaped(*byte)),
                false => written.push(*byte),
            }
        }
        written.extend_from_slice(after);
        Some(written)
    }
}

/// Whether hyper may refuse this byte in a target.
fn is_special(byte: u8) -> bool {
    byte >= 0x80 || matches!(byte, b'"' | b'<' | b'>' | b'`')
}

/// How many bytes are neither special nor the end of a line.
fn plain(bytes: &[u8]) -> usize {
    const STEP: usize = 32;
    let stops = |byte: u8| {
        (byte >= 0x80)
            | (byte == b'\n')
            | (byte == b'"')
            | (byte == b'<')
            | (byte == b'>')
            | (byte == b'`')
    };
    let mut at = 0;
    while let Some(ahead) = bytes[at..].first_chunk::<STEP>() {
        // There is no branch for each byte, so that the compiler can vectorise the loop.
        let mut found = false;
        for byte in ahead {
            found |= stops(*byte);
        }
        if found {
            break;
        }
        at += STEP;
    }
    let stop = bytes[at..].iter().position(|byte| stops(*byte));
    stop.map_or(bytes.len(), |stop| at + stop)
}

/// A byte, percent-encoded (RFC 3986, 2.1).
fn escaped(byte: u8) -> [u8; 3] {
    let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half & 15)];
    [b'%', digit(byte >> 4), digit(byte)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What hyper gets of these pieces of a head.
    fn passed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut line = RequestLine::default();
        let mut is_head = true;
        let mut passed = Vec::new();
        for piece in pieces {
            let encoded = match is_head || line.has_begun() {
                true => line.encoded(piece),
                false => None,
            };
            is_head &= piece.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
            passed.extend(encoded.unwrap_or_else(|| piece.to_vec()));
        }
        passed
    }

    #[test]
    fn bytes_of_the_target_that_are_refused_are_encoded() {
        let long = "a".repeat(100);
        for (sent, expected) in [
            (
                "GET /a\"b<c>`?q=\"<>` HTTP/1.1\r\nA: \"<>`\r\n\r\n",
                "GET /a%22b%3Cc%3E%60?q=%22%3C%3E%60 HTTP/1.1\r\nA: \"<>`\r\n\r\n",
            ),
            (
                "\r\n\r\nGET /\" HTTP/1.1\r\n\r\n",
                "\r\n\r\nGET /%22 HTTP/1.1\r\n\r\n",
            ),
            ("GET /ä HTTP/1.1\r\n\r\n", "GET /ä HTTP/1.1\r\n\r\n"),
            ("GET /ä\" HTTP/1.1\r\n\r\n", "GET /ä%22 HTTP/1.1\r\n\r\n"),
            ("G\"T / HTTP/1.1\r\n\r\n", "G\"T / HTTP/1.1\r\n\r\n"),
            ("GET\"", "GET\""),
            (
                "GET / HTTP/1.1\r\nA: \"\r\n\r\n",
                "GET / HTTP/1.1\r\nA: \"\r\n\r\n",
            ),
        ] {
            assert_eq!(passed(&[sent.as_bytes()]), expected.as_bytes(), "{sent}");
            let longer = |text: &str| text.replace("/", &format!("/{long}"));
            assert_eq!(
                passed(&[longer(sent).as_bytes()]),
                longer(expected).as_bytes(),
                "{sent}"
            );
        }
        let latin = passed(&[b"GET /?q=caf\xe9 HTTP/1.1\r\n\r\n"]);
        assert_eq!(latin, b"GET /?q=caf%E9 HTTP/1.1\r\n\r\n");
    }

    proptest! {
        #[test]
        fn what_is_encoded_of_ascii_does_not_depend_on_how_the_bytes_are_cut(
            target in "[a-z\"<>`?/]{0,80}",
            lines in 0..3_usize,
            cuts in proptest::collection::vec(1..20_usize, 1..8),
        ) {
            let sent = format!("{}GET /{target} HTTP/1.1\r\na: \"\r\n\r\n", "\r\n".repeat(lines));
            let (mut pieces, mut rest) = (Vec::new(), sent.as_bytes());
            let mut cuts = cuts.iter().cycle();
            while let Some(cut) = cuts.next().filter(|_| !rest.is_empty()) {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(passed(&pieces), passed(&[sent.as_bytes()]));
        }

        #[test]
        fn any_bytes_are_read(sent in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = passed(&[&sent]).len();
            prop_assert!(length >= sent.len());
        }
    }
}
