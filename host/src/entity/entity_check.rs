//! Rules across the fields of an entity or of a record, with Kong's messages. Source: Kong 3.9,
//! `entity_checks`.

use serde_json::Value;

use super::Row;
use super::violations::Violations;

/// Names of fields. The name of a field inside a record has the names of all records around it:
/// `config.redis.host`.
type Names = &'static [&'static str];

/// A rule across fields.
#[derive(Debug, Clone, Copy)]
pub enum EntityCheck {
    /// At least one of these fields is set.
    AtLeastOneOf(Names),
    /// Exactly one of these fields is set.
    OnlyOneOf(Names),
    /// All of these fields are set, or none is.
    MutuallyRequired(Names),
    /// At most one of these fields is set.
    MutuallyExclusive(Names),
    /// No two of these fields have the same value.
    Distinct(Names),
    /// The value of one field restricts the value of another one. The rule is checked even if other
    /// fields are wrong, and its message replaces those about the field alone.
    Conditional {
        /// The field that restricts the other one.
        if_field: &'static str,
        /// The values of it for which the rule applies. Null stands for the field's default.
        if_match: Match,
        /// The other field.
        then_field: &'static str,
        /// The values that the other field may have.
        then_match: Match,
    },
    /// A rule given by a function.
    Custom {
        /// The fields that the function reads.
        fields: Names,
        /// The function.
        check: Rule,
    },
}

/// A rule across fields for which there is no other check.
pub type Rule = fn(&Row, &mut Violations);

/// A condition on a value.
#[derive(Debug, Clone, Copy)]
pub enum Match {
    /// Null.
    Null,
    /// Anything but null.
    NotNull,
    /// This text.
    Is(&'static str),
    /// One of these texts.
    OneOf(Names),
    /// None of these texts.
    NotOneOf(Names),
    /// A number greater than this one.
    GreaterThan(i64),
    /// A list with this text.
    Contains(&'static str),
    /// A text that passes this check.
    Passes(fn(&str) -> Result<(), String>),
}

impl EntityCheck {
    /// Whether the rule is checked even if fields are wrong. Source: Kong.
    pub(super) fn runs_on_wrong_rows(&self) -> bool {
        matches!(
            self,
            Self::AtLeastOneOf(_)
                | Self::OnlyOneOf(_)
                | Self::Distinct(_)
                | Self::Conditional { .. }
        )
    }

    /// The fields that the rule reads.
    pub(super) fn sources(&self) -> Vec<&'static str> {
        match self {
            Self::AtLeastOneOf(names)
            | Self::OnlyOneOf(names)
            | Self::MutuallyRequired(names)
            | Self::MutuallyExclusive(names)
            | Self::Distinct(names)
            | Self::Custom { fields: names, .. } => names.to_vec(),
            Self::Conditional {
                if_field,
                then_field,
                ..
            } => vec![if_field, then_field],
        }
    }
}

impl Match {
    /// Whether a value meets the condition.
    pub(super) fn holds(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::NotNull => !value.is_null(),
            Self::Is(text) => value == text,
            Self::OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            Self::GreaterThan(bound) => value.as_f64().is_some_and(|n| n > bound as f64),
            Self::Contains(text) => {
                let values = value.as_array();
                values.is_some_and(|values| values.iter().any(|value| value == text))
            }
            Self::NotOneOf(texts) => value.as_str().is_some_and(|text| !texts.contains(&text)),
            Self::Passes(check) => value.as_str().is_some_and(|text| check(text).is_ok()),
        }
    }

    /// The message for a value that breaks the condition. A value of another type gets none here,
    /// since its own field reports it.
    pub(super) fn broken_by(self, value: &Value) -> Option<String> {
        let is_typed = match self {
            Self::Null | Self::NotNull => true,
            Self::Passes(_) => value.is_null() || value.is_string(),
            Self::Is(_) | Self::OneOf(_) | Self::NotOneOf(_) => value.is_string(),
            Self::GreaterThan(_) => value.is_number(),
            Self::Contains(_) => value.is_array(),
        };
        if !is_typed || self.holds(value) {
            return None;
        }
        Some(match self {
            Self::Null => "value must be null".into(),
            Self::NotNull => "required field missing".into(),
            Self::Is(text) => format!("value must be {text}"),
            Self::GreaterThan(bound) => format!("value must be greater than {bound}"),
            Self::Contains(text) => format!("expected to contain: {text}"),
            Self::OneOf(texts) => format!("expected one of: {}", texts.join(", ")),
            Self::NotOneOf(texts) => format!("must not be one of: {}", texts.join(", ")),
            Self::Passes(check) => match value.as_str() {
                Some(text) => check(text).err()?,
                None => "required field missing".into(),
            },
        })
    }
}

/// The value at a name, which may be inside records.
pub(super) fn value_at<'r>(row: &'r Row, name: &str) -> Option<&'r Value> {
    let mut names = name.split('.');
    let first = row.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}
