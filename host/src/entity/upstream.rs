//! An upstream: a virtual host name with targets to balance over. Source: Kong 3.9, `upstreams`.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::declaration::Declaration;
use super::field::{Check, Field, Preset, Shape};
use super::violations::Violations;
use super::{Kind, ReferenceBy, Row, UniqueKey, check};
use crate::authority::Authority;

/// The algorithms that Kong knows. Each is the name of a shipped balancer, or of one to come.
pub const KONG_ALGORITHMS: &[&str] = &[
    "consistent-hashing",
    "least-connections",
    "round-robin",
    "latency",
];

const HASH_ON: &[&str] = &[
    "none",
    "consumer",
    "ip",
    "header",
    "cookie",
    "path",
    "query_arg",
    "uri_capture",
];

const TEXT: Field = Field::element(Shape::String);
const VALUES: Field = Field::element(Shape::Array(&TEXT));
const STATUS: Field = Field::element(Shape::Integer).check(&[Check::Between(100, 999)]);
const SECONDS: &[Check] = &[Check::Between(0, 65_535)];
const COUNT: &[Check] = &[Check::Between(0, 255)];
const PROBE: &[Check] = &[Check::OneOf(&["tcp", "http", "https", "grpc", "grpcs"])];

const fn interval() -> Field {
    Field::number("interval")
        .default(Preset::Integer(0))
        .check(SECONDS)
}

const fn count(name: &'static str) -> Field {
    Field::integer(name)
        .default(Preset::Integer(0))
        .check(COUNT)
}

const fn statuses(presets: &'static [i64]) -> Field {
    Field::array("http_statuses", &STATUS).default(Preset::Integers(presets))
}

const fn probe() -> Field {
    Field::string("type")
        .default(Preset::String("http"))
        .check(PROBE)
}

const ACTIVE: &[Field] = &[
    probe(),
    Field::number("timeout")
        .default(Preset::Integer(1))
        .check(SECONDS),
    Field::integer("concurrency")
        .default(Preset::Integer(10))
        .check(&[Check::Between(1, 2_147_483_648)]),
    Field::string("http_path")
        .default(Preset::String("/"))
        .check(&[Check::Text(check::path)]),
    Field::string("https_sni").check(&[Check::Text(check::sni)]),
    Field::boolean("https_verify_certificate")
        .required()
        .default(Preset::Boolean(true)),
    Field::map("headers", &[Check::Text(check::header_name)], &VALUES),
    Field::record(
        "healthy",
        &[interval(), statuses(&[200, 302]), count("successes")],
    ),
    Field::record(
        "unhealthy",
        &[
            interval(),
            statuses(&[429, 404, 500, 501, 502, 503, 504, 505]),
            count("tcp_failures"),
            count("timeouts"),
            count("http_failures"),
        ],
    ),
];

const PASSIVE: &[Field] = &[
    probe(),
    Field::record(
        "healthy",
        &[
            statuses(&[
                200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305,
                306, 307, 308,
            ]),
            count("successes"),
        ],
    ),
    Field::record(
        "unhealthy",
        &[
            statuses(&[429, 500, 503]),
            count("tcp_failures"),
            count("timeouts"),
            count("http_failures"),
        ],
    ),
];

const fn seconds(name: &'static str, preset: i64) -> Field {
    Field::number(name)
        .default(Preset::Integer(preset))
        .check(SECONDS)
}

const fn percent(name: &'static str, preset: i64) -> Field {
    Field::number(name)
        .default(Preset::Integer(preset))
        .check(&[Check::Between(0, 100)])
}

const fn number(name: &'static str, preset: i64) -> Field {
    Field::integer(name)
        .default(Preset::Integer(preset))
        .check(&[Check::Between(0, 2_147_483_647)])
}

/// How a target or an upstream is probed where that differs from Kong's way: all of it optional.
pub(super) const PROBE_EXTENSION: &[Field] = &[
    Field::integer("port").check(&[Check::Between(1, 65_535)]),
    Field::string("method").check(&[Check::OneOf(&["GET", "HEAD", "OPTIONS", "POST"])]),
    Field::string("path").check(&[Check::Text(check::path)]),
    Field::boolean("reuse_connection"),
];

const AUTHORITY: Field = Field::element(Shape::String).check(&[Check::Text(check::authority)]);

/// What goes past Kong, all of it off by default. Terms are Envoy's where it has them.
const EXTENSION: &[Field] = &[
    Field::settings("balancer_config"),
    Field::string("balancer_version"),
    Field::record(
        "balancer_limits",
        &[
            Field::integer("pick_timeout").check(&[Check::Between(1, 10_000)]),
            Field::integer("pick_cost").check(&[Check::Between(1, 10_000_000)]),
            Field::integer("memory").check(&[Check::Between(64, 65_536)]),
            Field::integer("state").check(&[Check::Between(0, 65_536)]),
        ],
    ),
    Field::record(
        "shadow",
        &[
            Field::string("balancer"),
            Field::string("version"),
            Field::settings("config"),
            percent("sample_percent", 100),
        ],
    ),
    Field::boolean("share_weight").default(Preset::Boolean(false)),
    percent("panic_threshold", 0),
    seconds("drain_timeout", 0),
    Field::record("probe", PROBE_EXTENSION),
    Field::record(
        "tls",
        &[
            Field::boolean("verify"),
            Field::string("server_name").check(&[Check::Text(check::server_name)]),
            Field::array("ca_certificates", &AUTHORITY).check(&[Check::AtLeast(1)]),
        ],
    ),
    Field::record(
        "recovery",
        &[seconds("base_time", 0), seconds("max_time", 300)],
    ),
    Field::record(
        "slow_start",
        &[seconds("window", 0), percent("min_weight_percent", 10)],
    ),
    Field::record(
        "circuit_breakers",
        &[
            number("max_connections", 0),
            number("max_requests", 0),
            number("max_pending_requests", 1024),
        ],
    ),
    Field::record(
        "retry_budget",
        &[
            percent("budget_percent", 0),
            number("min_retry_concurrency", 3),
        ],
    ),
    Field::record(
        "outlier_detection",
        &[
            seconds("interval", 10),
            seconds("base_ejection_time", 30),
            seconds("max_ejection_time", 300),
            percent("max_ejection_percent", 10),
            Field::boolean("success_rate").default(Preset::Boolean(false)),
            Field::boolean("latency").default(Preset::Boolean(false)),
            number("minimum_hosts", 5),
            number("request_volume", 100),
            number("success_rate_stdev_factor", 1900),
            number("latency_factor", 3000),
        ],
    ),
];

/// A virtual host name with targets to balance over.
pub static DECLARATION: Declaration = Declaration {
    kind: Kind::Upstream,
    unique: &[UniqueKey::of(&["name"])],
    endpoint_key: "name",
    precise_times: false,
    fields: &[
        Field::id(),
        Field::string("name")
            .required()
            .check(&[Check::Text(check::upstream_name)])
            .compared_as(check::same_host),
        Field::created_at(),
        Field::updated_at(),
        Field::string("algorithm")
            .default(Preset::String("round-robin"))
            .required()
            .refers_to(
                Kind::Balancer,
                ReferenceBy::Field {
                    name: "name",
                    reserved: KONG_ALGORITHMS,
                },
            ),
        Field::string("hash_on")
            .default(Preset::String("none"))
            .check(&[Check::OneOf(HASH_ON)]),
        Field::string("hash_fallback")
            .default(Preset::String("none"))
            .check(&[Check::OneOf(HASH_ON)]),
        Field::string("hash_on_header").check(&[Check::Text(check::header_name)]),
        Field::string("hash_fallback_header").check(&[Check::Text(check::header_name)]),
        Field::string("hash_on_cookie").check(&[Check::Text(check::cookie_name)]),
        Field::string("hash_on_cookie_path")
            .default(Preset::String("/"))
            .check(&[Check::Text(check::path)]),
        Field::string("hash_on_query_arg"),
        Field::string("hash_fallback_query_arg"),
        Field::string("hash_on_uri_capture"),
        Field::string("hash_fallback_uri_capture"),
        Field::integer("slots")
            .default(Preset::Integer(10_000))
            .check(&[Check::Between(10, 65_536)]),
        Field::string("host_header").check(&[Check::Text(check::host_with_optional_port)]),
        Field::absent_reference("client_certificate", "certificates"),
        Field::boolean("use_srv_name").default(Preset::Boolean(false)),
        Field::record(
            "healthchecks",
            &[
                Field::number("threshold")
                    .default(Preset::Integer(0))
                    .check(&[Check::Between(0, 100)]),
                Field::record("active", ACTIVE),
                Field::record("passive", PASSIVE),
            ],
        ),
        Field::string("sticky_sessions_cookie")
            .check(&[Check::Text(check::cookie_name)])
            .extension(),
        Field::string("sticky_sessions_cookie_path")
            .default(Preset::String("/"))
            .check(&[Check::Text(check::path)])
            .extension(),
        Field::record("pointsman", EXTENSION).extension(),
        Field::tags(),
    ],
    expand: prepare,
    normalize: settle_hashing,
    conditionals: &[
        fallback_fits,
        hashing_has_its_parameter,
        sessions_have_a_cookie,
    ],
    rules: &[hashing_differs_from_its_fallback],
};

/// Rewrites what a request carries.
fn prepare(input: &mut Row, old: Option<&Row>) {
    couple_hashing(input, old);
    if let Some(old) = old {
        settings_of_another_balancer(input, old);
    }
}

/// Settings belong to their balancer: those of another one begin anew, and are merged only with what is
/// the same balancer's.
fn settings_of_another_balancer(input: &mut Row, old: &Row) {
    let changes = |input: Option<&Value>, old: Option<&Value>| input.is_some() && input != old;
    let algorithm = changes(input.get("algorithm"), old.get("algorithm"));
    let (Some(new), Some(old)) = (input.get_mut("pointsman"), old.get("pointsman")) else {
        return;
    };
    let shadow = changes(
        new.pointer("/shadow/balancer"),
        old.pointer("/shadow/balancer"),
    );
    for (changes, settings) in [(algorithm, "/balancer_config"), (shadow, "/shadow/config")] {
        if changes
            && let (Some(new), Some(old)) = (new.pointer_mut(settings), old.pointer(settings))
        {
            take_out(new, old);
        }
    }
}

/// Says of each old setting that is not named again that it is to be taken out.
fn take_out(new: &mut Value, old: &Value) {
    let (Value::Object(new), Value::Object(old)) = (new, old) else {
        return;
    };
    for (name, old) in old {
        take_out(new.entry(name.as_str()).or_insert(Value::Null), old);
    }
}

/// Kong ties `algorithm` and `hash_on` to each other. A balancer of one's own is not part of that: it
/// may use the hash or not.
fn couple_hashing(input: &mut Row, old: Option<&Row>) {
    let algorithm = input.get("algorithm").and_then(Value::as_str);
    let in_force = algorithm.or_else(|| old?.get("algorithm")?.as_str());
    if !in_force.is_none_or(|name| KONG_ALGORITHMS.contains(&name)) {
        return;
    }
    if matches!(algorithm, Some("least-connections" | "latency")) {
        input.insert("hash_on".into(), "none".into());
        return;
    }
    match input.get("hash_on") {
        None => {}
        Some(Value::Null) => {
            input.insert("hash_on".into(), "none".into());
        }
        // Whatever the algorithm was.
        Some(Value::String(on)) if on == "none" => {
            input.insert("algorithm".into(), "round-robin".into());
        }
        Some(_) => {
            input.insert("algorithm".into(), "consistent-hashing".into());
        }
    }
}

/// The same for a whole row, which Kong does whenever it reads one: an upstream that hashes on nothing
/// takes turns, one that hashes on something hashes.
fn settle_hashing(row: &mut Row) {
    let algorithm = text(row, "algorithm");
    if !KONG_ALGORITHMS.contains(&algorithm) {
        return;
    }
    let (field, settled) = match (algorithm, text(row, "hash_on")) {
        ("least-connections" | "latency", _) => ("hash_on", "none"),
        (_, "none") => ("algorithm", "round-robin"),
        _ => ("algorithm", "consistent-hashing"),
    };
    row.insert(field.into(), settled.into());
}

fn text<'r>(row: &'r Row, field: &str) -> &'r str {
    row.get(field).and_then(Value::as_str).unwrap_or("none")
}

/// What `hash_fallback` may be depends on `hash_on`.
fn fallback_fits(row: &Row, violations: &mut Violations) {
    let (on, fallback) = (text(row, "hash_on"), text(row, "hash_fallback"));
    // In Kong's order.
    let allowed: &[&str] = match on {
        "none" | "cookie" => &["none"],
        "consumer" => &[
            "none",
            "ip",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
        "ip" => &[
            "none",
            "consumer",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
        "path" => &[
            "none",
            "consumer",
            "header",
            "cookie",
            "query_arg",
            "ip",
            "uri_capture",
        ],
        // Of one kind there may be two, by other names.
        _ => return,
    };
    if !allowed.contains(&fallback) {
        let message = format!("expected one of: {}", allowed.join(", "));
        violations.conditional("hash_on", "hash_fallback", message);
    }
}

/// Hashing on something by name needs the name.
fn hashing_has_its_parameter(row: &Row, violations: &mut Violations) {
    let missing = |field: &str| row.get(field).is_none_or(Value::is_null);
    for (field, infix) in [("hash_on", "hash_on"), ("hash_fallback", "hash_fallback")] {
        let parameter = match text(row, field) {
            "cookie" => "hash_on_cookie".to_owned(),
            kind @ ("header" | "query_arg" | "uri_capture") => format!("{infix}_{kind}"),
            _ => continue,
        };
        if missing(&parameter) {
            violations.conditional(field, &parameter, "required field missing");
        }
    }
}

/// What is hashed on by name and its fallback have different names, whether they are used or not.
fn hashing_differs_from_its_fallback(row: &Row, violations: &mut Violations) {
    for kind in ["header", "query_arg", "uri_capture"] {
        let (on, fallback) = (format!("hash_on_{kind}"), format!("hash_fallback_{kind}"));
        let value = row.get(&on).filter(|value| !value.is_null());
        if value.is_some() && value == row.get(&fallback) {
            violations.entity(format!(
                "values of these fields must be distinct: '{on}', '{fallback}'"
            ));
        }
    }
}

/// Sessions are kept by a cookie, which needs a name. Source: Kong Enterprise 3.11.
fn sessions_have_a_cookie(row: &Row, violations: &mut Violations) {
    let cookie = row.get("sticky_sessions_cookie");
    if text(row, "algorithm") == "sticky-sessions" && cookie.is_none_or(Value::is_null) {
        let message = "required field missing";
        violations.conditional("algorithm", "sticky_sessions_cookie", message);
    }
}

/// What the data plane reads of an upstream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Upstream {
    /// Primary key.
    pub id: Uuid,
    /// The host name that services use to refer to it.
    pub name: String,
    /// Name of the balancer that chooses among its targets.
    pub algorithm: String,
    /// `Host` to send in place of the target's own.
    pub host_header: Option<Authority<'static>>,
    /// Whether `Host` is the name in an SRV record, and not the target's.
    pub use_srv_name: Option<bool>,
    /// How many points a ring has; see the balancer `consistent-hashing`.
    pub slots: u32,
    /// What the affinity hash is made of.
    #[serde(flatten)]
    pub hashing: Hashing,
    /// Name of the cookie that ties a session to its endpoint.
    pub sticky_sessions_cookie: Option<String>,
    /// For which paths that is.
    pub sticky_sessions_cookie_path: Option<String>,
    /// How its targets are checked.
    #[serde(default)]
    pub healthchecks: HealthChecks,
    /// What goes past Kong.
    #[serde(default)]
    pub pointsman: Extension,
}

/// What the affinity hash is made of.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct Hashing {
    pub hash_on: Option<String>,
    pub hash_fallback: Option<String>,
    pub hash_on_header: Option<String>,
    pub hash_fallback_header: Option<String>,
    pub hash_on_cookie: Option<String>,
    pub hash_on_cookie_path: Option<String>,
    pub hash_on_query_arg: Option<String>,
    pub hash_fallback_query_arg: Option<String>,
    pub hash_on_uri_capture: Option<String>,
    pub hash_fallback_uri_capture: Option<String>,
}

/// How targets are checked.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct HealthChecks {
    pub threshold: f64,
    pub active: ActiveChecks,
    pub passive: PassiveChecks,
}

/// Probes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct ActiveChecks {
    pub r#type: String,
    pub timeout: f64,
    pub concurrency: u32,
    pub http_path: String,
    pub https_sni: Option<String>,
    pub https_verify_certificate: bool,
    pub headers: Option<std::collections::BTreeMap<String, Vec<String>>>,
    pub healthy: Healthy,
    pub unhealthy: Unhealthy,
}

/// What proxied requests say.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct PassiveChecks {
    pub healthy: Healthy,
    pub unhealthy: Unhealthy,
}

/// What makes an address healthy.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct Healthy {
    pub interval: f64,
    pub http_statuses: Option<Vec<u16>>,
    pub successes: u32,
}

/// What makes an address unhealthy.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are Kong's")]
pub struct Unhealthy {
    pub interval: f64,
    pub http_statuses: Option<Vec<u16>>,
    pub tcp_failures: u32,
    pub timeouts: u32,
    pub http_failures: u32,
}

/// What goes past Kong.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Settings of the balancer, an object that fits its schema.
    pub balancer_config: Option<Value>,
    /// Digest of the balancer's version that serves; none for whichever is active.
    pub balancer_version: Option<String>,
    /// What the balancer may take, where that is less than the gateway's settings say.
    pub balancer_limits: BalancerLimits,
    /// A second balancer that decides beside the first, without effect.
    pub shadow: Option<Shadow>,
    /// Whether a target's weight is divided over the addresses of its name. In Kong each gets it all.
    pub share_weight: bool,
    /// Below this percentage of available addresses all of them are used; with 0 never.
    pub panic_threshold: f64,
    /// Seconds that requests in flight may go on at an address that was deleted or is unhealthy; with 0
    /// as long as they take.
    pub drain_timeout: f64,
    /// How targets are probed.
    pub probe: Probe,
    /// How targets are spoken to over TLS.
    pub tls: Tls,
    /// The circuit that closes by itself.
    pub recovery: Recovery,
    /// The ramp of a target that joins or returns.
    pub slow_start: SlowStart,
    /// Limits for each target.
    pub circuit_breakers: CircuitBreakers,
    /// How much of the traffic may be retries.
    pub retry_budget: RetryBudget,
    /// Targets that do worse than their peers.
    pub outlier_detection: OutlierDetection,
}

/// What the balancer of an upstream may take; none is what the gateway's settings say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct BalancerLimits {
    /// Longest CPU time of a pick, in milliseconds.
    pub pick_timeout: Option<u32>,
    /// CPU time of a pick that may not be exceeded time after time, in microseconds.
    pub pick_cost: Option<u32>,
    /// Largest memory, in KiB.
    pub memory: Option<u32>,
    /// Largest state that is handed over, in KiB.
    pub state: Option<u32>,
}

/// A second balancer that decides beside the first, without effect.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Shadow {
    /// Its name; none for no shadow.
    pub balancer: Option<String>,
    /// Digest of its version; none for whichever is active.
    pub version: Option<String>,
    /// Its settings, an object that fits its schema.
    pub config: Option<Value>,
    /// How many of the picks it is asked for.
    pub sample_percent: f64,
}

/// How targets are spoken to over TLS, where that is not for the service to say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// Whether the certificates of targets are verified; none for what the service says.
    pub verify: Option<bool>,
    /// The name that is sent and that certificates must be for, in place of the `Host`.
    pub server_name: Option<String>,
    /// Authorities that are trusted in place of the system's, each text with one or more in PEM.
    pub ca_certificates: Option<Vec<String>>,
}

/// How a probe differs from Kong's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Port, instead of the target's.
    pub port: Option<u16>,
    /// Method, instead of GET.
    pub method: Option<String>,
    /// Path, instead of `http_path`.
    pub path: Option<String>,
    /// Whether probes over HTTP follow each other on one connection. The term is Envoy's, whose
    /// default is true.
    pub reuse_connection: Option<bool>,
}

/// The circuit that closes by itself: after a time one request at a time tries an address that passive
/// checks took out.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Recovery {
    /// Seconds until the first trial; each one that fails doubles it. With 0 there is none.
    pub base_time: f64,
    /// Longest time between two trials, in seconds.
    pub max_time: f64,
}

/// The ramp of a target that joins or returns. Source: Envoy, `slow_start_config`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SlowStart {
    /// Seconds until it has its full weight; with 0 it has it at once.
    pub window: f64,
    /// What it begins with.
    pub min_weight_percent: f64,
}

/// Limits for each target, over all workers. Source: Envoy, `circuit_breakers`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CircuitBreakers {
    /// Connections at a time, busy and idle ones; with 0 there is no limit.
    pub max_connections: u32,
    /// Requests at a time, each on a connection of its own; with 0 there is no limit.
    pub max_requests: u32,
    /// Requests of the upstream that may wait for a place.
    pub max_pending_requests: u32,
}

impl CircuitBreakers {
    /// Whether there is a limit to the requests of targets.
    pub fn limits_requests(&self) -> bool {
        self.max_connections > 0 || self.max_requests > 0
    }
}

/// How much of the traffic may be retries. Source: Envoy, `retry_budget`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct RetryBudget {
    /// Retries in flight, as a percentage of requests in flight; with 0 there is no limit.
    pub budget_percent: f64,
    /// Retries in flight that are always allowed.
    pub min_retry_concurrency: u32,
}

/// Targets that do worse than their peers are left out for a while. Source: Envoy,
/// `outlier_detection`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct OutlierDetection {
    /// Seconds between two looks.
    pub interval: f64,
    /// Seconds that the first ejection lasts; each one in a row lasts as much longer.
    pub base_ejection_time: f64,
    /// Longest ejection, in seconds.
    pub max_ejection_time: f64,
    /// Most addresses that may be ejected; one may always be.
    pub max_ejection_percent: f64,
    /// Whether a success rate that is too low ejects.
    pub success_rate: bool,
    /// Whether a mean response time that is too long ejects.
    pub latency: bool,
    /// Addresses with enough requests that it takes to compare.
    pub minimum_hosts: u32,
    /// Requests in an interval that an address needs to be compared.
    pub request_volume: u32,
    /// Thousandths of standard deviations below the mean success rate.
    pub success_rate_stdev_factor: u32,
    /// Thousandths of the median response time of all.
    pub latency_factor: u32,
}
