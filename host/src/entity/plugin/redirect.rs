//! `redirect`: sends clients elsewhere. Source: Kong 3.9, `redirect`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, PluginKind};
use crate::entity::check;
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 779,
    is_gate: false,
    schema: Subschema {
        name: "redirect",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::integer("status_code")
                        .required()
                        .default(Preset::Integer(301))
                        .check(&[Check::Between(100, 599)]),
                    Field::string("location")
                        .required()
                        .check(&[Check::Text(check::url), Check::Text(check::header_value)]),
                    Field::boolean("keep_incoming_path").default(Preset::Boolean(false)),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `redirect`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The status of the answer.
    pub status_code: u16,
    /// The URL to which clients are sent.
    pub location: String,
    /// Whether the path and the query of the request take the place of those in `location`.
    pub keep_incoming_path: bool,
}
