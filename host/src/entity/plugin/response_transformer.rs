//! `response-transformer`: changes responses before the client sees them. Source: Kong 3.9,
//! `response-transformer`.

use serde::Deserialize;

use super::pair::{HEADER_NAMES, NAME, PAIR, Pair, list};
use super::{HTTP_PROTOCOLS, PluginKind};
use crate::entity::field::{Check, Field, Shape};
use crate::entity::subschema::Subschema;

const JSON_TYPE: Field =
    Field::element(Shape::String).check(&[Check::OneOf(&["boolean", "number", "string"])]);

const ENTRIES: &[Field] = &[
    list("json", &PAIR),
    list("json_types", &JSON_TYPE),
    list("headers", &PAIR),
];

pub(super) static KIND: PluginKind = PluginKind {
    priority: 800,
    is_gate: false,
    schema: Subschema {
        name: "response-transformer",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::record("remove", &[list("json", &NAME), list("headers", &NAME)])
                        .required(),
                    Field::record(
                        "rename",
                        &[list("json", &PAIR), list("headers", &HEADER_NAMES)],
                    )
                    .required(),
                    Field::record("replace", ENTRIES).required(),
                    Field::record("add", ENTRIES).required(),
                    Field::record("append", ENTRIES).required(),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `response-transformer`: steps in their order.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// What is removed.
    pub remove: Names,
    /// What gets another name.
    pub rename: Renames,
    /// What gets another value, if it is there.
    pub replace: Values,
    /// What gets a value, if it is not there.
    pub add: Values,
    /// What gets one more value.
    pub append: Values,
}

/// Names.
#[derive(Debug, Clone, Deserialize)]
pub struct Names {
    /// Of members of the JSON object that is the body.
    pub json: Vec<String>,
    /// Of headers. A value after a name has no effect.
    pub headers: Vec<Pair>,
}

/// Present and new names.
#[derive(Debug, Clone, Deserialize)]
pub struct Renames {
    /// Of members of the JSON object that is the body.
    pub json: Vec<Pair>,
    /// Of headers.
    pub headers: Vec<Pair>,
}

/// Names and values.
#[derive(Debug, Clone, Deserialize)]
pub struct Values {
    /// Of members of the JSON object that is the body.
    pub json: Vec<Pair>,
    /// The types of the values in `json`, in the same order. A value without a type is a string.
    pub json_types: Vec<JsonType>,
    /// Of headers.
    pub headers: Vec<Pair>,
}

/// The type of a value that is written as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonType {
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// The text itself.
    String,
}
