//! Queries and forms (`application/x-www-form-urlencoded`) as bytes.
//!
//! `form_urlencoded` replaces invalid UTF-8 by U+FFFD, so that different values become equal.

use std::borrow::Cow;

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
    fn invalid_utf8_is_not_changed() {
        let read: Vec<_> = pairs(b"a%FF=%fe+\xfd&b").collect();
        let expected: [(&[u8], &[u8]); 2] = [(b"a\xff", b"\xfe \xfd"), (b"b", b"")];
        let expected = expected.map(|(name, value)| (Cow::from(name), Cow::from(value)));
        assert_eq!(read, expected);
    }
}
