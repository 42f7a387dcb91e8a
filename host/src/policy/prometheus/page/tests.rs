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
