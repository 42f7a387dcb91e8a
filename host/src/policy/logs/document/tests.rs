use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use proptest::prelude::*;

use super::*;
use crate::policy::identity::{AuthenticatedCredential, Subject};
use crate::policy::record::{Latencies, Stages, StreamDetails};

fn at(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn one_try(outcome: TryOutcome) -> Try {
    Try {
        address: SocketAddr::from(([10, 0, 0, 1], 8080)).into(),
        started: at(1_700_000_000_123_456_789),
        pick: None,
        balancer: Duration::from_nanos(1_500_000),
        took: Duration::from_nanos(2_500_000),
        failure: None,
        outcome,
    }
}

/// A record of a proxied request.
fn record() -> Record {
    let mut request_headers = HeaderMap::new();
    for (name, value) in [
        ("host", "a.test"),
        ("authorization", "Basic secret"),
        ("proxy-authorization", "secret"),
        ("x-two", "1"),
        ("x-two", "2"),
        ("x-two", "3"),
    ] {
        request_headers.append(name, HeaderValue::from_static(value));
    }
    let mut response_headers = HeaderMap::new();
    response_headers.insert("via", HeaderValue::from_static("1.1 pointsman"));
    Record {
        id: *b"0123456789abcdef0123456789abcdef",
        tls: None,
        started: at(1_700_000_000_000_000_000),
        client: SocketAddr::from(([127, 0, 0, 1], 5000)),
        server: SocketAddr::from(([127, 0, 0, 2], 8000)),
        connection: (1, 1),
        scheme: "http",
        host: Some("a.test".into()),
        version: Version::HTTP_11,
        method: Some(Method::GET),
        uri: Uri::from_static("/x?a=1&b&a=2"),
        unread_line: None,
        changed_query: Some(Some("a=1&b&a=2&c=&d=%20".into())),
        request_headers,
        request_size: 100,
        status: StatusCode::OK,
        response_headers,
        response_head_size: 50,
        response_body_size: 150,
        source: Source::Endpoint,
        reason: None,
        policy: None,
        upstream_target: Some("/y?a=1".into()),
        tries: vec![
            one_try(TryOutcome::Failed),
            one_try(TryOutcome::TimedOut),
            one_try(TryOutcome::Answered(503)),
            one_try(TryOutcome::Answered(200)),
        ],
        latencies: Latencies {
            total: Duration::from_millis(30),
            gateway: Duration::from_millis(5),
            upstream: Some(Duration::from_millis(20)),
            receive: Duration::from_millis(5),
        },
        stages: Stages {
            matched: Some(Duration::from_micros(7)),
            access: None,
            body: Some(Duration::from_micros(8)),
        },
        route: Some(Uuid::from_u128(1)),
        route_name: None,
        service: Some(Uuid::from_u128(2)),
        service_name: None,
        upstream: Some("up".into()),
        subject: Subject {
            credential: Some(AuthenticatedCredential {
                id: Uuid::from_u128(3),
                identifier: "key".into(),
            }),
            ..Subject::default()
        },
        correlation_id: Some("c-1".into()),
        trace: None,
    }
}

fn shown(record: &Record) -> Value {
    document(record, &|kind, id| json!({"kind": kind.name(), "id": id}))
}

#[test]
fn a_record_has_kongs_keys() {
    let id = Uuid::from_u128;
    let failed = |state: &str, code: u16| {
        json!({
            "ip": "10.0.0.1", "port": 8080, "balancer_start": 1_700_000_000_123_u64,
            "balancer_start_ns": 1_700_000_000_123_456_789_u64, "balancer_latency": 1,
            "balancer_latency_ns": 1_500_000, "latency_ns": 2_500_000, "state": state, "code": code,
        })
    };
    let mut last = failed("", 0);
    if let Some(last) = last.as_object_mut() {
        last.remove("state");
        last.remove("code");
    }
    let expected = json!({
        "request": {
            "id": "0123456789abcdef0123456789abcdef", "method": "GET", "uri": "/x?a=1&b&a=2",
            "url": "http://a.test:8000/x?a=1&b&a=2", "size": 100,
            "querystring": {"a": ["1", "2"], "b": true, "c": "", "d": " "},
            "headers": {
                "host": "a.test", "authorization": "REDACTED",
                "proxy-authorization": "REDACTED", "x-two": ["1", "2", "3"],
            },
        },
        "response": {"status": 200, "size": 200, "headers": {"via": "1.1 pointsman"}},
        "upstream_uri": "/y?a=1",
        "upstream_status": "502, 504, 503, 200",
        "latencies": {"request": 30, "kong": 5, "proxy": 20, "receive": 5},
        "client_ip": "127.0.0.1",
        "started_at": 1_700_000_000_000_u64,
        "workspace": "0dc6f45b-8f8d-40d2-a504-473544ee190b",
        "workspace_name": "default",
        "source": "upstream",
        "tries": [failed("failed", 502), failed("failed", 504), failed("next", 503), last],
        "route": {"kind": "routes", "id": id(1)},
        "service": {"kind": "services", "id": id(2)},
        "authenticated_entity": {"id": id(3)},
        "correlation_id": "c-1",
        "pointsman": {
            "upstream": "up", "protocol": "HTTP/1.1",
            "stages_us": {"match": 7, "body": 8, "pick": 6000, "first_byte": 20_000, "total": 30_000},
        },
    });
    assert_eq!(shown(&record()), expected);
    let over_tls = Record {
        tls: Some(NegotiatedTls {
            version: "TLSv1.2",
            cipher: "ECDHE-RSA-AES128-GCM-SHA256",
            has_client_certificate: true,
        }),
        ..record()
    };
    let tls = json!({
        "version": "TLSv1.2", "cipher": "ECDHE-RSA-AES128-GCM-SHA256", "client_verify": "SUCCESS",
    });
    assert_eq!(shown(&over_tls)["request"]["tls"], tls);
}

#[test]
fn a_record_of_a_stream_has_kongs_keys() {
    let tls = NegotiatedTls {
        version: "TLSv1.3",
        cipher: "TLS_AES_256_GCM_SHA384",
        has_client_certificate: false,
    };
    let mut stream = StreamRecord {
        started: at(1_700_000_000_000_000_000),
        client: SocketAddr::from(([127, 0, 0, 1], 5000)),
        port: 9000,
        tls: Some(tls),
        status: 200,
        received: 10,
        sent: 20,
        upstream_received: 20,
        upstream_sent: 15,
        tries: Vec::new(),
        duration: Duration::from_millis(30),
        gateway: Duration::from_millis(2),
        route: Some(Uuid::from_u128(1)),
        service: Some(Uuid::from_u128(2)),
        details: StreamDetails::default(),
    };
    let shown = |stream: &StreamRecord| {
        stream_document(stream, &|kind, id| json!({"kind": kind.name(), "id": id}))
    };
    let id = Uuid::from_u128;
    let expected = json!({
        "session": {
            "tls": {
                "version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "client_verify": "NONE",
            },
            "received": 10, "sent": 20, "status": 200, "server_port": 9000,
        },
        "upstream": {"received": 20, "sent": 15},
        "latencies": {"session": 30, "kong": 2},
        "client_ip": "127.0.0.1",
        "started_at": 1_700_000_000_000_u64,
        "workspace": "0dc6f45b-8f8d-40d2-a504-473544ee190b",
        "workspace_name": "default",
        "source": "kong",
        "tries": [],
        "route": {"kind": "routes", "id": id(1)},
        "service": {"kind": "services", "id": id(2)},
    });
    assert_eq!(shown(&stream), expected);
    stream.tries.push(one_try(TryOutcome::Answered(200)));
    (stream.tls, stream.route) = (None, None);
    let plain = shown(&stream);
    assert_eq!(plain["source"], "upstream");
    assert_eq!(plain["session"].get("tls"), None);
    assert_eq!(plain.get("tries"), None);
}

#[test]
fn a_request_that_no_endpoint_has_seen_has_no_upstream() {
    let unmatched = Record {
        source: Source::Gateway,
        upstream_target: None,
        tries: Vec::new(),
        route: None,
        service: None,
        subject: Subject::default(),
        correlation_id: None,
        latencies: Latencies {
            upstream: None,
            ..Latencies::default()
        },
        ..record()
    };
    let shown = shown(&unmatched);
    assert_eq!(shown["upstream_uri"], "");
    assert_eq!(shown["upstream_status"], "");
    assert_eq!(shown["latencies"]["proxy"], -1);
    assert_eq!(shown["source"], "kong");
    for absent in [
        "tries",
        "route",
        "service",
        "consumer",
        "authenticated_entity",
        "correlation_id",
    ] {
        assert_eq!(shown.get(absent), None, "{absent}");
    }
}

#[test]
fn a_try_that_the_client_has_ended_has_no_status() {
    let abandoned = Record {
        tries: vec![one_try(TryOutcome::Failed), one_try(TryOutcome::Abandoned)],
        ..record()
    };
    let shown = shown(&abandoned);
    assert_eq!(shown["upstream_status"], "502, -");
    assert_eq!(shown["tries"][0]["state"], "failed");
    assert_eq!(shown["tries"][1].get("state"), None);
}

proptest! {
    #[test]
    fn any_query_and_any_header_give_one_line_of_json(
        query in "[ -~]{0,60}", value in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut record = record();
        record.changed_query = Some(Some(query.into()));
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            record.request_headers.insert("x-any", value);
        }
        let text = shown(&record).to_string();
        prop_assert!(!text.contains('\n'));
        let read: Value = serde_json::from_str(&text)?;
        prop_assert!(read["request"]["querystring"].is_object());
    }
}
