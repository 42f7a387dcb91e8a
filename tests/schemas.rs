//! `/schemas/…`: what clients of Kong read about entities and plugins before they send any. Facts:
//! Kong 3.9.

use serde_json::{Value, json};

use crate::admin_input::said;
use crate::harness::Gateway;

/// The attributes of a field of a schema.
fn field(schema: &Value, name: &str) -> Value {
    let fields = schema["fields"].as_array().unwrap();
    let found = fields.iter().find_map(|field| field.get(name));
    found.unwrap_or_else(|| panic!("{name}: {schema}")).clone()
}

#[test]
fn a_client_reads_the_defaults_of_entities_and_plugins() {
    let gateway = Gateway::start();
    let read = |path: &str| gateway.admin("GET", path, &[]).expect(200).json();
    let services = read("/schemas/services");
    assert_eq!(
        field(&services, "retries"),
        json!({ "type": "integer", "default": 5, "between": [0, 32767] })
    );
    for entity in ["routes", "upstreams", "targets", "consumers", "plugins"] {
        let schema = read(&format!("/schemas/{entity}"));
        assert!(schema["entity_checks"].is_array(), "{entity}");
        assert_eq!(field(&schema, "id")["uuid"], true, "{entity}");
    }
    // Of these no list is stored.
    let tags = read("/schemas/tags");
    assert_eq!(field(&tags, "entity_name")["required"], true);
    assert_eq!(field(&tags, "entity_id")["uuid"], true);
    assert_eq!(
        field(&read("/schemas/workspaces"), "name")["type"],
        "string"
    );
    let limiting = read("/schemas/plugins/rate-limiting");
    let names = limiting["fields"].as_array().unwrap().iter();
    let names: Vec<&String> = names
        .flat_map(|field| field.as_object().unwrap().keys())
        .collect();
    assert_eq!(names, ["protocols", "config"]);
    let config = field(&limiting, "config");
    assert_eq!(config["required"], true);
    assert_eq!(
        field(&config, "minute"),
        json!({ "type": "number", "gt": 0 })
    );
    let redis = field(&config, "redis");
    assert_eq!(
        field(&redis, "port"),
        json!({ "type": "integer", "default": 6379, "between": [0, 65535] })
    );
    assert_eq!(
        field(&redis, "password"),
        json!({ "type": "string", "encrypted": true, "referenceable": true, "len_min": 0 })
    );
    let shorthands = config["shorthand_fields"].as_array().unwrap();
    assert_eq!(shorthands.len(), 9);
    let port = &shorthands[1]["redis_port"];
    assert_eq!(
        (&port["type"], &port["deprecation"]["replaced_with"]),
        (&json!("integer"), &json!([{ "path": ["redis", "port"] }]))
    );
    assert_eq!(
        limiting["entity_checks"][1],
        json!({ "conditional": {
            "if_field": "config.policy",
            "if_match": { "eq": "redis" },
            "then_field": "config.redis.host",
            "then_match": { "required": true },
        } })
    );
    // A scope that a plugin cannot have.
    let key_auth = read("/schemas/plugins/key-auth");
    assert_eq!(
        field(&key_auth, "consumer"),
        json!({ "type": "foreign", "reference": "consumers", "eq": null })
    );
    // The earlier path has the settings alone.
    assert_eq!(read("/plugins/schema/key-auth"), field(&key_auth, "config"));
}

#[test]
fn a_schema_that_does_not_exist_is_named() {
    let gateway = Gateway::start();
    for (path, message) in [
        ("/schemas/konsumers", "No entity named 'konsumers'"),
        ("/schemas/plugins/x", "No plugin named 'x'"),
        ("/plugins/schema/x", "No plugin named 'x'"),
    ] {
        let reply = gateway.admin("GET", path, &[]).expect(404);
        assert_eq!(said(&reply), message);
    }
    let reply = gateway
        .admin("POST", "/schemas/x/validate", &[])
        .expect(404);
    assert_eq!(said(&reply), "No entity named 'x'");
    for (method, path) in [
        ("POST", "/schemas/services"),
        ("GET", "/schemas/services/validate"),
        ("PUT", "/schemas/plugins/validate"),
        ("DELETE", "/plugins/enabled"),
    ] {
        let reply = gateway.admin(method, path, &[]).expect(405);
        assert_eq!(said(&reply), "Method not allowed", "{method} {path}");
    }
}

#[test]
fn a_row_is_validated_without_being_stored() {
    let gateway = Gateway::start();
    let validate = |entity: &str, row: Value, status| {
        let path = format!("/schemas/{entity}/validate");
        gateway.admin_json("POST", &path, &row).expect(status)
    };
    let good = "schema validation successful";
    let service = json!({ "name": "s", "url": "http://a.example/x" });
    assert_eq!(said(&validate("services", service, 200)), good);
    let listed = gateway.admin("GET", "/services", &[]).expect(200).json();
    assert_eq!(listed["data"], json!([]));

    let wrong = validate("services", json!({ "name": "s", "port": -1 }), 400);
    assert_eq!(
        wrong.json()["fields"],
        json!({
            "host": "required field missing",
            "port": "value should be between 0 and 65535",
        })
    );
    assert_eq!(wrong.json()["code"], 2);
    let wrong = validate("consumers", json!({ "id": "x", "username": "a" }), 400);
    assert_eq!(
        wrong.json()["fields"],
        json!({ "id": "expected a valid UUID" })
    );

    // A row that the field refers to is not looked up.
    let plugin = json!({
        "name": "rate-limiting",
        "config": { "minute": 5 },
        "service": { "id": "4e13f54a-bbf1-47a8-8777-255fed7116f2" },
    });
    assert_eq!(said(&validate("plugins", plugin, 200)), good);
    let wrong = validate("plugins", json!({ "config": { "x": 1 } }), 400);
    assert_eq!(
        said(&wrong),
        "schema violation (name: required field missing)"
    );
    let form = gateway.admin(
        "POST",
        "/schemas/plugins/validate",
        &[
            ("name", "proxy-cache"),
            ("config.strategy", "memory"),
            ("config.response_code", "200"),
        ],
    );
    assert_eq!(said(&form.expect(200)), good);
}

#[test]
fn the_root_tells_which_plugins_there_are_and_which_are_used() {
    let gateway = Gateway::start();
    let root = || gateway.admin("GET", "/", &[]).expect(200).json()["plugins"].clone();
    let plugins = root();
    let version = gateway.admin("GET", "/", &[]).json()["version"].clone();
    for (name, priority) in [
        ("acl", 950),
        ("basic-auth", 1100),
        ("bot-detection", 2500),
        ("correlation-id", 100_001),
        ("cors", 2000),
        ("file-log", 9),
        ("grpc-web", 3),
        ("http-log", 12),
        ("ip-restriction", 990),
        ("jwt", 1450),
        ("key-auth", 1250),
        ("opentelemetry", 14),
        ("prometheus", 13),
        ("proxy-cache", 100),
        ("rate-limiting", 910),
        ("redirect", 779),
        ("request-size-limiting", 951),
        ("request-termination", 2),
        ("request-transformer", 801),
        ("response-ratelimiting", 900),
        ("response-transformer", 800),
        ("statsd", 11),
        ("syslog", 4),
        ("tcp-log", 7),
        ("udp-log", 8),
    ] {
        let shown = &plugins["available_on_server"][name];
        assert_eq!(
            *shown,
            json!({ "version": version, "priority": priority }),
            "{name}"
        );
    }
    assert_eq!(plugins["enabled_in_cluster"], json!([]));
    for _ in 0..2 {
        let plugin = json!({ "name": "cors", "service": null });
        gateway
            .admin_json(
                "PUT",
                "/plugins/4e13f54a-bbf1-47a8-8777-255fed7116f2",
                &plugin,
            )
            .expect(200);
    }
    gateway
        .admin(
            "POST",
            "/plugins",
            &[("name", "acl"), ("config.allow", "a")],
        )
        .expect(201);
    assert_eq!(root()["enabled_in_cluster"], json!(["acl", "cors"]));

    let enabled = gateway
        .admin("GET", "/plugins/enabled", &[])
        .expect(200)
        .json();
    let names = plugins["available_on_server"].as_object().unwrap().keys();
    assert_eq!(enabled["enabled_plugins"], json!(names.collect::<Vec<_>>()));
}
