//! Entries of the transformers: a name, or a name and a value, in one text. Source: Kong 3.9,
//! `request-transformer` and `response-transformer`.

use serde::Deserialize;

use crate::entity::check;
use crate::entity::field::{Check, Field, Preset, Shape, TextPattern};
use crate::template::Template;

/// The name and the value of an entry, with any number of colons between them. The value is empty
/// if there is none.
pub(super) fn split(entry: &str) -> (&str, &str) {
    let (name, rest) = entry.split_once(':').unwrap_or((entry, ""));
    (name, rest.trim_start_matches(':'))
}

/// A list of entries, empty by default.
pub(super) const fn list(name: &'static str, element: &'static Field) -> Field {
    Field::array(name, element)
        .required()
        .default(Preset::Strings(&[]))
}

/// A name.
pub(super) const NAME: Field = Field::element(Shape::String);

/// A name with a value, which may be empty.
pub(super) const PAIR: Field = Field::element(Shape::String).check(WITH_COLON);

const WITH_COLON: &[Check] = &[HAS_COLON];

/// A check that an entry has a name, and a colon after it.
pub(super) const HAS_COLON: Check = Check::Matches(&TextPattern {
    lua: "^[^:]+:.*$",
    holds: |entry| entry.find(':').is_some_and(|place| place > 0),
    message: None,
});

/// Two names of headers: the present one and the new one.
pub(super) const HEADER_NAMES: Field =
    Field::element(Shape::String).check(&[HAS_COLON, Check::Text(two_header_names)]);

fn two_header_names(entry: &str) -> Result<(), String> {
    let (present, new) = split(entry);
    is_header_name(present)?;
    is_header_name(new)
}

/// The name of a header.
pub(super) fn is_header_name(name: &str) -> Result<(), String> {
    match check::header_name(name) {
        Ok(()) => Ok(()),
        Err(_) => Err(format!("'{name}' is not a valid header")),
    }
}

/// A name and the text that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The text: a value, or a new name. It may be empty.
    pub value: String,
}

impl From<String> for Pair {
    fn from(entry: String) -> Self {
        let (name, value) = split(&entry);
        Self {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }
}

/// A name and the template of the text that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TemplatePair {
    /// The name.
    pub name: String,
    /// The text: a value, or a new name. It may be empty.
    pub value: Template,
}

impl TryFrom<String> for TemplatePair {
    type Error = crate::template::TemplateError;

    fn try_from(entry: String) -> Result<Self, Self::Error> {
        let (name, value) = split(&entry);
        Ok(Self {
            name: name.to_owned(),
            value: Template::parse(value)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_colons_after_a_name_separate_it_from_its_value() {
        for (entry, expected) in [
            ("a", ("a", "")),
            ("a:", ("a", "")),
            ("a:b", ("a", "b")),
            ("a::b:c", ("a", "b:c")),
            ("a: b", ("a", " b")),
        ] {
            assert_eq!(split(entry), expected);
        }
    }

    proptest! {
        #[test]
        fn a_name_has_no_colon_and_a_value_does_not_start_with_one(entry in "[a:\u{e4} ]{0,8}") {
            let (name, value) = split(&entry);
            prop_assert!(!name.contains(':') && !value.starts_with(':'));
            prop_assert!(entry.starts_with(name) && entry.ends_with(value));
        }
    }
}
