//! `cors`: tells browsers which pages of other origins may use a service. Source: Kong 3.9, `cors`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;

const METHODS: &[&str] = &[
    "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

const ORIGIN: Field = Field::element(Shape::String).check(&[Check::Text(origin)]);

const HEADER: Field = Field::element(Shape::String);

const METHOD: Field = Field::element(Shape::String).check(&[Check::OneOf(METHODS)]);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 2000,
    is_gate: false,
    schema: Subschema {
        name: "cors",
        fields: &[
            NO_CONSUMER,
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::array("origins", &ORIGIN),
                    Field::array("headers", &HEADER),
                    Field::array("exposed_headers", &HEADER),
                    Field::array("methods", &METHOD).default(Preset::Strings(METHODS)),
                    Field::number("max_age"),
                    switch("credentials", false),
                    switch("private_network", false),
                    switch("preflight_continue", false),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// An origin: `*`, a text, or a regular expression.
fn origin(text: &str) -> Result<(), String> {
    if text == "*" || crate::pattern::is_pattern(text).is_ok() {
        Ok(())
    } else {
        Err(format!("'{text}' is not a valid regex"))
    }
}

/// The settings of `cors`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The origins whose pages may use the service: texts, regular expressions, or `*`; all origins
    /// if none are named.
    pub origins: Option<Vec<String>>,
    /// The request headers that pages may send; those that a browser asks for if none are named.
    pub headers: Option<Vec<String>>,
    /// The response headers that pages may read.
    pub exposed_headers: Option<Vec<String>>,
    /// The methods that pages may use.
    pub methods: Vec<String>,
    /// How long a browser may keep the answer to a preflight request, in seconds.
    pub max_age: Option<f64>,
    /// Whether requests of pages may carry cookies and credentials.
    pub credentials: bool,
    /// Whether pages of public networks may use the service.
    pub private_network: bool,
    /// Whether preflight requests go to the endpoint.
    pub preflight_continue: bool,
}
