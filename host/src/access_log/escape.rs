//! Values of requests within a line. Clients choose them, so no byte of them may end a line, or a
//! part of it, or move the cursor of the terminal that shows it.

use crate::config::LogEscape;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// How a value is written in a form.
pub(super) fn by(form: LogEscape) -> fn(&mut Vec<u8>, &[u8]) {
    match form {
        LogEscape::Default => default,
        LogEscape::Json => json,
    }
}

/// Whether no byte is written in another way, in either form. Nearly all values are so, and without
/// an early end the compiler looks at sixteen bytes at once.
fn is_plain(value: &[u8]) -> bool {
    const STEP: usize = 16;
    let is_special = |byte: u8| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\');
    let has_special =
        |bytes: &[u8]| (bytes.iter()).fold(false, |found, byte| found | is_special(*byte));
    let (steps, rest) = value.as_chunks::<STEP>();
    let found = steps
        .iter()
        .fold(false, |found, step| found | has_special(step));
    // The bytes of the last step may be looked at twice.
    let end = value.last_chunk::<STEP>();
    !(found | end.map_or_else(|| has_special(rest), |end| has_special(end)))
}

/// Writes a value as nginx does by default: bytes that are not printable ASCII, quotes and
/// backslashes as `\xXX`.
pub(super) fn default(text: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        return text.extend_from_slice(value);
    }
    let mut rest = value;
    loop {
        let plain = rest
            .iter()
            .position(|byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\'));
        let Some(at) = plain else {
            return text.extend_from_slice(rest);
        };
        let (before, after) = rest.split_at(at);
        text.extend_from_slice(before);
        if let Some((byte, after)) = after.split_first() {
            hex(text, b"\\x", *byte);
            rest = after;
        }
    }
}

/// Writes a value as within a string of JSON. Bytes that are not UTF-8 are replaced.
pub(super) fn json(text: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        return text.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        json_text(text, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            text.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn json_text(text: &mut Vec<u8>, valid: &[u8]) {
    let mut rest = valid;
    loop {
        // What follows 0xc2 or 0xe2 may be a control character or the end of a line to a reader
        // that knows Unicode.
        let special = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0x7f | 0xc2 | 0xe2) || *byte < b' ');
        let Some(at) = special else {
            return text.extend_from_slice(rest);
        };
        let (before, after) = rest.split_at(at);
        text.extend_from_slice(before);
        let length = match after {
            [0xc2, low @ 0x80..=0x9f, ..] => {
                hex(text, b"\\u00", *low);
                2
            }
            [0xe2, 0x80, 0xa8, ..] => {
                text.extend_from_slice(b"\\u2028");
                3
            }
            [0xe2, 0x80, 0xa9, ..] => {
                text.extend_from_slice(b"\\u2029");
                3
            }
            [byte @ (b'"' | b'\\'), ..] => {
                text.extend_from_slice(&[b'\\', *byte]);
                1
            }
            [byte @ (0xc2 | 0xe2), ..] => {
                text.push(*byte);
                1
            }
            [byte, ..] => {
                hex(text, b"\\u00", *byte);
                1
            }
            [] => return,
        };
        rest = after.get(length..).unwrap_or_default();
    }
}

fn hex(text: &mut Vec<u8>, prefix: &[u8], byte: u8) {
    text.extend_from_slice(prefix);
    text.push(DIGITS[usize::from(byte >> 4)]);
    text.push(DIGITS[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(by: fn(&mut Vec<u8>, &[u8]), value: &[u8]) -> String {
        let mut text = Vec::new();
        by(&mut text, value);
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn values_are_written_as_nginx_writes_them() {
        for (value, expected) in [
            (&b"plain ~"[..], "plain ~"),
            (b"a\"b\\c", "a\\x22b\\x5Cc"),
            (b"\r\n\t\x00\x1b[2J", "\\x0D\\x0A\\x09\\x00\\x1B[2J"),
            ("ä\u{7f}".as_bytes(), "\\xC3\\xA4\\x7F"),
        ] {
            assert_eq!(escaped(default, value), expected);
        }
    }

    #[test]
    fn no_reader_of_unicode_finds_another_line() {
        let text = escaped(json, "a\u{85}b\u{2028}c\u{e2}\u{a9}".as_bytes());
        assert_eq!(text, "a\\u0085b\\u2028c\u{e2}\u{a9}");
    }

    proptest! {
        #[test]
        fn any_value_is_one_line_of_printable_ascii(
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let text = escaped(default, &value);
            prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'));
        }

        #[test]
        fn any_value_is_a_string_of_json(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = format!("\"{}\"", escaped(json, &value));
            let read: String = serde_json::from_str(&text)?;
            prop_assert_eq!(read, String::from_utf8_lossy(&value));
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
