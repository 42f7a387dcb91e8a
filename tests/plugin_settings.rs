//! The settings of plugins in the Admin API: what is shown, changed and refused. Facts: Kong 3.9.

use serde_json::{Value, json};

use crate::admin_input::said;
use crate::harness::Gateway;
use crate::plugins::{LIMIT, post};

#[test]
fn a_plugin_shows_all_its_settings() {
    let gateway = Gateway::start();
    let made = gateway.admin("POST", "/plugins", LIMIT).expect(201).json();
    assert_eq!(
        made["config"],
        json!({
            "second": null, "minute": 5, "hour": null, "day": null, "month": null, "year": null,
            "limit_by": "consumer",
            "header_name": null,
            "path": null,
            "policy": "local",
            "fault_tolerant": true,
            "redis": {
                "host": null, "port": 6379, "timeout": 2000, "username": null, "password": null,
                "database": 0, "ssl": false, "ssl_verify": false, "server_name": null,
            },
            "hide_client_headers": false,
            "error_code": 429,
            "error_message": "API rate limit exceeded",
            "sync_rate": -1,
            "redis_host": null, "redis_port": 6379, "redis_password": null, "redis_username": null,
            "redis_ssl": false, "redis_ssl_verify": false, "redis_server_name": null,
            "redis_timeout": 2000, "redis_database": 0,
        })
    );
    for (field, value) in [
        ("protocols", json!(["grpc", "grpcs", "http", "https"])),
        ("enabled", json!(true)),
        ("instance_name", Value::Null),
        ("service", Value::Null),
        ("route", Value::Null),
        ("consumer", Value::Null),
        ("tags", Value::Null),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert!(made.get("ordering").is_none() && made.get("consumer_group").is_none());
}

#[test]
fn an_unknown_plugin_is_refused_with_the_names_that_there_are() {
    let gateway = Gateway::start();
    let refused = post(
        &gateway,
        json!({ "name": "rate-limit", "config": { "x": 1 } }),
    )
    .expect(400);
    let message = said(&refused);
    let kongs = "plugin 'rate-limit' not enabled; add it to the 'plugins' configuration property";
    let start = format!("schema violation (name: {kongs}, there are: acl, ");
    assert!(message.starts_with(&start), "{message}");
    assert!(message.contains("rate-limiting"), "{message}");
    // Clients compare it.
    assert_eq!(refused.json()["fields"], json!({ "name": kongs }));
}

/// The header would be left out of each response.
#[test]
fn what_cannot_be_sent_in_a_header_is_refused() {
    let gateway = Gateway::start();
    let text = "a\nb";
    for (name, field, mut config) in [
        ("key-auth", "realm", json!({})),
        ("basic-auth", "realm", json!({})),
        ("jwt", "realm", json!({})),
        ("redirect", "location", json!({})),
        (
            "request-termination",
            "content_type",
            json!({"body": "b", "status_code": 403}),
        ),
    ] {
        config[field] = match field {
            "location" => "https://a.example/a\nb".into(),
            _ => text.into(),
        };
        let refused = post(&gateway, json!({ "name": name, "config": config })).expect(400);
        let message = "must not have control characters, since it is sent in a header";
        assert_eq!(refused.json()["fields"]["config"][field], message, "{name}");
    }
}

#[test]
fn a_wrong_field_is_answered_with_the_one_that_is_probably_meant() {
    let gateway = Gateway::start();
    let plugin = json!({ "name": "rate-limiting", "config": { "minut": 5, "hour": 9, "zzz": 1 } });
    let refused = post(&gateway, plugin).expect(400);
    assert_eq!(
        refused.json()["fields"],
        json!({ "config": { "minut": "unknown field", "zzz": "unknown field" } })
    );
    assert_eq!(
        said(&refused),
        "2 schema violations (config.minut: unknown field, did you mean 'minute'?; \
         config.zzz: unknown field)"
    );
}

#[test]
fn traces_are_sent_many_together_unless_the_queue_says_otherwise() {
    let gateway = Gateway::start();
    let url = "http://127.0.0.1:9/v1/traces";
    for (config, together) in [
        (json!({"traces_endpoint": url}), 200),
        (
            json!({"traces_endpoint": url, "queue": {"max_retry_time": 5}}),
            1,
        ),
    ] {
        let plugin = json!({"name": "opentelemetry", "config": config});
        let made = gateway
            .admin_json("POST", "/plugins", &plugin)
            .expect(201)
            .json();
        assert_eq!(made["config"]["queue"]["max_batch_size"], together);
        assert_eq!(made["config"]["propagation"]["default_format"], "w3c");
        let path = format!("/plugins/{}", made["id"].as_str().unwrap());
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
    let shown = gateway.admin("GET", "/schemas/plugins/opentelemetry", &[]);
    let shown = shown.expect(200).text();
    assert!(
        shown.contains(r#""default":{"max_batch_size":200}"#),
        "{shown}"
    );
    assert!(
        shown.contains(r#""default":{"default_format":"w3c"}"#),
        "{shown}"
    );
    let plugin = json!({"name": "opentelemetry", "config": {}});
    let refused = gateway
        .admin_json("POST", "/plugins", &plugin)
        .expect(400)
        .json();
    let said = &refused["fields"]["config"]["@entity"][0];
    assert!(
        said.as_str()
            .unwrap()
            .starts_with("at least one of these fields"),
        "{refused}"
    );
}

#[test]
fn wrong_settings_have_kongs_messages_in_their_places() {
    let gateway = Gateway::start();
    let periods = "at least one of these fields must be non-empty: 'config.second', \
                   'config.minute', 'config.hour', 'config.day', 'config.month', 'config.year'";
    let conditional = |field: &str| {
        json!([format!(
            "failed conditional validation given value of field '{field}'"
        )])
    };
    let cases: Vec<(&str, Value, Value)> = vec![
        ("rate-limiting", json!({}), json!({ "@entity": [periods] })),
        (
            "rate-limiting",
            json!({ "minute": 10, "hour": 5 }),
            json!({ "config": "The limit for hour(5.0) cannot be lower than the limit for minute(10.0)" }),
        ),
        (
            "rate-limiting",
            json!({ "minute": 1, "sync_rate": 1 }),
            json!({ "config": "sync_rate can only be used with the redis policy" }),
        ),
        (
            "rate-limiting",
            json!({ "minute": 0 }),
            json!({ "config": { "minute": "value must be greater than 0" } }),
        ),
        (
            "rate-limiting",
            json!({ "minute": 1, "policy": "redis" }),
            json!({
                "@entity": conditional("config.policy"),
                "config": { "redis": { "host": "required field missing" } },
            }),
        ),
        (
            "rate-limiting",
            json!({ "minute": 1, "limit_by": "header" }),
            json!({
                "@entity": conditional("config.limit_by"),
                "config": { "header_name": "required field missing" },
            }),
        ),
        (
            "response-ratelimiting",
            json!({}),
            json!({ "config": { "limits": "required field missing" } }),
        ),
        (
            "response-ratelimiting",
            json!({ "limits": {} }),
            json!({ "config": { "limits": "length must be at least 1" } }),
        ),
        (
            "response-ratelimiting",
            json!({ "limits": { "sms": 1 } }),
            json!({ "config": { "limits": "expected a record" } }),
        ),
        (
            "response-ratelimiting",
            json!({ "limits": { "sms": { "minute": 10, "hour": 5 } } }),
            json!({ "config": { "limits":
                "the limit for hour(5.0) cannot be lower than the limit for minute(10.0)" } }),
        ),
        (
            "proxy-cache",
            json!({}),
            json!({ "config": { "strategy": "required field missing" } }),
        ),
        (
            "proxy-cache",
            json!({ "strategy": "memory", "response_code": [], "cache_ttl": 0 }),
            json!({ "config": {
                "response_code": "length must be at least 1",
                "cache_ttl": "value must be greater than 0",
            } }),
        ),
        (
            "acl",
            json!({ "allow": ["a"], "deny": ["b"] }),
            json!({ "@entity": [
                "exactly one of these fields must be non-empty: 'config.allow', 'config.deny'",
            ] }),
        ),
        (
            "jwt",
            json!({ "maximum_expiration": 300, "claims_to_verify": ["nbf"] }),
            json!({
                "@entity": conditional("config.maximum_expiration"),
                "config": { "claims_to_verify": "expected to contain: exp" },
            }),
        ),
        (
            "cors",
            json!({ "origins": ["*", "a("] }),
            json!({ "config": { "origins": [null, "'a(' is not a valid regex"] } }),
        ),
        (
            "bot-detection",
            json!({ "deny": ["a("] }),
            json!({ "config": { "deny": ["not a valid regex: a("] } }),
        ),
        (
            "ip-restriction",
            json!({ "allow": ["10.0.0.0/33"] }),
            json!({ "config": { "allow": ["invalid ip or cidr range: '10.0.0.0/33'"] } }),
        ),
        (
            "redirect",
            json!({ "location": "/x", "status_code": 99 }),
            json!({ "config": {
                "location": "missing host in url",
                "status_code": "value should be between 100 and 599",
            } }),
        ),
        (
            "redirect",
            json!({ "location": "//a.example/x" }),
            json!({ "config": { "location": "missing scheme in url" } }),
        ),
        (
            "request-termination",
            json!({ "message": "a", "body": "b" }),
            json!({ "config": "message cannot be used with content_type or body" }),
        ),
        (
            "file-log",
            json!({ "path": "/tmp/*" }),
            json!({ "config": { "path": "not a valid filename" } }),
        ),
        (
            "http-log",
            json!({ "http_endpoint": "http://a.example", "headers": { "Host": "x" } }),
            json!({ "config": { "headers": "cannot contain 'Host' header" } }),
        ),
        (
            "statsd",
            json!({ "metrics": [{ "name": "latency", "stat_type": "counter" }] }),
            json!({ "config": { "metrics": [{
                "@entity": conditional("stat_type"),
                "sample_rate": "required field missing",
            }] } }),
        ),
        (
            "request-transformer",
            json!({ "add": { "headers": ["x a:b"], "body": ["a"] }, "http_method": "get" }),
            json!({ "config": {
                "add": { "headers": ["'x a' is not a valid header"], "body": ["key 'a' has no value"] },
                "http_method": "invalid value: get",
            } }),
        ),
        (
            "response-transformer",
            json!({ "add": { "json": ["a"], "json_types": ["text"] } }),
            json!({ "config": { "add": {
                "json": ["invalid value: a"],
                "json_types": ["expected one of: boolean, number, string"],
            } } }),
        ),
    ];
    for (name, config, fields) in cases {
        let refused = post(&gateway, json!({ "name": name, "config": config })).expect(400);
        assert_eq!(refused.json()["fields"], fields, "{name}: {config}");
    }
}

#[test]
fn what_this_gateway_does_not_do_is_refused_with_a_sentence() {
    let gateway = Gateway::start();
    let limit = |more: Value| {
        let mut plugin = json!({ "name": "rate-limiting", "config": { "minute": 5 } });
        plugin
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        plugin
    };
    for (plugin, part) in [
        (limit(json!({ "ordering": { "before": {} } })), "priorities"),
        (
            limit(json!({ "consumer_group": { "id": "x" } })),
            "no consumer groups",
        ),
        (
            limit(json!({ "config": { "minute": 5, "policy": "cluster" } })),
            "use 'redis'",
        ),
        (
            json!({ "name": "file-log", "config": {
                "path": "/tmp/x", "custom_fields_by_lua": { "a": "return 1" } } }),
            "does not run Lua",
        ),
        (
            json!({ "name": "request-transformer", "config": {
                "add": { "headers": ["x-a:$(headers.b or 'c')"] } } }),
            "no Lua is run here",
        ),
    ] {
        let message = said(&post(&gateway, plugin).expect(400));
        assert!(message.contains(part), "{message}");
    }
    let made = post(
        &gateway,
        limit(json!({ "ordering": null, "consumer_group": null })),
    );
    assert!(made.expect(201).json().get("ordering").is_none());
}

#[test]
fn a_change_of_settings_is_merged_deeply_and_needs_no_name() {
    let gateway = Gateway::start();
    let made = gateway.admin("POST", "/plugins", LIMIT).expect(201).json();
    let path = format!("/plugins/{}", made["id"].as_str().unwrap());
    let change = json!({ "config": { "hour": 10, "redis": { "port": 7000 } } });
    let changed = gateway
        .admin_json("PATCH", &path, &change)
        .expect(200)
        .json();
    let config = &changed["config"];
    assert_eq!(
        (&config["minute"], &config["hour"]),
        (&json!(5), &json!(10))
    );
    assert_eq!(
        (&config["redis"]["port"], &config["redis"]["timeout"]),
        (&json!(7000), &json!(2000))
    );
    // The earlier names show the change, and take one.
    assert_eq!(config["redis_port"], 7000);
    let changed = gateway
        .admin("PATCH", &path, &[("config.redis_port", "7001")])
        .expect(200);
    assert_eq!(changed.json()["config"]["redis"]["port"], 7001);
    let refused = gateway
        .admin_json("PATCH", &path, &json!({ "config": { "hour": 1 } }))
        .expect(400);
    assert_eq!(
        said(&refused),
        "schema violation (config: The limit for hour(1.0) cannot be lower than the limit for \
         minute(5.0))"
    );
    let both = json!({ "config": { "redis_host": "a.example", "redis": { "host": "b.example" } } });
    let refused = gateway.admin_json("PATCH", &path, &both).expect(400);
    assert_eq!(
        refused.json()["fields"],
        json!({ "config": { "redis_host":
            "both deprecated and new field are used but their values mismatch: \
             redis_host = a.example vs redis.host = b.example" } })
    );
    // What was read can be written back as it is.
    let read = gateway.admin("GET", &path, &[]).expect(200).json();
    let put = gateway.admin_json("PUT", &path, &read).expect(200).json();
    assert_eq!(put["config"], read["config"]);
}

#[test]
fn settings_of_which_no_policy_can_be_made_are_refused() {
    let gateway = Gateway::start();
    for (name, config) in [
        (
            "redirect",
            json!({ "location": "http://a b/", "keep_incoming_path": true }),
        ),
        ("http-log", json!({ "http_endpoint": "ftp://example.com/" })),
        ("correlation-id", json!({ "header_name": "X Req Id" })),
    ] {
        let plugin = json!({ "name": name, "config": config });
        let refused = gateway.admin_json("POST", "/plugins", &plugin);
        assert_eq!(refused.expect(400).json()["code"], 2, "{name}");
    }
    let all = gateway.admin("GET", "/plugins", &[]).expect(200).json();
    assert_eq!(all["data"], json!([]));
}
