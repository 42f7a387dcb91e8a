//! What Kong 3.9 declares, compared field by field with what the gateway declares. The facts are in
//! `kong_schemas/`, taken from Kong's JSON schemas of its plugins and from the OpenAPI document of
//! its Admin API: for each field its type, its default, and what bounds it. `config.a[]` stands for
//! the elements of `config.a`, and `config.a{}` for the values of a map. What only Kong Enterprise
//! has (`ws`, `wss`, consumer groups as a scope) is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::harness::Gateway;

type Fields = BTreeMap<String, Map<String, Value>>;

/// Where the gateway differs on purpose: the plugin, the field, what differs, and why.
const OF_PLUGINS: &[(&str, &str, &str, &str)] = &[
    ("acme", "config.account_key", "type", "it is refused"),
    (
        "acme",
        "config.cert_type",
        "default",
        "only ECDSA is issued",
    ),
    ("acme", "config.cert_type", "one_of", "only ECDSA is issued"),
    (
        "acme",
        "config.fail_backoff_minutes",
        "range",
        "a day at most",
    ),
    (
        "acme",
        "config.renew_threshold_days",
        "range",
        "100 years at most",
    ),
    (
        "acme",
        "config.storage_config",
        "type",
        "certificates are rows",
    ),
    (
        "grpc-web",
        "protocols[]",
        "one_of",
        "it does nothing with streams",
    ),
    (
        "opentelemetry",
        "config.propagation.default_format",
        "default",
        "the default of the record has it in Kong",
    ),
    (
        "opentelemetry",
        "config.propagation.default_format",
        "required",
        "it has a default",
    ),
    (
        "rate-limiting",
        "config.limit_by",
        "one_of",
        "consumer groups",
    ),
    (
        "rate-limiting",
        "config.policy",
        "one_of",
        "cluster is refused",
    ),
    (
        "response-ratelimiting",
        "config.limits",
        "required",
        "Kong says so at the write",
    ),
    (
        "response-ratelimiting",
        "config.policy",
        "one_of",
        "cluster is refused",
    ),
    (
        "statsd",
        "config.metrics",
        "default",
        "the facts have an example",
    ),
    (
        "statsd",
        "config.metrics[].name",
        "one_of",
        "3.9.3 does not have them",
    ),
];

/// The same for entities.
const OF_ENTITIES: &[(&str, &str, &str, &str)] = &[
    (
        "routes",
        "expression",
        "field",
        "it needs router_flavor=expressions",
    ),
    (
        "routes",
        "priority",
        "field",
        "it needs router_flavor=expressions",
    ),
    ("services", "url", "field", "Kong's schemas do not show it"),
    (
        "vaults",
        "config.prefix",
        "field",
        "it depends on the type of the vault",
    ),
];

fn facts(file: &str) -> BTreeMap<String, Value> {
    let path = format!(
        "{}/../tests/kong_schemas/{file}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn kongs(facts: &Value) -> Fields {
    serde_json::from_value(facts["fields"].clone()).unwrap()
}

/// The fields of a schema of `/schemas`, in the form of the facts.
fn flatten(above: &str, schema: &Value, fields: &mut Fields) {
    for field in schema["fields"].as_array().into_iter().flatten() {
        for (name, field) in field.as_object().unwrap() {
            flatten_one(&format!("{above}{name}"), field, fields);
        }
    }
}

fn flatten_one(path: &str, field: &Value, fields: &mut Fields) {
    let mut shown = Map::new();
    let kind = match field["type"].as_str().unwrap() {
        "set" => "array",
        "map" | "record" | "foreign" => "object",
        kind => kind,
    };
    shown.insert("type".into(), kind.into());
    if let Some(default) = field.get("default").filter(|default| !default.is_null()) {
        shown.insert("default".into(), default.clone());
    }
    if let Some(words) = field.get("one_of") {
        shown.insert("one_of".into(), words.clone());
    }
    if let Some(bounds) = field.get("between") {
        shown.insert("range".into(), bounds.clone());
    } else if let Some(bound) = field.get("gt") {
        shown.insert("range".into(), json!([bound, null]));
    }
    if field["required"] == true && field.get("default").is_none() && field["type"] != "record" {
        shown.insert("required".into(), true.into());
    }
    fields.insert(path.to_owned(), shown);
    for (inner, mark) in [("elements", "[]"), ("values", "{}")] {
        if field[inner].is_object() {
            flatten_one(&format!("{path}{mark}"), &field[inner], fields);
        }
    }
    flatten(&format!("{path}."), field, fields);
}

/// Whether two values of an attribute are the same: numbers by value, and lists in any order,
/// because the facts have them sorted.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().all(|value| other.iter().any(|o| same(value, o)))
        }
        _ => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() < f64::EPSILON,
            _ => one == other,
        },
    }
}

/// What differs: the fields with the attributes. A field that only one has differs in `field`.
fn differences(kongs: &Fields, ours: &Fields) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, kong) in kongs {
        let Some(own) = ours.get(path) else {
            found.insert((path.clone(), "field".to_owned()));
            continue;
        };
        for attribute in ["type", "default", "one_of", "range", "required"] {
            let [kong, own] = [kong, own].map(|field| field.get(attribute).unwrap_or(&Value::Null));
            if !same(kong, own) {
                found.insert((path.clone(), attribute.to_owned()));
            }
        }
    }
    // The facts have nothing of the values of some maps.
    let own = ours.keys().filter(|path| !path.contains("{}"));
    let own = own.filter(|path| !kongs.contains_key(*path));
    found.extend(own.map(|path| (path.clone(), "field".to_owned())));
    found
}

#[test]
fn plugins_have_kongs_settings() {
    let gateway = Gateway::start();
    let mut found = BTreeSet::new();
    let mut compared = 0;
    let facts = facts("plugins.json");
    let enabled = gateway
        .admin("GET", "/plugins/enabled", &[])
        .expect(200)
        .json();
    let names: Vec<&String> = facts.keys().collect();
    assert_eq!(enabled["enabled_plugins"], json!(names));
    for (name, facts) in &facts {
        let path = format!("/schemas/plugins/{name}");
        let schema = gateway.admin("GET", &path, &[]).expect(200).json();
        let mut ours = Fields::new();
        flatten("", &schema, &mut ours);
        // A scope that a plugin cannot have is a field that has to be null.
        let scopes = ["consumer", "route", "service"];
        let scopes = scopes
            .into_iter()
            .filter(|scope| !ours.contains_key(*scope));
        let scopes: Vec<&str> = scopes.collect();
        assert_eq!(json!(scopes), facts["scopes"], "{name}");
        for scope in ["consumer", "route", "service"] {
            ours.remove(scope);
        }
        let kongs = kongs(facts);
        compared += kongs.len();
        let differ = differences(&kongs, &ours);
        found.extend(
            differ
                .into_iter()
                .map(|(path, what)| (name.clone(), path, what)),
        );
    }
    assert!(compared > 400, "{compared}");
    let known = OF_PLUGINS.iter();
    let known: BTreeSet<_> = known
        .map(|(name, path, what, _)| ((*name).into(), (*path).into(), (*what).into()))
        .collect();
    let new: Vec<&(String, String, String)> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}, gone: {gone:#?}"
    );
}

#[test]
fn entities_have_kongs_fields() {
    let gateway = Gateway::start();
    let mut found = BTreeSet::new();
    for (name, facts) in &facts("entities.json") {
        let path = format!("/schemas/{name}");
        let schema = gateway.admin("GET", &path, &[]).expect(200).json();
        let mut ours = Fields::new();
        flatten("", &schema, &mut ours);
        let kongs = kongs(facts);
        for (path, kong) in &kongs {
            let what = match ours.get(path) {
                None => "field",
                Some(own) if !same(&kong["type"], &own["type"]) => "type",
                Some(own)
                    if !same(
                        kong.get("default").unwrap_or(&Value::Null),
                        own.get("default").unwrap_or(&Value::Null),
                    ) =>
                {
                    "default"
                }
                Some(_) => continue,
            };
            found.insert((name.clone(), path.clone(), what.to_owned()));
        }
    }
    let known = OF_ENTITIES.iter();
    let known: BTreeSet<_> = known
        .map(|(name, path, what, _)| ((*name).into(), (*path).into(), (*what).into()))
        .collect();
    let new: Vec<&(String, String, String)> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}, gone: {gone:#?}"
    );
}

/// The least settings with which a plugin can be made.
fn least(name: &str) -> Value {
    match name {
        "acl" => json!({ "allow": ["a"] }),
        "acme" => {
            json!({ "account_email": "a@a.example", "tos_accepted": true, "domains": ["a.example"] })
        }
        "file-log" => json!({ "path": "/nowhere/a.log" }),
        "http-log" => json!({ "http_endpoint": "http://a.example" }),
        "ip-restriction" => json!({ "allow": ["10.0.0.0/8"] }),
        "opentelemetry" => json!({ "traces_endpoint": "http://a.example" }),
        "proxy-cache" => json!({ "strategy": "memory" }),
        "rate-limiting" => json!({ "minute": 5 }),
        "redirect" => json!({ "location": "https://a.example" }),
        "response-ratelimiting" => json!({ "limits": { "a": { "minute": 5 } } }),
        "tcp-log" | "udp-log" => json!({ "host": "127.0.0.1", "port": 9 }),
        _ => json!({}),
    }
}

/// Makes a plugin that is not in effect.
fn make(gateway: &Gateway, name: &str, config: &Value) -> Value {
    let plugin = json!({ "name": name, "config": config, "enabled": false });
    let made = gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    made.json()
}

/// The JSON pointer to a field.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

#[test]
fn a_plugin_that_is_made_has_kongs_defaults() {
    let gateway = Gateway::start();
    let mut compared = 0;
    for (name, facts) in &facts("plugins.json") {
        let least = json!({ "config": least(name) });
        let made = make(&gateway, name, &least["config"]);
        let path = format!("/schemas/plugins/{name}");
        let schema = gateway.admin("GET", &path, &[]).expect(200).json();
        // Earlier names for fields show what those have.
        let config = schema["fields"].as_array().unwrap();
        let config = config.iter().find_map(|field| field.get("config")).unwrap();
        let earlier = config["shorthand_fields"].as_array().into_iter().flatten();
        let earlier: Vec<String> = earlier
            .flat_map(|field| field.as_object().unwrap().keys())
            .map(|field| format!("config.{field}"))
            .collect();
        let kongs = kongs(facts);
        for (path, kong) in &kongs {
            let differs = |(of, field, what, _): &(&str, &str, &str, &str)| {
                (of, field, what) == (&&**name, &&**path, &"default")
            };
            if path.contains(['[', '{'])
                || kong["type"] == "object" && kong.get("default").is_none()
                || earlier.contains(path)
                || OF_PLUGINS.iter().any(differs)
            {
                continue;
            }
            let (record, field) = path.rsplit_once('.').unwrap_or(("", path));
            let of_record = kongs.get(record).and_then(|record| record.get("default"));
            let of_record = of_record.and_then(|default| default.get(field));
            let given = least.pointer(&pointer(path));
            let expected = given.or(of_record).or(kong.get("default"));
            let expected = expected.unwrap_or(&Value::Null);
            let shown = made.pointer(&pointer(path)).unwrap_or(&Value::Null);
            if expected.is_object() {
                continue;
            }
            assert!(
                same(shown, expected),
                "{name} {path}: {shown}, not {expected}"
            );
            compared += 1;
        }
    }
    assert!(compared > 250, "{compared}");
}

/// The fields that may be references to values in vaults, of the plugins and entities that the
/// gateway has. Source: Kong 3.9.
const REFERENCEABLE: &[(&str, &[&str])] = &[
    (
        "plugins/acme",
        &[
            "config.account_email",
            "config.eab_hmac_key",
            "config.eab_kid",
        ],
    ),
    (
        "plugins/http-log",
        &["config.headers{}", "config.http_endpoint"],
    ),
    (
        "plugins/opentelemetry",
        &["config.headers{}", "config.traces_endpoint"],
    ),
    (
        "plugins/rate-limiting",
        &["config.redis.password", "config.redis.username"],
    ),
    (
        "plugins/response-ratelimiting",
        &["config.redis.password", "config.redis.username"],
    ),
    ("certificates", &["cert", "cert_alt", "key", "key_alt"]),
    ("keys", &["jwk", "pem.private_key", "pem.public_key"]),
];

/// The fields of a schema with this attribute, in the form of the facts.
fn with_attribute(above: &str, schema: &Value, found: &mut BTreeSet<String>) {
    let mut look = |path: String, field: &Value| {
        if field["referenceable"] == true {
            found.insert(path.clone());
        }
        with_attribute(&format!("{path}."), field, found);
    };
    for field in schema["fields"].as_array().into_iter().flatten() {
        for (name, field) in field.as_object().unwrap() {
            let path = format!("{above}{name}");
            look(format!("{path}[]"), &field["elements"]);
            look(format!("{path}{{}}"), &field["values"]);
            look(path, field);
        }
    }
}

#[test]
fn the_fields_that_kong_marks_take_references() {
    let gateway = Gateway::start();
    let plugins = facts("plugins.json")
        .into_keys()
        .map(|name| format!("plugins/{name}"));
    let entities = facts("entities.json").into_keys();
    let credentials = [
        "keyauth_credentials",
        "basicauth_credentials",
        "jwt_secrets",
        "acls",
    ];
    let credentials = credentials.map(str::to_owned);
    for schema in plugins.chain(entities).chain(credentials) {
        let path = format!("/schemas/{schema}");
        let shown = gateway.admin("GET", &path, &[]).expect(200).json();
        let mut found = BTreeSet::new();
        with_attribute("", &shown, &mut found);
        let kongs = REFERENCEABLE.iter().find(|(name, _)| **name == schema);
        let kongs = kongs.map_or(&[][..], |(_, fields)| fields);
        let kongs: BTreeSet<String> = kongs.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(found, kongs, "{schema}");
    }
    // Each of them is taken and shown as it was written.
    let reference = "{vault://env/not-set}";
    for (schema, fields) in REFERENCEABLE {
        let Some(name) = schema.strip_prefix("plugins/") else {
            continue;
        };
        let mut plugin = json!({ "config": least(name) });
        for field in *fields {
            let path = pointer(&field.replace("{}", ".x-a"));
            let mut at = &mut plugin;
            for name in path.split('/').skip(1) {
                at = &mut at[name];
            }
            *at = json!(reference);
        }
        let made = make(&gateway, name, &plugin["config"]);
        for field in *fields {
            let path = pointer(&field.replace("{}", ".x-a"));
            assert_eq!(
                made.pointer(&path),
                Some(&json!(reference)),
                "{name} {field}"
            );
        }
    }
    for (path, body) in [
        (
            "/certificates",
            json!({ "cert": reference, "key": reference, "cert_alt": reference, "key_alt": reference }),
        ),
        ("/keys", json!({ "kid": "a", "jwk": reference })),
        (
            "/keys",
            json!({ "kid": "b", "pem": { "private_key": reference, "public_key": reference } }),
        ),
    ] {
        let made = gateway.admin_json("POST", path, &body).expect(201).json();
        for (field, value) in body.as_object().unwrap() {
            assert_eq!(made[field], *value, "{path} {field}");
        }
    }
}
