//! An upstream: a virtual host name with targets to balance over. Source: Kong 3.9, `upstreams`.

mod hashing;
mod reports;
mod view;

use serde_json::Value;

pub use view::{
    ActiveChecks, BalancerLimits, CircuitBreakers, Extension, Hashing, HealthChecks, Healthy,
    OutlierDetection, PassiveChecks, Probe, Recovery, ReportedMetric, Reports, RetryBudget, Shadow,
    SlowStart, Tls, Unhealthy, Upstream,
};

pub use reports::report_name;

use super::declaration::Declaration;
use super::field::{Check, Field, Preset, Shape};
use super::{Kind, ReferenceBy, Row, UniqueKey, check};

/// Kong's algorithms. Each is the name of a shipped balancer, or of one that will ship later.
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

/// How a target or an upstream is probed where that differs from Kong: every field is optional.
pub(super) const PROBE_EXTENSION: &[Field] = &[
    Field::integer("port").check(&[Check::Between(1, 65_535)]),
    Field::string("method").check(&[Check::OneOf(&["GET", "HEAD", "OPTIONS", "POST"])]),
    Field::string("path").check(&[Check::Text(check::path)]),
    Field::boolean("reuse_connection"),
];

const AUTHORITY: Field = Field::element(Shape::String).check(&[Check::Text(check::authority)]);

/// The extensions beyond Kong, all off by default. Terms are Envoy's where it has them.
const EXTENSION: &[Field] = &[
    Field::settings("balancer_config"),
    Field::string("balancer_version"),
    Field::integer("facts_max_age").check(&[Check::Between(1, 86_400)]),
    Field::integer("balancer_body_size").check(&[Check::Between(16, 1024)]),
    Field::optional_record("reports", reports::FIELDS),
    Field::optional_record(
        "balancer_limits",
        &[
            Field::integer("pick_timeout").check(&[Check::Between(1, 10_000)]),
            Field::integer("pick_cost").check(&[Check::Between(1, 10_000_000)]),
            Field::integer("memory").check(&[Check::Between(64, 65_536)]),
            Field::integer("state").check(&[Check::Between(0, 65_536)]),
        ],
    ),
    Field::optional_record(
        "shadow",
        &[
            Field::string("balancer"),
            Field::string("version"),
            Field::settings("config"),
            percent("sample_percent", 100),
        ],
    ),
    Field::boolean("share_weight").default(Preset::Boolean(false)),
    Field::boolean("share_probes").default(Preset::Boolean(false)),
    percent("panic_threshold", 0),
    seconds("drain_timeout", 0),
    Field::string("proxy_protocol").check(&[Check::OneOf(&["v1", "v2"])]),
    Field::optional_record("probe", PROBE_EXTENSION),
    Field::optional_record(
        "tls",
        &[
            Field::boolean("verify"),
            Field::string("server_name").check(&[Check::Text(check::server_name)]),
            Field::array("ca_certificates", &AUTHORITY).check(&[Check::AtLeast(1)]),
        ],
    ),
    Field::optional_record(
        "recovery",
        &[seconds("base_time", 0), seconds("max_time", 300)],
    ),
    Field::optional_record(
        "slow_start",
        &[seconds("window", 0), percent("min_weight_percent", 10)],
    ),
    Field::optional_record(
        "circuit_breakers",
        &[
            number("max_connections", 0),
            number("max_requests", 0),
            number("max_pending_requests", 1024),
        ],
    ),
    Field::optional_record(
        "retry_budget",
        &[
            percent("budget_percent", 0),
            number("min_retry_concurrency", 3),
        ],
    ),
    Field::optional_record(
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
    unique: &[UniqueKey::of(&["name"])],
    endpoint_key: Some("name"),
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
        Field::reference("client_certificate", Kind::Certificate),
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
    normalize: hashing::settle,
    entity_checks: hashing::ENTITY_CHECKS,
    ..Declaration::of(Kind::Upstream, "upstreams", "upstream")
};

/// Rewrites the input of a request.
fn prepare(input: &mut Row, old: Option<&Row>) {
    hashing::couple(input, old);
    if let Some(old) = old {
        settings_of_another_balancer(input, old);
    }
}

/// Settings belong to their balancer: a change of the balancer starts with new settings, and only
/// settings of the same balancer are merged.
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

/// Sets every old setting that is not named again to null, so that it is removed.
fn take_out(new: &mut Value, old: &Value) {
    let (Value::Object(new), Value::Object(old)) = (new, old) else {
        return;
    };
    for (name, old) in old {
        take_out(new.entry(name.as_str()).or_insert(Value::Null), old);
    }
}
