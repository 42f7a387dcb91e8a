use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::policy::prometheus::shards::Shards;
use crate::policy::record::{LogRecord, StreamDetails, StreamRecord};

fn key(route: u128) -> Key {
    Key {
        route: Uuid::from_u128(route),
        is_stream: false,
        service: None,
        consumer: None,
    }
}

/// A stream of this many milliseconds, whose figures stand for those of requests.
fn stream(duration: u64) -> LogRecord {
    LogRecord::Stream(Arc::new(StreamRecord {
        started: SystemTime::now(),
        client: ([127, 0, 0, 1], 1).into(),
        port: 80,
        tls: None,
        status: 200,
        received: 0,
        sent: 0,
        upstream_received: 0,
        upstream_sent: 0,
        tries: Vec::new(),
        duration: Duration::from_millis(duration),
        gateway: Duration::ZERO,
        route: None,
        service: None,
        details: StreamDetails::default(),
    }))
}

#[test]
fn families_have_their_head_and_values_are_escaped() {
    let shards = Shards::default();
    shards.with(key(1), |series| {
        series.count_status(200, true);
        series.count_bytes(7, 0);
        series.observe(&stream(30), false);
    });
    let figures = shards.figures().remove(&key(1)).unwrap_or_default();
    let labels = KeyLabels {
        place: (Labels::default().with("service", "a\"b\\c\nd")).with("route", "r"),
        consumer: String::new(),
    };
    let mut page = Page::default();
    page.add(&labels, false, figures.clone());
    page.add(&labels, false, figures);
    let text = page.text(0, false);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start));
    assert_eq!(
        line("kong_nginx_metric_errors_total"),
        Some("kong_nginx_metric_errors_total 0")
    );
    assert_eq!(
        line("kong_http_requests_total"),
        Some(
            "kong_http_requests_total{service=\"a\\\"b\\\\c\\nd\",route=\"r\",code=\"200\",\
             source=\"service\",workspace=\"default\",consumer=\"\"} 2"
        )
    );
    // Nothing was sent, and no endpoint was waited for.
    assert!(!text.contains("egress\""));
    assert!(!text.contains("kong_upstream_latency_ms"));
    assert_eq!(
        line("kong_kong_latency_ms_bucket"),
        Some(
            "kong_kong_latency_ms_bucket{service=\"a\\\"b\\\\c\\nd\",route=\"r\",\
             workspace=\"default\",le=\"1\"} 2"
        )
    );
    assert!(text.contains("# TYPE kong_request_latency_ms histogram\n"));
    assert!(text.contains("workspace=\"default\",le=\"+Inf\"} 2\n"));
    assert!(text.contains("workspace=\"default\"} 60\n"), "{text}");
}

#[test]
fn only_what_the_store_says_is_deleted_is_forgotten() {
    let metrics = Metrics::default();
    metrics
        .shards
        .with(key(1), |series| series.count_status(200, true));
    let _plugin = Arc::clone(&metrics.plugins);
    let named = |_: Kind, _: Uuid| {
        let row = serde_json::json!({"name": "r"}).as_object().cloned();
        Ok(row.map(|row| Stored { row, revision: 1 }))
    };
    let count =
        "route=\"r\",code=\"200\",source=\"service\",workspace=\"default\",consumer=\"\"} 1\n";
    assert!(metrics.page(&named, false).contains(count));
    let failed = metrics.page(&|_, _| Err(store::Error::Backend("no disk".into())), false);
    assert!(!failed.contains("kong_http_requests_total"));
    assert!(metrics.page(&named, false).contains(count));
    metrics.page(&|_, _| Ok(None), false);
    assert!(metrics.shards.figures().is_empty());
}
