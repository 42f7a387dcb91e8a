use super::*;
use crate::config::{Listen, ListenAddress, ResponseHeaders};
use crate::proxy::connection_info::ListenerInfo;
use crate::proxy::hops::remove_hops;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

/// The headers that an endpoint gets for these headers of a client.
fn forwarded(headers: &HeaderMap, prefix: &[u8], body: BodyLength) -> HeaderMap {
    let client = "192.0.2.7:1234".parse().unwrap();
    let listen = Listen::new(ListenAddress::Ip(([0, 0, 0, 0], 8000).into()));
    let connection = ConnectionInfo::new(
        client,
        ListenerInfo::new(&listen, false, None, ResponseHeaders::default()),
    );
    let forwarded = Forwarded {
        connection: &connection,
        client: connection.client(),
        host: "example.com",
        path: b"/mock/x",
        prefix,
        id: &RequestId::new(),
        version: Version::HTTP_11,
        upgrade: None,
        body,
    };
    let mut text = Vec::new();
    RequestHead {
        method: &Method::GET,
        target: b"/x?a=b",
        host: "a:1",
        headers,
        forwarded: &forwarded,
    }
    .write_http1(&mut text);
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    assert!(request.parse(&text).unwrap().is_complete());
    assert_eq!(
        (request.method, request.path),
        (Some("GET"), Some("/x?a=b"))
    );
    let fields = request.headers.iter();
    let sent = fields.map(|f| (f.name, std::str::from_utf8(f.value).unwrap()));
    let sent: Vec<_> = sent.collect();
    let map = map(&sent);
    assert_eq!(
        map.keys_len(),
        sent.len(),
        "a header is sent twice: {sent:?}"
    );
    map
}

#[test]
fn hop_by_hop_headers_and_those_that_connection_names_are_removed() {
    let headers = map(&[
        ("connection", "close, X-Private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("proxy", "evil"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("accept", "text/html"),
    ]);
    let headers = forwarded(&headers, b"", BodyLength::None);
    for name in [
        "x-private",
        "keep-alive",
        "proxy-connection",
        "proxy",
        "te",
        "upgrade",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(!headers.contains_key("transfer-encoding"));
    assert_eq!(headers["connection"], "keep-alive");
    assert_eq!(headers["accept"], "text/html");
}

#[test]
fn what_a_policy_sets_is_sent_although_the_client_called_it_hop_by_hop() {
    let mut headers = map(&[
        (
            "connection",
            "close, X-Private, x-anonymous-consumer, te, host",
        ),
        ("host", "example.com"),
        ("te", "trailers"),
        ("x-private", "1"),
        ("accept", "text/html"),
    ]);
    remove_hops(&mut headers);
    assert!(!headers.contains_key("x-private"));
    assert_eq!(headers["connection"], "close");
    assert_eq!(headers["host"], "example.com");
    headers.insert("x-anonymous-consumer", HeaderValue::from_static("true"));
    let headers = forwarded(&headers, b"", BodyLength::None);
    assert_eq!(headers["x-anonymous-consumer"], "true");
    assert_eq!(headers["te"], "trailers");
    assert_eq!(headers["accept"], "text/html");
}

#[test]
fn an_endpoint_gets_kongs_headers_about_the_client() {
    let headers = map(&[
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "forged"),
    ]);
    let headers = forwarded(&headers, b"/mock", BodyLength::None);
    assert_eq!(headers["host"], "a:1");
    assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 192.0.2.7");
    assert_eq!(headers["x-real-ip"], "192.0.2.7");
    assert_eq!(headers["x-forwarded-host"], "example.com");
    assert_eq!(headers["x-forwarded-port"], "8000");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-path"], "/mock/x");
    assert_eq!(headers["x-forwarded-prefix"], "/mock");
    assert_eq!(headers["via"], VIA_1_1);
    assert_eq!(headers["x-kong-request-id"].len(), 32);
}

/// What an endpoint gets from a peer that is trusted, over HTTP/1.1 and over HTTP/2.
fn forwarded_for_trusted(sent: &HeaderMap) -> [HeaderMap; 2] {
    let listen = Listen::new(ListenAddress::Ip(([0, 0, 0, 0], 8000).into()));
    let peer = "10.0.0.1:1234".parse().unwrap();
    let mut connection = ConnectionInfo::new(
        peer,
        ListenerInfo::new(&listen, false, None, ResponseHeaders::default()),
    );
    connection.trust.keeps_forwarded = true;
    let forwarded = Forwarded {
        connection: &connection,
        client: &ClientAddress::new("192.0.2.7:0".parse().unwrap()),
        host: "example.com",
        path: b"/mock/x",
        prefix: b"/mock",
        id: &RequestId::new(),
        version: Version::HTTP_11,
        upgrade: None,
        body: BodyLength::None,
    };
    let head = RequestHead {
        method: &Method::GET,
        target: b"/x?a=b",
        host: "a:1",
        headers: sent,
        forwarded: &forwarded,
    };
    let mut text = Vec::new();
    head.write_http1(&mut text);
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let lines: Vec<_> = lines.collect();
    [map(&lines), head.http2(false).unwrap().headers().clone()]
}

#[test]
fn what_a_trusted_peer_says_of_the_request_is_kept() {
    let names = ["proto", "host", "port", "path", "prefix"];
    let names = names.map(|name| format!("x-forwarded-{name}"));
    let sent: Vec<_> = names.iter().map(|name| (&**name, "theirs")).collect();
    for headers in forwarded_for_trusted(&map(&sent)) {
        for name in &names {
            assert_eq!(headers[name], "theirs", "{name}");
        }
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
    }
    let with_connection = [&sent[..], &[("connection", "x-forwarded-proto")]].concat();
    for sent in [vec![], with_connection] {
        for headers in forwarded_for_trusted(&map(&sent)) {
            assert_eq!(headers["x-forwarded-proto"], "http");
        }
    }
}

#[test]
fn the_peer_is_added_to_the_list_of_addresses_and_the_client_begins_one() {
    let sent = map(&[("x-forwarded-for", "192.0.2.7"), ("x-real-ip", "forged")]);
    for headers in forwarded_for_trusted(&sent) {
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7, 10.0.0.1");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
    }
    for headers in forwarded_for_trusted(&HeaderMap::new()) {
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    }
}

#[test]
fn te_trailers_is_sent_only_if_the_client_sent_it() {
    let headers = map(&[("connection", "te"), ("te", "gzip, trailers")]);
    let headers = forwarded(&headers, b"", BodyLength::None);
    assert_eq!(headers["te"], "trailers");
}

#[test]
fn over_http2_an_endpoint_gets_the_same_headers_without_those_of_a_connection() {
    let sent = map(&[
        ("connection", "close, x-private"),
        ("x-private", "1"),
        ("te", "gzip, trailers"),
        ("x-forwarded-for", "10.0.0.1"),
        ("accept", "text/html"),
        ("content-length", "5"),
    ]);
    let client = "192.0.2.7:1234".parse().unwrap();
    let listen = Listen::new(ListenAddress::Ip(([0, 0, 0, 0], 8000).into()));
    let connection = ConnectionInfo::new(
        client,
        ListenerInfo::new(&listen, false, None, ResponseHeaders::default()),
    );
    let forwarded = Forwarded {
        connection: &connection,
        client: connection.client(),
        host: "example.com",
        path: b"/mock/x",
        prefix: b"/mock",
        id: &RequestId::new(),
        version: Version::HTTP_2,
        upgrade: None,
        body: BodyLength::Known(7),
    };
    let head = |host| RequestHead {
        method: &Method::POST,
        target: b"/x?a=b",
        host,
        headers: &sent,
        forwarded: &forwarded,
    };
    let request = head("a:1").http2(true).unwrap();
    assert_eq!(request.uri().to_string(), "https://a:1/x?a=b");
    let headers = request.headers();
    for name in ["connection", "x-private", "host", "transfer-encoding"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    for (name, value) in [
        ("te", "trailers"),
        ("accept", "text/html"),
        ("content-length", "7"),
        ("x-forwarded-for", "10.0.0.1, 192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "example.com"),
        ("x-forwarded-port", "8000"),
        ("x-forwarded-path", "/mock/x"),
        ("x-forwarded-prefix", "/mock"),
        ("via", VIA_2),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert!(head("a b").http2(false).is_err());
}

#[test]
fn a_response_keeps_its_server_and_gets_the_gateways_headers() {
    let mut headers = map(&[("server", "nginx"), ("via", "1.1 other")]);
    let ms = Duration::from_millis;
    to_client(
        &mut headers,
        Version::HTTP_11,
        &RequestId::new(),
        (ms(12), ms(1)),
        Some(StatusCode::OK),
        ResponseHeaders::default(),
    );
    assert!(!headers.contains_key("x-kong-upstream-status"));
    assert_eq!(headers["server"], "nginx");
    assert_eq!(headers["via"], format!("1.1 other, {VIA_1_1}"));
    assert_eq!(headers["x-kong-upstream-latency"], "12");
    assert_eq!(headers["x-kong-proxy-latency"], "1");
}

#[test]
fn a_request_has_exactly_one_framing() {
    let sent = map(&[
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("connection", "content-length, transfer-encoding"),
    ]);
    let headers = forwarded(&sent, b"", BodyLength::Known(7));
    assert_eq!(headers["content-length"], "7");
    assert!(!headers.contains_key("transfer-encoding"));
    let headers = forwarded(&sent, b"", BodyLength::Chunked);
    assert_eq!(headers["transfer-encoding"], "chunked");
    assert!(!headers.contains_key("content-length"));
    let headers = forwarded(&sent, b"", BodyLength::None);
    assert_eq!(headers["content-length"], "0");
    let headers = forwarded(&HeaderMap::new(), b"", BodyLength::None);
    assert!(!headers.contains_key("content-length"));
}
