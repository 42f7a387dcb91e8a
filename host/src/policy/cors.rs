//! `cors`: tells browsers which pages of other origins may use a service (Fetch standard, "CORS
//! protocol"). Source: Kong 3.9, `cors`.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

use super::answer::Answer;
use super::pattern_share::{MAX_BYTES, PatternShare};
use super::request::Request;
use super::response::Response;
use super::{Access, DryRun, Policy};
use crate::entity::plugin::cors::Config;
use crate::pattern::Pattern;

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");

/// Tells browsers which pages may use a service.
#[derive(Debug)]
pub(super) struct Cors {
    config: Config,
    origins: Origins,
    allow_headers: Option<HeaderValue>,
    allow_methods: HeaderValue,
    max_age: Option<HeaderValue>,
    expose_headers: Option<HeaderValue>,
}

/// The origins whose pages may use a service.
#[derive(Debug)]
enum Origins {
    All,
    /// This text is always sent, whatever the origin of the request is.
    One(HeaderValue),
    Listed {
        entries: Vec<Listed>,
        _share: PatternShare,
    },
}

/// An entry of the list of origins.
#[derive(Debug)]
struct Listed {
    form: Form,
    /// Whether it is compared with the host of an origin alone.
    is_host: bool,
}

#[derive(Debug)]
enum Form {
    /// An origin.
    Text(String),
    Regex(Pattern),
}

/// A preflight request: its answer has its headers already, or comes from the endpoint.
struct Preflight;

impl Cors {
    /// # Errors
    /// A regular expression is invalid or too large.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let list = |entries: &[String]| HeaderValue::from_str(&entries.join(",")).ok();
        let listed = |entries: &Option<Vec<String>>| {
            let entries = entries.as_deref().filter(|entries| !entries.is_empty());
            entries.and_then(list)
        };
        let max_age = config.max_age.map(|age| age.to_string());
        Ok(Self {
            origins: Origins::new(config.origins.as_deref().unwrap_or_default())?,
            allow_headers: listed(&config.headers),
            allow_methods: list(&config.methods).unwrap_or(HeaderValue::from_static("")),
            max_age: max_age.and_then(|age| HeaderValue::from_str(&age).ok()),
            expose_headers: listed(&config.exposed_headers),
            config,
        })
    }

    /// Sets the headers that say whether pages of this origin may use the service.
    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let mut is_varying = !matches!(self.origins, Origins::All);
        let (allowed, is_for_all) = self.origins.allowed(origin);
        let credentials = self.config.credentials;
        // With credentials, `*` would be the name of an origin.
        let allowed = match (is_for_all && credentials, origin) {
            (true, Some(origin)) => {
                is_varying = true;
                Some(origin.clone())
            }
            _ => allowed,
        };
        match allowed {
            Some(allowed) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            }
            None => {
                headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
            }
        }
        if credentials && (!is_for_all || origin.is_some()) {
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if is_varying && !varies_by_origin(headers) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }

    fn preflight(&self, asked: &HeaderMap) -> Answer {
        let mut answer = Answer::raw(StatusCode::OK, "");
        let headers = &mut answer.headers;
        self.allow(asked.get(ORIGIN), headers);
        let wished = asked.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(names) = self.allow_headers.as_ref().or(wished) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.allow_methods.clone());
        if let Some(max_age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
        let asks_for_private = asked.get(REQUEST_PRIVATE_NETWORK);
        if self.config.private_network && asks_for_private.is_some_and(|asks| asks == "true") {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        answer
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    headers.get_all(VARY).iter().any(|list| {
        let mut names = list.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"origin"))
    })
}

impl Origins {
    fn new(entries: &[String]) -> Result<Self, String> {
        match entries {
            [] => return Ok(Self::All),
            entries if entries.iter().any(|entry| entry == "*") => return Ok(Self::All),
            [single] if !is_regex(single) => {
                let text = HeaderValue::from_str(single);
                return text.map(Self::One).map_err(|error| error.to_string());
            }
            _ => {}
        }
        let mut room = MAX_BYTES;
        let listed = entries.iter().map(|entry| {
            // A regex without a colon is compared with the host alone. Source: Kong.
            let is_host = is_regex(entry) && !entry.contains(':');
            let form = if is_regex(entry) {
                // Anchored at both ends.
                let pattern = Pattern::new(&format!("(?:{entry})$"), "^", &mut room);
                Form::Regex(pattern.map_err(|error| error.to_string())?)
            } else {
                Form::Text(Origin::read(entry).text)
            };
            Ok(Listed { form, is_host })
        });
        let entries = listed.collect::<Result<_, String>>()?;
        Ok(Self::Listed {
            entries,
            _share: PatternShare::take(MAX_BYTES - room)?,
        })
    }

    /// The value of `Access-Control-Allow-Origin`, if there is one, and whether pages of all
    /// origins may use the service.
    fn allowed(&self, origin: Option<&HeaderValue>) -> (Option<HeaderValue>, bool) {
        let all = || (Some(HeaderValue::from_static("*")), true);
        let listed = match self {
            Self::All => return all(),
            Self::One(text) => return (Some(text.clone()), false),
            Self::Listed { entries, .. } => entries,
        };
        let Some(origin) = origin.and_then(|origin| origin.to_str().ok()) else {
            return (None, false);
        };
        let origin = Origin::read(origin);
        for Listed { form, is_host } in listed {
            let subject = match is_host {
                true => &origin.host,
                false => &origin.text,
            };
            let is_found = match form {
                Form::Text(text) => text == subject,
                Form::Regex(pattern) => pattern.find(subject.as_bytes()).is_some(),
            };
            if is_found {
                return (HeaderValue::from_str(&origin.text).ok(), false);
            }
        }
        (None, false)
    }
}

/// Whether an entry has a character that is in no origin. Source: Kong.
fn is_regex(entry: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte);
    !entry.bytes().all(is_plain)
}

/// An origin in the form that is compared: in lower case (RFC 6454, 4).
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    /// Scheme, host and port; without the port that the scheme has by default.
    text: String,
    host: String,
}

impl Origin {
    fn read(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Self {
                host: text.clone(),
                text,
            };
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let after_host = authority.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[after_host..].rfind(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(after_host + colon);
                (host, Some(&port[1..]))
            }
            None => (authority, None),
        };
        let port =
            port.filter(|port| !matches!((scheme, *port), ("http", "80") | ("https", "443")));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Self {
            text: format!("{scheme}://{host}{port}"),
            host: host.to_owned(),
        }
    }
}

impl Policy for Cors {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let headers = &request.head.headers;
        let is_preflight = request.head.method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return Access::PASS;
        }
        request.keep(Preflight);
        match self.config.preflight_continue {
            true => Access::PASS,
            false => self.preflight(&request.head.headers).into(),
        }
    }

    fn response(&self, response: &mut Response<'_>) {
        if response.kept::<Preflight>().is_some() {
            return;
        }
        let origin = response.request.headers.get(ORIGIN);
        self.allow(origin, &mut response.head.headers);
        if let Some(names) = &self.expose_headers {
            let headers = &mut response.head.headers;
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(entries: &[&str], origin: &str) -> Option<String> {
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        let origins = Origins::new(&entries).unwrap();
        let origin = HeaderValue::from_str(origin).unwrap();
        let (allowed, _) = origins.allowed(Some(&origin));
        allowed.map(|allowed| allowed.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_origin_is_allowed_by_a_text_a_host_or_a_regular_expression() {
        let a = "https://a.example";
        let others = "http://b.example";
        for (entries, origin, expected) in [
            (vec![], a, Some("*")),
            (vec!["*"], a, Some("*")),
            (vec![a], "https://c.example", Some(a)),
            (vec![others, "*"], a, Some("*")),
            (vec![others, a], a, Some(a)),
            (vec![others, a], "https://a.example:443", Some(a)),
            (vec![others, a], "https://a.example:8443", None),
            (vec![others, a], "http://a.example", None),
            (vec![others, "a.example"], a, None),
            (vec![others, "*"], a, Some("*")),
            (vec![r".*\.example"], a, Some(a)),
            (vec![r".*\.example"], "https://a.example.evil", None),
            (vec![r"a|b"], "http://ab", None),
            (vec![r"https://[a-c]\.example"], a, Some(a)),
            (vec![r"^https://[a-c]\.example$"], a, Some(a)),
            (vec![r"https://[a-c]\.example"], "https://a.example:1", None),
            (
                vec![r"[a-c]\.example"],
                "https://a.example:1",
                Some("https://a.example:1"),
            ),
            (vec!["null", others], "null", Some("null")),
            (vec!["https://A.example", others], a, Some(a)),
        ] {
            let found = allowed(&entries, origin);
            assert_eq!(found.as_deref(), expected, "{entries:?} {origin}");
        }
    }

    #[test]
    fn a_regular_expression_that_is_too_large_is_an_error() {
        let entries = [r"\w{1000}{1000}".to_owned()];
        assert!(Origins::new(&entries).unwrap_err().contains("too large"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_an_origin(text in r"(http|https|x|:|/|\[|\]|80|443|é){0,8}") {
            let origin = Origin::read(&text);
            prop_assert_eq!(Origin::read(&origin.text).host, origin.host);
        }
    }
}
