use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode, Uri, Version};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::policy::identity::Subject;
use crate::policy::record::{Latencies, Record, Stages, StreamDetails, StreamRecord};
use crate::policy::response::Source;

const NAMES: [&str; 12] = [
    "request_count",
    "latency",
    "request_size",
    "status_count",
    "response_size",
    "unique_users",
    "request_per_user",
    "upstream_latency",
    "kong_latency",
    "status_count_per_user",
    "status_count_per_workspace",
    "status_count_per_user_per_route",
];

fn config(more: Value) -> Config {
    let metrics = NAMES.iter().map(|name| {
        let kind = match *name {
            "unique_users" => "set",
            name if name.contains("latency") => "timer",
            _ => "counter",
        };
        json!({"name": name, "stat_type": kind, "sample_rate": 1})
    });
    let mut config = json!({
        "host": "localhost", "port": 8125, "prefix": "kong",
        "metrics": metrics.collect::<Vec<_>>(),
        "udp_packet_size": 0, "use_tcp": false, "hostname_in_prefix": false,
        "consumer_identifier_default": "custom_id",
        "service_identifier_default": "service_name_or_host",
        "workspace_identifier_default": "workspace_id",
        "queue": {
            "max_batch_size": 1, "max_coalescing_delay": 1, "max_entries": 10_000,
            "max_bytes": null, "max_retry_time": 60, "initial_retry_delay": 0.01,
            "max_retry_delay": 60, "concurrency_limit": 1,
        },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn record() -> Record {
    Record {
        id: [b'0'; 32],
        tls: None,
        started: SystemTime::UNIX_EPOCH,
        client: SocketAddr::from(([127, 0, 0, 1], 1)),
        server: SocketAddr::from(([127, 0, 0, 1], 8000)),
        connection: (1, 1),
        scheme: "http",
        host: Some("a.test".into()),
        version: Version::HTTP_11,
        method: Some(Method::GET),
        uri: Uri::default(),
        unread_line: None,
        changed_query: None,
        request_headers: HeaderMap::new(),
        request_size: 11,
        status: StatusCode::NOT_FOUND,
        response_headers: HeaderMap::new(),
        response_head_size: 20,
        response_body_size: 2,
        source: Source::Endpoint,
        reason: None,
        policy: None,
        upstream_target: None,
        tries: Vec::new(),
        latencies: Latencies {
            total: Duration::from_millis(9),
            gateway: Duration::from_millis(3),
            upstream: Some(Duration::from_millis(5)),
            receive: Duration::from_millis(1),
        },
        stages: Stages::default(),
        route: Some(Uuid::from_u128(1)),
        route_name: None,
        service: Some(Uuid::from_u128(2)),
        service_name: None,
        upstream: None,
        subject: Subject::default(),
        correlation_id: None,
        trace: None,
    }
}

fn row(value: Value) -> Option<Row> {
    value.as_object().cloned()
}

fn entities() -> Entities {
    Entities {
        route: row(json!({"id": "r-1", "name": "the-route"})),
        service: row(json!({"id": "s-1", "name": "a.b", "host": "h.test"})),
        consumer: row(json!({"id": "c-1", "username": "jane", "custom_id": "j:1"})),
    }
}

fn lines(config: &Config, record: Record, entities: &Entities) -> Vec<String> {
    let record = LogRecord::Request(Arc::new(record));
    of(config, "host.example", &record, entities)
}

#[test]
fn the_metrics_of_a_stream_are_those_that_it_has() {
    let stream = LogRecord::Stream(Arc::new(StreamRecord {
        started: SystemTime::UNIX_EPOCH,
        client: SocketAddr::from(([127, 0, 0, 1], 1)),
        port: 1,
        tls: None,
        status: 200,
        received: 11,
        sent: 22,
        upstream_received: 22,
        upstream_sent: 11,
        tries: Vec::new(),
        duration: Duration::from_millis(9),
        gateway: Duration::from_millis(3),
        route: Some(Uuid::from_u128(1)),
        service: Some(Uuid::from_u128(2)),
        details: StreamDetails::default(),
    }));
    let entities = Entities {
        consumer: None,
        ..entities()
    };
    let expected = [
        "kong.service.a_b.request.count:1|c",
        "kong.service.a_b.latency:9|ms",
        "kong.service.a_b.request.size:11|c",
        "kong.service.a_b.status.200:1|c",
        "kong.service.a_b.response.size:22|c",
        "kong.service.a_b.kong_latency:3|ms",
        "kong.service.a_b.workspace.0dc6f45b-8f8d-40d2-a504-473544ee190b.status.200:1|c",
    ];
    let lines = of(&config(json!({})), "host.example", &stream, &entities);
    assert_eq!(lines, expected);
}

#[test]
fn every_metric_has_kongs_line() {
    let lines = lines(&config(json!({})), record(), &entities());
    let expected = [
        "kong.service.a_b.request.count:1|c",
        "kong.service.a_b.latency:9|ms",
        "kong.service.a_b.request.size:11|c",
        "kong.service.a_b.status.404:1|c",
        "kong.service.a_b.response.size:22|c",
        "kong.service.a_b.user.uniques:j_1|s",
        "kong.service.a_b.user.j_1.request.count:1|c",
        "kong.service.a_b.upstream_latency:5|ms",
        "kong.service.a_b.kong_latency:3|ms",
        "kong.service.a_b.user.j_1.status.404:1|c",
        "kong.service.a_b.workspace.0dc6f45b-8f8d-40d2-a504-473544ee190b.status.404:1|c",
        "kong.route.r-1.user.j_1.status.404:1|c",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn without_a_consumer_or_an_endpoint_their_metrics_are_not_sent() {
    let unmatched = Record {
        route: None,
        service: None,
        latencies: Latencies {
            upstream: None,
            ..record().latencies
        },
        ..record()
    };
    let lines = lines(&config(json!({})), unmatched, &Entities::default());
    let expected = [
        "kong.global.unmatched.request.count:1|c",
        "kong.global.unmatched.latency:9|ms",
        "kong.global.unmatched.request.size:11|c",
        "kong.global.unmatched.status.404:1|c",
        "kong.global.unmatched.response.size:22|c",
        "kong.global.unmatched.kong_latency:3|ms",
        "kong.global.unmatched.workspace.0dc6f45b-8f8d-40d2-a504-473544ee190b.status.404:1|c",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn identifiers_and_rates_follow_the_metric_and_then_the_defaults() {
    let config = config(json!({
        "prefix": "p",
        "hostname_in_prefix": true,
        "service_identifier_default": "service_host",
        "metrics": [
            {"name": "request_count", "stat_type": "counter", "sample_rate": 0.5},
            {"name": "request_size", "stat_type": "gauge", "sample_rate": 1,
             "service_identifier": "service_id"},
            {"name": "unique_users", "stat_type": "set", "consumer_identifier": "username"},
            {"name": "status_count_per_workspace", "stat_type": "meter",
             "workspace_identifier": "workspace_name"},
            {"name": "response_size", "stat_type": "histogram",
             "service_identifier": "service_name"},
        ],
    }));
    let unnamed = Entities {
        service: row(json!({"id": "s-1", "host": "h.test"})),
        ..entities()
    };
    let expected = [
        "p.node.host_example.service.h_test.request.count:1|c|@0.5",
        "p.node.host_example.service.s-1.request.size:11|g",
        "p.node.host_example.service.h_test.user.uniques:jane|s",
        "p.node.host_example.service.h_test.workspace.default.status.404:1|c",
        "p.node.host_example.service.unnamed.response.size:22|h",
    ];
    assert_eq!(lines(&config, record(), &unnamed), expected);
}

#[test]
fn tags_are_written_in_each_style_and_replace_the_metrics_of_statuses_and_users() {
    let tags = |equals: &str| {
        let tags = [
            ("service", "a.b"),
            ("route", "the-route"),
            ("workspace", "0dc6f45b-8f8d-40d2-a504-473544ee190b"),
            ("consumer", "j_1"),
            ("node", "host.example"),
            ("status", "404"),
        ];
        tags.map(|(name, value)| format!("{name}{equals}{value}"))
            .join(",")
    };
    let name = "kong.request.count";
    for (style, expected) in [
        ("dogstatsd", format!("{name}:1|c|#{}", tags(":"))),
        ("influxdb", format!("{name},{}:1|c", tags("="))),
        ("librato", format!("{name}#{}:1|c", tags("="))),
        ("signalfx", format!("{name}[{}]:1|c", tags("="))),
    ] {
        let config = config(json!({"tag_style": style, "hostname_in_prefix": true}));
        let tagged = lines(&config, record(), &entities());
        assert_eq!(tagged[0], expected);
        // The others would say what the tags say.
        assert_eq!(tagged.len(), 6, "{tagged:?}");
        let unmatched = Record {
            service: None,
            ..record()
        };
        let untagged = lines(&config, unmatched, &entities());
        assert_eq!(untagged[0], "kong.request.count:1|c");
    }
}

#[test]
fn a_name_cannot_forge_a_line() {
    let forged = Entities {
        service: row(json!({"name": "a:1|c\nb"})),
        ..Entities::default()
    };
    let lines = lines(&config(json!({})), record(), &forged);
    assert_eq!(lines[0], "kong.service.a_1_c_b.request.count:1|c");
}
