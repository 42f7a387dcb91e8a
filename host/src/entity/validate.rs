//! From the input of a request to a row that may be stored, or to all errors in it.

use std::borrow::Cow;
use std::time::SystemTime;

use serde_json::{Value, json};
use uuid::Uuid;

use super::conformance::{check, check_across, check_fields};
use super::declaration::Declaration;
use super::entity_check::EntityCheck;
use super::expiry::set_expiry;
use super::field::{Field, Shape};
use super::merge::{entry, fill, merge};
use super::normal_form::{one_form_of_references, one_form_of_values};
use super::shorthand::{add_echoes, expand, remove_echoes};
use super::suggestion::add_hints;
use super::violations::Violations;
use super::{Row, Violation};
use crate::clock;

/// The fields of a request that is not about an entity; a field that is not named has its default.
///
/// # Errors
/// All errors.
pub(crate) fn read_fields(fields: &[Field], mut input: Row) -> Result<Row, Violations> {
    one_form_of_values(fields, &mut input);
    let row = fill(fields, input);
    let mut violations = Violations::default();
    check_fields(fields, &row, &mut violations.fields);
    if violations.is_empty() {
        Ok(row)
    } else {
        Err(violations)
    }
}

/// What a row has to conform to, beyond what its declaration says of every row.
struct RowSchema {
    /// The fields, those of the row's subschema included.
    fields: Cow<'static, [Field]>,
    /// The rules across fields that the subschema adds.
    entity_checks: &'static [EntityCheck],
}

impl Declaration {
    /// The row that a POST or a PUT asks for; a field that is not named has its default.
    ///
    /// # Errors
    /// All errors.
    pub fn create(&self, id: Uuid, mut input: Row) -> Result<Row, Violation> {
        (self.expand)(&mut input, None);
        input.insert("id".into(), id.to_string().into());
        let schema = self.schema_of(&input, None)?;
        expand(&schema.fields, &mut input)?;
        one_form_of_values(&schema.fields, &mut input);
        set_expiry(&schema.fields, &mut input)?;
        let filled = fill(&schema.fields, input);
        self.finish(&schema, filled)
    }

    /// The row that a PATCH asks for: fields that are not named keep their values, records are
    /// merged, all other fields are replaced.
    ///
    /// # Errors
    /// All errors.
    pub fn update(&self, old: &Row, mut input: Row) -> Result<Row, Violation> {
        (self.expand)(&mut input, Some(old));
        let mut row = old.clone();
        // An id cannot be changed, and a client cannot set the time of the last change.
        input.remove("id");
        let schema = self.schema_of(&input, Some(old))?;
        remove_echoes(&schema.fields, &mut row);
        expand(&schema.fields, &mut input)?;
        one_form_of_values(&schema.fields, &mut input);
        set_expiry(&schema.fields, &mut input)?;
        merge(&schema.fields, &mut row, input);
        self.finish(&schema, row)
    }

    /// The fields of a row with this input, given the row that it changes. If the field that
    /// selects a subschema is wrong, these are the fields as declared for all rows.
    pub fn fields_of(&self, input: &Row, old: Option<&Row>) -> Cow<'static, [Field]> {
        let chosen = self.schema_of(input, old);
        chosen.map_or(Cow::Borrowed(self.fields), |schema| schema.fields)
    }

    /// As [`Declaration::fields_of`].
    ///
    /// # Errors
    /// The field that others depend on is wrong. No other field can be checked then.
    fn schema_of(&self, input: &Row, old: Option<&Row>) -> Result<RowSchema, Violations> {
        let declared = RowSchema {
            fields: Cow::Borrowed(self.fields),
            entity_checks: &[],
        };
        let Some(subschemas) = &self.subschemas else {
            return Ok(declared);
        };
        if let Some(subschema) = subschemas.chosen(input, old)? {
            return Ok(RowSchema {
                fields: Cow::Owned(subschema.merged_into(self.fields)),
                entity_checks: subschema.entity_checks,
            });
        }
        let field = self.fields.iter().find(|field| field.name == subschemas.by);
        let value = input.get(subschemas.by).unwrap_or(&Value::Null);
        let checked = field.map_or(Ok(()), |field| check(field, value));
        checked.map_err(|message| {
            let mut violations = Violations::default();
            violations.field(subschemas.by, message);
            violations
        })?;
        Ok(declared)
    }

    fn finish(&self, schema: &RowSchema, mut row: Row) -> Result<Row, Violation> {
        let fields = &*schema.fields;
        self.stamp(&mut row);
        for field in fields.iter().filter(|field| field.extension) {
            let value = row.get(field.name);
            if value.is_some_and(|value| value.is_null() || *value == field.preset()) {
                row.shift_remove(field.name);
            }
        }
        let mut violations = Violations::default();
        check_fields(fields, &row, &mut violations.fields);
        self.check_times(&row, &mut violations);
        let rules = self.entity_checks.iter().chain(schema.entity_checks);
        let (always, other): (Vec<_>, Vec<_>) = rules.partition(|rule| rule.runs_on_wrong_rows());
        for rule in always {
            check_across(rule, fields, &row, &mut violations);
        }
        if violations.is_empty() {
            one_form_of_references(fields, &mut row);
            for field in fields {
                if let Some(Value::String(text)) = row.get_mut(field.name)
                    && let Some(form) = field.stored_as.and_then(|form| form(text))
                {
                    *text = form;
                }
            }
            (self.normalize)(&mut row);
            for rule in other {
                check_across(rule, fields, &row, &mut violations);
            }
        }
        if !violations.is_empty() {
            add_hints(fields, self.hints_for_unknown_fields, &mut violations);
            return Err(Violation::Schema(violations));
        }
        add_echoes(fields, &mut row);
        Ok(row)
    }

    /// The value of a field in the form in which it is stored.
    pub fn stored_form(&self, field: &str, text: &str) -> String {
        let field = self.fields.iter().find(|known| known.name == field);
        let form = field.and_then(|field| field.stored_as?(text));
        form.unwrap_or_else(|| text.to_owned())
    }

    /// Checks the text by which a path names a row by a field: a value that the field cannot have
    /// names no row.
    ///
    /// # Errors
    /// The message for the field.
    pub fn check_key(&self, key: &str, text: &str) -> Result<(), String> {
        let field = self.fields.iter().find(|field| field.name == key);
        let checked = field.map_or(Ok(()), |field| check(field, &text.into()));
        checked.map_err(|message| message.as_str().unwrap_or_default().to_owned())
    }

    /// Checks the times that a request may set: seconds, whole ones for most entities.
    fn check_times(&self, row: &Row, violations: &mut Violations) {
        for field in self.fields {
            if let Shape::CreatedAt = field.shape
                && let Some(time) = row.get(field.name)
            {
                if !self.fractional_times && !time.is_i64() {
                    violations.field(field.name, "expected an integer");
                } else if time.as_f64().is_some_and(|time| time <= 0.0) {
                    violations.field(field.name, "expected a valid timestamp");
                }
            }
        }
    }

    /// Sets the times that the server sets.
    fn stamp(&self, row: &mut Row) {
        let now = clock::since_1970(SystemTime::now());
        let now = if self.fractional_times {
            json!(clock::to_millis(now))
        } else {
            json!(now.as_secs())
        };
        for field in self.fields {
            match field.shape {
                Shape::UpdatedAt => *entry(row, field.name) = now.clone(),
                Shape::CreatedAt if entry(row, field.name).is_null() => {
                    *entry(row, field.name) = now.clone();
                }
                _ => {}
            }
        }
    }
}
