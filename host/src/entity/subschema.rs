//! Fields that depend on the value of another field, as the `config` of a plugin on its `name`.

use serde_json::Value;

use super::Row;
use super::entity_check::EntityCheck;
use super::field::Field;
use super::violations::Violations;

/// The schemas of an entity by the value of one of its fields.
#[derive(Debug, Clone, Copy)]
pub struct Subschemas {
    /// The field whose value selects the schema.
    pub by: &'static str,
    /// The schema of a value, if it has one.
    pub of: fn(&str) -> Option<&'static Subschema>,
    /// The message for a value without a schema.
    pub unknown: fn(&str) -> String,
    /// What is added to the message of the whole error; clients compare that of the field.
    pub hint: Option<fn() -> String>,
    /// The message for a value that Kong has a schema for and this gateway does not.
    pub absent: Option<fn(&str) -> Option<String>>,
}

/// The schema of an entity for one value of the field that selects it.
#[derive(Debug)]
pub struct Subschema {
    /// The value.
    pub name: &'static str,
    /// Fields in place of those of the entity that have the same name.
    pub fields: &'static [Field],
    /// Rules across fields, in addition to those of the entity.
    pub entity_checks: &'static [EntityCheck],
}

impl Subschemas {
    /// The schema for the value in a row, or else for that in the row that it changes.
    ///
    /// # Errors
    /// The violation of a value without a schema. A value that is missing or not a text gives no
    /// error here, since the check of the field itself reports it.
    pub(super) fn chosen(
        &self,
        input: &Row,
        old: Option<&Row>,
    ) -> Result<Option<&'static Subschema>, Violations> {
        let value = input.get(self.by).or_else(|| old?.get(self.by));
        let Some(text) = value.and_then(Value::as_str) else {
            return Ok(None);
        };
        match (self.of)(text) {
            Some(subschema) => Ok(Some(subschema)),
            None => Err(self.violation(text)),
        }
    }

    /// The violation of a value without a schema.
    fn violation(&self, text: &str) -> Violations {
        let mut violations = Violations::default();
        if let Some(message) = self.absent.and_then(|absent| absent(text)) {
            violations.field(self.by, message);
            violations.is_absent = true;
        } else {
            violations.field(self.by, (self.unknown)(text));
            let hint = self.hint.map(|hint| (self.by.to_owned(), hint()));
            violations.hints.extend(hint);
        }
        violations
    }
}

impl Subschema {
    /// The fields of the entity, with those of this schema in place of fields of the same name.
    pub(super) fn merged_into(&self, fields: &[Field]) -> Vec<Field> {
        let own = |field: &Field| self.fields.iter().find(|own| own.name == field.name);
        fields
            .iter()
            .map(|field| *own(field).unwrap_or(field))
            .collect()
    }
}
