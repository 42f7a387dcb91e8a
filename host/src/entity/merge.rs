//! Applies the input of a request to a row: defaults for what is not named, records merged.

use std::collections::HashSet;

use serde_json::Value;

use super::Row;
use super::field::{Field, Shape};

/// A field to be written; it is null if the row does not have it.
pub(super) fn entry<'r>(row: &'r mut Row, name: &str) -> &'r mut Value {
    row.entry(name).or_insert(Value::Null)
}

/// The fields in their order, with defaults where the input names none, then fields that are not
/// declared.
pub(super) fn fill(fields: &[Field], mut input: Row) -> Row {
    let mut row = Row::new();
    for field in fields {
        let value = match (input.shift_remove(field.name), &field.shape) {
            (Some(value), shape) => complete(shape, value),
            (None, _) if field.extension => continue,
            (None, _) => field.preset(),
        };
        row.insert(field.name.into(), value);
    }
    row.extend(input);
    row
}

/// Merges the fields that a PATCH names into a row.
pub(super) fn merge(fields: &[Field], row: &mut Row, input: Row) {
    for (name, value) in input {
        let shape = fields.iter().find(|f| f.name == name).map(|f| &f.shape);
        match (shape, value) {
            (Some(Shape::Record(fields)), Value::Object(inner)) => {
                if let Value::Object(old) = entry(row, &name) {
                    merge(fields, old, inner);
                } else {
                    row.insert(name, fill(fields, inner).into());
                }
            }
            (Some(Shape::Settings), Value::Object(inner)) => {
                merge_settings(entry(row, &name), inner);
            }
            (Some(shape), value) => {
                row.insert(name, complete(shape, value));
            }
            (None, value) => {
                row.insert(name, value);
            }
        }
    }
}

/// Settings without the fields that are null, which stand for their defaults.
pub fn without_nulls(mut settings: Value) -> Value {
    if let Value::Object(given) = &mut settings {
        let given = std::mem::take(given);
        merge_settings(&mut settings, given);
    }
    settings
}

/// Merges settings: an object into an object, and a field that is null is removed (RFC 7396). The
/// depth is bounded where input is decoded.
fn merge_settings(old: &mut Value, input: Row) {
    if !old.is_object() {
        *old = Row::new().into();
    }
    let Value::Object(old) = old else {
        return;
    };
    for (name, value) in input {
        match value {
            Value::Null => {
                old.shift_remove(&name);
            }
            Value::Object(inner) => merge_settings(entry(old, &name), inner),
            value => {
                old.insert(name, value);
            }
        }
    }
}

/// A value with the defaults of all records inside it, and each value of a set once.
fn complete(shape: &Shape, mut value: Value) -> Value {
    match (shape, &mut value) {
        (Shape::Record(fields), Value::Object(record)) => {
            let given = std::mem::take(record);
            *record = fill(fields, given);
        }
        (Shape::Settings, _) => value = without_nulls(value),
        (Shape::Array(element) | Shape::Set(element), Value::Array(values)) => {
            for value in values {
                *value = complete(&element.shape, value.take());
            }
        }
        (Shape::Map { values: field, .. }, Value::Object(map)) => {
            for value in map.values_mut() {
                *value = complete(&field.shape, value.take());
            }
        }
        _ => {}
    }
    deduplicate(shape, value)
}

/// Removes repeated values from a set.
fn deduplicate(shape: &Shape, mut value: Value) -> Value {
    if let (Shape::Set(_), Value::Array(values)) = (shape, &mut value) {
        let mut seen = HashSet::with_capacity(values.len());
        let first: Vec<bool> = values.iter().map(|value| seen.insert(value)).collect();
        let mut first = first.into_iter();
        values.retain(|_| first.next().unwrap_or(true));
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_setting_that_is_null_has_its_default() {
        const FIELDS: &[Field] = &[Field::settings("config")];
        let mut input = Row::new();
        input.insert(
            "config".into(),
            json!({ "a": null, "b": { "c": null, "d": 1 }, "e": [null] }),
        );
        let expected = json!({ "config": { "b": { "d": 1 }, "e": [null] } });
        assert_eq!(Value::from(fill(FIELDS, input.clone())), expected);
        let mut row = Row::new();
        merge(FIELDS, &mut row, input);
        assert_eq!(Value::from(row), expected);
    }
}
