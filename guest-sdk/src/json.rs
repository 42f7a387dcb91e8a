//! JSON as a gateway reads it in bodies for balancers: one pass over the bytes, without a tree, and
//! only as far as it is asked for. It checks no more syntax than it needs to find its way.

use std::borrow::Cow;

/// The maximum length of a pointer, in bytes.
pub const MAX_POINTER: usize = 1024;

/// A value as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its text, with quotes or brackets.
    pub text: &'a [u8],
    /// Whether it is cut off. Only strings, arrays and objects are.
    pub is_cut: bool,
}

impl<'a> Value<'a> {
    /// The text between its quotes or brackets; all of a number or a word.
    #[must_use]
    pub fn inside(&self) -> &'a [u8] {
        let Some((b'"' | b'[' | b'{', inside)) = self.text.split_first() else {
            return self.text;
        };
        match inside.split_last() {
            Some((_, inside)) if !self.is_cut => inside,
            _ => inside,
        }
    }

    /// At most `most` bytes of it: a string without quotes and escapes, any other value as it was
    /// sent. What is not UTF-8, and what is no character, is replaced by U+FFFD.
    #[must_use]
    pub fn to_text(&self, most: usize) -> String {
        let mut text = match self.text.first() {
            Some(b'"') => decoded(self.inside(), most),
            _ => String::from_utf8_lossy(window(self.text, most)).into_owned(),
        };
        text.truncate(text.floor_char_boundary(most));
        text
    }
}

/// A member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The text between the quotes of its key, as it was sent.
    pub key: &'a [u8],
    /// Its value.
    pub value: Value<'a>,
}

impl Member<'_> {
    /// Whether this is its key.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        is_key(self.key, key)
    }
}

/// The members of an object, as long as its syntax is right.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a [u8],
    is_first: bool,
}

impl<'a> Members<'a> {
    /// The members of a document that is an object; `None` if it is none.
    #[must_use]
    pub fn of(document: &'a [u8]) -> Option<Self> {
        Some(Self {
            rest: document.trim_ascii_start().strip_prefix(b"{")?,
            is_first: true,
        })
    }

    /// The members after the first ones of an object, whose text begins after those.
    pub(crate) const fn after(rest: &'a [u8]) -> Self {
        Self {
            rest,
            is_first: false,
        }
    }

    /// The text after the members that were read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next key, with the text that begins with its value.
    fn key(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let mut rest = self.rest.trim_ascii_start();
        if !std::mem::take(&mut self.is_first) {
            rest = rest.strip_prefix(b",")?.trim_ascii_start();
        }
        let (key, rest) = value(rest)?;
        let rest = rest.trim_ascii_start().strip_prefix(b":")?;
        let is_string = key.text.starts_with(b"\"") && !key.is_cut;
        is_string.then(|| (key.inside(), rest.trim_ascii_start()))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let member = self.key().and_then(|(key, text)| {
            let (value, rest) = value(text)?;
            self.rest = rest;
            Some(Member { key, value })
        });
        if member.is_none() {
            // What is after wrong syntax is no member, however often it is asked for.
            self.rest = &[];
        }
        member
    }
}

/// The value at a pointer (RFC 6901) in the value that a text begins with. Of several members of a
/// name the first counts.
#[must_use]
pub fn find<'a>(text: &'a [u8], pointer: &str) -> Option<Value<'a>> {
    if pointer.len() > MAX_POINTER || !(pointer.is_empty() || pointer.starts_with('/')) {
        return None;
    }
    let mut names = pointer.split('/').skip(1);
    let text = names.try_fold(text.trim_ascii_start(), |text, name| enter(text, name))?;
    value(text).map(|(value, _)| value)
}

/// The first name of a pointer, decoded, and the rest of it, which is a pointer as well.
#[must_use]
pub fn first_name(pointer: &str) -> Option<(Cow<'_, str>, &str)> {
    let pointer = pointer.strip_prefix('/')?;
    let end = pointer.find('/').unwrap_or(pointer.len());
    let (name, rest) = pointer.split_at(end);
    Some((unescaped(name), rest))
}

fn unescaped(name: &str) -> Cow<'_, str> {
    if name.contains('~') {
        // In this order, or `~01` would become a slash.
        return name.replace("~1", "/").replace("~0", "~").into();
    }
    name.into()
}

/// The text from an element of the array, or a member of the object, that `text` begins with.
fn enter<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    match text.first()? {
        b'{' => {
            let name = unescaped(name);
            let mut members = Members::of(text)?;
            loop {
                let (key, text) = members.key()?;
                if is_key(key, &name) {
                    return Some(text);
                }
                members.rest = value(text)?.1;
            }
        }
        b'[' => {
            let has_leading_zero = name.len() > 1 && name.starts_with('0');
            let is_number = name.bytes().all(|byte| byte.is_ascii_digit()) && !has_leading_zero;
            let number: usize = is_number.then(|| name.parse().ok()).flatten()?;
            let mut rest = text[1..].trim_ascii_start();
            for _ in 0..number {
                rest = value(rest)?.1.trim_ascii_start();
                rest = rest.strip_prefix(b",")?.trim_ascii_start();
            }
            Some(rest)
        }
        _ => None,
    }
}

fn is_key(key: &[u8], name: &str) -> bool {
    match key.contains(&b'\\') {
        true => decoded(key, usize::MAX) == name,
        false => key == name.as_bytes(),
    }
}

/// The value that a text begins with, and the text after it. `None` if there is no value, or only
/// the start of a number or a word.
fn value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let close = match text.first()? {
        b'"' => string(text),
        b'{' | b'[' => nested(text),
        _ => {
            let ends = |byte: &u8| b",:]}".contains(byte) || byte.is_ascii_whitespace();
            let last = text.iter().position(ends)?.checked_sub(1);
            Some(last?)
        }
    };
    let (text, rest) = text.split_at(close.map_or(text.len(), |close| close + 1));
    let is_cut = close.is_none();
    Some((Value { text, is_cut }, rest))
}

/// The index of the quote that ends a string.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += plain(text.get(at..)?);
        match text.get(at)? {
            b'"' => return Some(at),
            // Backslashes, each with what it escapes.
            _ => {
                while text.get(at) == Some(&b'\\') {
                    at += 2;
                }
            }
        }
    }
}

/// The number of bytes before the first quote or backslash, looked for in eight bytes at a time:
/// almost all of a long prompt is text.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    /// The highest bit of the first byte that is zero; of later bytes it may be set without reason.
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & (ONES << 7)
    }
    let (words, rest) = text.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = zeros(word ^ (ONES * b'"' as u64));
        let backslash = zeros(word ^ (ONES * b'\\' as u64));
        let found = quote | backslash;
        if found != 0 {
            return number * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\');
    words.len() * 8 + rest.iter().position(ends).unwrap_or(rest.len())
}

/// The index of the bracket that ends an array or an object. It counts, so that no depth is too
/// much.
fn nested(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at += string(&text[at..])?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// The start of a text of which `most` bytes are needed. A character that is split by the end of it
/// begins after these.
fn window(text: &[u8], most: usize) -> &[u8] {
    text.get(..most.saturating_add(4)).unwrap_or(text)
}

/// The text of a string without its escapes, at least as far as `most` bytes of it.
fn decoded(mut text: &[u8], most: usize) -> String {
    let mut decoded = String::new();
    while decoded.len() < most {
        let part = window(text, most);
        let plain = part.iter().position(|byte| *byte == b'\\');
        let (part, rest) = text.split_at(plain.unwrap_or(part.len()));
        decoded.push_str(&String::from_utf8_lossy(part));
        // The rest begins with a backslash, or is no longer needed.
        let Some(escaped) = plain.and_then(|_| rest.get(1)) else {
            break;
        };
        if *escaped == b'u' && rest.len() < 6 {
            // The escape is cut off.
            break;
        }
        text = &rest[2..];
        decoded.push(match escaped {
            b'"' | b'\\' | b'/' => char::from(*escaped),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => unicode(&mut text),
            _ => char::REPLACEMENT_CHARACTER,
        });
    }
    decoded
}

/// The character whose four digits a text begins with, and the four of its second half if it has
/// two (RFC 8259, section 7); U+FFFD if it is none.
fn unicode(text: &mut &[u8]) -> char {
    let Some((first, rest)) = hex(text) else {
        return char::REPLACEMENT_CHARACTER;
    };
    *text = rest;
    let mut units = vec![first];
    if (0xd800..0xdc00).contains(&first)
        && let Some((second, rest)) = text.strip_prefix(b"\\u").and_then(hex)
        && (0xdc00..0xe000).contains(&second)
    {
        *text = rest;
        units.push(second);
    }
    let mut characters = char::decode_utf16(units);
    let character = characters.next().and_then(Result::ok);
    character.unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn hex(text: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let digits = str::from_utf8(digits).ok()?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let unit = is_hex.then(|| u16::from_str_radix(digits, 16).ok())?;
    Some((unit?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(document: &str, pointer: &str, most: usize) -> Option<String> {
        find(document.as_bytes(), pointer).map(|value| value.to_text(most))
    }

    #[test]
    fn a_pointer_leads_to_a_value_also_behind_long_ones() {
        let document = r#" { "messages" : [ {"role":"user","content":"a \"]}\\"} , [1, 2] ] ,
            "stream" : true, "n": -1.5e3, "a/b": {"~": null}, "":"empty", "\u0061\n": "escaped", "n": 2 } "#;
        let text = |text: &str| Some(text.to_owned());
        for (pointer, found) in [
            ("/stream", text("true")),
            ("/n", text("-1.5e3")),
            ("/messages/0/role", text("user")),
            ("/messages/0/content", text(r#"a "]}\"#)),
            ("/messages/1", text("[1, 2]")),
            ("/messages/1/1", text("2")),
            ("/messages/1/2", None),
            ("/messages/1/01", None),
            ("/messages/1/-", None),
            ("/messages/1/", None),
            ("/messages/2", None),
            ("/a~1b/~0", text("null")),
            ("/a~1b", text(r#"{"~": null}"#)),
            ("/", text("empty")),
            ("/a\n", text("escaped")),
            ("/Stream", None),
            ("/stream/0", None),
            ("stream", None),
        ] {
            assert_eq!(at(document, pointer, 100), found, "{pointer}");
        }
        assert_eq!(at(document, &"/".repeat(MAX_POINTER + 1), 9), None);
        assert_eq!(at("[]", "/0", 9), None);
        assert_eq!(at("7 ", "", 9), text("7"));
    }

    #[test]
    fn a_long_value_is_cut_off_between_characters() {
        let document = r#"{"a":"aäb\u00e4\ud83d\ude00","b":["ä"],"c":"\ud83d \x \u12"}"#;
        let text = |pointer, most| at(document, pointer, most).unwrap_or_default();
        assert_eq!(text("/a", 100), "aäbä😀");
        assert_eq!((&*text("/a", 2), &*text("/a", 3)), ("a", "aä"));
        assert_eq!((&*text("/a", 9), &*text("/a", 10)), ("aäbä", "aäbä😀"));
        assert_eq!((&*text("/b", 3), &*text("/b", 4)), ("[\"", "[\"ä"));
        assert_eq!(text("/c", 100), "\u{fffd} \u{fffd} ");
        assert_eq!(text("/a", 0), "");
    }

    #[test]
    fn what_is_cut_off_is_known_as_far_as_it_is_there() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(at(r#"{"a":"say h"#, "/a", 100), text("say h"));
        assert_eq!(at(r#"{"a":"say \"#, "/a", 100), text("say "));
        assert_eq!(at(r#"{"a":[{"b":1"#, "/a", 100), text(r#"[{"b":1"#));
        assert_eq!(at(r#"{"a":[{"b":1"#, "/a/0/b", 100), None);
        assert_eq!(at(r#"{"a":12"#, "/a", 100), None);
        assert_eq!(at(r#"{"a":"x","b"#, "/b", 100), None);
        let value = find(b"{\"a\":\"", "/a");
        assert!(value.is_some_and(|value| value.is_cut && value.inside().is_empty()));
    }

    #[test]
    fn there_are_no_members_after_wrong_syntax() {
        for document in [r#"{,"a":1}"#, r#"{"b" 1,"a":1}"#, r#"{1:2,"a":1}"#, "{}"] {
            let mut members = Members::of(document.as_bytes()).into_iter().flatten();
            assert_eq!((members.next(), members.next()), (None, None), "{document}");
            let mut members = Members::of(document.as_bytes());
            let mut next = || members.as_mut().and_then(Iterator::next);
            assert_eq!((next(), next()), (None, None), "{document}");
            assert_eq!(at(document, "/a", 9), None, "{document}");
        }
    }

    #[test]
    fn no_depth_and_no_length_is_too_much() {
        let deep = format!(
            r#"{{"deep":{}{},"a":1}}"#,
            "[".repeat(1 << 20),
            "]".repeat(1 << 20)
        );
        assert_eq!(at(&deep, "/a", 9).as_deref(), Some("1"));
        assert_eq!(at(&deep, &"/deep".repeat(200), 9), None);
        let escapes = format!(r#"{{"long":"{}","a":1}}"#, r#"\""#.repeat(1 << 20));
        assert_eq!(at(&escapes, "/a", 9).as_deref(), Some("1"));
        assert_eq!(at(&escapes, "/long", 3).as_deref(), Some("\"\"\""));
    }

    proptest! {
        #[test]
        fn no_document_makes_the_scanner_panic(
            document: Vec<u8>, pointer: String, most in 0_usize..50,
            pieces in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", "\"", "\\", ":", ",", "\"a\"", " ", "1", "\\u", "d83d", "ä",
            ]), 0..40),
        ) {
            for document in [&document[..], pieces.concat().as_bytes()] {
                for pointer in [&*pointer, "", "/a", "/0", "/a/0/a", "/a/a"] {
                    if let Some(value) = find(document, pointer) {
                        prop_assert!(value.to_text(most).len() <= most);
                        prop_assert!(value.inside().len() <= value.text.len());
                    }
                }
            }
        }

        #[test]
        fn quotes_and_backslashes_are_found_wherever_they_are(
            text in prop::collection::vec(prop::sample::select(b"a\"\\\x21\x23\x5b\x5d\xa2\xdc\xff\x00".to_vec()), 0..40),
        ) {
            let first = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(plain(&text), first.unwrap_or(text.len()));
        }
    }
}
