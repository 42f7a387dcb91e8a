//! `bot-detection`: refuses clients whose `User-Agent` is that of a program. Source: Kong 3.9,
//! `bot-detection`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind};
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;

const PATTERN: Field = Field::element(Shape::String).check(&[Check::Regex]);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 2500,
    is_gate: true,
    schema: Subschema {
        name: "bot-detection",
        fields: &[
            NO_CONSUMER,
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::array("allow", &PATTERN).default(Preset::Strings(&[])),
                    Field::array("deny", &PATTERN).default(Preset::Strings(&[])),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `bot-detection`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Regular expressions of agents that pass; they take precedence.
    pub allow: Vec<String>,
    /// Regular expressions of agents that are refused, in addition to those that are known.
    pub deny: Vec<String>,
}
