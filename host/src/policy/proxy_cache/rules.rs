//! Which responses are stored, and how long they answer requests.

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};

use super::directives::{self, RequestDirectives};

/// A media type with its parameters, in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    kind: String,
    subkind: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let (kind, subkind) = parts.next()?.split_once('/')?;
        let parameters = parts.filter(|part| !part.is_empty());
        let mut parameters: Vec<_> = parameters
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                let value = value.trim().trim_matches('"');
                (name.trim().to_owned(), value.to_owned())
            })
            .collect();
        parameters.sort();
        Some(Self {
            kind: kind.to_owned(),
            subkind: subkind.to_owned(),
            parameters,
        })
    }

    /// Whether a media type of the settings, which may have `*` as its type or subtype, includes
    /// this one. The parameters have to be the same. Source: Kong.
    pub(super) fn is_in(&self, range: &Self) -> bool {
        let fits = |range: &str, found: &str| range == "*" || range == found;
        fits(&range.kind, &self.kind)
            && fits(&range.subkind, &self.subkind)
            && range.parameters == self.parameters
    }
}

/// The media type of a response; `None` if it has none, or several.
pub(super) fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(single), None) => MediaType::parse(single.to_str().ok()?),
        _ => None,
    }
}

/// Whether a response is the whole answer to any request of its key. A part of a body, and a
/// response to a condition, answer only the request that asked for them.
pub(super) fn is_whole(status: StatusCode, headers: &HeaderMap) -> bool {
    !status.is_informational()
        && status != StatusCode::PARTIAL_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !headers.contains_key(CONTENT_RANGE)
}

/// Whether a request with credentials, or one that does not want the cache, passes it by. Only with
/// `cache_control`.
pub(super) fn bypasses_cache(headers: &HeaderMap) -> bool {
    let directives = RequestDirectives::of(headers);
    directives.no_store || directives.no_cache || headers.contains_key(AUTHORIZATION)
}

/// How long a response is fresh by its own words (RFC 9111). Used with `cache_control`.
#[derive(Debug)]
pub(super) struct Freshness(Box<CachePolicy>);

impl Freshness {
    /// `None` if the response may not be stored by a shared cache, or is stale from the start.
    pub(super) fn of(
        asked: (&Method, &HeaderMap),
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Option<Self> {
        // The library knows some statuses only. Which ones are stored, the settings say, and what a
        // response says about its freshness holds with any of them (RFC 9111, 3).
        let mut response = Response::new(());
        *response.headers_mut() = directives::of_response(headers);
        let options = CacheOptions {
            // Only what the response says counts. Source: Kong.
            cache_heuristic: 0.0,
            ..CacheOptions::default()
        };
        let request = asking(asked.0, asked.1);
        let policy = CachePolicy::new_options(&request, &response, now, options);
        let is_fresh = policy.is_storable() && !policy.is_stale(now);
        is_fresh.then(|| Self(Box::new(policy)))
    }

    /// How long it will be fresh.
    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.0.time_to_live(now)
    }

    /// Its age, that in other caches included.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        self.0.age(now)
    }

    /// Whether it may answer a request, whose directives are taken into account.
    pub(super) fn answers(&self, method: &Method, headers: &HeaderMap, now: SystemTime) -> bool {
        let found = self.0.before_request(&asking(method, headers), now);
        matches!(found, BeforeRequest::Fresh(_))
    }
}

/// A request with only the headers that say what a cache may do.
fn asking(method: &Method, headers: &HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.headers_mut() = directives::of_request(headers);
    request
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::HeaderName;

    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_media_type_matches_with_its_parameters_and_wildcards() {
        for (found, range, expected) in [
            ("application/json", "application/json", true),
            ("Application/JSON", "application/json", true),
            ("application/json; charset=utf-8", "application/json", false),
            ("application/json", "application/json; charset=utf-8", false),
            (
                "application/json;charset=UTF-8",
                "application/json; charset=utf-8",
                true,
            ),
            ("text/html; a=1; b=2", "text/html; b=2; a=1", true),
            ("text/html", "text/*", true),
            ("text/html", "*/*", true),
            ("text/html; a=1", "*/*", false),
            ("text/html", "*/plain", false),
        ] {
            let [found, range] = [found, range].map(|text| MediaType::parse(text).unwrap());
            assert_eq!(found.is_in(&range), expected, "{found:?} {range:?}");
        }
        assert_eq!(MediaType::parse("text"), None);
        let two = [("content-type", "a/b"), ("content-type", "a/b")];
        assert_eq!(media_type(&map(&two)), None);
        assert_eq!(media_type(&map(&[])), None);
    }

    #[test]
    fn a_part_of_a_response_is_not_stored() {
        let none = HeaderMap::new();
        assert!(is_whole(StatusCode::OK, &none));
        assert!(!is_whole(StatusCode::PARTIAL_CONTENT, &none));
        assert!(!is_whole(StatusCode::NOT_MODIFIED, &none));
        let part = map(&[("content-range", "bytes 0-1/2")]);
        assert!(!is_whole(StatusCode::OK, &part));
    }

    #[test]
    fn the_directives_of_a_request_are_found_in_any_case() {
        let found = RequestDirectives::of(&map(&[
            ("cache-control", "max-age=1, No-Store"),
            ("cache-control", "only-if-cached"),
        ]));
        assert!(found.no_store && found.only_if_cached && !found.no_cache);
        assert!(bypasses_cache(&map(&[("authorization", "x")])));
        assert!(!bypasses_cache(&map(&[("cache-control", "max-age=1")])));
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// How long a response is fresh, in seconds; `None` if it is not stored.
    fn fresh(lines: &[(&'static str, &str)]) -> Option<u64> {
        let now = SystemTime::now();
        let none = HeaderMap::new();
        let freshness = Freshness::of((&Method::GET, &none), &map(lines), now);
        Some(freshness?.left(now).as_secs())
    }

    #[test]
    fn a_response_is_fresh_as_long_as_it_says() {
        let now = SystemTime::now();
        let date = httpdate::fmt_http_date(now);
        let later = httpdate::fmt_http_date(now + MINUTE);
        for (lines, expected) in [
            (vec![], None),
            (vec![("cache-control", "max-age=60")], Some(60)),
            (vec![("cache-control", "Max-Age=60")], Some(60)),
            (vec![("cache-control", "s-maxage=30, max-age=60")], Some(30)),
            (
                vec![("cache-control", "max-age=60"), ("age", "20")],
                Some(40),
            ),
            (vec![("date", &*date), ("expires", &*later)], Some(60)),
            (vec![("expires", "0")], None),
            (
                vec![("cache-control", "max-age=60"), ("age", "40, 10")],
                Some(20),
            ),
            (vec![("cache-control", "a=\"b, max-age=60\"")], None),
            (
                vec![("cache-control", "max-age=60, proxy-revalidate")],
                Some(60),
            ),
            (vec![("cache-control", "max-age=0")], None),
            (vec![("cache-control", "private, max-age=60")], None),
            (vec![("cache-control", "no-store, max-age=60")], None),
            (vec![("cache-control", "no-cache, max-age=60")], None),
            (
                vec![("cache-control", "max-age=60"), ("set-cookie", "a=b")],
                None,
            ),
            (
                vec![
                    ("date", &*date),
                    ("last-modified", "Mon, 01 Jan 2001 00:00:00 GMT"),
                ],
                None,
            ),
        ] {
            assert_eq!(fresh(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_request_says_how_fresh_or_stale_a_response_may_be() {
        let now = SystemTime::now();
        let none = HeaderMap::new();
        let of = |cache_control| {
            let headers = map(&[("cache-control", cache_control)]);
            Freshness::of((&Method::GET, &none), &headers, now).unwrap()
        };
        let (plain, strict) = (of("max-age=60"), of("max-age=60, must-revalidate"));
        assert!(!of("s-maxage=1").answers(
            &Method::GET,
            &map(&[("cache-control", "max-stale")]),
            now + MINUTE
        ));
        for (after, wish, by_plain, by_strict) in [
            (10, "", true, true),
            (10, "max-age=5", false, false),
            (10, "max-age=20", true, true),
            (10, "min-fresh=55", false, false),
            (10, "min-fresh=40", true, true),
            (90, "", false, false),
            (90, "max-stale", true, false),
            (90, "max-stale=20", false, false),
            (90, "max-stale=40", true, false),
        ] {
            let wish_headers = map(&[("cache-control", wish)]);
            let then = now + Duration::from_secs(after);
            let answers = |f: &Freshness| f.answers(&Method::GET, &wish_headers, then);
            assert_eq!(answers(&plain), by_plain, "{after} {wish}");
            assert_eq!(answers(&strict), by_strict, "{after} {wish}");
        }
        assert_eq!(plain.age(now + MINUTE), MINUTE);
    }

    #[test]
    fn no_age_of_an_endpoint_is_too_great() {
        let now = SystemTime::now();
        let none = HeaderMap::new();
        let headers = map(&[
            ("cache-control", "max-age=18446744073709551615"),
            ("age", "18446744073709551614"),
        ]);
        assert!(Freshness::of((&Method::GET, &none), &headers, now).is_none());
        let headers = map(&[
            ("cache-control", "max-age=18446744073709551615"),
            ("age", "2147483647"),
        ]);
        let freshness = Freshness::of((&Method::GET, &none), &headers, now).unwrap();
        let later = now + Duration::from_secs(1 << 40);
        assert!(!freshness.answers(&Method::GET, &none, later));
    }
}
