//! Properties that hold for everything clients send to the proxy; see `crate::fuzzing`.

#![expect(clippy::expect_used, reason = "a law that does not hold ends the run")]

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, SET_COOKIE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use super::affinity::{Affinity, RequestFacts};
use super::client_address::{self, Trust};
use super::connection_info::{ConnectionInfo, ListenerInfo};
use super::headers::{BodyLength, Forwarded, RequestHead};
use crate::config::{
    Listen, ListenAddress, RealIp, RealIpSource, ResponseHeaders, RouterFlavor, TrustedIps,
};

use super::client_host::host_of;
use super::matched::origin_form;
use super::request_id::RequestId;
use crate::cookie::cookie_of;
use crate::path::{self, PathHandling};
use crate::pattern::{PATTERN_MEMORY, Pattern};
use crate::router::{Arguments, Query, Route, Router};
use crate::upstream::{AffinityPolicy, Cookie, Key, SessionKey};

/// A router with every kind of match, so that some inputs match a route.
fn router() -> Router {
    let routes = [
        json!({"paths": ["/"]}),
        json!({"paths": ["/a", "/a/b"], "strip_path": false}),
        json!({"hosts": ["example.com", "*.example.com:8000", "example.*"], "methods": ["POST"]}),
        json!({"paths": ["~/users/(?<id>[^/]+)/(.*)$"], "regex_priority": 1}),
        json!({"headers": {"x-a": ["~*^b.$"], "x-c": ["d"]}}),
    ];
    let compile = |(number, fields): (u128, &Value)| {
        let mut row = json!({
            "id": Uuid::from_u128(number), "name": null, "protocols": ["http", "https"],
            "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
            "preserve_host": false, "request_buffering": true, "service": null,
        });
        for (key, value) in fields.as_object().into_iter().flatten() {
            row[key] = value.clone();
        }
        let row = serde_json::from_value(row).expect("a whole row");
        Arc::new(
            Route::compile(row, RouterFlavor::default(), PATTERN_MEMORY).expect("a valid route"),
        )
    };
    let routes: Vec<_> = (1..).zip(&routes).map(compile).collect();
    routes.iter().collect()
}

thread_local! {
    static ROUTER: RefCell<Router> = RefCell::new(router());
}

/// The head of a request as hyper passes it on; `None` where hyper refuses it.
fn parts(input: &[u8]) -> Option<Parts> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut fields);
    let complete = parsed.parse(input).ok()?;
    if complete.is_partial() {
        return None;
    }
    let target = Bytes::copy_from_slice(parsed.path?.as_bytes());
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from_maybe_shared(target).ok()?;
    *request.version_mut() = match parsed.version? {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request.into_parts().0)
}

/// For everything a client sends, an endpoint gets exactly one request, with exactly one framing.
pub fn request_head(input: &[u8]) {
    let Some(parts) = parts(input) else { return };
    let Some(host) = host_of(&parts) else {
        return;
    };
    let sent = host.sent();
    assert!(
        sent.bytes().all(|byte| byte.is_ascii_graphic()) && !sent.contains(['@', '/']),
        "{sent:?} is not a host"
    );
    let Some(target) = origin_form(&parts.uri) else {
        return;
    };
    let path = path::normalize(target.path().as_bytes());
    assert_eq!(path.first(), Some(&b'/'));
    assert_eq!(
        path::normalize(&path).first(),
        Some(&b'/'),
        "a normal path is no path"
    );
    let query = Query {
        method: &parts.method,
        host: host.name(),
        port: host.port.unwrap_or(8000),
        path: &path,
        headers: &parts.headers,
        server_name: None,
        arguments: Arguments::new(target.query()),
        client: None,
        local: None,
    };
    ROUTER.with_borrow(|router| {
        let Some(found) = router.route(&query) else {
            return;
        };
        assert!(found.matched <= path.len());
        affinity(&parts, &path, target.query(), found.regex);
        let stripped = if found.route.strip_path {
            found.matched
        } else {
            0
        };
        for base in ["/", "/base", "/base/"] {
            let target = path::target(base, &target, &path, stripped, PathHandling::V0);
            let prefix = path.get(..stripped).unwrap_or_default();
            forwarded(&parts, &target, sent, host.name(), prefix);
        }
    });
}

/// A key of every kind is either read or missing; reading it never fails.
fn affinity(parts: &Parts, path: &[u8], query: Option<&str>, regex: Option<&Pattern>) {
    let facts = RequestFacts {
        method: &parts.method,
        headers: &parts.headers,
        ip: &HeaderValue::from_static("192.0.2.7"),
        consumer: None,
        path,
        query,
        regex,
        body: None,
    };
    let keys = [
        Key::Path,
        Key::Header(HeaderName::from_static("x-a")),
        Key::QueryArg("a".into()),
        Key::UriCapture("id".into()),
        Key::UriCapture("2".into()),
        Key::Cookie,
    ];
    for on in keys {
        let policy = AffinityPolicy::Hash {
            on,
            fallback: Key::Ip,
            cookie: cookie("c"),
        };
        assert!(Affinity::of(&policy, &facts).value.is_some());
    }
}

fn cookie(name: &str) -> Cookie {
    Cookie {
        name: name.to_owned(),
        path: "/".into(),
    }
}

fn forwarded(parts: &Parts, target: &[u8], host_header: &str, host: &str, prefix: &[u8]) {
    let client = std::net::SocketAddr::from(([192, 0, 2, 7], 1234));
    let listen = Listen::new(ListenAddress::Ip(([0, 0, 0, 0], 8000).into()));
    let connection = ConnectionInfo::new(
        client,
        ListenerInfo::new(&listen, false, None, ResponseHeaders::default()),
    );
    let headers = &parts.headers;
    let body = match headers.get(CONTENT_LENGTH) {
        _ if headers.contains_key(TRANSFER_ENCODING) => BodyLength::Chunked,
        Some(length) => BodyLength::Known(length.len() as u64),
        None => BodyLength::None,
    };
    let forwarded = Forwarded {
        connection: &connection,
        client: connection.client(),
        host,
        path: parts.uri.path().as_bytes(),
        prefix,
        id: &RequestId::new(),
        version: parts.version,
        upgrade: None,
        body,
    };
    let mut text = Vec::new();
    RequestHead {
        method: &parts.method,
        target,
        host: host_header,
        headers,
        forwarded: &forwarded,
    }
    .write_http1(&mut text);
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut sent = httparse::Request::new(&mut fields);
    let parsed = sent.parse(&text);
    let shown = String::from_utf8_lossy(&text);
    assert_eq!(
        parsed,
        Ok(httparse::Status::Complete(text.len())),
        "{shown}"
    );
    assert_eq!(sent.method, Some(parts.method.as_str()));
    assert_eq!(sent.path.map(str::as_bytes), Some(target), "{shown}");
    assert_eq!(target.first(), Some(&b'/'), "{shown}");
    let count = |name: &str| {
        let fields = sent.headers.iter();
        fields.filter(|f| f.name.eq_ignore_ascii_case(name)).count()
    };
    assert_eq!((count("host"), count("connection")), (1, 1), "{shown}");
    let lengths = (count("content-length"), count("transfer-encoding"));
    let expected = match body {
        BodyLength::None => (0, 0),
        BodyLength::Known(_) => (1, 0),
        BodyLength::Chunked => (0, 1),
    };
    assert_eq!(lengths, expected, "{shown}");
    assert!(
        body == BodyLength::Chunked || count("trailer") == 0,
        "{shown}"
    );
    for hop in ["keep-alive", "proxy-connection", "upgrade", "expect"] {
        assert_eq!(count(hop), 0, "{shown}");
    }
}

/// The first line of the input is the name of a cookie, the others are headers. Other cookies in a
/// header do not change what is read, and an endpoint's own cookies are kept.
pub fn cookies(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let name = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let Some(name) = name.filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok()) else {
        return;
    };
    let values: Vec<HeaderValue> = lines
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let map = |of: HeaderName, values: &[HeaderValue]| -> HeaderMap {
        values
            .iter()
            .map(|value| (of.clone(), value.clone()))
            .collect()
    };
    let headers = map(COOKIE, &values);
    let found = cookie_of(&headers, name);
    if let Some(found) = found {
        let holds = |value: &HeaderValue| {
            let pair = [name.as_bytes(), b"=", found].concat();
            let mut windows = value.as_bytes().windows(pair.len());
            windows.any(|window| window == pair)
        };
        assert!(!found.is_empty() && values.iter().any(holds));
    }
    for odd in [&b"\xe9; "[..], b"\xff=\x80;", b"=;", b"==; ;"] {
        let beside = values.iter().map(|value| {
            let line = [odd, value.as_bytes()].concat();
            HeaderValue::from_bytes(&line).expect("no byte is a control character")
        });
        let beside = map(COOKIE, &beside.collect::<Vec<_>>());
        assert_eq!(cookie_of(&beside, name), found, "{odd:?}");
    }
    let facts = RequestFacts {
        method: &Method::GET,
        headers: &headers,
        ip: &HeaderValue::from_static("192.0.2.7"),
        consumer: None,
        path: b"/",
        query: None,
        regex: None,
        body: None,
    };
    let policy = AffinityPolicy::Session(cookie(name), SessionKey::of_process());
    let affinity = Affinity::of(&policy, &facts);
    let mut answer = map(SET_COOKIE, &values);
    let endpoint = 7;
    affinity.set_cookie(&mut answer, endpoint);
    let own = |value: &&HeaderValue| {
        let rest = value.as_bytes().strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"="))
    };
    let after: Vec<&HeaderValue> = answer.get_all(SET_COOKIE).iter().collect();
    if affinity.value == Some(endpoint) {
        assert_eq!(after, values.iter().collect::<Vec<_>>());
        return;
    }
    assert_eq!(after.iter().filter(|value| own(value)).count(), 1);
    let others: Vec<&HeaderValue> = values.iter().filter(|value| !own(value)).collect();
    assert_eq!(after[..after.len() - 1], others);
    // The client sends the cookie back, and is tied to the endpoint.
    let text = after[after.len() - 1].as_bytes();
    let pair = text.split(|byte| *byte == b';').next().unwrap_or_default();
    let mut back = HeaderMap::new();
    back.insert(
        COOKIE,
        HeaderValue::from_bytes(pair).expect("part of a value"),
    );
    let facts = RequestFacts {
        headers: &back,
        ..facts
    };
    assert_eq!(Affinity::of(&policy, &facts).value, Some(endpoint));
}

/// The first line lists trusted addresses; each further line is a value of `X-Forwarded-For`. The
/// client that is found is an address of the list, and one that is not trusted unless all behind it
/// are.
pub fn client_address(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let trusted = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let trusted: Vec<&str> = trusted.split(',').collect();
    let Ok(trusted) = TrustedIps::parse(&trusted) else {
        return;
    };
    let name = HeaderName::from_static("x-forwarded-for");
    let mut headers = HeaderMap::new();
    let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
    for value in values {
        headers.append(&name, value);
    }
    for recursive in [false, true] {
        let settings = RealIp {
            trusted: trusted.clone(),
            source: RealIpSource::Header(name.clone()),
            recursive,
        };
        let trust = Trust {
            names_by_header: true,
            ..Trust::default()
        };
        let Some(client) = client_address::named(&settings, trust, &headers) else {
            continue;
        };
        let ip = client.address.ip();
        assert_eq!(client.ip, ip.to_string());
        assert_eq!(ip, ip.to_canonical());
        let last = headers.get_all(&name).iter().rev().find_map(|line| {
            let mut words = line.as_bytes().rsplit(|byte| b" ,\t".contains(byte));
            words.find(|word| !word.is_empty())
        });
        let last = last.expect("there is an element");
        let is_last = |text: &str| {
            let address = text.parse().map(|ip: IpAddr| ip.to_canonical());
            let with_port = text.parse().map(|at: SocketAddr| at.ip().to_canonical());
            address.or(with_port).is_ok_and(|address| address == ip)
        };
        let is_last = is_last(&String::from_utf8_lossy(last));
        assert!(is_last || recursive && !trusted.is_empty());
    }
}
