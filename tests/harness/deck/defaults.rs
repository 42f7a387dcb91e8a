//! What decK fills in from schemas.

use serde_json::Value;

use super::Row;

/// The fields of a schema, which are objects with one key each.
pub(super) fn fields(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let listed = schema["fields"].as_array().into_iter().flatten();
    listed.flat_map(|field| {
        field
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, of)| (&**name, of))
    })
}

/// The defaults of an entity.
pub(super) fn fill_defaults(schema: &Value, row: &mut Row) {
    for (name, field) in fields(schema) {
        if name == "pointsman" {
            continue;
        }
        if field["type"] == "record" {
            let mut inner = match row.get(name) {
                Some(Value::Object(inner)) => inner.clone(),
                _ => Row::new(),
            };
            fill_defaults(field, &mut inner);
            if !inner.is_empty() {
                row.insert(name.to_owned(), inner.into());
            }
        } else if row.get(name).is_none_or(Value::is_null)
            && let Some(default) = field.get("default")
        {
            row.insert(name.to_owned(), default.clone());
        }
    }
}

/// The defaults of a plugin's settings; what has none is null.
pub(super) fn fill_config(schema: &Value, config: &mut Row) {
    for (name, field) in fields(schema) {
        let present = config.get(name).cloned().unwrap_or_default();
        let filled =
            if field["type"] == "record" && (present.is_object() || field["required"] == true) {
                let given = present.as_object().or(field["default"].as_object());
                let mut inner = given.cloned().unwrap_or_default();
                fill_config(field, &mut inner);
                inner.into()
            } else if field["type"] == "array" && field["elements"]["type"] == "record" {
                let mut list = present;
                for element in list.as_array_mut().into_iter().flatten() {
                    fill_config(&field["elements"], element.as_object_mut().unwrap());
                }
                match (&list, field.get("default")) {
                    (Value::Null, Some(default)) => default.clone(),
                    _ => list,
                }
            } else {
                match (&present, field.get("default")) {
                    (Value::Null, Some(default)) if !config.contains_key(name) => default.clone(),
                    _ => present,
                }
            };
        config.insert(name.to_owned(), filled);
    }
}
