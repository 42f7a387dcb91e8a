#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::entity::{Row, Violation, view};

fn row(value: Value) -> Row {
    value.as_object().cloned().unwrap()
}

fn create(name: &str, config: Value) -> Result<Row, Violation> {
    let input = row(json!({ "name": name, "config": config }));
    DECLARATION.create(Uuid::nil(), input)
}

/// The settings that the data plane reads, of a plugin with these settings.
fn read<T: DeserializeOwned>(name: &str, config: Value) -> T {
    let stored = create(name, config).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let plugin: Plugin = view(Kind::Plugin, stored).unwrap();
    serde_json::from_value(plugin.config).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The attributes of a field of a kind, inside the records that the path names.
fn attributes(name: &str, path: &[&str]) -> Value {
    let mut found = PluginKind::named(name).unwrap().schema.schema();
    for part in path {
        let fields = found["fields"].as_array().unwrap();
        let inner = fields.iter().find_map(|field| field.get(*part));
        found = inner.unwrap_or_else(|| panic!("{name}: {path:?}")).clone();
    }
    found
}

#[test]
fn the_kinds_are_in_the_order_of_their_names() {
    assert!(KINDS.is_sorted_by(|one, other| one.schema.name < other.schema.name));
}

#[test]
fn the_data_plane_reads_the_settings_of_every_kind() {
    read::<acl::Config>("acl", json!({ "allow": ["a"] }));
    read::<basic_auth::Config>("basic-auth", json!({}));
    read::<bot_detection::Config>("bot-detection", json!({}));
    read::<correlation_id::Config>("correlation-id", json!({}));
    read::<cors::Config>("cors", json!({ "methods": null }));
    read::<file_log::Config>("file-log", json!({ "path": "/tmp/x" }));
    let http = json!({ "http_endpoint": "https://a.example", "queue_size": 10 });
    let http: http_log::Config = read("http-log", http);
    assert_eq!(http.queue().max_batch_size, 10);
    read::<ip_restriction::Config>("ip-restriction", json!({ "deny": ["::1"] }));
    read::<jwt::Config>("jwt", json!({ "claims_to_verify": ["exp", "nbf"] }));
    read::<key_auth::Config>("key-auth", json!({}));
    let traces: opentelemetry::Config = read(
        "opentelemetry",
        json!({
            "endpoint": "http://a.example/v1/traces",
            "batch_span_count": 10,
            "batch_flush_delay": 3,
            "propagation": { "inject": ["preserve", "b3-single"] },
        }),
    );
    let queue = traces.queue();
    assert_eq!(
        (queue.max_batch_size, queue.max_coalescing_delay),
        (10, 1.0)
    );
    let endpoint = traces.traces_endpoint.as_deref();
    assert_eq!(endpoint, Some("http://a.example/v1/traces"));
    read::<prometheus::Config>("prometheus", json!({ "per_consumer": null }));
    read::<proxy_cache::Config>("proxy-cache", json!({ "strategy": "memory" }));
    let limits: rate_limiting::Config = read("rate-limiting", json!({ "hour": 0.5 }));
    assert_eq!(limits.limits.hour, Some(0.5));
    let location = json!({ "location": "https://a.example/x" });
    read::<redirect::Config>("redirect", location);
    read::<request_size_limiting::Config>("request-size-limiting", json!({}));
    read::<request_termination::Config>("request-termination", json!({}));
    let transform = json!({ "replace": { "uri": "/$(uri_captures.a)" } });
    let transform: request_transformer::Config = read("request-transformer", transform);
    assert!(transform.replace.uri.is_some() && transform.add.body.is_empty());
    let limits = json!({ "limits": { "sms": { "minute": 3 } } });
    let limits: response_ratelimiting::Config = read("response-ratelimiting", limits);
    assert_eq!(limits.limits["sms"].minute, Some(3.0));
    let transform = json!({ "add": { "json": ["a:1"], "json_types": ["number"] } });
    read::<response_transformer::Config>("response-transformer", transform);
    let metrics: statsd::Config = read("statsd", json!({}));
    assert_eq!((metrics.metrics.len(), metrics.port), (13, 8125));
    read::<syslog::Config>("syslog", json!({ "facility": "local7" }));
    let server = json!({ "host": "a.example", "port": 9 });
    read::<tcp_log::Config>("tcp-log", server.clone());
    read::<udp_log::Config>("udp-log", server);
}

#[test]
fn each_setting_has_its_type_default_and_bounds() {
    let rows: &[(&str, &[&str], Value)] = &[
        (
            "acl",
            &["hide_groups_header"],
            json!({ "type": "boolean", "required": true, "default": false }),
        ),
        (
            "basic-auth",
            &["realm"],
            json!({ "type": "string", "required": true, "default": "service" }),
        ),
        (
            "bot-detection",
            &["deny"],
            json!({ "type": "array", "default": [], "elements": { "type": "string", "is_regex": true } }),
        ),
        (
            "correlation-id",
            &["generator"],
            json!({ "type": "string", "required": true, "default": "uuid#counter", "one_of": ["uuid", "uuid#counter", "tracker"] }),
        ),
        ("cors", &["max_age"], json!({ "type": "number" })),
        (
            "file-log",
            &["path"],
            json!({ "type": "string", "required": true, "match": "^[^*&%%\\`]+$" }),
        ),
        (
            "http-log",
            &["http_endpoint"],
            json!({ "type": "string", "required": true, "encrypted": true, "referenceable": true }),
        ),
        (
            "http-log",
            &["queue", "initial_retry_delay"],
            json!({ "type": "number", "default": 0.01, "between": [0.001, 1_000_000.0] }),
        ),
        (
            "http-log",
            &["queue", "concurrency_limit"],
            json!({ "type": "integer", "default": 1, "one_of": [-1, 1] }),
        ),
        ("ip-restriction", &["status"], json!({ "type": "number" })),
        (
            "jwt",
            &["maximum_expiration"],
            json!({ "type": "number", "default": 0, "between": [0, 31_536_000] }),
        ),
        (
            "jwt",
            &["header_names"],
            json!({ "type": "set", "default": ["authorization"], "elements": { "type": "string" } }),
        ),
        (
            "opentelemetry",
            &["queue", "max_batch_size"],
            json!({ "type": "integer", "default": 1, "between": [1, 1_000_000] }),
        ),
        (
            "opentelemetry",
            &["sampling_rate"],
            json!({ "type": "number", "between": [0, 1] }),
        ),
        (
            "opentelemetry",
            &["propagation", "extract"],
            json!({ "type": "array", "elements": { "type": "string", "one_of": ["w3c", "b3", "jaeger", "ot", "datadog", "aws", "gcp"] } }),
        ),
        (
            "prometheus",
            &["per_consumer"],
            json!({ "type": "boolean", "default": false }),
        ),
        (
            "proxy-cache",
            &["response_code"],
            json!({ "type": "array", "required": true, "default": [200, 301, 404], "len_min": 1, "elements": { "type": "integer", "between": [100, 900] } }),
        ),
        (
            "proxy-cache",
            &["cache_ttl"],
            json!({ "type": "integer", "default": 300, "gt": 0 }),
        ),
        (
            "proxy-cache",
            &["response_headers", "X-Cache-Key"],
            json!({ "type": "boolean", "default": true }),
        ),
        (
            "rate-limiting",
            &["error_code"],
            json!({ "type": "number", "default": 429, "gt": 0 }),
        ),
        (
            "rate-limiting",
            &["sync_rate"],
            json!({ "type": "number", "required": true, "default": -1 }),
        ),
        (
            "rate-limiting",
            &["redis", "timeout"],
            json!({ "type": "integer", "default": 2000, "between": [0, 2_147_483_646_i64] }),
        ),
        (
            "redirect",
            &["status_code"],
            json!({ "type": "integer", "required": true, "default": 301, "between": [100, 599] }),
        ),
        (
            "request-size-limiting",
            &["size_unit"],
            json!({ "type": "string", "required": true, "default": "megabytes", "one_of": ["megabytes", "kilobytes", "bytes"] }),
        ),
        (
            "request-transformer",
            &["http_method"],
            json!({ "type": "string", "match": "^%u+$" }),
        ),
        (
            "request-transformer",
            &["add", "headers"],
            json!({ "type": "array", "required": true, "default": [], "elements": { "type": "string", "match": "^[^:]+:.*$" } }),
        ),
        (
            "response-ratelimiting",
            &["header_name"],
            json!({ "type": "string", "default": "x-kong-limit" }),
        ),
        (
            "statsd",
            &["udp_packet_size"],
            json!({ "type": "number", "default": 0, "between": [0, 65507] }),
        ),
        (
            "statsd",
            &["allow_status_codes"],
            json!({ "type": "array", "elements": { "type": "string", "match": "^[0-9]+-[0-9]+$" } }),
        ),
        (
            "tcp-log",
            &["port"],
            json!({ "type": "integer", "required": true, "between": [0, 65535] }),
        ),
        (
            "udp-log",
            &["timeout"],
            json!({ "type": "number", "default": 10000 }),
        ),
    ];
    for (name, path, expected) in rows {
        let path: Vec<&str> = ["config"].iter().chain(path.iter()).copied().collect();
        assert_eq!(attributes(name, &path), *expected, "{name} {path:?}");
    }
}

#[test]
fn deprecated_settings_say_what_to_use() {
    let size = attributes("statsd", &["config", "queue_size"]);
    assert_eq!(size["deprecation"]["old_default"], 1);
    let message = size["deprecation"]["message"].as_str().unwrap();
    assert!(message.contains("config.queue.max_batch_size"), "{message}");
}

#[test]
fn only_some_kinds_are_for_streams() {
    for kind in KINDS {
        let name = kind.schema.name;
        let streams = [
            "file-log",
            "http-log",
            "ip-restriction",
            "prometheus",
            "proxy-cache",
            "request-transformer",
            "statsd",
            "syslog",
            "tcp-log",
            "udp-log",
        ];
        let input = json!({ "name": name, "protocols": ["tcp"] });
        let made = DECLARATION.create(Uuid::nil(), row(input));
        let fields = match made {
            Err(Violation::Schema(violations)) => violations.fields(),
            _ => json!({}),
        };
        let refused = fields.get("protocols").is_some();
        assert_eq!(refused, !streams.contains(&name), "{name}: {fields}");
    }
}

#[test]
fn a_record_in_a_list_or_a_map_shows_all_its_fields() {
    let limits = json!({ "limits": { "sms": { "minute": 3 } } });
    let made = create("response-ratelimiting", limits).unwrap();
    assert_eq!(
        made["config"]["limits"]["sms"],
        json!({ "second": null, "minute": 3, "hour": null, "day": null, "month": null, "year": null })
    );
    let metrics = json!({ "metrics": [{ "name": "latency", "stat_type": "timer" }] });
    let made = create("statsd", metrics).unwrap();
    assert_eq!(
        made["config"]["metrics"][0],
        json!({
            "name": "latency", "stat_type": "timer", "sample_rate": null,
            "consumer_identifier": null, "service_identifier": null, "workspace_identifier": null,
        })
    );
}

#[test]
fn an_earlier_name_sets_the_field_and_shows_it() {
    let input = json!({ "minute": 1, "redis_host": "a.example", "redis": { "port": 1 } });
    let made = create("rate-limiting", input).unwrap();
    let config = &made["config"];
    assert_eq!(config["redis"]["host"], "a.example");
    assert_eq!(
        (&config["redis_host"], &config["redis_port"]),
        (&json!("a.example"), &json!(1))
    );
    // Written back as shown, and changed by the new name.
    let input = json!({ "config": { "redis": { "host": "b.example" } } });
    let changed = DECLARATION.update(&made, row(input)).unwrap();
    assert_eq!(changed["config"]["redis_host"], "b.example");
    let Err(Violation::Schema(wrong)) =
        create("rate-limiting", json!({ "minute": 1, "redis_port": "x" }))
    else {
        panic!("accepted")
    };
    assert_eq!(
        wrong.fields(),
        json!({ "config": { "redis_port": "expected an integer" } })
    );
}
