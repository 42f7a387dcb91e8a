#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::config::RouterFlavor;
use crate::entity::{
    Check, acl, basic_auth_credential, ca_certificate, certificate, consumer, jwt_secret,
    key_auth_credential, plugin, route, service, sni, target, upstream, vault,
};
use crate::pattern::PATTERN_MEMORY;
use crate::router::Route;

/// Whether the data plane can work with a row, as checked by the compiler of snapshots.
fn is_usable(kind: Kind, row: &Row) -> Result<(), String> {
    let row = row.clone();
    let wrong = |error: serde_json::Error| error.to_string();
    match kind {
        Kind::Service => drop(view::<service::Service>(kind, row).map_err(wrong)?),
        Kind::Route => {
            let route = view::<route::Route>(kind, row).map_err(wrong)?;
            Route::compile(route, RouterFlavor::default(), PATTERN_MEMORY)
                .map_err(|error| error.to_string())?;
        }
        Kind::Upstream => {
            let upstream = view::<upstream::Upstream>(kind, row).map_err(wrong)?;
            crate::upstream::Policy::of(&upstream, None);
        }
        Kind::Target => {
            let target = view::<target::Target>(kind, row).map_err(wrong)?;
            match target.target {
                target::Location::Host(authority) => authority.port.map(drop).ok_or("no port")?,
                target::Location::Unix(_) => {}
            }
        }
        Kind::Consumer => drop(view::<consumer::Consumer>(kind, row).map_err(wrong)?),
        Kind::Plugin => drop(view::<plugin::Plugin>(kind, row).map_err(wrong)?),
        Kind::KeyAuthCredential => {
            drop(view::<key_auth_credential::KeyAuthCredential>(kind, row).map_err(wrong)?);
        }
        Kind::BasicAuthCredential => {
            drop(view::<basic_auth_credential::BasicAuthCredential>(kind, row).map_err(wrong)?);
        }
        Kind::JwtSecret => drop(view::<jwt_secret::JwtSecret>(kind, row).map_err(wrong)?),
        Kind::Acl => drop(view::<acl::Acl>(kind, row).map_err(wrong)?),
        Kind::Certificate => drop(view::<certificate::Certificate>(kind, row).map_err(wrong)?),
        Kind::Sni => drop(view::<sni::Sni>(kind, row).map_err(wrong)?),
        Kind::CaCertificate => {
            drop(view::<ca_certificate::CaCertificate>(kind, row).map_err(wrong)?);
        }
        Kind::Vault => drop(view::<vault::Vault>(kind, row).map_err(wrong)?),
        Kind::Balancer | Kind::BalancerVersion | Kind::Rollout | Kind::KeySet | Kind::Key => {}
    }
    Ok(())
}

/// Values that a client may send for a field: valid ones, at the bounds and beyond them, and
/// invalid ones.
fn value(field: &'static Field) -> BoxedStrategy<Value> {
    let mut numbers = vec![0, 1, 80, 426, 65_535, 65_536, -1, i64::MAX, i64::MIN];
    let mut words = Vec::new();
    for check in field.checks {
        match check {
            Check::Between(least, most) => numbers.extend([*least, *most]),
            Check::OneOf(known) => words.extend(known.iter().map(|word| Value::from(*word))),
            Check::OneOfIntegers(known) => numbers.extend(*known),
            _ => {}
        }
    }
    let integer = select(numbers).prop_flat_map(|number| {
        select(vec![
            json!(number),
            json!(number as f64),
            json!(number as f64 + 0.5),
            json!(u64::MAX),
            json!(1e300),
        ])
    });
    let fitting = match &field.shape {
        Shape::Integer
        | Shape::Number
        | Shape::CreatedAt
        | Shape::UpdatedAt
        | Shape::TimeToLive => integer.boxed(),
        Shape::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Shape::Array(element) | Shape::Set(element) => prop::collection::vec(value(element), 0..3)
            .prop_map(Value::from)
            .boxed(),
        Shape::Map { values, .. } => {
            let name = select(vec!["x", "X-Y_z", "host", "a b", ""]);
            prop::collection::btree_map(name, value(values), 0..3)
                .prop_map(|map| json!(map))
                .boxed()
        }
        Shape::Record(fields) => record(fields, 0.3).prop_map(Value::from).boxed(),
        Shape::Reference(_) => Just(json!({"id": Uuid::from_u128(7).simple().to_string()})).boxed(),
        _ if !words.is_empty() => select(words).boxed(),
        _ => text().boxed(),
    };
    prop_oneof![
        16 => fitting,
        3 => Just(Value::Null),
        1 => select(vec![json!({}), json!([]), json!(true), json!("x"), json!(1), json!([null])]),
    ]
    .boxed()
}

fn text() -> impl Strategy<Value = Value> {
    const KNOWN: &[&str] = &[
        "a",
        "a.example",
        "*.a",
        "a.*",
        "A_b.",
        "1.2.3.4",
        "::1",
        "[::1]",
        "[::1]:80",
        "a:80",
        "/",
        "/a/%62",
        "/a%2F",
        "~/a(b)?",
        "~/(",
        "~*(",
        "~*a",
        "GET",
        "x-y",
        "10.0.0.0/8",
        "none",
        "",
        " ",
        "ä",
        "127.000.000.001:9",
        "a:99999",
        "*a",
    ];
    prop_oneof![
        8 => select(KNOWN).prop_map(Value::from),
        1 => "[a-z0-9:/.*~\\[\\]-]{0,8}".prop_map(Value::from),
    ]
}

/// Some of the fields, each named with this probability.
fn record(fields: &'static [Field], named: f64) -> BoxedStrategy<Row> {
    let fields = fields.iter().map(|field| {
        let name = field.name;
        prop::option::weighted(named, value(field)).prop_map(move |v| Some((name.to_owned(), v?)))
    });
    let fields: Vec<_> = fields.collect();
    fields
        .prop_map(|fields| fields.into_iter().flatten().collect())
        .boxed()
}

/// A row that is valid before anything is changed in it.
fn base(kind: Kind) -> Row {
    let consumer = json!({ "id": Uuid::from_u128(7) });
    let row = match kind {
        Kind::Service => json!({"host": "h"}),
        Kind::Route => json!({"paths": ["/"]}),
        Kind::Upstream => json!({"name": "u"}),
        Kind::Target => json!({"target": "h:1", "upstream": {"id": Uuid::from_u128(7)}}),
        Kind::Consumer => json!({"username": "c"}),
        Kind::Plugin => json!({"name": "key-auth"}),
        Kind::KeyAuthCredential | Kind::JwtSecret => json!({"consumer": consumer}),
        Kind::BasicAuthCredential => {
            json!({"consumer": consumer, "username": "a", "password": "b"})
        }
        Kind::Acl => json!({"consumer": consumer, "group": "g"}),
        Kind::Certificate => json!({"cert": "{vault://env/cert}", "key": "{vault://env/key}"}),
        Kind::Sni => json!({"name": "a.example", "certificate": consumer}),
        Kind::CaCertificate => json!({}),
        Kind::Vault => json!({"name": "env", "prefix": "my-env"}),
        Kind::Key => json!({"kid": "k", "jwk": "{vault://env/jwk}"}),
        Kind::Rollout => json!({"name": "canary", "state": "running"}),
        Kind::Balancer | Kind::BalancerVersion | Kind::KeySet => json!({}),
    };
    row.as_object().cloned().unwrap()
}

fn kind() -> impl Strategy<Value = Kind> {
    select(vec![
        Kind::Service,
        Kind::Route,
        Kind::Upstream,
        Kind::Target,
        Kind::Consumer,
        Kind::Plugin,
        Kind::KeyAuthCredential,
        Kind::BasicAuthCredential,
        Kind::JwtSecret,
        Kind::Acl,
        Kind::Certificate,
        Kind::Sni,
        Kind::Vault,
        Kind::KeySet,
        Kind::Key,
    ])
}

fn changes() -> impl Strategy<Value = (Kind, Row, Row)> {
    kind().prop_flat_map(|kind| {
        // Few fields at a time, so that many rows are accepted.
        let fields = kind.declaration().fields;
        (Just(kind), record(fields, 0.1), record(fields, 0.1))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What the Admin API accepts, the data plane can work with.
    #[test]
    fn an_accepted_row_is_a_usable_one((kind, made, changed) in changes()) {
        let mut input = base(kind);
        input.extend(made);
        if let Ok(row) = kind.declaration().create(Uuid::from_u128(1), input) {
            prop_assert_eq!(is_usable(kind, &row), Ok(()), "{:?}", row);
            if let Ok(row) = kind.declaration().update(&row, changed) {
                prop_assert_eq!(is_usable(kind, &row), Ok(()), "{:?}", row);
            }
        }
    }
}

/// Every field alone, with each value that might be accepted: too rare for the property to be sure
/// to try it.
#[test]
fn each_null_is_accepted_or_refused_but_never_dropped() {
    fn nulls(fields: &[Field], row: &mut Vec<Vec<String>>, path: &[String]) {
        for field in fields {
            let path = [path, &[field.name.to_owned()]].concat();
            if let Shape::Record(fields) = field.shape {
                nulls(fields, row, &path);
            }
            row.push(path);
        }
    }
    for kind in [Kind::Service, Kind::Route, Kind::Upstream, Kind::Target] {
        let declaration = kind.declaration();
        let row = declaration.create(Uuid::from_u128(1), base(kind)).unwrap();
        let mut paths = Vec::new();
        nulls(declaration.fields, &mut paths, &[]);
        let mut accepted = 0;
        for path in paths {
            let null = path.iter().rev().fold(Value::Null, |v, n| json!({ n: v }));
            let null = null.as_object().cloned().unwrap();
            let input = [base(kind), null.clone()].into_iter().flatten().collect();
            let made = declaration.create(Uuid::from_u128(1), input);
            let changed = declaration.update(&row, null);
            for row in [made, changed].into_iter().flatten() {
                accepted += 1;
                assert_eq!(is_usable(kind, &row), Ok(()), "{} {path:?}", kind.name());
            }
        }
        assert!(accepted > 8, "{}: {accepted}", kind.name());
    }
}

#[test]
fn null_is_kept_and_reads_as_the_default() {
    let kind = Kind::Upstream;
    let mut input = base(kind);
    input.insert("slots".into(), Value::Null);
    let mut row = kind
        .declaration()
        .create(Uuid::from_u128(1), input)
        .unwrap();
    assert_eq!(row["slots"], Value::Null);
    // Rows of before records refused null.
    row["healthchecks"]["active"] = Value::Null;
    let upstream: upstream::Upstream = view(kind, row).unwrap();
    assert_eq!(upstream.slots, 10_000);
    assert_eq!(upstream.healthchecks.active.http_path, "/");
    assert_eq!(upstream.healthchecks.active.concurrency, 10);
}

#[test]
fn a_record_with_defaults_refuses_null() {
    for (path, input) in [
        ("healthchecks", json!({"healthchecks": null})),
        (
            "healthchecks.active",
            json!({"healthchecks": {"active": null}}),
        ),
        (
            "healthchecks.passive.unhealthy",
            json!({"healthchecks": {"passive": {"unhealthy": null}}}),
        ),
    ] {
        let mut row = base(Kind::Upstream);
        row.extend(input.as_object().cloned().unwrap());
        let refused = Kind::Upstream
            .declaration()
            .create(Uuid::from_u128(1), row)
            .unwrap_err();
        let refused = format!("{refused:?}");
        assert!(
            refused.contains("required field missing"),
            "{path}: {refused}"
        );
    }
}

#[test]
fn whole_numbers_are_stored_as_such_and_others_refused() {
    let create = |fields: Value| {
        let mut input = base(Kind::Service);
        input.extend(fields.as_object().cloned().unwrap());
        Kind::Service
            .declaration()
            .create(Uuid::from_u128(1), input)
    };
    let row = create(json!({"port": 80.0, "retries": 1e2})).unwrap();
    assert_eq!(
        (row["port"].as_u64(), row["retries"].as_u64()),
        (Some(80), Some(100))
    );
    assert!(row["port"].is_u64(), "{row:?}");
    assert!(create(json!({"port": 80.5})).is_err());
    let mut input = base(Kind::Route);
    input.insert("regex_priority".into(), json!(1e19));
    assert!(
        Kind::Route
            .declaration()
            .create(Uuid::from_u128(1), input)
            .is_err()
    );
}

#[test]
fn a_header_whose_pattern_does_not_compile_is_refused() {
    let create = |values: Value| {
        let mut input = base(Kind::Route);
        input.insert("headers".into(), json!({ "x": values }));
        Kind::Route.declaration().create(Uuid::from_u128(1), input)
    };
    let error = create(json!(["~*("])).unwrap_err();
    assert!(
        format!("{error:?}").contains("invalid regex: '('"),
        "{error:?}"
    );
    // In a list of several values it is not a pattern.
    assert!(create(json!(["~*(", "b"])).is_ok());
    assert!(create(Value::Null).is_err());
}
