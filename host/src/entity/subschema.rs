//! Fields that depend on the value of another one, as the `config` of a plugin on its `name`.

use serde_json::Value;

use super::Row;
use super::field::Field;

/// The schemas that an entity has by the value of one of its fields.
#[derive(Debug, Clone, Copy)]
pub struct Subschemas {
    /// The field whose value says which.
    pub by: &'static str,
    /// The schema of a value, if it has one.
    pub of: fn(&str) -> Option<&'static Subschema>,
    /// What is said of a value that has none.
    pub unknown: fn(&str) -> String,
}

/// What an entity is with one value of the field that its schema depends on.
#[derive(Debug)]
pub struct Subschema {
    /// The value.
    pub name: &'static str,
    /// Fields in place of those of the entity that have the same name.
    pub fields: &'static [Field],
}

impl Subschemas {
    /// The schema that the value in a row has, or that in the row that it changes.
    ///
    /// # Errors
    /// What is said of the value: it has none. Nothing is said of one that is missing or no text, which the
    /// field itself does.
    pub(super) fn chosen(
        &self,
        input: &Row,
        old: Option<&Row>,
    ) -> Result<Option<&'static Subschema>, String> {
        let value = input.get(self.by).or_else(|| old?.get(self.by));
        let Some(text) = value.and_then(Value::as_str) else {
            return Ok(None);
        };
        match (self.of)(text) {
            Some(subschema) => Ok(Some(subschema)),
            None => Err((self.unknown)(text)),
        }
    }
}

impl Subschema {
    /// The fields of the entity, with those of this schema in their places.
    pub(super) fn merged_into(&self, fields: &[Field]) -> Vec<Field> {
        let own = |field: &Field| self.fields.iter().find(|own| own.name == field.name);
        fields
            .iter()
            .map(|field| *own(field).unwrap_or(field))
            .collect()
    }
}
