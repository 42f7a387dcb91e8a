//! Earlier names for fields inside a record: a request may use them, and answers show them beside
//! the fields that they stand for. Source: Kong 3.9, `shorthand_fields`.
//!
//! A row is stored as it is shown. So what an earlier name shows is removed before a row is
//! changed, and added again after that.

use serde_json::Value;

use super::Row;
use super::conformance::check;
use super::field::{Field, Shape, Shorthand};
use super::merge::entry;
use super::violations::Violations;

/// Writes what a request gives by earlier names into the fields that these stand for.
///
/// # Errors
/// A value has the wrong type, or the request gives another value for the field as well.
pub(super) fn expand(fields: &[Field], input: &mut Row) -> Result<(), Violations> {
    let mut violations = Violations::default();
    expand_within(fields, "", input, &mut violations);
    if violations.is_empty() {
        Ok(())
    } else {
        Err(violations)
    }
}

fn expand_within(fields: &[Field], around: &str, input: &mut Row, violations: &mut Violations) {
    for (field, inner, record) in records(fields, input) {
        let around = format!("{around}{}.", field.name);
        for shorthand in field.shorthands {
            let name = shorthand.field.name;
            let Some(value) = record.shift_remove(name) else {
                continue;
            };
            if let Err(message) = check(&shorthand.field, &value) {
                violations.field(&format!("{around}{name}"), message);
            } else if let Err(message) = set(record, shorthand, value) {
                violations.field(&format!("{around}{name}"), message);
            }
        }
        expand_within(inner, &around, record, violations);
    }
}

/// Sets the field that an earlier name stands for, unless it has that value already.
fn set(record: &mut Row, shorthand: &Shorthand, value: Value) -> Result<(), String> {
    let Some((last, around)) = shorthand.path.split_last() else {
        return Ok(());
    };
    let mut inner = record;
    for name in around {
        let next = entry(inner, name);
        if next.is_null() {
            *next = Row::new().into();
        }
        let Value::Object(next) = next else {
            // The record itself is reported to be wrong.
            return Ok(());
        };
        inner = next;
    }
    let name = shorthand.field.name;
    match inner.get(*last) {
        Some(given) if !given.is_null() && !value.is_null() && *given != value => {
            let path = shorthand.path.join(".");
            let (old, new) = (text(&value), text(given));
            Err(format!(
                "both deprecated and new field are used but their values mismatch: {name} = {old} \
                 vs {path} = {new}"
            ))
        }
        Some(given) if !given.is_null() => Ok(()),
        _ => {
            inner.insert((*last).to_owned(), value);
            Ok(())
        }
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Shows under each earlier name that is echoed the value of the field that it stands for.
pub(super) fn add_echoes(fields: &[Field], row: &mut Row) {
    for (field, inner, record) in records(fields, row) {
        add_echoes(inner, record);
        for shorthand in field.shorthands.iter().filter(|one| one.is_echoed) {
            let mut names = shorthand.path.iter();
            let first = names.next().and_then(|name| record.get(*name));
            let value = first.and_then(|first| names.try_fold(first, |v, name| v.get(*name)));
            let value = value.cloned().unwrap_or_default();
            record.insert(shorthand.field.name.into(), value);
        }
    }
}

/// Removes what [`add_echoes`] has added.
pub(super) fn remove_echoes(fields: &[Field], row: &mut Row) {
    for (field, inner, record) in records(fields, row) {
        remove_echoes(inner, record);
        for shorthand in field.shorthands {
            record.shift_remove(shorthand.field.name);
        }
    }
}

/// The records of a row, each with its field and the fields inside it.
fn records<'f, 'r>(
    fields: &'f [Field],
    row: &'r mut Row,
) -> impl Iterator<Item = (&'f Field, &'static [Field], &'r mut Row)> {
    row.iter_mut().filter_map(|(name, value)| {
        let field = fields.iter().find(|field| field.name == name)?;
        match (field.shape, value) {
            (Shape::Record(inner), Value::Object(record)) => Some((field, inner, record)),
            _ => None,
        }
    })
}
