//! The plugin `prometheus`: what it counts, and that the page can be read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, Setup, until, with_backend};

/// A sample: its name with its labels, and its value.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

/// Reads a page as the text format says, version 0.0.4. Fails the test if anything in it is not
/// valid.
fn read(page: &str) -> Samples {
    assert!(page.ends_with('\n'));
    let mut samples = Samples::new();
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    let mut family = String::new();
    let mut helped = BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            assert!(helped.insert(name.to_owned()), "{name} is described twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{line}"
            );
            family = name.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            let suffixes: &[&str] = match &*kinds[&family] {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let of_family = suffixes
                .iter()
                .any(|suffix| name == format!("{family}{suffix}"));
            assert!(of_family, "{line} stands under {family}");
            let before = samples.insert((name, labels), value);
            assert_eq!(before, None, "{line} comes twice");
        }
    }
    for (name, kind) in &kinds {
        assert!(helped.contains(name), "{name} is not described");
        if kind == "histogram" {
            check_histogram(name, &samples);
        }
    }
    samples
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inner.split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let closed = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next().unwrap().1 {
                        'n' => value.push('\n'),
                        escaped @ ('\\' | '"') => value.push(escaped),
                        other => panic!("\\{other} in {line}"),
                    },
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            inner = &after[closed + 1..];
            match inner.strip_prefix(',') {
                Some(next) => inner = next,
                None => break,
            }
        }
        rest = inner.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap();
    (name.to_owned(), labels, value.parse().unwrap())
}

/// The labels of a series, and its buckets: the bound and the count of each.
type Buckets = BTreeMap<Vec<(String, String)>, Vec<(f64, f64)>>;

/// The buckets of each series grow with their bounds, and the last one has all observations.
fn check_histogram(name: &str, samples: &Samples) {
    let mut series = Buckets::new();
    for ((found, labels), value) in samples {
        if *found == format!("{name}_bucket") {
            let mut labels = labels.clone();
            let (label, bound) = labels.pop().unwrap();
            assert_eq!(label, "le");
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().unwrap()
            };
            series.entry(labels).or_default().push((bound, *value));
        }
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(
            buckets.is_sorted_by(|one, other| one.1 <= other.1),
            "{labels:?}: {buckets:?}"
        );
        let (bound, count) = *buckets.last().unwrap();
        assert_eq!(bound, f64::INFINITY);
        assert_eq!(samples[&(format!("{name}_count"), labels.clone())], count);
        assert!(samples.contains_key(&(format!("{name}_sum"), labels)));
    }
}

fn scrape(gateway: &Gateway) -> Samples {
    read(&gateway.admin("GET", "/metrics", &[]).expect(200).text())
}

fn series(name: &str, labels: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (name.to_owned(), labels.collect())
}

fn requests(
    route: &str,
    code: &str,
    source: &str,
    consumer: &str,
) -> (String, Vec<(String, String)>) {
    let labels = [
        ("service", "u-service"),
        ("route", route),
        ("code", code),
        ("source", source),
        ("workspace", "default"),
        ("consumer", consumer),
    ];
    series("kong_http_requests_total", &labels)
}

fn add_plugin(gateway: &Gateway, name: &str, config: Value) -> String {
    let plugin = json!({"name": name, "config": config});
    let made = gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// A gateway with a backend, whose only route has a name.
fn with_named_route() -> (Gateway, Backend) {
    let (gateway, backend) = with_backend(Setup::new());
    let routes = gateway.admin("GET", "/routes", &[]).json();
    let id = routes["data"][0]["id"].as_str().unwrap();
    gateway
        .admin("PATCH", &format!("/routes/{id}"), &[("name", "r")])
        .expect(200);
    (gateway, backend)
}

fn has(samples: &Samples, start: &str) -> bool {
    samples.keys().any(|(name, _)| name.starts_with(start))
}

#[test]
fn without_a_plugin_only_the_figures_of_the_node_are_shown() {
    let (gateway, _backend) = with_named_route();
    gateway.get("/").expect(200);
    let samples = scrape(&gateway);
    assert!(has(&samples, "kong_nginx_requests_total"));
    for absent in ["kong_http_requests_total", "kong_nginx_metric_errors_total"] {
        assert!(!has(&samples, absent), "{absent}");
    }
}

#[test]
fn each_switch_shows_its_families_and_no_others() {
    let (gateway, _backend) = with_named_route();
    let families = [
        ("status_code_metrics", &["kong_http_requests_total"][..]),
        ("bandwidth_metrics", &["kong_bandwidth_bytes"]),
        (
            "latency_metrics",
            &[
                "kong_kong_latency_ms",
                "kong_upstream_latency_ms",
                "kong_request_latency_ms",
            ],
        ),
    ];
    let id = add_plugin(&gateway, "prometheus", json!({}));
    gateway.get("/").expect(200);
    let samples = scrape(&gateway);
    assert_eq!(samples[&series("kong_nginx_metric_errors_total", &[])], 0.0);
    for (_, names) in families {
        assert!(names.iter().all(|name| !has(&samples, name)));
    }
    for (number, (switch, names)) in families.iter().enumerate() {
        let config = json!({"config": {*switch: true}});
        gateway
            .admin_json("PATCH", &format!("/plugins/{id}"), &config)
            .expect(200);
        gateway.get("/").expect(200);
        until(switch, || {
            names.iter().all(|name| has(&scrape(&gateway), name))
        });
        let samples = scrape(&gateway);
        let later = families.iter().skip(number + 1);
        assert!(
            later
                .flat_map(|(_, names)| *names)
                .all(|name| !has(&samples, name))
        );
    }
}

#[test]
fn requests_are_counted_by_status_and_source_exactly() {
    let (gateway, backend) = with_named_route();
    let switches = json!({
        "status_code_metrics": true, "bandwidth_metrics": true, "latency_metrics": true,
    });
    add_plugin(&gateway, "prometheus", switches);
    assert_eq!(Load::run(gateway.proxy, "/", 8, 50).failures, [""; 0]);
    for _ in 0..3 {
        gateway.get("/status/404").expect(404);
    }
    // Without a route, a request is not counted.
    gateway.get_with("/", &[("host", "")]);
    backend.kill();
    gateway.get("/").expect(502);
    until("the last request", || {
        scrape(&gateway).contains_key(&requests("r", "502", "kong", ""))
    });
    let samples = scrape(&gateway);
    assert!(samples[&requests("r", "200", "service", "")] >= 400.0);
    assert_eq!(samples[&requests("r", "404", "service", "")], 3.0);
    assert_eq!(samples[&requests("r", "502", "kong", "")], 1.0);
    let of_route = [
        ("service", "u-service"),
        ("route", "r"),
        ("workspace", "default"),
    ];
    let counted = samples
        .iter()
        .filter(|((name, _), _)| name == "kong_http_requests_total");
    let counted: f64 = counted.map(|(_, value)| value).sum();
    assert_eq!(
        samples[&series("kong_request_latency_ms_count", &of_route)],
        counted
    );
    for direction in ["ingress", "egress"] {
        let labels = [
            ("service", "u-service"),
            ("route", "r"),
            ("direction", direction),
            ("workspace", "default"),
            ("consumer", ""),
        ];
        assert!(samples[&series("kong_bandwidth_bytes", &labels)] > 10_000.0);
    }
}

#[test]
fn consumers_are_named_where_asked_for_and_deleted_entities_leave_the_page() {
    let (gateway, _backend) = with_named_route();
    gateway
        .admin("POST", "/consumers", &[("username", "jane")])
        .expect(201);
    let id = add_plugin(&gateway, "prometheus", json!({"status_code_metrics": true}));
    add_plugin(&gateway, "key-auth", json!({"anonymous": "jane"}));
    gateway.get("/").expect(200);
    until("a count", || {
        scrape(&gateway).contains_key(&requests("r", "200", "service", ""))
    });
    let each = json!({"config": {"per_consumer": true}});
    gateway
        .admin_json("PATCH", &format!("/plugins/{id}"), &each)
        .expect(200);
    gateway.get("/").expect(200);
    let of_jane = requests("r", "200", "service", "jane");
    until("a count", || scrape(&gateway).contains_key(&of_jane));
    // Both are shown under the new name.
    gateway
        .admin("PATCH", "/routes/r", &[("name", "new")])
        .expect(200);
    let samples = scrape(&gateway);
    assert_eq!(samples[&requests("new", "200", "service", "")], 1.0);
    assert_eq!(samples[&requests("new", "200", "service", "jane")], 1.0);
    gateway.admin("DELETE", "/consumers/jane", &[]).expect(204);
    let samples = scrape(&gateway);
    assert!(samples.contains_key(&requests("new", "200", "service", "")));
    assert!(!samples.contains_key(&requests("new", "200", "service", "jane")));
    gateway.admin("DELETE", "/routes/new", &[]).expect(204);
    assert!(!has(&scrape(&gateway), "kong_http_requests_total"));
}
