//! A route: which requests go to a service. Source: Kong 3.9, `routes`.
//!
//! With `router_flavor = expressions` a route may have an expression in place of the other fields
//! that match. As in Kong, routes have that field with this flavor only.

mod expression;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::declaration::{Declaration, IdOrder};
use super::field::{Check, Field, Preset, Shape};
use super::violations::Violations;
use super::{EntityCheck, ForeignKey, Kind, Row, UniqueKey, check};
use crate::config::RouterFlavor;

const PROTOCOL: Field = Field::element(Shape::String).check(&[Check::OneOf(&[
    "grpc",
    "grpcs",
    "http",
    "https",
    "tcp",
    "tls",
    "tls_passthrough",
    "udp",
])]);
const METHOD: Field = Field::element(Shape::String).check(&[Check::Text(check::method)]);
const HOST: Field = Field::element(Shape::String).check(&[Check::Text(check::route_host)]);
const PATH: Field = Field::element(Shape::String).check(&[Check::Text(check::route_path)]);
const SNI: Field = Field::element(Shape::String).check(&[Check::Text(check::sni)]);
const TEXT: Field = Field::element(Shape::String);
const VALUES: Field =
    Field::element(Shape::Array(&TEXT)).check(&[Check::List(check::route_header_values)]);
const ADDRESS: Field = Field::element(Shape::Record(&[
    Field::string("ip").check(&[Check::Text(check::ip_or_cidr)]),
    Field::integer("port").check(&[Check::Between(0, 65_535)]),
]));

const FIELDS: &[Field] = &[
    Field::id(),
    Field::string("name").check(&[Check::Text(check::name)]),
    Field::created_at(),
    Field::updated_at(),
    Field::set("protocols", &PROTOCOL)
        .required()
        .default(Preset::Strings(&["http", "https"]))
        .check(&[
            Check::AtLeast(1),
            Check::ExclusiveSubsets(&[
                &["http", "https"],
                &["tcp", "tls", "udp"],
                &["tls_passthrough"],
                &["grpc", "grpcs"],
            ]),
        ]),
    Field::set("methods", &METHOD),
    Field::array("hosts", &HOST),
    Field::array("paths", &PATH),
    Field::map("headers", &[Check::Text(check::route_header_name)], &VALUES),
    Field::set("snis", &SNI),
    Field::set("sources", &ADDRESS),
    Field::set("destinations", &ADDRESS),
    Field::integer("https_redirect_status_code")
        .required()
        .default(Preset::Integer(426))
        .check(&[Check::OneOfIntegers(&[426, 301, 302, 307, 308])]),
    Field::integer("regex_priority").default(Preset::Integer(0)),
    Field::boolean("strip_path")
        .required()
        .default(Preset::Boolean(true)),
    Field::string("path_handling")
        .default(Preset::String("v0"))
        .check(&[Check::OneOf(&["v0", "v1"])]),
    Field::boolean("preserve_host")
        .required()
        .default(Preset::Boolean(false)),
    Field::boolean("request_buffering")
        .required()
        .default(Preset::Boolean(true)),
    Field::boolean("response_buffering")
        .required()
        .default(Preset::Boolean(true)),
    Field::reference("service", Kind::Service),
    Field::record("pointsman", super::retry::EXTENSION).extension(),
    Field::tags(),
];

/// The protocols, and the fields by which a route matches.
const PROTOCOLS_AND_CRITERIA: &[&str] = &[
    "protocols",
    "methods",
    "hosts",
    "headers",
    "paths",
    "snis",
    "sources",
    "destinations",
];

/// The fields by which a route matches, unless it has an expression.
const CRITERIA: &[&str] = match PROTOCOLS_AND_CRITERIA.split_first() {
    Some((_, criteria)) => criteria,
    None => &[],
};

const UNIQUE: &[UniqueKey] = &[UniqueKey::of(&["name"])];

const fn declaration(fields: &'static [Field], checks: &'static [EntityCheck]) -> Declaration {
    Declaration {
        // Of routes that match alike, the greater id takes precedence, and so the older route.
        id_order: IdOrder::Descending,
        unique: UNIQUE,
        endpoint_key: Some("name"),
        fields,
        expand: grpc_keeps_paths,
        entity_checks: checks,
        ..Declaration::of(Kind::Route, "routes", "route")
    }
}

/// What a message adds about the fields of the flavor `expressions` with another flavor.
const ONLY_WITH_EXPRESSIONS: &str = "which routes have with router_flavor=expressions only";

static WITH_CRITERIA: Declaration = Declaration {
    normalize: expression::remove_unset,
    hints_for_unknown_fields: &[
        ("expression", ONLY_WITH_EXPRESSIONS),
        ("priority", ONLY_WITH_EXPRESSIONS),
    ],
    ..declaration(
        FIELDS,
        &[
            SNIS_NEED_TLS,
            EntityCheck::Custom {
                fields: PROTOCOLS_AND_CRITERIA,
                check: |row, violations| something_to_match(row, violations, &[]),
            },
            EntityCheck::Custom {
                fields: &[
                    "protocols",
                    "methods",
                    "hosts",
                    "headers",
                    "paths",
                    "snis",
                    "sources",
                    "destinations",
                    "strip_path",
                ],
                check: |row, violations| {
                    no_addresses_of_requests(row, violations);
                    fields_of_the_family(row, violations);
                },
            },
            EntityCheck::Custom {
                fields: &["sources", "destinations"],
                check: addresses_name_something,
            },
        ],
    )
};

/// Names of servers are matched in the handshakes of TLS. Kong tells this before its other rules.
const SNIS_NEED_TLS: EntityCheck = EntityCheck::Custom {
    fields: &["protocols", "snis"],
    check: |row, violations| {
        let tls = ["https", "grpcs", "tls", "tls_passthrough"];
        if is_set(row, "snis") && !tls.iter().any(|protocol| has(row, protocol)) {
            violations.coupled(
                "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
                "snis",
                "length must be 0",
            );
        }
    },
};

/// The flavor of this process. Set once, at the start: the declarations, which are constants,
/// depend on it.
static FLAVOR: OnceLock<RouterFlavor> = OnceLock::new();

/// Has routes declared as this flavor of the router reads them.
pub fn install_flavor(flavor: RouterFlavor) {
    // It is called once.
    let _ = FLAVOR.set(flavor);
}

/// Which requests go to a service.
pub(super) fn of_flavor() -> &'static Declaration {
    match FLAVOR.get() {
        Some(RouterFlavor::Expressions) => &expression::DECLARATION,
        _ => &WITH_CRITERIA,
    }
}

/// A gRPC route strips no path unless the request says so, which validation then refuses.
fn grpc_keeps_paths(input: &mut Row, _: Option<&Row>) {
    let protocols = input.get("protocols").and_then(Value::as_array);
    let grpc = protocols.is_some_and(|list| list.iter().any(|p| p == "grpc" || p == "grpcs"));
    if grpc && !input.contains_key("strip_path") {
        input.insert("strip_path".into(), false.into());
    }
}

fn has(row: &Row, protocol: &str) -> bool {
    let protocols = row.get("protocols").and_then(Value::as_array);
    protocols.is_some_and(|list| list.iter().any(|p| p == protocol))
}

/// Whether a field is set: neither null nor an empty list or map.
fn is_set(row: &Row, field: &str) -> bool {
    match row.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

/// Checks that the route matches by something: by a field of its protocols, or by one of `others`.
fn something_to_match(row: &Row, violations: &mut Violations, others: &[&str]) {
    let is_set = |field: &str| is_set(row, field);
    if others.iter().any(|field| is_set(field)) {
        return;
    }
    let (fields, when): (&[&str], &str) = if has(row, "https") {
        (&["methods", "hosts", "headers", "paths", "snis"], "'https'")
    } else if has(row, "http") {
        (&["methods", "hosts", "headers", "paths"], "'http'")
    } else if has(row, "grpcs") {
        (&["hosts", "headers", "paths", "snis"], "'grpcs'")
    } else if has(row, "grpc") {
        (&["hosts", "headers", "paths"], "'grpc'")
    } else if has(row, "tls_passthrough") {
        if !is_set("snis") {
            violations.entity("must set snis when 'protocols' is 'tls_passthrough'");
        }
        return;
    } else {
        (
            &["sources", "destinations", "snis"],
            "'tcp', 'tls' or 'udp'",
        )
    };
    if !fields.iter().any(|field| is_set(field)) {
        let fields = fields.iter().chain(others);
        let quoted: Vec<String> = fields.map(|field| format!("'{field}'")).collect();
        let fields = quoted.join(", ");
        violations.entity(format!(
            "must set one of {fields} when 'protocols' is {when}"
        ));
    }
}

/// The words of a family of protocols in messages; none for those of streams.
fn family_of_requests(row: &Row) -> Option<&'static str> {
    if has(row, "http") || has(row, "https") {
        Some("'http' or 'https'")
    } else if has(row, "grpc") || has(row, "grpcs") {
        Some("'grpc' or 'grpcs'")
    } else {
        None
    }
}

fn forbid(fields: &[&str], family: &str, row: &Row, violations: &mut Violations) {
    for field in fields {
        if is_set(row, field) {
            let message = format!("cannot set '{field}' when 'protocols' is {family}");
            violations.field(field, message);
        }
    }
}

/// Only streams are matched by addresses.
fn no_addresses_of_requests(row: &Row, violations: &mut Violations) {
    if let Some(family) = family_of_requests(row) {
        forbid(&["sources", "destinations"], family, row, violations);
    }
}

fn fields_of_the_family(row: &Row, violations: &mut Violations) {
    match family_of_requests(row) {
        None => {
            let family = "'tcp', 'tls', 'tls_passthrough' or 'udp'";
            let fields = ["methods", "hosts", "headers", "paths"];
            forbid(&fields, family, row, violations);
        }
        Some(family) if family.contains("grpc") => forbid(&["methods"], family, row, violations),
        Some(_) => {}
    }
    let grpc = has(row, "grpc") || has(row, "grpcs");
    if grpc && row.get("strip_path") == Some(&Value::Bool(true)) {
        violations.field(
            "strip_path",
            "cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'",
        );
    }
}

fn addresses_name_something(row: &Row, violations: &mut Violations) {
    for field in ["sources", "destinations"] {
        let list = row.get(field).and_then(Value::as_array);
        let empty = |address: &Value| {
            ["ip", "port"]
                .iter()
                .all(|part| address.get(part).is_none_or(Value::is_null))
        };
        if list.is_some_and(|list| list.iter().any(empty)) {
            violations.field(
                field,
                "at least one of these fields must be non-empty: 'ip', 'port'",
            );
        }
    }
}

/// What the data plane reads of a route.
#[derive(Debug, Clone, Deserialize)]
pub struct Route {
    /// Primary key.
    pub id: Uuid,
    /// Unique name.
    pub name: Option<String>,
    /// Protocols that it serves: `http`, `https`, …
    pub protocols: Vec<String>,
    /// Methods that it matches; any if none.
    pub methods: Option<Vec<String>>,
    /// Hosts that it matches, `*` as the leftmost or rightmost label; any if none.
    pub hosts: Option<Vec<String>>,
    /// Prefixes (`/…`) and regular expressions (`~/…`) that it matches; any if none.
    pub paths: Option<Vec<String>>,
    /// Header values that it matches: all names, any value of each; `~*` in front marks a regular
    /// expression.
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// TLS server names that it matches.
    pub snis: Option<Vec<String>>,
    /// Addresses of clients whose streams it matches; any if none.
    #[serde(default)]
    pub sources: Option<Vec<Address>>,
    /// Addresses of listeners whose streams it matches; any if none.
    #[serde(default)]
    pub destinations: Option<Vec<Address>>,
    /// The expression that it matches, in place of all these.
    pub expression: Option<String>,
    /// Priority of the expression.
    #[serde(default)]
    pub priority: Option<u64>,
    /// The status of the answer to a plain request for a route that serves only https.
    pub https_redirect_status_code: u16,
    /// Priority among the regular expressions.
    pub regex_priority: i64,
    /// Whether the matched path is removed before the request is sent on.
    pub strip_path: bool,
    /// `v0` or `v1`; only Kong's `traditional` router honours the second.
    pub path_handling: Option<String>,
    /// Whether the client's `Host` is sent on.
    pub preserve_host: bool,
    /// Whether the body of a request is buffered, so that it can be sent again.
    pub request_buffering: bool,
    /// The service that gets the requests.
    pub service: Option<ForeignKey>,
    /// The extensions beyond Kong.
    #[serde(default)]
    pub pointsman: super::retry::Extension,
}

/// An address that a route matches.
#[derive(Debug, Clone, Deserialize)]
pub struct Address {
    /// An IP address or a range of them; any if none.
    pub ip: Option<String>,
    /// A port; any if none.
    pub port: Option<u16>,
}
