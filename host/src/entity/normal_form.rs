//! One form for values that can be written in several ways.

use serde_json::{Value, json};

use super::Row;
use super::check::uuid;
use super::field::{Field, Shape};

/// References to the same row have the same value, however the id was written.
pub(super) fn one_form_of_references(fields: &[Field], row: &mut Row) {
    for field in fields {
        if let Shape::Reference(_) = field.shape
            && let Some(key) = row.get_mut(field.name)
            && let Some(id) = key.get("id").and_then(Value::as_str)
            && let Some(id) = uuid(id)
        {
            *key = json!({ "id": id });
        }
    }
}

/// A whole number is stored as an integer, however it was written: `80.0` and `8e1` are 80. An
/// empty list or object is stored in the type of its field, since clients in Lua and PHP cannot
/// distinguish `[]` from `{}`.
pub(super) fn one_form_of_values(fields: &[Field], row: &mut Row) {
    for field in fields {
        if let Some(value) = row.get_mut(field.name) {
            one_form_of_value(&field.shape, value);
        }
    }
}

fn one_form_of_value(shape: &Shape, value: &mut Value) {
    match (shape, &mut *value) {
        (
            Shape::Integer | Shape::Number | Shape::CreatedAt | Shape::TimeToLive,
            Value::Number(number),
        ) => {
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                // Above this bound a float is no longer exact.
                && float.abs() < (1_u64 << 53) as f64
            {
                *value = (float as i64).into();
            }
        }
        (Shape::Array(_) | Shape::Set(_), Value::Object(map)) if map.is_empty() => {
            *value = Vec::<Value>::new().into();
        }
        (Shape::Map { .. } | Shape::Record(_), Value::Array(list)) if list.is_empty() => {
            *value = Row::new().into();
        }
        (Shape::Array(element) | Shape::Set(element), Value::Array(values)) => {
            for value in values {
                one_form_of_value(&element.shape, value);
            }
        }
        (Shape::Map { values: field, .. }, Value::Object(map)) => {
            for value in map.values_mut() {
                one_form_of_value(&field.shape, value);
            }
        }
        (Shape::Record(fields), Value::Object(row)) => one_form_of_values(fields, row),
        _ => {}
    }
}
