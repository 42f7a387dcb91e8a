//! `http-log`: sends a record of each request to an HTTP server. Source: Kong 3.9, `http-log`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::queue::{self, Queue};
use super::{PROTOCOLS, PluginKind, lua};
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;
use crate::entity::{Row, check};

const HEADER_VALUE: Field = Field::element(Shape::String).referenceable();

pub(super) static KIND: PluginKind = PluginKind {
    priority: 12,
    is_gate: false,
    schema: Subschema {
        name: "http-log",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("http_endpoint")
                        .required()
                        .secret()
                        .referenceable()
                        .check(&[Check::Text(check::url)]),
                    Field::string("method")
                        .default(Preset::String("POST"))
                        .check(&[Check::OneOf(&["POST", "PUT", "PATCH"])]),
                    Field::string("content_type")
                        .default(Preset::String("application/json"))
                        .check(&[Check::OneOf(&[
                            "application/json",
                            "application/json; charset=utf-8",
                        ])]),
                    Field::number("timeout").default(Preset::Integer(10_000)),
                    Field::number("keepalive").default(Preset::Integer(60_000)),
                    queue::RETRY_COUNT,
                    queue::QUEUE_SIZE,
                    queue::FLUSH_TIMEOUT,
                    Field::map("headers", &[Check::Text(header_name)], &HEADER_VALUE),
                    queue::RECORD,
                    lua::CUSTOM_FIELDS,
                ],
            )
            .required()
            .check(&[Check::Record(one_authorization)]),
        ],
        entity_checks: &[],
    },
};

/// The name of a header that the sender does not set itself.
fn header_name(name: &str) -> Result<(), String> {
    let own = ["Host", "Content-Length", "Content-Type"];
    match own.iter().find(|own| own.eq_ignore_ascii_case(name)) {
        Some(own) => Err(format!("cannot contain '{own}' header")),
        None => check::header_name(name),
    }
}

/// Refuses credentials both in the URL and in a header.
fn one_authorization(config: &Row) -> Result<(), String> {
    let endpoint = config.get("http_endpoint").and_then(|url| url.as_str());
    let headers = config
        .get("headers")
        .and_then(|headers| headers.as_object());
    let names = headers.into_iter().flat_map(Row::keys);
    let is_given = names
        .into_iter()
        .any(|name| name.eq_ignore_ascii_case("authorization"));
    if is_given && endpoint.is_some_and(check::has_user_info) {
        return Err(
            "specifying both an 'Authorization' header and user info in 'http_endpoint' is not \
             allowed"
                .into(),
        );
    }
    Ok(())
}

/// The settings of `http-log`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The URL to which records are sent. Credentials in it are sent by the scheme `Basic`.
    pub http_endpoint: String,
    /// The method.
    pub method: String,
    /// The media type.
    pub content_type: String,
    /// The longest time that sending may take, in milliseconds.
    pub timeout: f64,
    /// How long an idle connection is kept, in milliseconds.
    pub keepalive: f64,
    /// See [`Queue::with_earlier_fields`].
    pub queue_size: Option<i64>,
    /// See [`Queue::with_earlier_fields`].
    pub flush_timeout: Option<f64>,
    /// Headers that are sent.
    pub headers: Option<BTreeMap<String, String>>,
    /// How records wait to be sent; read through [`Config::queue`].
    queue: Queue,
}

impl Config {
    /// How records wait to be sent.
    pub fn queue(&self) -> Queue {
        let (size, timeout) = (self.queue_size, self.flush_timeout);
        self.queue.with_earlier_fields(size, timeout)
    }
}
