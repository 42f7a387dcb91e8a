use super::*;
use crate::policy::record::Latencies;
use crate::policy::response::Source;

#[test]
fn families_have_their_head_and_values_are_escaped() {
    let mut series = Series::default();
    series.count_status(200, Source::Endpoint);
    series.count_bytes(7, 0);
    series.count_latencies(&Latencies::default());
    let labels = KeyLabels {
        service: "a\"b\\c\nd".into(),
        route: "r".into(),
        consumer: String::new(),
    };
    let mut page = Page::default();
    page.add(&labels, &series);
    page.add(&labels, &series);
    let mut text = String::new();
    page.write(&mut text, 0);
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
}

/// Metrics with one request for each of so many routes in each of two shards.
fn counted(routes: u128) -> Metrics {
    let metrics = Metrics::default();
    for shard in metrics.shards.iter().take(2) {
        let mut shard = shard.0.lock();
        for route in 0..routes {
            let key = Key {
                route: Uuid::from_u128(route),
                service: None,
                consumer: None,
            };
            let series: &mut Series = shard.entry(key).or_default();
            series.count_status(200, Source::Endpoint);
        }
    }
    metrics
}

#[test]
fn only_what_the_store_says_is_deleted_is_forgotten() {
    let metrics = counted(1);
    let _plugin = std::sync::Arc::clone(&metrics.plugins);
    let named = |_: Kind, _: Uuid| {
        let row = serde_json::json!({"name": "r"}).as_object().cloned();
        Ok(row.map(|row| Stored { row, revision: 1 }))
    };
    let count =
        "route=\"r\",code=\"200\",source=\"service\",workspace=\"default\",consumer=\"\"} 2\n";
    assert!(metrics.page(&named).contains(count));
    let failed = metrics.page(&|_, _| Err(store::Error::Backend("no disk".into())));
    assert!(!failed.contains("kong_http_requests_total"));
    assert!(metrics.page(&named).contains(count));
    metrics.page(&|_, _| Ok(None));
    assert!(metrics.all().is_empty());
}

#[test]
fn figures_are_joined_over_shards_of_any_length() {
    let all = counted(600).all();
    assert_eq!(all.len(), 600);
    assert!(
        all.values()
            .all(|series| series.statuses == [((200, true), 2)])
    );
}
