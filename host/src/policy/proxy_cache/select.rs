//! The answer that a request gets from a stored response: all of it, a part, or word that it has
//! not changed.

use std::ops::Range;
use std::time::SystemTime;

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderValue, Method, StatusCode};

use super::store::Stored;
use crate::policy::answer::Answer;

/// The headers that a request for a part of a response, or for a change of it, has.
pub(super) const CONDITIONS: [HeaderName; 6] = [
    RANGE,
    IF_RANGE,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    http::header::IF_MATCH,
    http::header::IF_UNMODIFIED_SINCE,
];

/// The answer to a request that a response is stored for.
pub(super) fn answer(stored: &Stored, method: &Method, asked: &HeaderMap) -> Answer {
    let mut answer = Answer::raw(stored.status, stored.body.clone());
    answer.headers = stored.headers.clone();
    answer.proxied = true;
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if !is_read || stored.status != StatusCode::OK {
        return answer;
    }
    if is_unchanged(&stored.headers, asked) {
        return not_modified(answer);
    }
    if *method == Method::GET && may_be_part(&stored.headers, asked) {
        let length = stored.body.len();
        let range = asked.get(RANGE).and_then(|range| range.to_str().ok());
        match range.and_then(|range| part(range, length)) {
            Some(Ok(part)) => {
                let (first, last) = (part.start, part.end.saturating_sub(1));
                let value = format!("bytes {first}-{last}/{length}");
                answer.status = StatusCode::PARTIAL_CONTENT;
                answer.body = crate::policy::answer::AnswerBody::Raw(stored.body.slice(part));
                answer.headers.remove(CONTENT_LENGTH);
                return answer.with_header(CONTENT_RANGE, &value);
            }
            Some(Err(Unsatisfiable)) => {
                let mut none = Answer::raw(StatusCode::RANGE_NOT_SATISFIABLE, "");
                none.proxied = true;
                return none.with_header(CONTENT_RANGE, &format!("bytes */{length}"));
            }
            None => {}
        }
    }
    answer
}

fn not_modified(mut answer: Answer) -> Answer {
    answer.status = StatusCode::NOT_MODIFIED;
    answer.body = crate::policy::answer::AnswerBody::Raw(bytes::Bytes::new());
    for name in [
        CONTENT_TYPE,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        ACCEPT_RANGES,
    ] {
        answer.headers.remove(name);
    }
    answer
}

/// Whether the client has this response already (RFC 9110, 13.1).
fn is_unchanged(stored: &HeaderMap, asked: &HeaderMap) -> bool {
    let own = stored.get(ETAG).map(|tag| weak(tag.as_bytes()));
    let mut tags = asked.get_all(IF_NONE_MATCH).iter().peekable();
    if tags.peek().is_some() {
        return tags.any(|list| {
            let mut list = list.as_bytes().split(|byte| *byte == b',');
            list.any(|tag| {
                let tag = tag.trim_ascii();
                tag == b"*" || own.is_some_and(|own| own == weak(tag))
            })
        });
    }
    match (
        date(stored.get(LAST_MODIFIED)),
        date(asked.get(IF_MODIFIED_SINCE)),
    ) {
        (Some(modified), Some(since)) => modified <= since,
        _ => false,
    }
}

/// An entity tag without its mark of weakness, for a weak comparison.
fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn date(value: Option<&HeaderValue>) -> Option<SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

/// Whether the client may get a part: it has to have the rest of the same response (RFC 9110,
/// 13.1.5).
fn may_be_part(stored: &HeaderMap, asked: &HeaderMap) -> bool {
    let Some(condition) = asked.get(IF_RANGE) else {
        return true;
    };
    let is_weak = condition.as_bytes().starts_with(b"W/");
    let validators = [stored.get(ETAG), stored.get(LAST_MODIFIED)];
    !is_weak && validators.contains(&Some(condition))
}

/// No byte of a range is there.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// The bytes that a single range names (RFC 9110, 14.1.2); `None` if the header is to be ignored,
/// as one with several ranges is.
fn part(range: &str, length: usize) -> Option<Result<Range<usize>, Unsatisfiable>> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // More than the largest number is more than the length.
        is_number.then(|| digits.parse().unwrap_or(usize::MAX))
    };
    let found = match (first, last) {
        ("", last) => {
            let start = length.saturating_sub(number(last)?);
            start..length
        }
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(match found.start < found.end {
        true => Ok(found),
        false => Err(Unsatisfiable),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::super::store::tests::stored;
    use super::*;
    use crate::policy::answer::AnswerBody;

    const DAY: &str = "Mon, 01 Jan 2001 00:00:00 GMT";

    /// Status and body of the answer to a `GET` with these headers.
    fn asked(lines: &[(HeaderName, &str)]) -> (u16, Vec<u8>) {
        let mut response = stored(b"0123456789");
        response.headers.insert(ETAG, "\"a\"".parse().unwrap());
        let day = DAY.parse().unwrap();
        response.headers.insert(LAST_MODIFIED, day);
        let asked = lines.iter();
        let asked = asked.map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let answer = answer(&response, &Method::GET, &asked.collect());
        let AnswerBody::Raw(body) = &answer.body else {
            panic!("the body is not that of the response");
        };
        if answer.status == StatusCode::PARTIAL_CONTENT {
            assert!(answer.headers.contains_key(CONTENT_RANGE));
        }
        (answer.status.as_u16(), body.to_vec())
    }

    #[test]
    fn a_client_that_has_the_response_gets_a_304() {
        let later = "Tue, 02 Jan 2001 00:00:00 GMT";
        let earlier = "Sun, 31 Dec 2000 00:00:00 GMT";
        for (lines, expected) in [
            (vec![(IF_NONE_MATCH, "\"a\"")], 304),
            (vec![(IF_NONE_MATCH, "\"b\", W/\"a\"")], 304),
            (vec![(IF_NONE_MATCH, "*")], 304),
            (vec![(IF_NONE_MATCH, "\"b\"")], 200),
            (vec![(IF_MODIFIED_SINCE, DAY)], 304),
            (vec![(IF_MODIFIED_SINCE, later)], 304),
            (vec![(IF_MODIFIED_SINCE, earlier)], 200),
            (vec![(IF_MODIFIED_SINCE, "never")], 200),
            // The tag decides if there is one.
            (
                vec![(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, later)],
                200,
            ),
        ] {
            assert_eq!(asked(&lines).0, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_client_gets_the_part_that_it_asks_for() {
        for (lines, status, body) in [
            (vec![(RANGE, "bytes=0-0")], 206, "0"),
            (vec![(RANGE, "bytes=2-4")], 206, "234"),
            (vec![(RANGE, "bytes=8-99999999999999999999999")], 206, "89"),
            (vec![(RANGE, "bytes=-3")], 206, "789"),
            (vec![(RANGE, "bytes=-99")], 206, "0123456789"),
            (vec![(RANGE, "bytes=7-")], 206, "789"),
            (vec![(RANGE, "bytes=10-")], 416, ""),
            (vec![(RANGE, "bytes=-0")], 416, ""),
            (vec![(RANGE, "bytes=4-2")], 200, "0123456789"),
            (vec![(RANGE, "bytes=0-1,3-4")], 200, "0123456789"),
            (vec![(RANGE, "lines=0-1")], 200, "0123456789"),
            (vec![(RANGE, "bytes=0-0"), (IF_RANGE, "\"a\"")], 206, "0"),
            (vec![(RANGE, "bytes=0-0"), (IF_RANGE, DAY)], 206, "0"),
            (
                vec![(RANGE, "bytes=0-0"), (IF_RANGE, "\"b\"")],
                200,
                "0123456789",
            ),
            (
                vec![(RANGE, "bytes=0-0"), (IF_RANGE, "W/\"a\"")],
                200,
                "0123456789",
            ),
        ] {
            let (found, bytes) = asked(&lines);
            assert_eq!((found, &*bytes), (status, body.as_bytes()), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_inside_of_the_body(range in "(bytes)?=?[0-9]{0,3}-?[0-9]{0,25}", length in 0_usize..200) {
            if let Some(Ok(part)) = part(&range, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }
}
