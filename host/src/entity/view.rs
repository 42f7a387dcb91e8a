//! A row as the data plane reads it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::field::{Field, Shape};
use super::{Kind, Row};

/// Reads a row into the type that the data plane works with.
///
/// The Admin API accepts null in a field that is not required, and shows it as null. Here such a
/// field reads as its default, like one that is missing: so a view meets null only where no other
/// default is declared.
///
/// # Errors
/// What does not fit. Since a declaration accepts no such row, another version of the gateway wrote
/// it.
pub(crate) fn view<T: DeserializeOwned>(kind: Kind, mut row: Row) -> Result<T, serde_json::Error> {
    let fields = kind.declaration().fields_of(&row, None);
    fill_in(&fields, &mut row);
    serde_json::from_value(row.into())
}

fn fill_in(fields: &[Field], row: &mut Row) {
    for field in fields {
        match (row.get_mut(field.name), &field.shape) {
            (Some(value), shape) if !value.is_null() => fill_in_value(shape, value),
            (None | Some(Value::Null), _) => {
                row.insert(field.name.into(), field.preset());
            }
            _ => {}
        }
    }
}

fn fill_in_value(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Record(fields), Value::Object(record)) => fill_in(fields, record),
        (Shape::Array(element) | Shape::Set(element), Value::Array(values)) => {
            for value in values {
                fill_in_value(&element.shape, value);
            }
        }
        (Shape::Map { values: field, .. }, Value::Object(map)) => {
            for value in map.values_mut() {
                fill_in_value(&field.shape, value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
