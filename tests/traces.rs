//! Traces of requests, as the plugin `opentelemetry` passes them on and sends them.

use std::net::TcpListener;

use pointsman::otlp::StatusCode;
use serde_json::{Value, json};

use crate::harness::http2::Http2;
use crate::harness::{
    Backend, Collector, Export, Gateway, Setup, add_consumer, add_credential, add_global_plugin,
    add_plugin, attribute, hex, metric, received, refusing_address, until, with_backend,
    with_route,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// The settings of a plugin that has every request traced, and each trace sent by itself.
pub(crate) fn every(collector: &Collector) -> Value {
    json!({
        "traces_endpoint": collector.url(), "sampling_rate": 1, "queue": {"max_batch_size": 1},
    })
}

fn with(mut settings: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        settings[name] = value.clone();
    }
    settings
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// The id of the trace of an export.
fn trace(export: &Export) -> String {
    hex(&export.span("kong").trace_id)
}

#[test]
fn a_trace_has_the_request_its_policies_and_its_try() {
    let (gateway, backend) = with_route();
    let collector = Collector::start();
    add_global_plugin(&gateway, "correlation-id", json!({}));
    let settings = with(
        every(&collector),
        json!({
            "headers": {"x-tenant": "a"},
            "resource_attributes": {"service.name": "edge", "deployment.environment.name": "test"},
            "http_response_header_for_traceid": "X-Trace-Id",
        }),
    );
    add_global_plugin(&gateway, "opentelemetry", settings);
    let reply = gateway.get("/some/path?a=b").expect(200);
    let shown = reply.header("x-trace-id").to_owned();
    let id = reply.header("x-kong-request-id").to_owned();
    let sent = received(reply);
    let export = collector.next();
    assert!(export.head.starts_with("POST /v1/traces HTTP/1.1\r\n"));
    let head = export.head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/x-protobuf\r\n"),
        "{head}"
    );
    assert!(head.contains("x-tenant: a\r\n"), "{head}");
    let resource = &export.resource().attributes;
    let of_resource = |key| attribute(resource, key).unwrap();
    assert_eq!(of_resource("service.name"), "edge");
    assert_eq!(of_resource("deployment.environment.name"), "test");
    let node = gateway.admin("GET", "/", &[]).json()["node_id"].clone();
    assert_eq!(of_resource("service.instance.id"), node);

    let request = export.span("kong");
    assert_eq!(hex(&request.trace_id), shown);
    assert!(request.parent_span_id.is_empty());
    let port = gateway.proxy.port().to_string();
    let peer = backend.address.port().to_string();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/some/path"),
        ("url.query", "a=b"),
        ("server.address", "127.0.0.1"),
        ("server.port", &*port),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("http.route", "/"),
        ("http.response.status_code", "200"),
        ("kong.request.id", &*id),
        ("pointsman.route", "r"),
        ("pointsman.service", "s"),
    ] {
        let found = attribute(&request.attributes, key);
        assert_eq!(found.as_deref(), Some(value), "{key}");
    }
    let one_try = export.span("kong.balancer");
    for (key, value) in [
        ("try_count", "1"),
        ("network.peer.port", &*peer),
        ("http.response.status_code", "200"),
    ] {
        let found = attribute(&one_try.attributes, key);
        assert_eq!(found.as_deref(), Some(value), "{key}");
    }
    // The endpoint is below the try.
    let expected = format!("00-{shown}-{}-01", hex(&one_try.span_id));
    assert_eq!(sent["traceparent"], expected);
    assert_eq!(
        export.span("pointsman.pick").parent_span_id,
        one_try.span_id
    );
    for name in [
        "kong.router",
        "kong.access.plugin.correlation-id",
        "kong.access.plugin.opentelemetry",
        "kong.header_filter.plugin.correlation-id",
        "kong.balancer",
    ] {
        let span = export.span(name);
        assert_eq!(span.parent_span_id, request.span_id, "{name}");
        assert!(
            request.start_time_unix_nano <= span.start_time_unix_nano,
            "{name}"
        );
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano,
            "{name}"
        );
        assert!(
            span.end_time_unix_nano <= request.end_time_unix_nano,
            "{name}"
        );
    }
}

#[test]
fn a_request_over_http2_goes_on_with_the_trace_of_its_client() {
    let (gateway, _backend) = with_backend(Setup::new());
    let collector = Collector::start();
    add_global_plugin(&gateway, "opentelemetry", every(&collector));
    let client = Http2::connect(gateway.proxy);
    let request = client
        .request("GET", "/")
        .header("traceparent", parent("01"));
    let request = request.body(crate::harness::http2::empty()).unwrap();
    let sent = client.send(request).expect(200).json()["headers"].clone();
    let export = collector.next();
    let request = export.span("kong");
    assert_eq!(
        (hex(&request.trace_id), hex(&request.parent_span_id)),
        (TRACE.into(), SPAN.into())
    );
    let version = attribute(&request.attributes, "network.protocol.version");
    assert_eq!(version.as_deref(), Some("2"));
    let last = hex(&export.span("kong.balancer").span_id);
    assert_eq!(sent["traceparent"], format!("00-{TRACE}-{last}-01"));
}

#[test]
fn each_try_is_a_span_that_says_who_has_picked() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(refusing_address(), 1), (backend.address, 1)]);
    let collector = Collector::start();
    add_global_plugin(&gateway, "opentelemetry", every(&collector));
    // Round robin: one of the two begins at the target that refuses.
    let mut exports = (0..2).map(|_| {
        let sent = received(gateway.get("/"));
        (sent, collector.next())
    });
    let retried = exports.find(|(_, export)| export.named("kong.balancer").len() == 2);
    let (sent, export) = retried.unwrap();
    let tries = export.named("kong.balancer");
    let of = |number: usize, key| attribute(&tries[number].attributes, key).unwrap_or_default();
    assert_eq!(of(0, "error.type"), "connect_failed");
    assert_eq!(
        tries[0].status.as_ref().unwrap().code,
        StatusCode::Error as i32
    );
    assert_eq!(of(1, "http.response.status_code"), "200");
    assert_eq!(of(1, "http.request.resend_count"), "1");
    assert_eq!(tries[1].status, None);
    assert!(tries[0].end_time_unix_nano <= tries[1].start_time_unix_nano);
    for (number, one_try) in tries.iter().enumerate() {
        assert_eq!(of(number, "try_count"), (number + 1).to_string());
        assert_eq!(of(number, "pointsman.chosen_by"), "plugin");
        assert_eq!(of(number, "pointsman.balancer"), "round-robin");
        assert_eq!(of(number, "pointsman.upstream"), "u");
        let picks = export.named("pointsman.pick");
        assert!(
            picks
                .iter()
                .any(|pick| pick.parent_span_id == one_try.span_id)
        );
    }
    let told = sent["traceparent"].as_str().unwrap();
    assert!(told.contains(&hex(&tries[1].span_id)), "{told}");
    // No span of a failed request is lost either.
    let path = format!("/upstreams/u/targets/{}", backend.address);
    gateway.admin("DELETE", &path, &[]).expect(204);
    gateway.get("/").expect(502);
    let export = collector.next();
    let request = export.span("kong");
    assert_eq!(
        request.status.as_ref().unwrap().code,
        StatusCode::Error as i32
    );
    let why = attribute(&request.attributes, "error.type");
    assert_eq!(why.as_deref(), Some("upstream_failed"));
}

#[test]
fn traces_are_sampled_by_their_client_and_by_a_share() {
    let (gateway, _backend) = with_backend(Setup::new());
    let collector = Collector::start();
    let settings = with(
        every(&collector),
        json!({"sampling_rate": 0, "sampling_strategy": "parent_probability_fallback"}),
    );
    let id = add_global_plugin(&gateway, "opentelemetry", settings);
    let get = |flags: Option<&str>| {
        let sent = flags.map(parent);
        let headers: Vec<_> = sent.iter().map(|sent| ("traceparent", &**sent)).collect();
        let sent = received(gateway.get_with("/", &headers));
        sent["traceparent"].as_str().unwrap().to_owned()
    };
    assert!(get(None).ends_with("-00"));
    assert!(get(Some("00")).ends_with("-00"));
    assert!(get(Some("01")).ends_with("-01"));
    // Exports come in order: the requests before it are not sampled.
    assert_eq!(trace(&collector.next()), TRACE);
    let change = |config: Value| {
        let path = format!("/plugins/{id}");
        let config = json!({ "config": config });
        gateway.admin_json("PATCH", &path, &config).expect(200);
    };
    change(json!({"sampling_strategy": null}));
    assert!(get(Some("01")).ends_with("-00"));
    change(json!({"sampling_rate": 1}));
    assert!(get(Some("00")).ends_with("-00"));
    let sampled = get(None);
    assert!(sampled.ends_with("-01"), "{sampled}");
    assert!(sampled.contains(&trace(&collector.next())));
    assert!(collector.is_idle());
}

#[test]
fn what_the_gateway_answers_itself_is_traced() {
    let (gateway, _backend) = with_route();
    let collector = Collector::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.log");
    add_global_plugin(&gateway, "file-log", json!({"path": path}));
    add_global_plugin(&gateway, "opentelemetry", every(&collector));
    add_plugin(
        &gateway,
        "key-auth",
        json!({}),
        json!({"route": {"name": "r"}}),
    );
    gateway.get("/").expect(401);
    let export = collector.next();
    let answered = &export.span("kong.access.plugin.key-auth").attributes;
    assert_eq!(
        attribute(answered, "pointsman.answered").as_deref(),
        Some("true")
    );
    assert!(export.named("kong.balancer").is_empty());
    let record = || std::fs::read_to_string(&path).unwrap_or_default();
    until("a record", || record().ends_with('\n'));
    let record: Value = serde_json::from_str(&record()).unwrap();
    assert_eq!(record["trace_id"]["w3c"], trace(&export));

    gateway.admin("DELETE", "/routes/r", &[]).expect(204);
    gateway
        .get_with("/", &[("traceparent", &parent("01"))])
        .expect(404);
    let export = collector.next();
    let request = export.span("kong");
    assert_eq!(hex(&request.parent_span_id), SPAN);
    let of = |key| attribute(&request.attributes, key);
    assert_eq!(of("http.response.status_code").as_deref(), Some("404"));
    assert_eq!(of("pointsman.reason").as_deref(), Some("no_route"));
    assert_eq!(of("http.route"), None);
}

#[test]
fn records_and_the_access_log_name_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, records) = (
        folder.path().join("access.log"),
        folder.path().join("requests.log"),
    );
    let setup = Setup::new()
        .arg("--proxy-access-log", lines.display())
        .arg("--proxy-access-log-format", "$status $trace_id");
    let (gateway, _backend) = with_backend(setup);
    add_global_plugin(&gateway, "file-log", json!({"path": records}));
    let collector = Collector::start();
    let settings = with(
        every(&collector),
        json!({"propagation": {"extract": ["w3c"], "inject": ["datadog"]}}),
    );
    add_global_plugin(&gateway, "opentelemetry", settings);
    gateway
        .get_with("/", &[("traceparent", &parent("00"))])
        .expect(200);
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    until("a line", || read(&lines).ends_with('\n'));
    assert_eq!(read(&lines), format!("200 {TRACE}\n"));
    until("a record", || read(&records).ends_with('\n'));
    let record: Value = serde_json::from_str(&read(&records)).unwrap();
    let datadog = u64::from_str_radix(&TRACE[16..], 16).unwrap().to_string();
    assert_eq!(
        record["trace_id"],
        json!({"w3c": TRACE, "datadog": datadog})
    );
}

#[test]
fn a_plugin_of_a_consumer_traces_the_requests_of_that_one() {
    let (gateway, _backend) = with_route();
    let collector = Collector::start();
    add_global_plugin(&gateway, "key-auth", json!({}));
    for name in ["jane", "joe"] {
        let id = add_consumer(&gateway, name);
        add_credential(&gateway, &id, "key-auth", json!({ "key": name }));
    }
    let scope = json!({"consumer": {"username": "jane"}});
    add_plugin(&gateway, "opentelemetry", every(&collector), scope);
    let joe = received(gateway.get_with("/", &[("apikey", "joe")]));
    assert_eq!(joe["traceparent"], Value::Null);
    let jane = received(gateway.get_with("/", &[("apikey", "jane")]));
    let export = collector.next();
    assert!(
        jane["traceparent"]
            .as_str()
            .unwrap()
            .contains(&trace(&export))
    );
    let request = &export.span("kong").attributes;
    assert_eq!(
        attribute(request, "pointsman.consumer").as_deref(),
        Some("jane")
    );
    assert_eq!(export.named("kong.balancer").len(), 1);
    assert_eq!(export.named("kong.router").len(), 1);
}

#[test]
fn without_instrumentations_contexts_are_passed_on_and_nothing_is_sent() {
    let setup = Setup::new().arg("--tracing-instrumentations", "off");
    let (gateway, _backend) = with_backend(setup);
    let collector = Collector::start();
    add_global_plugin(&gateway, "opentelemetry", every(&collector));
    let sent = gateway.get_with("/", &[("b3", &format!("{TRACE}-{SPAN}-1"))]);
    let sent = received(sent)["b3"].as_str().unwrap().to_owned();
    assert!(
        sent.starts_with(&format!("{TRACE}-")) && sent.ends_with(&format!("-0-{SPAN}")),
        "{sent}"
    );
    assert!(!gateway.get("/").text().contains(SPAN));
    let status = gateway.admin("GET", "/metrics", &[]).text();
    assert!(!status.contains("plugin=\"opentelemetry\""));
    assert!(collector.is_idle());
}

#[test]
fn the_settings_say_how_many_requests_are_traced_and_which_spans_they_have() {
    let setup = Setup::new()
        .arg("--tracing-sampling-rate", "1")
        .arg("--tracing-instrumentations", "router,plugin_access");
    let (gateway, _backend) = with_backend(setup);
    let collector = Collector::start();
    let settings = json!({"endpoint": collector.url(), "queue": {"max_batch_size": 1}});
    let id = add_global_plugin(&gateway, "opentelemetry", settings);
    let plugin = gateway.admin("GET", &format!("/plugins/{id}"), &[]).json();
    assert_eq!(plugin["config"]["traces_endpoint"], collector.url());
    assert!(plugin["config"].get("endpoint").is_none(), "as in Kong");
    let sent = received(gateway.get("/"));
    let export = collector.next();
    let names: Vec<&str> = export.spans().iter().map(|span| &*span.name).collect();
    assert_eq!(
        names,
        ["kong", "kong.router", "kong.access.plugin.opentelemetry"]
    );
    let told = sent["traceparent"].as_str().unwrap();
    assert!(told.contains(&hex(&export.span("kong").span_id)), "{told}");
    let shown = gateway.admin("GET", "/", &[]).json()["configuration"].clone();
    let spans = json!(["request", "router", "plugin_access"]);
    assert_eq!(shown["tracing_instrumentations"], spans);
    assert_eq!(shown["tracing_sampling_rate"], 1.0);
}

#[test]
fn a_batch_is_sent_again_until_the_collector_accepts_it() {
    let (gateway, _backend) = with_backend(Setup::new());
    let collector = Collector::start();
    collector.answer_with([500, 202, 404]);
    let settings = with(
        every(&collector),
        json!({"queue": {"max_batch_size": 3, "max_coalescing_delay": 3600}}),
    );
    add_global_plugin(&gateway, "opentelemetry", settings);
    for _ in 0..3 {
        gateway.get("/").expect(200);
    }
    let exports: Vec<Export> = (0..4).map(|_| collector.next()).collect();
    assert_eq!(exports[0].named("kong").len(), 3);
    assert!(
        exports
            .iter()
            .all(|export| export.message == exports[0].message)
    );
    let sent = "pointsman_log_records_sent_total{plugin=\"opentelemetry\"";
    until("the batch", || metric(&gateway, sent) == 3.0);
}

#[test]
fn a_collector_that_is_stopped_or_slow_costs_counted_traces_alone() {
    let (gateway, _backend) = with_backend(Setup::new());
    let stopped = json!({
        "traces_endpoint": format!("http://{}/", refusing_address()), "sampling_rate": 1,
        "queue": {"max_batch_size": 1, "max_retry_time": 0},
    });
    let id = add_global_plugin(&gateway, "opentelemetry", stopped);
    let series = |name: &str| {
        format!("pointsman_log_records_{name}{{plugin=\"opentelemetry\",id=\"{id}\"}}")
    };
    for _ in 0..3 {
        gateway.get("/").expect(200);
    }
    until("failures", || {
        metric(&gateway, &series("failed_total")) == 3.0
    });
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = json!({"config": {
        "traces_endpoint": format!("http://{}/", silent.local_addr().unwrap()),
        "read_timeout": 600_000, "queue": {"max_entries": 5},
    }});
    gateway
        .admin_json("PATCH", &format!("/plugins/{id}"), &slow)
        .expect(200);
    gateway.get("/").expect(200);
    let _held = silent.accept().unwrap();
    until("an empty queue", || {
        metric(&gateway, &series("waiting")) == 0.0
    });
    for _ in 0..12 {
        gateway.get("/").expect(200);
    }
    until("drops", || {
        metric(&gateway, &series("dropped_total")) == 7.0
    });
    assert_eq!(metric(&gateway, &series("waiting")), 5.0);
}

#[test]
fn settings_that_make_no_sense_are_refused_with_a_reason() {
    let gateway = Gateway::start();
    let refused = |config: Value| {
        let plugin = json!({"name": "opentelemetry", "config": config});
        let reply = gateway.admin_json("POST", "/plugins", &plugin).expect(400);
        reply.json()["message"].as_str().unwrap().to_owned()
    };
    let url = "http://127.0.0.1:4318/v1/traces";
    for (config, said) in [
        (
            json!({}),
            "at least one of these fields must be non-empty: 'traces_endpoint', 'logs_endpoint'",
        ),
        (
            json!({"traces_endpoint": url, "logs_endpoint": url}),
            "leave logs_endpoint out",
        ),
        (
            json!({"traces_endpoint": url, "sampling_rate": 1.5}),
            "between 0 and 1",
        ),
        (
            json!({"traces_endpoint": url, "propagation": {"extract": ["b3-single"]}}),
            "expected one of",
        ),
        (
            json!({"traces_endpoint": url, "resource_attributes": {"a": ""}}),
            "resource_attributes",
        ),
        (json!({"traces_endpoint": "ftp://a.test"}), "scheme"),
    ] {
        let message = refused(config.clone());
        assert!(message.contains(said), "{config}: {message}");
    }
}
