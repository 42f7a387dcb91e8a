//! `request-termination`: answers requests itself. Source: Kong 3.9, `request-termination`.

use serde::Deserialize;

use super::PluginKind;
use crate::entity::EntityCheck;
use crate::entity::Row;
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;
use crate::entity::violations::Violations;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 2,
    schema: Subschema {
        name: "request-termination",
        fields: &[Field::record(
            "config",
            &[
                Field::integer("status_code")
                    .required()
                    .default(Preset::Integer(503))
                    .check(&[Check::Between(100, 599)]),
                Field::string("message"),
                Field::string("content_type"),
                Field::string("body"),
                Field::boolean("echo")
                    .required()
                    .default(Preset::Boolean(false)),
                Field::string("trigger"),
            ],
        )
        .required()
        .entity_checks(&[EntityCheck::Custom {
            fields: &["message", "content_type", "body", "echo"],
            check: one_source_of_the_answer,
        }])],
    },
};

fn one_source_of_the_answer(config: &Row, violations: &mut Violations) {
    let has = |field: &str| config.get(field).is_some_and(|value| !value.is_null());
    let echo = config.get("echo").and_then(serde_json::Value::as_bool) == Some(true);
    if has("message") && (has("content_type") || has("body")) {
        violations.entity("message cannot be used with content_type or body");
    }
    if has("content_type") && !has("body") {
        violations.entity("content_type requires a body");
    }
    if echo && (has("content_type") || has("body")) {
        violations.entity("echo cannot be used with content_type and body");
    }
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
