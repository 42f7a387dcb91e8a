//! `file-log`: writes a record of each request to a file. Source: Kong 3.9, `file-log`.

use serde::Deserialize;

use super::{PROTOCOLS, PluginKind, lua, switch};
use crate::entity::field::{Check, Field, TextPattern};
use crate::entity::subschema::Subschema;

const FILE_NAME: &[Check] = &[Check::Matches(&TextPattern {
    lua: r"^[^*&%%\`]+$",
    holds: |text| !text.contains(['*', '&', '%', '\\', '`']),
    message: Some("not a valid filename"),
})];

pub(super) static KIND: PluginKind = PluginKind {
    priority: 9,
    is_gate: false,
    schema: Subschema {
        name: "file-log",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("path").required().check(FILE_NAME),
                    switch("reopen", false),
                    lua::CUSTOM_FIELDS,
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `file-log`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The path of the file.
    pub path: String,
    /// Whether the file is opened again for each record.
    pub reopen: bool,
}
