//! One form for values that can be written in several.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Row;
use super::field::{Field, Shape};

/// The same row is referred to by the same value, however its id was written.
pub(super) fn one_form_of_references(fields: &[Field], row: &mut Row) {
    for field in fields {
        if let Shape::Reference(_) = field.shape
            && let Some(key) = row.get_mut(field.name)
            && let Some(id) = key.get("id").and_then(Value::as_str)
            && let Ok(id) = Uuid::try_parse(id)
        {
            *key = json!({ "id": id });
        }
    }
}

/// A whole number is stored as one, however it was written: `80.0` and `8e1` are 80. And what is empty is
/// a list or an object as its field has it, since clients in Lua and PHP cannot tell `[]` from `{}`.
pub(super) fn one_form_of_values(fields: &[Field], row: &mut Row) {
    for field in fields {
        if let Some(value) = row.get_mut(field.name) {
            one_form_of_value(&field.shape, value);
        }
    }
}

fn one_form_of_value(shape: &Shape, value: &mut Value) {
    match (shape, &mut *value) {
        (Shape::Integer | Shape::Number | Shape::CreatedAt, Value::Number(number)) => {
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                // Past it a float is no longer exact.
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
