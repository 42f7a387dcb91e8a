//! A plugin: a policy with its settings, and the requests that it is for. Source: Kong 3.9,
//! `plugins`.
//!
//! The settings of a plugin depend on its name. Each kind of plugin is declared in a file of its
//! own below.

mod absent;
pub mod acl;
pub mod acme;
pub mod basic_auth;
pub mod bot_detection;
pub mod correlation_id;
pub mod cors;
pub mod file_log;
pub mod grpc_web;
pub mod http_log;
pub mod ip_restriction;
pub mod jwt;
pub mod key_auth;
mod lua;
pub mod opentelemetry;
pub mod pair;
pub mod periods;
pub mod prometheus;
pub mod proxy_cache;
pub mod queue;
pub mod rate_limiting;
pub mod redirect;
pub mod redis;
pub mod request_size_limiting;
pub mod request_termination;
pub mod request_transformer;
pub mod response_ratelimiting;
pub mod response_transformer;
pub mod statsd;
pub mod syslog;
pub mod tcp_log;
pub mod udp_log;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::declaration::Declaration;
use super::field::{Check, Field, Preset, Shape};
use super::subschema::{Subschema, Subschemas};
use super::{ForeignKey, Kind, OnDelete, Row, UniqueKey, check};

/// A kind of plugin.
#[derive(Debug)]
pub struct PluginKind {
    /// Its name, with the fields that it has in place of those of every plugin.
    pub schema: Subschema,
    /// Its place in the order of policies: the greatest comes first. Source: Kong, `PRIORITY`.
    pub priority: i32,
    /// Whether it decides which requests may pass. If such a plugin cannot be used, no request may:
    /// to let all of them pass would open what it protects.
    pub is_gate: bool,
}

/// The kinds of plugins, in the order of their names.
pub static KINDS: &[&PluginKind] = &[
    &acl::KIND,
    &acme::KIND,
    &basic_auth::KIND,
    &bot_detection::KIND,
    &correlation_id::KIND,
    &cors::KIND,
    &file_log::KIND,
    &grpc_web::KIND,
    &http_log::KIND,
    &ip_restriction::KIND,
    &jwt::KIND,
    &key_auth::KIND,
    &opentelemetry::KIND,
    &prometheus::KIND,
    &proxy_cache::KIND,
    &rate_limiting::KIND,
    &redirect::KIND,
    &request_size_limiting::KIND,
    &request_termination::KIND,
    &request_transformer::KIND,
    &response_ratelimiting::KIND,
    &response_transformer::KIND,
    &statsd::KIND,
    &syslog::KIND,
    &tcp_log::KIND,
    &udp_log::KIND,
];

impl PluginKind {
    /// The kind with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        let found = KINDS.binary_search_by(|kind| kind.schema.name.cmp(name));
        found.ok().map(|place| KINDS[place])
    }
}

/// A policy with its settings, and the requests that it is for.
pub static DECLARATION: Declaration = Declaration {
    // Two plugins of one kind may not have the same scope.
    unique: &[
        UniqueKey::of(&["instance_name"]),
        UniqueKey::with_nulls(&["consumer", "name", "route", "service"]),
    ],
    endpoint_key: Some("instance_name"),
    fields: &[
        Field::id(),
        Field::string("name").required(),
        Field::string("instance_name").check(&[Check::Text(check::name)]),
        Field::created_at(),
        Field::updated_at(),
        Field::reference("route", Kind::Route).on_delete(OnDelete::Cascade),
        Field::reference("service", Kind::Service).on_delete(OnDelete::Cascade),
        Field::reference("consumer", Kind::Consumer).on_delete(OnDelete::Cascade),
        Field::record("config", &[]).required(),
        PROTOCOLS,
        Field::boolean("enabled")
            .required()
            .default(Preset::Boolean(true)),
        Field::tags(),
        refused("ordering", &[Check::Nothing(NO_ORDERING)]),
        refused("consumer_group", &[Check::Nothing(NO_CONSUMER_GROUPS)]),
    ],
    subschemas: Some(Subschemas {
        by: "name",
        of: |name| PluginKind::named(name).map(|kind| &kind.schema),
        unknown: |name| {
            format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property")
        },
        hint: Some(|| format!("there are: {}", known_names())),
        absent: Some(absent::message),
    }),
    ..Declaration::of(Kind::Plugin, "plugins", "plugin")
};

/// A field of Kong Enterprise: only null is taken, and it is not shown.
const fn refused(name: &'static str, why: &'static [Check]) -> Field {
    Field::any(name).extension().check(why)
}

const NO_ORDERING: &str = "plugins run in the order of their priorities, which 'GET /' shows: leave \
     'ordering' out";

const NO_CONSUMER_GROUPS: &str = "there are no consumer groups: scope the plugin to a consumer, a \
     route or a service, or tell consumers apart with the plugin acl";

/// The protocols that a plugin may be for: those of HTTP, and those of streams where it says so.
const PROTOCOLS: Field = protocols(&["grpc", "grpcs", "http", "https"]);

/// For plugins that do nothing with streams.
const HTTP_PROTOCOLS: Field = {
    const PROTOCOL: Field =
        Field::element(Shape::String).check(&[Check::OneOf(&["grpc", "grpcs", "http", "https"])]);
    Field::set("protocols", &PROTOCOL)
        .required()
        .default(Preset::Strings(&["grpc", "grpcs", "http", "https"]))
};

const fn protocols(default: &'static [&'static str]) -> Field {
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
    Field::set("protocols", &PROTOCOL)
        .required()
        .default(Preset::Strings(default))
}

/// For plugins that find out who the consumer is, and those that run before them.
const NO_CONSUMER: Field =
    Field::reference("consumer", Kind::Consumer).check(&[Check::Nothing("value must be null")]);

/// A setting that is on or off.
const fn switch(name: &'static str, default: bool) -> Field {
    Field::boolean(name)
        .required()
        .default(Preset::Boolean(default))
}

/// The name or address of a server.
const fn host() -> Field {
    Field::string("host").check(&[Check::Text(check::host)])
}

/// The port of a server.
const fn port() -> Field {
    Field::integer("port").check(&[Check::Between(0, 65535)])
}

/// Whether there can be a request to its route that a plugin is for.
///
/// # Errors
/// Kong's message for the field `protocols`.
pub(crate) fn check_protocols_of_route(plugin: &Row, route: &Row) -> Result<(), &'static str> {
    match have_protocol_in_common(plugin, route) {
        true => Ok(()),
        false => Err("must match the associated route's protocols"),
    }
}

/// Whether there can be a request to one of the routes of its service that a plugin is for. A
/// service without routes may get any.
///
/// # Errors
/// Kong's message for the field `protocols`.
pub(crate) fn check_protocols_of_service<'r>(
    plugin: &Row,
    routes: impl IntoIterator<Item = &'r Row>,
) -> Result<(), &'static str> {
    let mut has_any = false;
    for route in routes {
        if have_protocol_in_common(plugin, route) {
            return Ok(());
        }
        has_any = true;
    }
    match has_any {
        false => Ok(()),
        true => {
            Err("must match the protocols of at least one route pointing to this Plugin's service")
        }
    }
}

/// Whether a plugin and a route, as rows, have a protocol in common.
fn have_protocol_in_common(plugin: &Row, route: &Row) -> bool {
    fn protocols(row: &Row) -> &[Value] {
        let list = row.get("protocols").and_then(Value::as_array);
        list.map_or(&[], Vec::as_slice)
    }
    let of_route = protocols(route);
    protocols(plugin)
        .iter()
        .any(|protocol| of_route.contains(protocol))
}

/// The names of the plugins that exist, for messages: so the next request can be right.
fn known_names() -> String {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.schema.name).collect();
    names.join(", ")
}

/// What the data plane reads of a plugin.
#[derive(Debug, Clone, Deserialize)]
pub struct Plugin {
    /// Primary key.
    pub id: Uuid,
    /// The kind of plugin.
    pub name: String,
    /// The route whose requests it is for; of any route if none.
    pub route: Option<ForeignKey>,
    /// The service whose requests it is for; of any service if none.
    pub service: Option<ForeignKey>,
    /// The consumer whose requests it is for; of any consumer if none.
    pub consumer: Option<ForeignKey>,
    /// Its settings, in the form of its kind.
    pub config: Value,
    /// The protocols of the requests that it is for.
    pub protocols: Vec<String>,
    /// Whether it is in effect.
    pub enabled: bool,
}

#[cfg(test)]
mod tests;
