//! Queries and forms (`application/x-www-form-urlencoded`) as bytes.
//!
//! `form_urlencoded` replaces invalid UTF-8 by U+FFFD, so that different values become equal.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use form_urlencoded::byte_serialize;
use percent_encoding::percent_decode;

/// The names and values of a query or a form, in their order, unescaped. Source: WHATWG, URL.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    let pairs = text.split(|byte| *byte == b'&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let mut part = || unescape(parts.next().unwrap_or_default());
        (part(), part())
    })
}

/// Names with their values, as text. A name without `=` has no value.
pub(crate) type Arguments = Vec<(String, Option<String>)>;

/// As [`pairs`], as text: bytes that are not UTF-8 are replaced.
pub(crate) fn arguments(text: &[u8]) -> Arguments {
    let decoded = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
    let written = text.split(|byte| *byte == b'&');
    let written = written.filter(|argument| !argument.is_empty());
    let arguments = written.flat_map(|argument| {
        let has_value = argument.contains(&b'=');
        pairs(argument).map(move |(name, value)| (decoded(name), has_value.then(|| decoded(value))))
    });
    arguments.collect()
}

/// The text of arguments that were changed. Those that `sent` has as well stay as they were sent,
/// and others are escaped where necessary, a blank as `%20`, as Kong does.
pub(crate) fn write(changed: &[(String, Option<String>)], sent: &[u8]) -> Vec<u8> {
    let written = sent.split(|byte| *byte == b'&');
    let mut as_sent: HashMap<_, VecDeque<&[u8]>> = HashMap::new();
    for text in written {
        for argument in arguments(text) {
            as_sent.entry(argument).or_default().push_back(text);
        }
    }
    let mut text = Vec::new();
    for argument in changed {
        if !text.is_empty() {
            text.push(b'&');
        }
        if let Some(known) = as_sent.get_mut(argument).and_then(VecDeque::pop_front) {
            text.extend_from_slice(known);
            continue;
        }
        let (name, value) = argument;
        // A plus that belongs to the text is escaped already.
        let escaped = |part: &str| {
            let escaped: String = byte_serialize(part.as_bytes()).collect();
            escaped.replace('+', "%20")
        };
        text.extend_from_slice(escaped(name).as_bytes());
        if let Some(value) = value {
            text.push(b'=');
            text.extend_from_slice(escaped(value).as_bytes());
        }
    }
    text
}

fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaces = text.iter().map(|byte| match byte {
        b'+' => b' ',
        other => *other,
    });
    let spaced: Vec<u8> = spaces.collect();
    percent_decode(&spaced).collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_read_as_form_urlencoded_reads_it(text in "[a-c&=+%46éÿ ]{0,30}") {
            let ours: Vec<_> = pairs(text.as_bytes())
                .map(|(name, value)| (
                    String::from_utf8_lossy(&name).into_owned(),
                    String::from_utf8_lossy(&value).into_owned(),
                ))
                .collect();
            let theirs: Vec<_> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn an_argument_without_a_value_stays_without_one() {
        let read = arguments(b"a=1+2&flag&&b=%26&e=");
        assert_eq!(read.len(), 4);
        assert_eq!(read[1], ("flag".to_owned(), None));
        assert_eq!(write(&read, b""), b"a=1%202&flag&b=%26&e=");
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_sent() {
        let sent = b"a=%FF&b=x%20y&c&b=x+y&d=%41";
        let mut read = arguments(sent);
        assert_eq!(write(&read, sent), sent);
        read.remove(1);
        read[3].1 = Some("a b".to_owned());
        read.push(("e".to_owned(), Some("\u{fffd}".to_owned())));
        assert_eq!(write(&read, sent), b"a=%FF&c&b=x%20y&d=a%20b&e=%EF%BF%BD");
    }

    #[test]
    fn invalid_utf8_is_not_changed() {
        let read: Vec<_> = pairs(b"a%FF=%fe+\xfd&b").collect();
        let expected: [(&[u8], &[u8]); 2] = [(b"a\xff", b"\xfe \xfd"), (b"b", b"")];
        let expected = expected.map(|(name, value)| (Cow::from(name), Cow::from(value)));
        assert_eq!(read, expected);
    }
}
