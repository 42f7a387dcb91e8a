//! The key of a response in the cache, computed as Kong computes it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, Method, Version};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::urlencoded;

/// The headers in which a trusted proxy says how the client's request has reached it.
const FORWARDED: [&str; 5] = [
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-path",
    "x-forwarded-prefix",
];

/// A key, as in `X-Cache-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Reads 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        if text.len() != 2 * key.len() || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(key))
    }

    /// The 64 hexadecimal digits.
    pub fn text(&self) -> String {
        const DIGITS: [char; 16] = [
            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
        ];
        let bytes = self.0.iter();
        bytes
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| DIGITS[usize::from(digit)])
            .collect()
    }
}

/// Where the responses to the requests of one meaning are. Requests of different meanings may have
/// one key: those to two hosts of a route, for example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) key: Key,
    /// A hash of what distinguishes these requests.
    parts: u64,
}

impl Slot {
    pub(super) fn of(key: Key, parts: &[u8]) -> Self {
        let parts = PARTS_HASH.hash_one(parts);
        Self { key, parts }
    }
}

/// Hashes the parts of requests, so that no client can find two with the same hash.
static PARTS_HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The parts of a request that tell it from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyParts<'r> {
    pub(super) consumer: Option<Uuid>,
    pub(super) route: Uuid,
    pub(super) method: &'r Method,
    /// Path and query as the client sent them.
    pub(super) target: &'r str,
    pub(super) version: Version,
    pub(super) query: Option<&'r str>,
    pub(super) headers: &'r HeaderMap,
    /// `http` or `https`, and the port that accepted the connection. The endpoint is told them.
    pub(super) scheme: &'r str,
    pub(super) port: u16,
    /// The host that the client has requested, which the endpoint is told.
    pub(super) host: &'r str,
    /// Whether the endpoint is told what the headers say of the client's request instead.
    pub(super) keeps_forwarded: bool,
    /// What another policy has put in place of the path of the request to the endpoint.
    pub(super) upstream_path: Option<&'r str>,
    /// What another policy has put in place of the host.
    pub(super) upstream_host: Option<&'r str>,
}

/// What a plugin takes for the same resource.
#[derive(Debug, Default)]
pub(super) struct Same {
    pub(super) ignore_case: bool,
    /// The arguments that tell requests apart; all if there are none.
    pub(super) arguments: Vec<String>,
    /// The headers that tell requests apart, in the words of the settings.
    pub(super) headers: Vec<(String, Option<HeaderName>)>,
}

/// What a request is told from others by: its slot, with its key, and the texts that both were made
/// of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) slot: Slot,
    /// The parts in a form in which no two are alike. Kong joins them by characters that they may
    /// contain, so two requests of a different meaning may have the same key.
    pub(super) parts: Box<[u8]>,
}

/// A name with its values; `None` for an argument without `=`.
type Field = (Vec<u8>, Vec<Option<Vec<u8>>>);

impl Identity {
    pub(super) fn of(asked: &KeyParts<'_>, same: &Same) -> Self {
        let arguments = same.select_arguments(asked.query);
        let headers = same.select_headers(asked.headers);
        let mut prefix = asked.route.to_string();
        if let Some(consumer) = asked.consumer {
            prefix = format!("{consumer}:{prefix}");
        }
        let method = asked.method.as_str();
        // The request line up to the query; without a query it includes the version.
        let mut line = match asked.target.split_once('?') {
            Some((path, _)) => format!("{method} {path}"),
            None => format!("{method} {} {:?}", asked.target, asked.version),
        };
        if same.ignore_case {
            line.make_ascii_lowercase();
        }
        let mut joined = format!("{prefix}|{method}|{line}|").into_bytes();
        join(&arguments, &mut joined);
        joined.push(b'|');
        join(&headers, &mut joined);
        let mut parts = Vec::with_capacity(joined.len() + 32);
        measured(&mut parts, line.as_bytes());
        // Kong's key has none of these, so a client could have the answer to its own host given to
        // others, or a redirect from http to https to those who came by https.
        measured(&mut parts, asked.scheme.as_bytes());
        parts.extend_from_slice(&asked.port.to_be_bytes());
        for name in FORWARDED {
            let kept = asked.keeps_forwarded.then_some(asked.headers);
            let values: Vec<_> = kept
                .map(|kept| kept.get_all(name).iter().collect())
                .unwrap_or_default();
            parts.extend_from_slice(&(values.len() as u64).to_be_bytes());
            for value in values {
                measured(&mut parts, value.as_bytes());
            }
        }
        for text in [Some(asked.host), asked.upstream_path, asked.upstream_host] {
            measured(&mut parts, text.unwrap_or_default().as_bytes());
        }
        for fields in [&arguments, &headers] {
            parts.extend_from_slice(&(fields.len() as u64).to_be_bytes());
            for (name, values) in fields {
                measured(&mut parts, name);
                parts.extend_from_slice(&(values.len() as u64).to_be_bytes());
                for value in values {
                    parts.push(value.is_some().into());
                    measured(&mut parts, value.as_deref().unwrap_or_default());
                }
            }
        }
        Self {
            slot: Slot::of(Key(Sha256::digest(&joined).into()), &parts),
            parts: parts.into(),
        }
    }
}

fn measured(parts: &mut Vec<u8>, text: &[u8]) {
    parts.extend_from_slice(&(text.len() as u64).to_be_bytes());
    parts.extend_from_slice(text);
}

impl Same {
    fn select_arguments(&self, query: Option<&str>) -> Vec<Field> {
        let mut all: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>> = BTreeMap::new();
        for argument in query.unwrap_or_default().split('&') {
            for (name, value) in urlencoded::pairs(argument.as_bytes()) {
                let value = argument.contains('=').then(|| value.into_owned());
                all.entry(name.into_owned()).or_default().push(value);
            }
        }
        if self.arguments.is_empty() {
            return all.into_iter().map(sorted).collect();
        }
        let named = self.arguments.iter();
        named
            .filter_map(|name| Some((name.clone().into_bytes(), all.get(name.as_bytes())?.clone())))
            .map(sorted)
            .collect()
    }

    fn select_headers(&self, sent: &HeaderMap) -> Vec<Field> {
        let named = self.headers.iter();
        named
            .filter_map(|(word, name)| {
                let values = sent.get_all(name.as_ref()?).iter();
                let values: Vec<_> = values.map(|v| Some(v.as_bytes().to_vec())).collect();
                (!values.is_empty()).then(|| sorted((word.clone().into_bytes(), values)))
            })
            .collect()
    }
}

fn sorted((name, mut values): Field) -> Field {
    values.sort();
    (name, values)
}

/// Writes fields as `name=value:name=value,value:name`.
fn join(fields: &[Field], joined: &mut Vec<u8>) {
    for (at, (name, values)) in fields.iter().enumerate() {
        if at > 0 {
            joined.push(b':');
        }
        joined.extend_from_slice(name);
        if let [None] = values.as_slice() {
            continue;
        }
        joined.push(b'=');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                joined.push(b',');
            }
            joined.extend_from_slice(value.as_deref().unwrap_or_default());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked<'r>(target: &'r str, headers: &'r HeaderMap) -> KeyParts<'r> {
        KeyParts {
            consumer: None,
            route: Uuid::from_u128(1),
            method: &Method::GET,
            target,
            version: Version::HTTP_11,
            query: target.split_once('?').map(|(_, query)| query),
            headers,
            scheme: "http",
            port: 8000,
            host: "",
            keeps_forwarded: false,
            upstream_path: None,
            upstream_host: None,
        }
    }

    fn identity(target: &str, headers: &HeaderMap, same: &Same) -> Identity {
        Identity::of(&asked(target, headers), same)
    }

    fn key(target: &str, same: &Same) -> Key {
        identity(target, &HeaderMap::new(), same).slot.key
    }

    fn digest(text: &str) -> Key {
        Key(Sha256::digest(text).into())
    }

    #[test]
    fn a_key_is_the_digest_of_kongs_five_parts() {
        let route = "00000000-0000-0000-0000-000000000001";
        let same = Same::default();
        for (target, expected) in [
            ("/a", format!("{route}|GET|GET /a HTTP/1.1||")),
            ("/a?", format!("{route}|GET|GET /a||")),
            ("/a?c=2&b=%31", format!("{route}|GET|GET /a|b=1:c=2|")),
            ("/a?b=2&b=1&a", format!("{route}|GET|GET /a|a:b=1,2|")),
            ("/a?b=", format!("{route}|GET|GET /a|b=|")),
        ] {
            assert_eq!(key(target, &same), digest(&expected), "{target}");
        }
        let consumer = Uuid::from_u128(2);
        let headers = HeaderMap::from_iter([
            ("x-b".parse().unwrap(), "2".parse().unwrap()),
            ("x-b".parse().unwrap(), "1".parse().unwrap()),
        ]);
        let same = Same {
            ignore_case: true,
            arguments: vec!["b".into(), "none".into()],
            headers: vec![
                ("X-B".into(), Some("x-b".parse().unwrap())),
                ("X-C".into(), Some("x-c".parse().unwrap())),
            ],
        };
        let asked = KeyParts {
            consumer: Some(consumer),
            method: &Method::HEAD,
            ..asked("/A?b=1&c=2", &headers)
        };
        assert_eq!(
            Identity::of(&asked, &same).slot.key,
            digest(&format!("{consumer}:{route}|HEAD|head /a|b=1|X-B=1,2"))
        );
    }

    #[test]
    fn requests_of_a_different_meaning_are_told_apart_although_their_keys_are_the_same() {
        let none = HeaderMap::new();
        let same = Same::default();
        for (one, other) in [
            ("/?a=1&b=2", "/?a=1%3Ab%3D2"),
            ("/?a=1&a=2", "/?a=1%2C2"),
            ("/?a=1", "/?a%3D1"),
        ] {
            let [one, other] = [one, other].map(|target| identity(target, &none, &same));
            assert_eq!(one.slot.key, other.slot.key);
            assert_ne!(one.slot, other.slot);
            assert_ne!(one.parts, other.parts);
        }
    }

    #[test]
    fn requests_by_another_scheme_or_port_are_told_apart_although_their_keys_are_the_same() {
        let headers = HeaderMap::new();
        let of = |scheme, port| {
            let asked = KeyParts {
                scheme,
                port,
                host: "a.example",
                ..asked("/", &headers)
            };
            Identity::of(&asked, &Same::default())
        };
        let plain = of("http", 8000);
        assert_eq!(plain, of("http", 8000));
        for other in [of("https", 8000), of("http", 8001)] {
            assert_eq!(plain.slot.key, other.slot.key);
            assert_ne!(plain.parts, other.parts);
        }
    }

    #[test]
    fn what_a_proxy_says_of_a_request_tells_it_apart_if_the_endpoint_is_told() {
        let of = |proto: &'static str, keeps_forwarded| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("x-forwarded-proto"),
                http::HeaderValue::from_static(proto),
            )]);
            let asked = KeyParts {
                keeps_forwarded,
                ..asked("/", &headers)
            };
            Identity::of(&asked, &Same::default())
        };
        assert_eq!(of("http", true), of("http", true));
        assert_eq!(of("http", true).slot.key, of("https", true).slot.key);
        assert_ne!(of("http", true).parts, of("https", true).parts);
        assert_eq!(of("http", false), of("https", false));
    }

    proptest! {
        #[test]
        fn the_order_of_arguments_does_not_matter(
            mut arguments in proptest::collection::vec("[a-c](=[a-c%41]{0,2})?", 1..6),
        ) {
            let one = format!("/?{}", arguments.join("&"));
            arguments.reverse();
            let other = format!("/?{}", arguments.join("&"));
            let (none, same) = (HeaderMap::new(), Same::default());
            prop_assert_eq!(identity(&one, &none, &same), identity(&other, &none, &same));
        }

        #[test]
        fn a_key_is_read_from_its_text(bytes: [u8; 32]) {
            let key = Key(bytes);
            prop_assert_eq!(Key::parse(&key.text()), Some(key));
            prop_assert_eq!(Key::parse(&key.text()[1..]), None);
        }
    }
}
