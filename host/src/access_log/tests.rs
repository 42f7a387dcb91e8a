#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use super::sink::Stream;
use super::*;
use crate::balancer::{BalancerVersion, ChosenBy, Pick};
use crate::config::{LogFormat, LogTarget};
use crate::policy::identity::Subject;
use crate::policy::record::{Latencies, Stages, Try, TryOutcome};
use crate::policy::response::Source;

fn one_try(by: ChosenBy, outcome: TryOutcome, failure: Option<&'static str>) -> Try {
    Try {
        address: SocketAddr::from(([10, 0, 0, 1], 8080)).into(),
        pick: Some(Pick {
            by,
            version: Some(Arc::new(BalancerVersion {
                name: "round-robin".into(),
                version: "1.0.0".into(),
                digest: "ab".into(),
            })),
        }),
        started: SystemTime::UNIX_EPOCH,
        balancer: Duration::from_micros(3),
        took: Duration::from_millis(4),
        outcome,
        failure,
    }
}

fn record() -> Record {
    let mut request_headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Basic amFuZTpzZWNyZXQ="),
        ("referer", "http://a.test/\"x"),
        ("user-agent", "curl/8"),
    ] {
        request_headers.insert(name, HeaderValue::from_static(value));
    }
    Record {
        id: [b'7'; 32],
        started: SystemTime::UNIX_EPOCH,
        client: SocketAddr::from(([192, 0, 2, 7], 5000)),
        server: SocketAddr::from(([192, 0, 2, 1], 8000)),
        connection: (3, 2),
        scheme: "https",
        tls: None,
        host: Some("a.test".into()),
        version: Version::HTTP_2,
        method: Some(Method::GET),
        uri: Uri::from_static("/a?b=c"),
        unread_line: None,
        changed_query: None,
        request_headers,
        request_size: 100,
        status: StatusCode::OK,
        response_headers: HeaderMap::new(),
        response_head_size: 200,
        response_body_size: 1000,
        source: Source::Endpoint,
        reason: None,
        policy: None,
        upstream_target: Some("/a?b=c".into()),
        tries: vec![
            one_try(
                ChosenBy::Host("busy"),
                TryOutcome::Failed,
                Some("connect_failed"),
            ),
            one_try(ChosenBy::Plugin, TryOutcome::Answered(200), None),
        ],
        latencies: Latencies {
            total: Duration::from_micros(12_345),
            gateway: Duration::from_micros(345),
            upstream: Some(Duration::from_millis(8)),
            receive: Duration::from_millis(4),
        },
        stages: Stages {
            matched: Some(Duration::from_micros(5)),
            access: Some(Duration::from_micros(6)),
            body: None,
        },
        route: Some(Uuid::from_u128(1)),
        route_name: Some("r".into()),
        service: Some(Uuid::from_u128(2)),
        service_name: None,
        upstream: Some("u".into()),
        subject: Subject::default(),
        correlation_id: None,
        trace: None,
    }
}

fn times() -> Times {
    let mut times = Times::default();
    times.set(SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_042));
    times
}

fn shown(format: &str, record: &Record) -> String {
    let mut text = Vec::new();
    match LogFormat::parse(format).unwrap() {
        LogFormat::Json => json::write(&mut text, record, &times()),
        LogFormat::Template { parts, escape } => {
            line::write(&mut text, &parts, escape, record, &times());
        }
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn the_named_formats_are_those_of_kong_and_nginx() {
    let common = r#"192.0.2.7 - jane [06/Nov/1994:08:49:37 +0000] "GET /a?b=c HTTP/2.0" 200 1000"#;
    let combined = format!(r#"{common} "http://a.test/\x22x" "curl/8""#);
    let kong = format!(r#"{combined} kong_request_id: "{}""#, "7".repeat(32));
    assert_eq!(shown("common", &record()), common);
    assert_eq!(shown("combined", &record()), combined);
    assert_eq!(shown("kong", &record()), kong);
}

#[test]
fn variables_have_nginxs_values() {
    for (template, expected) in [
        ("$upstream_addr", "10.0.0.1:8080, 10.0.0.1:8080"),
        ("$upstream_status", "502, 200"),
        ("$upstream_response_time", "0.004, 0.008"),
        ("$upstream_header_time", "-, 0.004"),
        ("$chosen_by", "host:busy, plugin"),
        (
            "$balancer $balancer_version",
            "round-robin, round-robin 1.0.0, 1.0.0",
        ),
        ("$request_time $msec", "0.012 784111777.042"),
        ("$uri $args $request_uri", "/a b=c /a?b=c"),
        ("$bytes_sent $body_bytes_sent", "1200 1000"),
        ("$route $service", "r 00000000-0000-0000-0000-000000000002"),
        ("$http_x_none $sent_http_via $reason", "- - -"),
        ("escape=json $http_referer|$reason", r#"http://a.test/\"x|"#),
        ("$connection/$connection_requests", "3/2"),
    ] {
        assert_eq!(shown(template, &record()), expected, "{template}");
    }
}

#[test]
fn several_fields_of_a_cookie_are_one_as_in_nginx() {
    let mut record = record();
    for (name, values) in [("cookie", ["a=1", "b=2"]), ("x-a", ["1", "2"])] {
        for value in values {
            let value = HeaderValue::from_static(value);
            record.request_headers.append(name, value);
        }
    }
    assert_eq!(shown("$http_cookie|$http_x_a", &record), "a=1; b=2|1, 2");
}

#[test]
fn json_has_all_that_is_known() {
    let value: Value = serde_json::from_str(&shown("json", &record())).unwrap();
    let balancer = |mut more: Value| {
        for (key, value) in [
            ("balancer", "round-robin"),
            ("version", "1.0.0"),
            ("digest", "ab"),
        ] {
            more[key] = value.into();
        }
        more["address"] = "10.0.0.1:8080".into();
        more["pick_us"] = 3.into();
        more["took_us"] = 4000.into();
        more
    };
    let expected = json!({
        "time": "1994-11-06T08:49:37.042Z", "request_id": "7".repeat(32),
        "client_ip": "192.0.2.7", "client_port": 5000, "server_ip": "192.0.2.1", "server_port": 8000,
        "connection": 3, "connection_requests": 2, "user": "jane", "method": "GET", "uri": "/a?b=c",
        "protocol": "HTTP/2.0", "scheme": "https", "host": "a.test", "status": 200,
        "source": "upstream", "bytes_received": 100, "bytes_sent": 1200, "body_bytes_sent": 1000,
        "route": {"id": Uuid::from_u128(1), "name": "r"},
        "service": {"id": Uuid::from_u128(2)}, "upstream": "u", "upstream_uri": "/a?b=c",
        "tries": [
            balancer(json!({
                "chosen_by": "host", "because": "busy", "status": 502, "failure": "connect_failed",
            })),
            balancer(json!({"chosen_by": "plugin", "status": 200})),
        ],
        "times_us": {
            "match": 5, "access": 6, "pick": 6, "first_byte": 8000, "total": 12_345,
        },
        "referer": "http://a.test/\"x", "user_agent": "curl/8",
    });
    assert_eq!(value, expected);
}

#[test]
fn a_line_that_could_not_be_read_is_shown_and_cannot_forge_another_one() {
    let unread = Record {
        unread_line: Some(Bytes::from_static(b"\x16\x03\"\n1.2.3.4 - forged")),
        method: None,
        ..record()
    };
    assert_eq!(
        shown("$request|$request_method|$request_uri", &unread),
        r"\x16\x03\x22\x0A1.2.3.4 - forged|-|-"
    );
    let value: Value = serde_json::from_str(&shown("json", &unread)).unwrap();
    assert_eq!(value["unread_line"], "\u{16}\u{3}\"\n1.2.3.4 - forged");
    let empty = Record {
        unread_line: Some(Bytes::new()),
        ..record()
    };
    assert_eq!(shown("$request", &empty), "-");
}

fn log_to(path: PathBuf) -> Arc<AccessLog> {
    let mut settings = config::AccessLog::default();
    settings.target = Some(LogTarget::File(path));
    settings.format = LogFormat::parse("$status").unwrap();
    let log = AccessLog::start(&settings, Path::new("/dev/log"), &config::Dns::default());
    log.unwrap().unwrap()
}

#[test]
fn the_lines_of_all_workers_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = log_to(path.clone());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let writer = log.writer();
                for _ in 0..1000 {
                    writer.write(&record(), Instant::now());
                }
            });
        }
    });
    assert!(log.shut_down(Duration::from_secs(30)));
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "200\n".repeat(4000)
    );
    assert_eq!(log.figures().written, 4000);
}

#[test]
fn lines_that_come_one_after_another_are_written_once_in_50_ms() {
    let (output, reader) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let sink = Sink::Stream(Stream::new("a socket", output));
    let log = AccessLog::over(sink, &LogFormat::parse("$status").unwrap()).unwrap();
    let writer = log.writer();
    let start = Instant::now();
    let reading = std::thread::spawn(move || {
        // Each packet is what was written at once.
        let (mut writes, mut lines) = (0, 0);
        let mut packet = [0; 1 << 16];
        let mut reader = std::fs::File::from(reader);
        while let Ok(length @ 1..) = reader.read(&mut packet) {
            writes += 1;
            lines += length / "200\n".len();
        }
        (writes, lines)
    });
    let mut lines = 0;
    while start.elapsed() < 10 * BATCH {
        writer.write(&record(), Instant::now());
        lines += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(log.shut_down(Duration::from_secs(30)));
    let most = start.elapsed().as_millis() / BATCH.as_millis() + 1;
    let (writes, read) = reading.join().unwrap();
    assert_eq!(read, lines);
    assert!(
        writes <= most,
        "{writes} writes of {lines} lines, {most} at most"
    );
}

#[test]
fn a_blocked_log_delays_no_worker_and_counts_what_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path);
    let log = log_to(path);
    let writer = log.writer();
    let lines = 2 * MOST_WAITING / "200\n".len() + (1 << 17);
    let now = Instant::now();
    let record = record();
    for _ in 0..lines {
        writer.write(&record, now);
    }
    drop(writer);
    let dropped = log.figures().dropped;
    assert!(dropped > 0);
    assert!(!log.shut_down(Duration::from_millis(1)));
    // Now that it is late, the thread gives up.
    assert!(log.shut_down(Duration::from_secs(30)));
    let Figures {
        written,
        failed,
        dropped,
    } = log.figures();
    assert_eq!(written + failed + dropped, lines as u64);
    drop(reader);
}
