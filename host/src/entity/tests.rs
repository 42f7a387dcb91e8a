//! What declarations can express, shown with some that exist only for these tests.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde_json::json;
use uuid::Uuid;

use super::*;

fn row(value: Value) -> Row {
    value.as_object().cloned().unwrap()
}

/// The errors of a row that a declaration refuses.
fn refusal(made: Result<Row, Violation>) -> (String, Value) {
    match made {
        Err(Violation::Schema(violations)) => (violations.message(), violations.fields()),
        made => panic!("{made:?}"),
    }
}

fn create(declaration: &Declaration, input: Value) -> Result<Row, Violation> {
    declaration.create(Uuid::new_v4(), row(input))
}

fn new_key() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Like Kong's credentials: other names in paths than in the store, a generated key, a secret.
static CREDENTIAL: Declaration = Declaration {
    path: "key-auths",
    nested_path: "key-auth",
    endpoint_key: Some("key"),
    owner: Some("service"),
    unique: &[UniqueKey::of(&["key"])],
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::reference("service", Kind::Service)
            .required()
            .on_delete(OnDelete::Cascade),
        Field::string("key")
            .required()
            .default(Preset::Generated(new_key))
            .secret(),
        Field::tags(),
    ],
    ..Declaration::of(Kind::Service, "keyauth_credentials", "key")
};

const CERTIFICATE: Field =
    Field::element(Shape::Uuid).refers_to(Kind::Balancer, ReferenceBy::PlainId);

/// Like Kong's keys: texts that may refer to a vault, and rules across fields.
static KEY: Declaration = Declaration {
    fields: &[
        Field::id(),
        Field::string("jwk")
            .referenceable()
            .check(&[Check::Text(not_a_key)]),
        Field::record(
            "pem",
            &[
                Field::string("private_key").referenceable().secret(),
                Field::string("public_key").referenceable(),
            ],
        )
        .null_by_default()
        .entity_checks(&[EntityCheck::AtLeastOneOf(&["private_key", "public_key"])]),
        Field::string("username"),
        Field::string("password").may_be_empty(),
        Field::string("algorithm")
            .default(Preset::String("HS256"))
            .check(&[Check::OneOf(&["HS256", "RS256"])]),
        Field::string("rsa_public_key"),
        Field::array("certificates", &CERTIFICATE),
    ],
    entity_checks: &[
        EntityCheck::MutuallyRequired(&["username", "password"]),
        EntityCheck::MutuallyExclusive(&["jwk", "username"]),
        EntityCheck::Distinct(&["jwk", "rsa_public_key"]),
        EntityCheck::Conditional {
            if_field: "algorithm",
            if_match: Match::OneOf(&["RS256"]),
            then_field: "rsa_public_key",
            then_match: Match::NotNull,
        },
    ],
    ..Declaration::of(Kind::Service, "keys", "key")
};

fn not_a_key(_: &str) -> Result<(), String> {
    Err("could not json decode jwk string".into())
}

/// Like Kong's plugins: the fields of `config` depend on `name`.
static PLUGIN: Declaration = Declaration {
    endpoint_key: Some("instance_name"),
    unique: &[
        UniqueKey::of(&["instance_name"]),
        UniqueKey::with_nulls(&["name", "route", "service"]),
    ],
    subschemas: Some(Subschemas {
        by: "name",
        of: |name| PLUGINS.iter().find(|plugin| plugin.name == name),
        unknown: |name| format!("plugin '{name}' not enabled"),
        absent: None,
        hint: None,
    }),
    fields: &[
        Field::id(),
        Field::string("name").required(),
        Field::string("instance_name"),
        Field::reference("route", Kind::Route).on_delete(OnDelete::Cascade),
        Field::reference("service", Kind::Service).on_delete(OnDelete::Cascade),
        Field::record("config", &[]),
    ],
    ..Declaration::of(Kind::Service, "plugins", "plugin")
};

static PLUGINS: [Subschema; 2] = [
    Subschema {
        name: "limit",
        fields: &[Field::record(
            "config",
            &[
                Field::number("minute").check(&[Check::GreaterThan(0)]),
                Field::number("hour").check(&[Check::GreaterThan(0)]),
                Field::string("policy")
                    .default(Preset::String("local"))
                    .check(&[Check::OneOf(&["local", "redis"])]),
            ],
        )
        .entity_checks(&[EntityCheck::AtLeastOneOf(&["minute", "hour"])])],
        entity_checks: &[],
    },
    Subschema {
        name: "auth",
        fields: &[
            Field::reference("service", Kind::Service)
                .check(&[Check::Nothing("value must be null")]),
            Field::record(
                "config",
                &[Field::boolean("run_on_preflight")
                    .required()
                    .default(Preset::Boolean(true))],
            ),
        ],
        entity_checks: &[],
    },
];

#[test]
fn a_generated_value_is_made_once_for_each_row() {
    let service = json!({ "id": Uuid::new_v4() });
    let one = create(&CREDENTIAL, json!({ "service": service })).unwrap();
    let other = create(&CREDENTIAL, json!({ "service": service })).unwrap();
    assert_eq!(one["key"].as_str().map(str::len), Some(32));
    assert_ne!(one["key"], other["key"]);
    let changed = CREDENTIAL
        .update(&one, row(json!({ "tags": ["a"] })))
        .unwrap();
    assert_eq!(changed["key"], one["key"]);
    let given = create(&CREDENTIAL, json!({ "service": service, "key": "mine" })).unwrap();
    assert_eq!(given["key"], "mine");
}

#[test]
fn the_fields_of_a_plugin_depend_on_its_name() {
    let made = create(
        &PLUGIN,
        json!({ "name": "limit", "config": { "minute": 5 } }),
    )
    .unwrap();
    assert_eq!(
        made["config"],
        json!({ "minute": 5, "hour": null, "policy": "local" })
    );
    let made = create(&PLUGIN, json!({ "name": "auth" })).unwrap();
    assert_eq!(made["config"], json!({ "run_on_preflight": true }));

    let wrong = json!({ "name": "limit", "config": { "minute": 0, "run_on_preflight": true } });
    let (_, fields) = refusal(create(&PLUGIN, wrong));
    let config = json!({
        "minute": "value must be greater than 0",
        "run_on_preflight": "unknown field",
    });
    assert_eq!(fields, json!({ "config": config }));

    // A scope that one of the plugins cannot have.
    let scoped = json!({ "name": "auth", "service": { "id": Uuid::new_v4() } });
    let (_, fields) = refusal(create(&PLUGIN, scoped));
    assert_eq!(fields, json!({ "service": "value must be null" }));
}

#[test]
fn a_change_finds_the_fields_by_the_name_that_is_stored() {
    let old = create(
        &PLUGIN,
        json!({ "name": "limit", "config": { "minute": 5 } }),
    )
    .unwrap();
    let input = json!({ "config": { "hour": 100 } });
    let changed = PLUGIN.update(&old, row(input)).unwrap();
    assert_eq!(
        changed["config"],
        json!({ "minute": 5, "hour": 100, "policy": "local" })
    );
    let input = json!({ "config": { "policy": "cluster" } });
    let (message, _) = refusal(PLUGIN.update(&old, row(input)));
    assert_eq!(
        message,
        "schema violation (config.policy: expected one of: local, redis)"
    );
}

#[test]
fn a_name_without_schema_is_the_only_error_of_a_plugin() {
    let unknown = json!({ "name": "limmit", "config": { "minute": 0 }, "x": 1 });
    let (message, _) = refusal(create(&PLUGIN, unknown));
    assert_eq!(
        message,
        "schema violation (name: plugin 'limmit' not enabled)"
    );
    let (message, _) = refusal(create(&PLUGIN, json!({ "config": { "minute": 0 } })));
    assert_eq!(message, "schema violation (name: required field missing)");
    let (message, _) = refusal(create(&PLUGIN, json!({ "name": 1 })));
    assert_eq!(message, "schema violation (name: expected a string)");
}

#[test]
fn rules_across_the_fields_of_a_record_are_reported_within_it() {
    let (_, fields) = refusal(create(&PLUGIN, json!({ "name": "limit" })));
    let message = "at least one of these fields must be non-empty: 'minute', 'hour'";
    assert_eq!(fields, json!({ "config": { "@entity": [message] } }));
}

#[test]
fn a_reference_to_a_vault_is_not_checked() {
    let (_, fields) = refusal(create(&KEY, json!({ "jwk": "{}" })));
    assert_eq!(fields, json!({ "jwk": "could not json decode jwk string" }));
    let vault = "{vault://env/jwk}";
    let input = json!({ "jwk": vault, "rsa_public_key": vault });
    let made = create(&KEY, input).unwrap();
    assert_eq!((&made["jwk"], &made["pem"]), (&json!(vault), &Value::Null));
    // A field that takes no reference checks it like any other text.
    let (_, fields) = refusal(create(&KEY, json!({ "algorithm": vault })));
    assert_eq!(
        fields,
        json!({ "algorithm": "expected one of: HS256, RS256" })
    );
}

#[test]
fn rules_across_fields_have_the_messages_of_kong() {
    let said = |input: Value| refusal(create(&KEY, input)).0;
    assert_eq!(
        said(json!({ "username": "a" })),
        "schema violation (all or none of these fields must be set: 'username', 'password')"
    );
    assert_eq!(
        said(json!({ "algorithm": "RS256" })),
        "2 schema violations (failed conditional validation given value of field 'algorithm'; \
         rsa_public_key: required field missing)"
    );
    assert_eq!(
        said(json!({ "password": "", "username": "" })),
        "schema violation (username: length must be at least 1)"
    );
    let pem = "at least one of these fields must be non-empty: 'private_key', 'public_key'";
    let (_, fields) = refusal(create(&KEY, json!({ "pem": {} })));
    assert_eq!(fields, json!({ "pem": { "@entity": [pem] } }));
}

#[test]
fn at_most_one_and_exactly_one_are_different_rules() {
    static EITHER: Declaration = Declaration {
        fields: &[
            Field::id(),
            Field::string("a"),
            Field::string("b"),
            Field::string("c"),
        ],
        entity_checks: &[
            EntityCheck::OnlyOneOf(&["a", "b"]),
            EntityCheck::MutuallyExclusive(&["b", "c"]),
            EntityCheck::Distinct(&["a", "c"]),
        ],
        ..Declaration::of(Kind::Service, "either", "either")
    };
    let said = |input: Value| refusal(create(&EITHER, input)).1["@entity"].clone();
    let exactly = "exactly one of these fields must be non-empty: 'a', 'b'";
    assert_eq!(said(json!({})), json!([exactly]));
    assert_eq!(said(json!({ "a": "1", "b": "2" })), json!([exactly]));
    let most = "only one or none of these fields must be set: 'b', 'c'";
    assert_eq!(said(json!({ "b": "1", "c": "2" })), json!([most]));
    let distinct = "values of these fields must be distinct: 'a', 'c'";
    assert_eq!(said(json!({ "a": "1", "c": "1" })), json!([distinct]));
    assert!(create(&EITHER, json!({ "a": "1", "c": "2" })).is_ok());
}

/// The attributes of a field in a schema.
fn attributes(schema: &Value, name: &str) -> Value {
    let fields = schema["fields"].as_array().unwrap();
    let field = fields.iter().find_map(|field| field.get(name));
    field.cloned().unwrap_or_default()
}

#[test]
fn a_schema_shows_what_is_declared() {
    let schema = CREDENTIAL.schema();
    assert_eq!(
        schema,
        json!({
            "fields": [
                { "id": { "type": "string", "uuid": true, "auto": true } },
                { "created_at": { "type": "integer", "timestamp": true, "auto": true } },
                { "service": {
                    "type": "foreign",
                    "reference": "services",
                    "on_delete": "cascade",
                    "required": true,
                } },
                { "key": {
                    "type": "string",
                    "required": true,
                    "auto": true,
                    "encrypted": true,
                    "unique": true,
                } },
                { "tags": { "type": "set", "elements": { "type": "string" } } },
            ],
            "entity_checks": [],
        })
    );
    let schema = KEY.schema();
    assert_eq!(
        attributes(&schema, "pem"),
        json!({
            "type": "record",
            "fields": [
                { "private_key": { "type": "string", "encrypted": true, "referenceable": true } },
                { "public_key": { "type": "string", "referenceable": true } },
            ],
            "entity_checks": [{ "at_least_one_of": ["private_key", "public_key"] }],
        })
    );
    assert_eq!(
        attributes(&schema, "certificates"),
        json!({ "type": "array", "elements": { "type": "string", "uuid": true } })
    );
    assert_eq!(
        schema["entity_checks"][3],
        json!({ "conditional": {
            "if_field": "algorithm",
            "if_match": { "one_of": ["RS256"] },
            "then_field": "rsa_public_key",
            "then_match": { "required": true },
        } })
    );
}

#[test]
fn a_subschema_shows_only_its_own_fields() {
    let abstract_config = attributes(&PLUGIN.schema(), "config");
    assert_eq!(
        abstract_config,
        json!({ "type": "record", "abstract": true, "required": true })
    );
    let schema = PLUGINS[1].schema();
    assert_eq!(
        schema["fields"],
        json!([
            { "service": { "type": "foreign", "reference": "services", "eq": null } },
            { "config": {
                "type": "record",
                "required": true,
                "fields": [
                    { "run_on_preflight": { "type": "boolean", "required": true, "default": true } },
                ],
            } },
        ])
    );
}

#[test]
fn a_client_of_kong_reads_its_defaults_from_the_schema() {
    let service = Kind::Service.declaration().schema();
    assert_eq!(
        attributes(&service, "retries"),
        json!({ "type": "integer", "default": 5, "between": [0, 32767] })
    );
    assert_eq!(attributes(&service, "port")["default"], 80);
    assert_eq!(
        service["entity_checks"][0],
        json!({ "conditional": {
            "if_field": "protocol",
            "if_match": { "one_of": ["tcp", "tls", "udp", "grpc", "grpcs"] },
            "then_field": "path",
            "then_match": { "eq": null },
        } })
    );
    // Rows show fields that are not Kong's only if they differ from their defaults.
    assert_eq!(attributes(&service, "pointsman"), Value::Null);
    let target = Kind::Target.declaration().schema();
    assert_eq!(attributes(&target, "created_at")["type"], "number");
    assert_eq!(attributes(&target, "upstream")["on_delete"], "cascade");
}

#[test]
fn the_store_knows_the_references_of_every_kind() {
    let fields = |kind: Kind| kind.references().iter().map(|r| r.field).collect();
    let known: [Vec<&str>; 19] = Kind::ALL.map(fields);
    let expected = [
        vec![],
        vec!["balancer"],
        vec![],
        vec!["consumer"],
        vec!["consumer"],
        vec!["consumer"],
        vec!["consumer"],
        vec![],
        vec!["certificate"],
        vec![],
        vec![],
        vec![],
        vec!["set"],
        vec!["client_certificate", "ca_certificates"],
        vec!["service"],
        vec!["route", "service", "consumer"],
        vec!["algorithm", "client_certificate"],
        vec!["upstream"],
        vec![],
    ];
    assert_eq!(known, expected);
}
