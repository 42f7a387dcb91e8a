//! Regular expressions of routes.

use regex::bytes::Regex;

/// What stands for a byte that is no text: the control character that is there for that.
const SUBSTITUTE: u8 = 0x1a;

/// A regular expression that is matched with bytes.
///
/// In the syntax that Kong's patterns have, `.` and classes such as `[^/]` stand for characters, and so
/// match no byte that is not part of one. What holds such bytes is matched a second time with each of
/// them as a character.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern behind an anchor.
    pub(in crate::proxy) fn new(pattern: &str, anchor: &str) -> Result<Self, String> {
        let regex = Regex::new(&format!("{anchor}(?:{pattern})"));
        regex.map(Self).map_err(|error| error.to_string())
    }

    /// Where the first match ends.
    pub(super) fn find(&self, text: &[u8]) -> Option<usize> {
        self.look(text, |regex, text| Some(regex.find(text)?.end()))
    }

    /// What a group, by name or number, has captured in the first match.
    pub(in crate::proxy) fn capture<'t>(&self, text: &'t [u8], group: &str) -> Option<&'t [u8]> {
        let captured = self.look(text, |regex, text| {
            let captures = regex.captures(text)?;
            let found = match group.parse() {
                Ok(number) => captures.get(number),
                Err(_) => captures.name(group),
            };
            Some(found.map(|found| found.range()))
        });
        text.get(captured??)
    }

    fn look<T>(&self, text: &[u8], look: impl Fn(&Regex, &[u8]) -> Option<T>) -> Option<T> {
        look(&self.0, text).or_else(|| look(&self.0, &characters(text)?))
    }
}

/// A text of the same length with a character for each byte that is part of none; none where there is no
/// such byte.
fn characters(text: &[u8]) -> Option<Vec<u8>> {
    if std::str::from_utf8(text).is_ok() {
        return None;
    }
    let mut characters = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        characters.extend_from_slice(chunk.valid().as_bytes());
        characters.extend(chunk.invalid().iter().map(|_| SUBSTITUTE));
    }
    Some(characters)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_no_text_is_a_character() {
        let pattern = Pattern::new("/a/([^/]+)/(?P<end>.)", "^").unwrap();
        for (text, end, last) in [
            (&b"/a/\xff\xfe/\x80x"[..], 7, &b"\x80"[..]),
            ("/a/é/é".as_bytes(), 8, "é".as_bytes()),
            (b"/a/b/\xc3", 6, b"\xc3"),
        ] {
            assert_eq!(pattern.find(text), Some(end), "{text:?}");
            assert_eq!(pattern.capture(text, "end"), Some(last), "{text:?}");
        }
        assert_eq!(pattern.find(b"/a//\xff"), None);
        assert_eq!(pattern.capture(b"/a/\xff/b", "1"), Some(&b"\xff"[..]));
        assert_eq!(pattern.capture(b"/a/\xff/b", "2"), Some(&b"b"[..]));
        assert_eq!(pattern.capture(b"/a/\xff/b", "3"), None);
        // Who means a byte can say so.
        let pattern = Pattern::new(r"/(?-u:\xff)", "^").unwrap();
        assert_eq!(pattern.find(b"/\xff"), Some(2));
        assert_eq!(pattern.find(b"/\xfe"), None);
    }
}
