//! Rules across the fields of an entity or of a record, with Kong's words for what breaks them. Source:
//! Kong 3.9, `entity_checks`.

use serde_json::Value;

use super::Row;
use super::violations::Violations;

/// Names of fields.
type Names = &'static [&'static str];

/// A rule across fields.
#[derive(Debug, Clone, Copy)]
pub enum EntityCheck {
    /// One of these fields says something, or several do.
    AtLeastOneOf(Names),
    /// Exactly one of these fields says something.
    OnlyOneOf(Names),
    /// All of these fields say something, or none does.
    MutuallyRequired(Names),
    /// At most one of these fields says something.
    MutuallyExclusive(Names),
    /// No two of these fields say the same.
    Distinct(Names),
    /// The value of one field says what another one may be. It is looked at even where fields are wrong, and
    /// its words win over those about the field alone.
    Conditional {
        /// The field that says it.
        if_field: &'static str,
        /// The values of it that do. Null reads as the field's default.
        if_match: Match,
        /// The other field.
        then_field: &'static str,
        /// What it may be.
        then_match: Match,
    },
    /// Whatever this says of these fields.
    Custom {
        /// The fields that it looks at.
        fields: Names,
        /// What it says.
        check: Rule,
    },
}

/// A rule across fields that no other check says.
pub type Rule = fn(&Row, &mut Violations);

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Match {
    /// Null.
    Null,
    /// Anything but null.
    NotNull,
    /// One of these texts.
    OneOf(Names),
    /// None of these texts.
    NotOneOf(Names),
}

impl EntityCheck {
    /// The fields that it looks at.
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
    /// Whether a value is such.
    pub(super) fn holds(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::NotNull => !value.is_null(),
            Self::OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            Self::NotOneOf(texts) => value.as_str().is_some_and(|text| !texts.contains(&text)),
        }
    }

    /// What is said of a value; nothing of one that is right, or of another type, which is said of it already.
    pub(super) fn broken_by(self, value: &Value) -> Option<String> {
        let is_typed = matches!(self, Self::Null | Self::NotNull) || value.is_string();
        if !is_typed || self.holds(value) {
            return None;
        }
        Some(match self {
            Self::Null => "value must be null".into(),
            Self::NotNull => "required field missing".into(),
            Self::OneOf(texts) => format!("expected one of: {}", texts.join(", ")),
            Self::NotOneOf(texts) => format!("must not be one of: {}", texts.join(", ")),
        })
    }
}
