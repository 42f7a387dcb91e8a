//! What requests and responses say to caches, as the library for freshness reads it.
//!
//! The library splits directives at each comma, ignores a line with other bytes than ASCII, knows
//! one of the three forms of dates, and adds times without a bound. So it is given the same meaning
//! in the simplest form.

use std::time::SystemTime;

use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, PRAGMA, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// The longest time that counts, in seconds: a greater one means this (RFC 9111, 1.2.2).
const LONGEST: u64 = 1 << 31;

/// A directive of `Cache-Control`, with its name in lower case and its value without quotes.
struct Directive<'l> {
    name: String,
    value: Option<&'l [u8]>,
}

impl<'l> Directive<'l> {
    fn of(item: &'l [u8]) -> Self {
        let mut parts = item.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let value = parts.next().map(<[u8]>::trim_ascii).map(|value| {
            let inner = value.strip_prefix(b"\"");
            inner.and_then(|it| it.strip_suffix(b"\"")).unwrap_or(value)
        });
        Self {
            name: String::from_utf8_lossy(name).to_ascii_lowercase(),
            value,
        }
    }

    /// Its value in seconds; `None` if it has none, or another one.
    fn seconds(&self) -> Option<u64> {
        seconds(self.value?)
    }
}

/// A number of seconds.
fn seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = str::from_utf8(text).ok()?.parse().unwrap_or(LONGEST);
    Some(LONGEST.min(number))
}

/// The members of a list, whose commas within quotes separate nothing. A quote that is not closed
/// is a character like any other.
fn members(list: &[u8]) -> Vec<&[u8]> {
    let mut members = Vec::new();
    let (mut start, mut at, mut is_quoted, mut may_open) = (0, 0, false, true);
    while let Some(byte) = list.get(at) {
        match byte {
            b'"' if is_quoted => is_quoted = false,
            b'"' if may_open => {
                is_quoted = closes(list.get(at + 1..).unwrap_or_default());
                may_open = is_quoted;
            }
            b'\\' if is_quoted => at += 1,
            b',' if !is_quoted => {
                members.extend(list.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    members.extend(list.get(start..));
    members
}

/// Whether a quoted text ends.
fn closes(rest: &[u8]) -> bool {
    let mut bytes = rest.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return true,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    false
}

/// The directives of all lines, in their order.
fn directives(headers: &HeaderMap) -> Vec<Directive<'_>> {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    lines
        .flat_map(|line| members(line.as_bytes()))
        .map(Directive::of)
        .collect()
}

/// The directives of a request's `Cache-Control` that concern the cache as a whole.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestDirectives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) only_if_cached: bool,
}

impl RequestDirectives {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for directive in directives(headers) {
            match directive.name.as_str() {
                "no-store" => found.no_store = true,
                "no-cache" => found.no_cache = true,
                "only-if-cached" => found.only_if_cached = true,
                _ => {}
            }
        }
        found
    }
}

/// What a request wants of a cache.
pub(super) fn of_request(headers: &HeaderMap) -> HeaderMap {
    let words = directives(headers).into_iter().filter_map(|directive| {
        match (directive.name.as_str(), directive.seconds()) {
            ("no-cache" | "no-store" | "only-if-cached", _) => Some(directive.name),
            ("max-age" | "min-fresh" | "max-stale", Some(seconds)) => {
                Some(format!("{}={seconds}", directive.name))
            }
            ("max-stale", None) if directive.value.is_none() => Some(directive.name),
            _ => None,
        }
    });
    let mut plain = HeaderMap::new();
    put_words(&mut plain, words.collect());
    copy_pragma(headers, &mut plain);
    plain
}

/// What a response says about its freshness. A time that cannot be read is one in the past.
pub(super) fn of_response(headers: &HeaderMap) -> HeaderMap {
    let mut words = Vec::new();
    for directive in directives(headers) {
        match directive.name.as_str() {
            "max-age" | "s-maxage" => {
                let seconds = directive.seconds().unwrap_or(0);
                words.push(format!("{}={seconds}", directive.name));
            }
            "private" | "no-store" | "no-cache" | "public" | "must-revalidate" => {
                words.push(directive.name.clone());
            }
            _ => {}
        }
        // For a cache that is shared, each of them means that as well (RFC 9111, 5.2.2.8 and
        // 5.2.2.10).
        if ["proxy-revalidate", "s-maxage"].contains(&directive.name.as_str()) {
            words.push("must-revalidate".into());
        }
    }
    let mut plain = HeaderMap::new();
    put_words(&mut plain, words);
    copy_pragma(headers, &mut plain);
    let age = headers.get(AGE).and_then(|list| {
        let first = members(list.as_bytes()).into_iter().next()?;
        seconds(first.trim_ascii())
    });
    if let Some(age) = age {
        plain.insert(AGE, age.into());
    }
    if let Some(date) = headers.get(DATE).and_then(date) {
        plain.insert(DATE, date);
    }
    if let Some(expires) = headers.get(EXPIRES) {
        let past = || HeaderValue::from_static("0");
        plain.insert(EXPIRES, date(expires).unwrap_or_else(past));
    }
    if headers.contains_key(SET_COOKIE) {
        plain.insert(SET_COOKIE, HeaderValue::from_static("a=b"));
    }
    plain
}

fn put_words(plain: &mut HeaderMap, words: Vec<String>) {
    if let Ok(words) = HeaderValue::try_from(words.join(", "))
        && !words.is_empty()
    {
        plain.insert(CACHE_CONTROL, words);
    }
}

/// `Pragma` only counts where there is no `Cache-Control` (RFC 9111, 5.4).
fn copy_pragma(headers: &HeaderMap, plain: &mut HeaderMap) {
    if headers.contains_key(CACHE_CONTROL) {
        return;
    }
    for value in headers.get_all(PRAGMA) {
        if let Ok(value) = HeaderValue::from_bytes(&value.as_bytes().to_ascii_lowercase()) {
            plain.append(PRAGMA, value);
        }
    }
}

/// A date in the form that is preferred, read from any of the three (RFC 9110, 5.6.7).
fn date(value: &HeaderValue) -> Option<HeaderValue> {
    let time: SystemTime = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| {
                let value = HeaderValue::from_bytes(value).unwrap();
                (HeaderName::from_static(name), value)
            })
            .collect()
    }

    fn words(plain: &HeaderMap) -> &str {
        let value = plain.get(CACHE_CONTROL);
        value.map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn directives_of_a_response_are_read_with_quotes_in_any_case_and_beside_any_bytes() {
        for (line, expected) in [
            (&b"max-age=60"[..], "max-age=60"),
            (b"Max-Age = \"60\"", "max-age=60"),
            (b"a=\"b, max-age=60, c\"", ""),
            (b"a=\"\\\", max-age=60\", public", "public"),
            (b"a=\"b, private, max-age=60", "private, max-age=60"),
            (b"private, a=\"\xfc\"", "private"),
            (b"private=\"x-a, x-b\"", "private"),
            (b"max-age=99999999999999999999999", "max-age=2147483648"),
            (b"max-age=18446744073709551615", "max-age=2147483648"),
            (
                b"max-age=-1, s-maxage=1.5",
                "max-age=0, s-maxage=0, must-revalidate",
            ),
            (b"max-age='5'", "max-age=0"),
            (b"proxy-revalidate", "must-revalidate"),
            (b"immutable, stale-while-revalidate=5", ""),
        ] {
            let plain = of_response(&map(&[("cache-control", line)]));
            assert_eq!(words(&plain), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn wishes_of_a_request_are_read_as_well() {
        for (line, expected) in [
            (&b"max-age=5, x=\"a, no-store\""[..], "max-age=5"),
            (b"Max-Stale, min-fresh=9", "max-stale, min-fresh=9"),
            (b"max-stale=x, max-age=y, only-if-cached", "only-if-cached"),
        ] {
            let plain = of_request(&map(&[("cache-control", line)]));
            assert_eq!(words(&plain), expected, "{}", line.escape_ascii());
        }
        let pragma = ("pragma", &b"No-Cache"[..]);
        assert_eq!(of_request(&map(&[pragma])).get(PRAGMA).unwrap(), "no-cache");
        let both = of_request(&map(&[pragma, ("cache-control", b"max-age=5")]));
        assert!(!both.contains_key(PRAGMA));
    }

    #[test]
    fn the_first_age_counts_and_dates_have_three_forms() {
        for (age, expected) in [
            (&b"30"[..], Some("30")),
            (b"30, 200", Some("30")),
            (b"18446744073709551614", Some("2147483648")),
            (b"99999999999999999999999", Some("2147483648")),
            (b"-5", None),
            (b"7.5", None),
        ] {
            let plain = of_response(&map(&[("age", age)]));
            let found = plain.get(AGE).map(|age| age.to_str().unwrap());
            assert_eq!(found, expected, "{}", age.escape_ascii());
        }
        for (expires, expected) in [
            (
                &b"Sun, 06 Nov 1994 08:49:37 GMT"[..],
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (
                b"Sunday, 06-Nov-94 08:49:37 GMT",
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (b"Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (b"0", "0"),
            (b"tomorrow", "0"),
            (b"\xff", "0"),
        ] {
            let plain = of_response(&map(&[("expires", expires)]));
            assert_eq!(plain.get(EXPIRES).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_member_is_lost(list in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(members(&list).join(&b","[..]), list);
        }
    }
}
