//! Session affinity: the number that ties a request to an endpoint, and the cookie that carries it.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, SET_COOKIE};
use http::{HeaderName, Method};
use twox_hash::XxHash64;
use uuid::Uuid;

use crate::balancer::{self, BodyAnswer, ReadBody};
use crate::cookie::cookie_of;
use crate::pattern::Pattern;
use crate::trace::BodyQuestion;
use crate::upstream::{AffinityPolicy, Cookie, Key, SessionKey};
use crate::urlencoded;

/// The facts of a request: hash keys are read from them, and balancers can query them.
pub(super) struct RequestFacts<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) ip: &'a HeaderValue,
    /// The consumer that the request is from, or else the credential that it has.
    pub(super) consumer: Option<Uuid>,
    /// The normalised path.
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a str>,
    /// The regular expression that matched the path, if the route has one.
    pub(super) regex: Option<&'a Pattern>,
    /// The body, as far as it was read ahead for a balancer that asks about it. Boxed, because this
    /// is part of the future of each request, and few balancers ask.
    pub(super) body: Option<Box<ReadBody<'a>>>,
}

/// The affinity of a request to an endpoint.
#[derive(Default)]
pub(super) struct Affinity<'a> {
    /// The affinity that is passed to the balancer.
    pub(super) value: Option<u64>,
    cookie: Option<NewCookie<'a>>,
}

/// A cookie for the client to keep.
enum NewCookie<'a> {
    /// The cookie has this value, for any endpoint.
    Value(&'a Cookie, String),
    /// The cookie has the sealed id of the endpoint. It is not sent if `value` is that id already.
    Endpoint(&'a Cookie, &'a SessionKey),
}

impl<'a> Affinity<'a> {
    pub(super) fn of(policy: &'a AffinityPolicy, facts: &RequestFacts<'_>) -> Self {
        match policy {
            AffinityPolicy::Session(cookie, key) => {
                let sent = cookie_of(facts.headers, &cookie.name);
                let digits = sent.and_then(|value| std::str::from_utf8(value).ok());
                let sealed = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                Self {
                    value: sealed.map(|sealed| key.open_seal(sealed)),
                    cookie: Some(NewCookie::Endpoint(cookie, key)),
                }
            }
            AffinityPolicy::Hash {
                on,
                fallback,
                cookie,
            } => {
                for key in [on, fallback] {
                    if let Some(text) = read(key, cookie, facts) {
                        return Self {
                            value: Some(XxHash64::oneshot(0, &text)),
                            cookie: None,
                        };
                    }
                    if *key == Key::Cookie {
                        let value = Uuid::new_v4().to_string();
                        return Self {
                            value: Some(XxHash64::oneshot(0, value.as_bytes())),
                            cookie: Some(NewCookie::Value(cookie, value)),
                        };
                    }
                }
                Self::default()
            }
        }
    }

    /// Adds the gateway's cookie, if any, to the response of an endpoint. It replaces a cookie of
    /// the same name that the endpoint has set.
    pub(super) fn set_cookie(&self, headers: &mut HeaderMap, endpoint: u64) {
        let (cookie, value) = match &self.cookie {
            Some(NewCookie::Value(cookie, value)) => (cookie, Cow::Borrowed(value)),
            Some(NewCookie::Endpoint(cookie, key)) if self.value != Some(endpoint) => {
                (cookie, Cow::Owned(format!("{:016x}", key.seal(endpoint))))
            }
            _ => return,
        };
        let Cookie { name, path } = cookie;
        let text = format!("{name}={value}; Path={path}; SameSite=Lax; HttpOnly");
        let Ok(text) = HeaderValue::try_from(text) else {
            return;
        };
        let own = |value: &HeaderValue| {
            let rest = value.as_bytes().strip_prefix(name.as_bytes());
            rest.is_some_and(|rest| rest.starts_with(b"="))
        };
        if headers.get_all(SET_COOKIE).iter().any(own) {
            let all = headers.get_all(SET_COOKIE).iter();
            let others: Vec<HeaderValue> = all.filter(|value| !own(value)).cloned().collect();
            headers.remove(SET_COOKIE);
            for value in others {
                headers.append(SET_COOKIE, value);
            }
        }
        headers.append(SET_COOKIE, text);
    }
}

/// Reads the value of a key from a request.
fn read<'a>(key: &Key, cookie: &Cookie, facts: &RequestFacts<'a>) -> Option<Cow<'a, [u8]>> {
    match key {
        Key::None => None,
        Key::Consumer => Some(facts.consumer?.to_string().into_bytes().into()),
        Key::Ip => Some(facts.ip.as_bytes().into()),
        Key::Path => Some(facts.path.into()),
        Key::Cookie => cookie_of(facts.headers, &cookie.name).map(Cow::from),
        Key::Header(name) => header_of(facts.headers, name),
        Key::QueryArg(name) => {
            let pairs = urlencoded::pairs(facts.query?.as_bytes());
            let own = pairs.filter(|(found, _)| **found == *name.as_bytes());
            let mut values: Vec<Cow<'_, [u8]>> = own.map(|(_, value)| value).collect();
            values.sort_unstable();
            (!values.is_empty()).then(|| values.join(&b","[..]).into())
        }
        Key::UriCapture(group) => facts.regex?.capture(facts.path, group).map(Cow::from),
    }
}

/// The value of a header. Several headers of that name are joined into one list.
fn header_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next()?;
    Some(match values.next() {
        None => first.into(),
        Some(second) => {
            let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
            all.join(&b", "[..]).into()
        }
    })
}

impl balancer::RequestFacts for RequestFacts<'_> {
    fn method(&self) -> Option<Cow<'_, str>> {
        Some(self.method.as_str().into())
    }

    fn path(&self) -> Option<Cow<'_, str>> {
        Some(String::from_utf8_lossy(self.path))
    }

    fn query(&self) -> Option<Cow<'_, str>> {
        self.query.map(Cow::Borrowed)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        match header_of(self.headers, &name)? {
            Cow::Borrowed(value) => Some(String::from_utf8_lossy(value)),
            Cow::Owned(value) => Some(String::from_utf8_lossy(&value).into_owned().into()),
        }
    }

    fn headers(&self, each: &mut dyn FnMut(&str, &[u8])) {
        for (name, value) in self.headers {
            each(name.as_str(), value.as_bytes());
        }
    }

    fn client(&self) -> Option<Cow<'_, str>> {
        Some(String::from_utf8_lossy(self.ip.as_bytes()))
    }

    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        Some(self.body.as_ref()?.start(most).into())
    }

    fn keep_body(&self, most: usize) -> Option<(Bytes, bool)> {
        Some(self.body.as_ref()?.keep(most))
    }

    fn of_body(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        self.body.as_ref()?.answer(question)
    }

    fn prepare(&self, questions: &[BodyQuestion]) {
        if let Some(body) = &self.body {
            body.prepare(questions);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn text(key: &Key, lines: &[(&'static str, &str)], query: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let regex = Pattern::new("/users/(?P<id>[0-9]+)", "^", &mut { 1 << 20 }).unwrap();
        let facts = RequestFacts {
            method: &Method::GET,
            headers: &headers,
            ip: &HeaderValue::from_static("192.0.2.1"),
            consumer: Some(Uuid::from_u128(0x1f)),
            path: b"/users/42/x",
            query,
            regex: Some(&regex),
            body: None,
        };
        let cookie = Cookie {
            name: "c".into(),
            path: "/".into(),
        };
        read(key, &cookie, &facts).map(|text| String::from_utf8(text.into_owned()).unwrap())
    }

    #[test]
    fn keys_are_read_as_in_kong() {
        let header = Key::Header("x-user".parse().unwrap());
        let arg = Key::QueryArg("a".into());
        let some = |text: &str| Some(text.to_owned());
        let consumer = some("00000000-0000-0000-0000-00000000001f");
        assert_eq!(text(&Key::Consumer, &[], None), consumer);
        assert_eq!(text(&Key::Ip, &[], None), some("192.0.2.1"));
        assert_eq!(text(&Key::Path, &[], None), some("/users/42/x"));
        assert_eq!(text(&header, &[("x-user", "u")], None), some("u"));
        assert_eq!(
            text(&header, &[("x-user", "u"), ("x-user", "v")], None),
            some("u, v")
        );
        assert_eq!(text(&header, &[], None), None);
        assert_eq!(
            text(&Key::Cookie, &[("cookie", "d=1; c=2;cc=3")], None),
            some("2")
        );
        assert_eq!(text(&Key::Cookie, &[("cookie", "d=1; c=")], None), None);
        assert_eq!(text(&arg, &[], Some("b=1&a=z&a=%2F")), some("/,z"));
        assert_eq!(text(&arg, &[], Some("b=1")), None);
        assert_eq!(text(&arg, &[], None), None);
        let captured = |group: &str| text(&Key::UriCapture(group.into()), &[], None);
        assert_eq!(captured("id"), some("42"));
        assert_eq!(captured("1"), some("42"));
        assert_eq!(captured("2"), None);
        assert_eq!(captured("name"), None);
    }

    #[test]
    fn the_cookie_of_the_gateway_replaces_one_of_its_name() {
        let cookie = Cookie {
            name: "s".into(),
            path: "/p".into(),
        };
        let folder = tempfile::tempdir().unwrap();
        let key = SessionKey::open(folder.path()).unwrap();
        let mut affinity = Affinity {
            value: Some(7),
            cookie: Some(NewCookie::Endpoint(&cookie, &key)),
        };
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("s=theirs"));
        headers.append(SET_COOKIE, HeaderValue::from_static("ss=other"));
        affinity.set_cookie(&mut headers, 7);
        assert_eq!(headers.get_all(SET_COOKIE).iter().count(), 2);
        assert_eq!(headers[SET_COOKIE], "s=theirs");
        affinity.value = None;
        affinity.set_cookie(&mut headers, 7);
        let all: Vec<&HeaderValue> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(
            all,
            [
                "ss=other",
                format!("s={:016x}; Path=/p; SameSite=Lax; HttpOnly", key.seal(7)).as_str()
            ]
        );
    }

    #[test]
    fn a_hash_is_the_same_on_every_gateway() {
        // A changed value would move every key when a gateway is upgraded.
        assert_eq!(XxHash64::oneshot(0, b""), 0xef46_db37_51d8_e999);
        assert_eq!(XxHash64::oneshot(0, b"user-1"), 11_633_770_265_628_666_856);
    }
}
