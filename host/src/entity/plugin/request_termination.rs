//! `request-termination`: answers requests itself. Source: Kong 3.9, `request-termination`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;
use crate::entity::{Row, check};

pub(super) static KIND: PluginKind = PluginKind {
    priority: 2,
    is_gate: false,
    schema: Subschema {
        name: "request-termination",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::integer("status_code")
                        .required()
                        .default(Preset::Integer(503))
                        .check(&[Check::Between(100, 599)]),
                    Field::string("message"),
                    Field::string("content_type").check(&[Check::Text(check::header_value)]),
                    Field::string("body"),
                    switch("echo", false),
                    Field::string("trigger").check(&[Check::Text(check::header_name)]),
                ],
            )
            .required()
            .check(&[Check::Record(one_source_of_the_answer)]),
        ],
        entity_checks: &[],
    },
};

fn one_source_of_the_answer(config: &Row) -> Result<(), String> {
    let has = |field: &str| config.get(field).is_some_and(|value| !value.is_null());
    let echo = config.get("echo").is_some_and(|echo| echo == true);
    if has("message") && (has("content_type") || has("body")) {
        return Err("message cannot be used with content_type or body".into());
    }
    if has("content_type") && !has("body") {
        return Err("content_type requires a body".into());
    }
    if echo && (has("content_type") || has("body")) {
        return Err("echo cannot be used with content_type and body".into());
    }
    Ok(())
}

/// The settings of `request-termination`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The status of the answer.
    pub status_code: u16,
    /// The message of a JSON body.
    pub message: Option<String>,
    /// The media type of `body`.
    pub content_type: Option<String>,
    /// The body.
    pub body: Option<String>,
    /// Whether the answer describes the request.
    pub echo: bool,
    /// The header or query argument that a request needs to be answered here; all are if none is
    /// named.
    pub trigger: Option<String>,
}
