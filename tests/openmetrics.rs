//! `/metrics` as OpenMetrics, the figures beyond Kong's, and what is made of them in `docs/`: the
//! dashboard, the alerts and the list of metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Etcd, Gateway, Issued, Load, Reply, Setup, add_global_plugin, add_plugin, metric,
    refusing_address, until, with_backend, with_route,
};

/// What Prometheus sends.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

fn openmetrics(gateway: &Gateway) -> Reply {
    let headers = [("accept", ACCEPT)];
    let reply = gateway.send(gateway.admin, "GET", "/metrics", &headers, None);
    reply.expect(200)
}

fn count_all(gateway: &Gateway) {
    let switches = json!({
        "status_code_metrics": true, "bandwidth_metrics": true, "latency_metrics": true,
    });
    add_global_plugin(gateway, "prometheus", switches);
}

/// The names with the labels of all samples.
fn series(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let series = samples.map(|line| {
        let line = line.split(" # ").next().unwrap();
        line.rsplit_once(' ').unwrap().0.to_owned()
    });
    series.collect()
}

#[test]
fn both_formats_have_the_same_series() {
    let (gateway, _backend) = with_route();
    count_all(&gateway);
    gateway.get("/").expect(200);
    let name = "kong_http_requests_total{";
    let text = || gateway.admin("GET", "/metrics", &[]).expect(200).text();
    until("the request is counted", || text().contains(name));
    let reply = openmetrics(&gateway);
    assert_eq!(
        reply.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let vary: Vec<_> = reply.headers.get_all("vary").iter().collect();
    assert!(vary.iter().any(|value| *value == "accept"), "{vary:?}");
    let page = reply.text();
    assert!(page.ends_with("\n# EOF\n"), "{page}");
    assert_eq!(series(&page), series(&text()));
    assert!(page.contains("# TYPE kong_http_requests counter\n"));
    assert!(page.contains("# TYPE kong_bandwidth_bytes unknown\n"));
    let mut family = String::new();
    for line in page.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => family = rest.split(' ').next().unwrap().to_owned(),
            None if line.starts_with('#') => {}
            None => assert!(line.starts_with(&family), "{line} is under {family}"),
        }
    }
}

#[test]
fn a_bucket_names_the_trace_of_a_request_that_is_sampled() {
    let (gateway, _backend) = with_route();
    count_all(&gateway);
    let url = format!("http://{}/", refusing_address());
    let config = json!({"traces_endpoint": url, "sampling_rate": 1});
    add_global_plugin(&gateway, "opentelemetry", config);
    openmetrics(&gateway);
    let id = "0af7651916cd43dd8448eb211c80319c";
    let sent = format!("00-{id}-b7ad6b7169203331-01");
    let headers = [("traceparent", &*sent)];
    (gateway.send(gateway.proxy, "GET", "/", &headers, None)).expect(200);
    let exemplar = format!(" # {{trace_id=\"{id}\"}} ");
    until("the request is counted", || {
        openmetrics(&gateway).text().contains(&exemplar)
    });
}

#[test]
fn a_bucket_names_a_request_that_the_client_knows_too() {
    let (gateway, _backend) = with_route();
    count_all(&gateway);
    // From here on exemplars are kept.
    openmetrics(&gateway);
    let id = gateway.get("/").expect(200);
    let id = id.header("x-kong-request-id");
    assert_eq!(id.len(), 32);
    let exemplar = format!(" # {{request_id=\"{id}\"}} ");
    let shown = || {
        let page = openmetrics(&gateway).text();
        let lines = page.lines().filter(|line| line.contains(&exemplar));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    until("the request is counted", || !shown().is_empty());
    for family in [
        "kong_request_latency_ms",
        "kong_upstream_latency_ms",
        "kong_kong_latency_ms",
        "pointsman_gateway_seconds",
    ] {
        let start = format!("{family}_bucket{{service=\"s\",route=\"r\"");
        let line = shown().into_iter().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no example of {family}"));
        // The observation is in the bucket, and its time is now.
        let (sample, example) = line.split_once(&exemplar).unwrap();
        let bound = sample.split("le=\"").nth(1).unwrap();
        let bound = match bound.split('"').next().unwrap() {
            "+Inf" => f64::INFINITY,
            bound => bound.parse::<f64>().unwrap(),
        };
        let (value, at) = example.split_once(' ').unwrap();
        assert!(value.parse::<f64>().unwrap() <= bound, "{line}");
        let age = unix_seconds() - at.parse::<f64>().unwrap();
        assert!((-5.0..3600.0).contains(&age), "{line}");
    }
    let text = gateway.admin("GET", "/metrics", &[]).text();
    assert!(!text.contains(" # {"), "{text}");
}

fn unix_seconds() -> f64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs_f64()
}

#[test]
fn tries_and_responses_of_plugins_are_counted_by_route() {
    let (gateway, backend) = with_route();
    count_all(&gateway);
    gateway.get("/").expect(200);
    add_plugin(
        &gateway,
        "key-auth",
        json!({}),
        json!({"route": {"name": "r"}}),
    );
    for _ in 0..2 {
        gateway.get("/").expect(401);
    }
    let page = || gateway.admin("GET", "/metrics", &[]).expect(200).text();
    let refused = "pointsman_policy_responses_total{service=\"s\",route=\"r\",policy=\"key-auth\",code=\"401\"} 2\n";
    until("the refusals are counted", || page().contains(refused));
    let answered = "pointsman_tries_total{service=\"s\",route=\"r\",outcome=\"answered\"} 1\n";
    assert!(page().contains(answered), "{}", page());
    // Each of the two was decided by the plugin, and the first request had others to pass.
    let decided = "pointsman_access_seconds_count{service=\"s\",route=\"r\"} 3\n";
    assert!(page().contains(decided), "{}", page());

    let plugins = gateway.admin("GET", "/routes/r/plugins", &[]).json();
    let id = plugins["data"][0]["id"].as_str().unwrap();
    gateway
        .admin("DELETE", &format!("/plugins/{id}"), &[])
        .expect(204);
    backend.kill();
    gateway.get("/").expect(502);
    // 1 + `retries` of the service.
    let failed = "pointsman_tries_total{service=\"s\",route=\"r\",outcome=\"connect_failed\"} 6\n";
    until("the tries are counted", || page().contains(failed));
}

#[test]
fn connections_to_endpoints_are_counted_as_they_are_opened_used_again_and_idle() {
    let (gateway, backend) = with_backend(Setup::new().arg("--workers", 1));
    let of = |what: &str| metric(&gateway, &format!("pointsman_upstream_connections_{what} "));
    assert_eq!(of("opened_total"), 0.0);
    assert_eq!(Load::run(gateway.proxy, "/", 1, 20).failures, [""; 0]);
    let (opened, reused) = (of("opened_total"), of("reused_total"));
    assert!(opened >= 1.0);
    assert_eq!(opened + reused, 20.0);
    assert_eq!(of("failed_total"), 0.0);
    until("the connections are idle", || of("idle") == opened);
    assert_eq!(of("open"), opened);
    backend.kill();
    gateway.get("/").expect(502);
    assert!(of("failed_total") >= 1.0);
    until("no connection is left", || {
        of("idle") == 0.0 && of("open") == 0.0
    });
}

#[test]
fn the_end_of_certificates_and_the_age_of_the_configuration_are_shown() {
    let gateway = Gateway::start();
    let issued = Issued::to("a.example");
    let pair = json!({
        "cert": issued.certificate.pem(), "key": issued.key.serialize_pem(), "snis": ["a.example"],
    });
    let made = gateway
        .admin_json("POST", "/certificates", &pair)
        .expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let name = format!(
        "pointsman_tls_certificate_expiry_timestamp_seconds{{certificate=\"{id}\",\
         server_name=\"a.example\"}}"
    );
    assert!(metric(&gateway, &name) > unix_seconds());
    let revision = metric(&gateway, "pointsman_config_revision ");
    let applied = metric(&gateway, "pointsman_config_applied_timestamp_seconds ");
    assert!((applied - unix_seconds()).abs() < 3600.0);
    assert_eq!(metric(&gateway, "pointsman_config_age_seconds "), 0.0);
    gateway
        .admin("DELETE", &format!("/certificates/{id}"), &[])
        .expect(204);
    assert!(metric(&gateway, "pointsman_config_revision ") > revision);
    let page = gateway.admin("GET", "/metrics", &[]).text();
    assert!(!page.contains(&id));
}

/// All names that samples have, on gateways of all kinds: with etcd, with a file, with an access
/// log.
fn exposed() -> BTreeMap<String, String> {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let shared = etcd.gateway().arg("--proxy-access-log", log.display());
    let (shared, _backend) = with_backend(shared);
    count_all(&shared);
    shared.get("/").expect(200);
    add_plugin(&shared, "key-auth", json!({}), json!({}));
    shared.get("/").expect(401);
    let page = || shared.admin("GET", "/metrics", &[]).expect(200).text();
    let last = "pointsman_policy_responses_total{";
    until("the requests are counted", || page().contains(last));

    let backend = Backend::start("b");
    let file = folder.path().join("kong.yml");
    let document = json!({
        "_format_version": "3.0",
        "services": [{ "name": "s", "url": format!("http://{}", backend.address) }],
    });
    std::fs::write(&file, document.to_string()).unwrap();
    let single = Setup::new()
        .arg("--database", "off")
        .arg("--declarative-config", file.display())
        .start();
    let pages = [page(), single.admin("GET", "/metrics", &[]).text()];
    let mut exposed = BTreeMap::new();
    for line in pages.iter().flat_map(|page| page.lines()) {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            exposed.insert(name.to_owned(), kind.to_owned());
        }
    }
    exposed
}

/// The names of metrics in a text: words that begin as ours do.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    let starts = ["kong_", "pointsman_", "process_"];
    let names = words.filter(|word| starts.iter().any(|start| word.starts_with(start)));
    names.map(str::to_owned).collect()
}

/// The values of all members of this name.
fn members<'v>(value: &'v Value, name: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value.as_str().filter(|_| key == name) {
                    Some(text) => found.push(text),
                    None => members(value, name, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| members(value, name, found)),
        _ => {}
    }
}

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn dashboard_alerts_and_list_name_the_metrics_that_there_are() {
    let exposed = exposed();
    let mut samples: BTreeSet<String> = BTreeSet::new();
    for (name, kind) in &exposed {
        match &**kind {
            "histogram" => {
                samples.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")))
            }
            _ => drop(samples.insert(name.clone())),
        }
    }
    let dashboard: Value = serde_json::from_str(&document("docs/grafana/pointsman.json")).unwrap();
    let mut queries = Vec::new();
    members(&dashboard, "expr", &mut queries);
    members(&dashboard, "query", &mut queries);
    assert!(queries.len() > 20);
    let alerts = document("docs/alerts.yml");
    let alerts = alerts.lines().filter(|line| !line.trim().starts_with('#'));
    let alerts: String = alerts.map(|line| format!("{line}\n")).collect();
    for (of, text) in [("dashboard", queries.join("\n")), ("alerts", alerts)] {
        let named = named(&text);
        assert!(named.len() > 10, "{of}: {named:?}");
        let unknown: Vec<_> = named.difference(&samples).collect();
        assert!(unknown.is_empty(), "{of}: {unknown:?}");
    }
    let listed = named(&(document("docs/metrics.md") + &document("docs/streams.md")));
    let unlisted: Vec<_> = exposed
        .keys()
        .filter(|name| !listed.contains(*name))
        .collect();
    assert!(unlisted.is_empty(), "not in docs/metrics.md: {unlisted:?}");
}
