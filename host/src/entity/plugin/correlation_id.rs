//! `correlation-id`: gives each request an id in a header. Source: Kong 3.9, `correlation-id`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 100_001,
    is_gate: false,
    schema: Subschema {
        name: "correlation-id",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("header_name").default(Preset::String("Kong-Request-ID")),
                    Field::string("generator")
                        .required()
                        .default(Preset::String("uuid#counter"))
                        .check(&[Check::OneOf(&["uuid", "uuid#counter", "tracker"])]),
                    switch("echo_downstream", false),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `correlation-id`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The header with the id. A request that has it keeps it.
    pub header_name: String,
    /// The form of an id.
    pub generator: Generator,
    /// Whether the client is sent the id as well.
    pub echo_downstream: bool,
}

/// The form of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// A random UUID.
    Uuid,
    /// A UUID of the worker, and the number of the request.
    #[serde(rename = "uuid#counter")]
    UuidCounter,
    /// Where and when the request came in, and its number on its connection.
    Tracker,
}
