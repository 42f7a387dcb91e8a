//! References to values in vaults, in the fields of a row that allow them.

use serde_json::Value;

use super::field::{Field, Shape};
use super::{Kind, Row};

/// Whether a row has references.
pub(crate) fn has_references(kind: Kind, row: &Row) -> bool {
    let fields = kind.declaration().fields_of(row, None);
    resolve_references(&fields, &mut row.clone(), &mut str::to_owned)
}

/// Replaces each reference in a row by what `resolve` makes of it. Returns whether there was one.
pub(crate) fn resolve_references(
    fields: &[Field],
    row: &mut Row,
    resolve: &mut dyn FnMut(&str) -> String,
) -> bool {
    let mut found = false;
    for field in fields {
        if let Some(value) = row.get_mut(field.name) {
            found |= resolve_value(field, value, resolve);
        }
    }
    found
}

fn resolve_value(
    field: &Field,
    value: &mut Value,
    resolve: &mut dyn FnMut(&str) -> String,
) -> bool {
    if field.is_in_vault(value) {
        let resolved = value.as_str().map(resolve);
        *value = resolved.unwrap_or_default().into();
        return true;
    }
    match (&field.shape, value) {
        (Shape::Record(fields), Value::Object(record)) => {
            resolve_references(fields, record, resolve)
        }
        (Shape::Array(element) | Shape::Set(element), Value::Array(elements)) => {
            elements.iter_mut().fold(false, |found, value| {
                resolve_value(element, value, resolve) | found
            })
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            map.values_mut().fold(false, |found, value| {
                resolve_value(values, value, resolve) | found
            })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: Field = Field::element(Shape::String).referenceable();
    const FIELDS: &[Field] = &[
        Field::string("plain"),
        Field::record(
            "config",
            &[
                Field::string("password").referenceable(),
                Field::array("list", &TEXT),
                Field::map("map", &[], &TEXT),
            ],
        ),
    ];

    #[test]
    fn references_are_resolved_where_a_field_allows_them() {
        let row = json!({
            "plain": "{vault://env/a}",
            "config": {
                "password": "{vault://env/b}",
                "list": ["c", "{vault://env/d}"],
                "map": { "e": "{vault://env/f}", "g": "h" },
            },
        });
        let mut row = row.as_object().cloned().unwrap_or_default();
        let mut resolve = |reference: &str| reference.to_uppercase();
        assert!(resolve_references(FIELDS, &mut row, &mut resolve));
        let expected = json!({
            "plain": "{vault://env/a}",
            "config": {
                "password": "{VAULT://ENV/B}",
                "list": ["c", "{VAULT://ENV/D}"],
                "map": { "e": "{VAULT://ENV/F}", "g": "h" },
            },
        });
        assert_eq!(Value::from(row.clone()), expected);
        assert!(!resolve_references(FIELDS, &mut row, &mut resolve));
    }
}
