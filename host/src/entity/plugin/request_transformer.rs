//! `request-transformer`: changes requests before the endpoint sees them. Source: Kong 3.9,
//! `request-transformer`.

use serde::Deserialize;

use super::pair::{self, HAS_COLON, HEADER_NAMES, NAME, Pair, TemplatePair, list};
use super::{PROTOCOLS, PluginKind};
use crate::entity::field::{Check, Field, Shape, TextPattern};
use crate::entity::subschema::Subschema;
use crate::template::Template;

const HEADER_NAME: Field = Field::element(Shape::String).check(&[Check::Text(header_name)]);

const HEADER: Field = Field::element(Shape::String).check(&[HAS_COLON, Check::Text(header)]);

const ENTRY: Field = Field::element(Shape::String).check(&[Check::Text(entry)]);

const ENTRIES: &[Field] = &[
    list("body", &ENTRY),
    list("headers", &HEADER),
    list("querystring", &ENTRY),
];

const METHOD: &[Check] = &[Check::Matches(&TextPattern {
    lua: "^%u+$",
    holds: |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase()),
    message: None,
})];

pub(super) static KIND: PluginKind = PluginKind {
    priority: 801,
    is_gate: false,
    schema: Subschema {
        name: "request-transformer",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("http_method").check(METHOD),
                    Field::record(
                        "remove",
                        &[
                            list("body", &NAME),
                            list("headers", &HEADER_NAME),
                            list("querystring", &NAME),
                        ],
                    )
                    .required(),
                    Field::record(
                        "rename",
                        &[
                            list("body", &ENTRY),
                            list("headers", &HEADER_NAMES),
                            list("querystring", &ENTRY),
                        ],
                    )
                    .required(),
                    Field::record(
                        "replace",
                        &[
                            list("body", &ENTRY),
                            list("headers", &HEADER),
                            list("querystring", &ENTRY),
                            Field::string("uri").check(&[Check::Text(template)]),
                        ],
                    )
                    .required(),
                    Field::record("add", ENTRIES).required(),
                    Field::record("append", ENTRIES).required(),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The name of a header to remove; a value after it has no effect.
fn header_name(entry: &str) -> Result<(), String> {
    pair::is_header_name(pair::split(entry).0)
}

/// A header with the template of its value, which may be empty.
fn header(entry: &str) -> Result<(), String> {
    let (name, value) = pair::split(entry);
    pair::is_header_name(name)?;
    template(value)
}

/// A name with the template of its value.
fn entry(entry: &str) -> Result<(), String> {
    let (name, value) = pair::split(entry);
    if value.is_empty() {
        return Err(format!("key '{name}' has no value"));
    }
    template(value)
}

fn template(value: &str) -> Result<(), String> {
    let format = |error| format!("value '{value}' is not in supported format, error:{error}");
    Template::parse(value).map(drop).map_err(format)
}

/// The settings of `request-transformer`. Each step is done for headers, body and query in the
/// order of the fields; the path and the method come first.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The method that the endpoint sees.
    pub http_method: Option<String>,
    /// What is removed.
    pub remove: Names,
    /// What gets another name.
    pub rename: Renames,
    /// What gets another value, if it is there.
    pub replace: Replacements,
    /// What gets a value, if it is not there.
    pub add: Values,
    /// What gets one more value.
    pub append: Values,
}

/// Names.
#[derive(Debug, Clone, Deserialize)]
pub struct Names {
    /// Of fields of the body.
    pub body: Vec<Pair>,
    /// Of headers.
    pub headers: Vec<Pair>,
    /// Of query arguments.
    pub querystring: Vec<Pair>,
}

/// Present and new names.
#[derive(Debug, Clone, Deserialize)]
pub struct Renames {
    /// Of fields of the body.
    pub body: Vec<TemplatePair>,
    /// Of headers.
    pub headers: Vec<Pair>,
    /// Of query arguments.
    pub querystring: Vec<TemplatePair>,
}

/// Names and values.
#[derive(Debug, Clone, Deserialize)]
pub struct Values {
    /// Of fields of the body.
    pub body: Vec<TemplatePair>,
    /// Of headers.
    pub headers: Vec<TemplatePair>,
    /// Of query arguments.
    pub querystring: Vec<TemplatePair>,
}

/// Names and values, and a path.
#[derive(Debug, Clone, Deserialize)]
pub struct Replacements {
    /// Names and values.
    #[serde(flatten)]
    pub values: Values,
    /// The path that the endpoint sees.
    pub uri: Option<Template>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_a_value_that_is_a_template() {
        assert_eq!(entry("a:$(headers.x)"), Ok(()));
        assert_eq!(entry("a"), Err("key 'a' has no value".into()));
        assert_eq!(entry("a:"), Err("key 'a' has no value".into()));
        let refused = entry("a:$(1 + 1)").map_err(|message| {
            message.starts_with(
                "value '$(1 + 1)' is not in supported format, error:'$(1 + 1)' is not a reference",
            )
        });
        assert_eq!(refused, Err(true));
        assert_eq!(header("x-a:"), Ok(()));
        assert_eq!(header("x a:b"), Err("'x a' is not a valid header".into()));
        assert_eq!(header_name("x-a:b"), Ok(()));
    }
}
