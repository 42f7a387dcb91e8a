//! Which requests a stored response answers, by the headers that it names in `Vary` (RFC 9111,
//! 4.1).
//!
//! `Accept-Encoding` is compared by its meaning, because clients write the same in many ways and
//! could otherwise, with invented values, make the cache store any number of the same response.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The codings that endpoints commonly choose from, besides `identity`.
const CODINGS: [&str; 5] = ["gzip", "br", "zstd", "deflate", "compress"];

/// The headers that a response depends on, with their values in the request that it was the
/// response to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Varying {
    /// If the response depends on `Accept-Encoding`.
    encoding: Option<Encoding>,
    others: Vec<(HeaderName, Vec<HeaderValue>)>,
}

/// Which codings clients have to accept in order to get a response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Encoding {
    /// Those that the response has, in lower case.
    Coded(Vec<Box<str>>),
    /// The response is not coded, although the request accepted these.
    Plain(Accepted),
}

/// What a request accepts: a bit for each of [`CODINGS`], and whether it refuses `identity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Accepted {
    codings: u8,
    refuses_identity: bool,
}

impl Accepted {
    fn of(headers: &HeaderMap) -> Self {
        let codings = CODINGS.iter().enumerate();
        let codings = codings.filter(|(_, coding)| accepts(headers, coding));
        Self {
            codings: codings.fold(0, |all, (number, _)| all | 1 << number),
            refuses_identity: !accepts(headers, "identity"),
        }
    }

    /// Whether an endpoint that has sent no coding to a request that accepts this would send none
    /// to one that accepts `other`: it has fewer to choose from.
    fn includes(self, other: Self) -> bool {
        other.codings & !self.codings == 0 && (self.refuses_identity || !other.refuses_identity)
    }
}

impl Varying {
    /// What a response with these headers depends on; `None` if it depends on anything.
    pub(super) fn of(response: &HeaderMap, request: &HeaderMap) -> Option<Self> {
        let mut names = Vec::new();
        for list in response.get_all(VARY) {
            for name in list.to_str().ok()?.split(',').map(str::trim) {
                match name {
                    "" => {}
                    "*" => return None,
                    name => names.push(HeaderName::from_bytes(name.as_bytes()).ok()?),
                }
            }
        }
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        let mut varying = Self::default();
        for name in names {
            if name == ACCEPT_ENCODING {
                varying.encoding = Some(Encoding::of(response, request)?);
            } else {
                let values = request.get_all(&name).iter();
                // Copied, since a value that was read from a client keeps the client's whole buffer
                // in memory.
                let copies = values.map(|value| HeaderValue::from_bytes(value.as_bytes()));
                let copies = copies.collect::<Result<_, _>>().ok()?;
                varying.others.push((name, copies));
            }
        }
        Some(varying)
    }

    /// Whether the response answers a request with these headers.
    pub(super) fn answers(&self, request: &HeaderMap) -> bool {
        let mut others = self.others.iter();
        others.all(|(name, values)| request.get_all(name).iter().eq(values))
            && self.encoding.as_ref().is_none_or(|it| it.suits(request))
    }

    /// Whether a response with this is given to every request that one with `other` was given to.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let is_newer = match (&self.encoding, &other.encoding) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(other)) => own.covers(other),
        };
        is_newer && (self.others == other.others || other.others.is_empty())
    }

    /// The lengths of the values, in bytes.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        let values = self.others.iter().flat_map(|(_, values)| values);
        values.map(HeaderValue::len)
    }
}

impl Encoding {
    fn of(response: &HeaderMap, request: &HeaderMap) -> Option<Self> {
        let mut codings = Vec::new();
        for list in response.get_all(CONTENT_ENCODING) {
            let names = list.to_str().ok()?.split(',').map(str::trim);
            let names = names.map(str::to_ascii_lowercase);
            let names = names.filter(|name| !matches!(name.as_str(), "" | "identity"));
            codings.extend(names.map(String::into_boxed_str));
        }
        Some(match codings.is_empty() {
            true => Self::Plain(Accepted::of(request)),
            false => Self::Coded(codings),
        })
    }

    /// Whether the client can read the response, and would not get a coded one in its place.
    fn suits(&self, request: &HeaderMap) -> bool {
        match self {
            Self::Coded(codings) => codings.iter().all(|coding| accepts(request, coding)),
            Self::Plain(accepted) => accepted.includes(Accepted::of(request)),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Coded(own), Self::Coded(others)) => own == others,
            (Self::Plain(own), Self::Plain(other)) => own.includes(*other),
            _ => false,
        }
    }
}

/// Whether a request accepts a coding (RFC 9110, 12.5.3). Without `Accept-Encoding` it accepts
/// `identity` alone: clients that do not send it cannot decode anything.
fn accepts(request: &HeaderMap, coding: &str) -> bool {
    let mut by_wildcard = coding == "identity";
    for list in request.get_all(ACCEPT_ENCODING) {
        for element in String::from_utf8_lossy(list.as_bytes()).split(',') {
            let mut parts = element.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let is_refused = parts.any(is_zero_weight);
            if is_same_coding(name, coding) {
                return !is_refused;
            }
            if name == "*" {
                by_wildcard = !is_refused;
            }
        }
    }
    by_wildcard
}

/// Whether two names are of one coding (RFC 9110, 8.4.1).
fn is_same_coding(one: &str, other: &str) -> bool {
    let name = |name: &str| {
        let old = ["x-gzip", "x-compress"];
        let is_old = old.iter().any(|old| name.eq_ignore_ascii_case(old));
        if is_old { 2 } else { 0 }
    };
    let (one, other) = (one.get(name(one)..), other.get(name(other)..));
    one.zip(other)
        .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// Whether a parameter is the weight 0, such as `q=0` or `q=0.000`.
fn is_zero_weight(parameter: &str) -> bool {
    let Some((name, weight)) = parameter.split_once('=') else {
        return false;
    };
    name.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    /// What a response in this coding, to a request that accepts `accepted`, depends on.
    pub(in super::super) fn coded(coding: &str, accepted: &str) -> Varying {
        let response = map(&[("vary", "Accept-Encoding"), ("content-encoding", coding)]);
        Varying::of(&response, &map(&[("accept-encoding", accepted)])).unwrap()
    }

    fn answers(varying: &Varying, accepted: &str) -> bool {
        varying.answers(&map(&[("accept-encoding", accepted)]))
    }

    #[test]
    fn a_response_depends_on_the_headers_that_it_names() {
        let request = map(&[("origin", "a"), ("x-b", "c")]);
        let of = |lines: &[_]| Varying::of(&map(lines), &request);
        let none = of(&[]).unwrap();
        assert!(none.answers(&HeaderMap::new()));
        let origin = of(&[("vary", "Origin,, X-Other"), ("vary", "origin")]).unwrap();
        assert_eq!(origin.others.len(), 2);
        assert!(origin.answers(&request));
        assert!(!origin.answers(&map(&[("origin", "b")])));
        assert!(!origin.answers(&map(&[("origin", "a"), ("x-other", "")])));
        assert!(origin.replaces(&none) && !none.replaces(&origin));
        assert_eq!(of(&[("vary", "*")]), None);
        assert_eq!(of(&[("vary", "a b")]), None);
    }

    #[test]
    fn a_coded_response_answers_all_requests_that_accept_its_coding() {
        let gzip = coded("gzip", "gzip");
        for accepted in [
            "gzip",
            "GZip",
            "x-gzip",
            "br, gzip;q=0.1",
            "invented, gzip",
            "*",
            "br;q=0, *;q=0.5",
        ] {
            assert!(answers(&gzip, accepted), "{accepted}");
        }
        for accepted in [
            "",
            "br",
            "gzip;q=0",
            "gzip; Q=0.000",
            "*, gzip;q=0",
            "*;q=0",
            "identity",
        ] {
            assert!(!answers(&gzip, accepted), "{accepted}");
        }
        assert!(!gzip.answers(&HeaderMap::new()));
        assert!(!answers(&coded("gzip, br", "gzip, br"), "gzip"));
        assert!(answers(&coded("invented", "invented"), "gzip, invented"));
    }

    #[test]
    fn a_response_without_coding_answers_requests_that_leave_no_more_choice() {
        let plain = coded("identity", "gzip, br, invented");
        for accepted in ["gzip, br", "br", "", "identity", "other"] {
            assert!(answers(&plain, accepted), "{accepted}");
        }
        assert!(plain.answers(&HeaderMap::new()));
        for accepted in ["zstd", "*", "gzip, identity;q=0", "*;q=0"] {
            assert!(!answers(&plain, accepted), "{accepted}");
        }
        assert!(answers(&coded("", "identity;q=0"), "identity;q=0"));
    }

    proptest! {
        /// Whatever a client invents, the response to its request answers the request when it is
        /// repeated, and replaces the one that was stored for it before.
        #[test]
        fn a_request_is_answered_when_it_is_repeated(
            accepted in "[a-z*]{0,3}(gzip|br|identity|zstd)?(;q=[01](\\.[0-9])?)?, ?(gzip|\\*)?(;q=0)?",
        ) {
            let plain = coded("", &accepted);
            prop_assert!(answers(&plain, &accepted));
            prop_assert!(plain.replaces(&coded("", &accepted)));
        }
    }

    /// Of responses to all requests there can be, few are stored beside each other.
    #[test]
    fn invented_codings_do_not_add_variants() {
        let mut stored: Vec<Varying> = Vec::new();
        for number in 0..1000_u32 {
            let named = CODINGS.iter().enumerate();
            let named = named.filter(|(bit, _)| number >> bit & 1 == 1);
            let named: String = named.map(|(_, coding)| format!("{coding}, ")).collect();
            let accepted = format!("{named} invented-{number}");
            if stored.iter().any(|varying| answers(varying, &accepted)) {
                continue;
            }
            let chosen = ["br", "gzip"]
                .iter()
                .find(|coding| named.contains(**coding));
            let new = coded(chosen.unwrap_or(&""), &accepted);
            stored.retain(|old| !new.replaces(old));
            stored.push(new);
        }
        assert!(stored.len() <= 5, "{stored:?}");
    }
}
