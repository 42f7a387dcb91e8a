//! Rows as a document: complete, in one order, and so that reading it gives the same rows. Source:
//! Kong 3.9, `kong.db.declarative.export`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::item::kinds;
use crate::entity::{Field, Kind, Row, Shape};

/// What is left out of a document.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Exported {
    /// Whether secrets are: keys, passwords, tokens.
    pub(crate) without_secrets: bool,
}

/// The YAML text of the rows of all kinds. Lists are in the order of ids, each kind after those
/// that it refers to.
pub(crate) fn export(rows: &dyn Fn(Kind) -> Vec<Row>, exported: Exported) -> String {
    let mut text = "_format_version: '3.0'\n_transform: false\n".to_owned();
    for kind in kinds() {
        let rows = rows(kind).into_iter();
        let rows: Vec<Row> = rows.filter_map(|row| shown(kind, row, exported)).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}:", kind.name());
        for row in rows {
            list_item(&row.into(), 0, &mut text);
        }
    }
    text
}

/// The YAML text of a document with these fields.
pub(super) fn document(top: &Row) -> String {
    let mut text = "_format_version: '3.0'\n".to_owned();
    object(top, 0, false, &mut text);
    text
}

/// A row as a document has it; none if it is not part of one.
pub(super) fn shown(kind: Kind, row: Row, exported: Exported) -> Option<Row> {
    if kind == Kind::Balancer {
        // Those that ship with the gateway are there already.
        let is_own = row.get("source") == Some(&json!("uploaded"));
        let field = |name: &&str| Some(((*name).to_owned(), row.get(*name)?.clone()));
        let fields = ["id", "name", "digest", "tags"];
        return is_own.then(|| fields.iter().filter_map(field).collect());
    }
    let declaration = kind.declaration();
    let mut row = declaration.shown(row)?;
    let fields = declaration.fields_of(&row, None);
    if exported.without_secrets {
        remove_secrets(&fields, &mut row);
    }
    for field in fields.iter() {
        if let Shape::Reference(_) = field.shape
            && let Some(value) = row.get_mut(field.name)
            && let Some(id) = value.get("id").cloned()
        {
            *value = id;
        }
    }
    Some(row)
}

/// Removes secrets. What is in a vault stays: only its name is here.
fn remove_secrets(fields: &[Field], row: &mut Row) {
    for field in fields {
        let Some(value) = row.get_mut(field.name) else {
            continue;
        };
        let is_in_vault = value.as_str().is_some_and(|text| {
            field.referenceable && text.starts_with("{vault://") && text.ends_with('}')
        });
        if field.secret && !is_in_vault {
            row.shift_remove(field.name);
            continue;
        }
        remove_inside(&field.shape, value);
        if let Value::Object(record) = value {
            for shorthand in field.shorthands {
                if shorthand.field.secret {
                    record.shift_remove(shorthand.field.name);
                }
            }
        }
    }
}

fn remove_inside(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Record(fields), Value::Object(record)) => remove_secrets(fields, record),
        (Shape::Array(element) | Shape::Set(element), Value::Array(list)) => {
            for value in list {
                remove_inside(&element.shape, value);
            }
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            for value in map.values_mut() {
                remove_inside(&values.shape, value);
            }
        }
        _ => {}
    }
}

/// Writes a value as an element of a list.
fn list_item(value: &Value, indent: usize, text: &mut String) {
    let _ = write!(text, "{:indent$}-", "");
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push(' ');
            object(fields, indent + 2, true, text);
        }
        value => field_value(value, indent + 2, text),
    }
}

/// Writes the fields of an object, the first one without its indent if it stands behind a dash.
fn object(fields: &Row, indent: usize, is_begun: bool, text: &mut String) {
    for (place, (name, value)) in fields.iter().enumerate() {
        if place > 0 || !is_begun {
            let _ = write!(text, "{:indent$}", "");
        }
        let _ = write!(text, "{}:", scalar_text(name));
        field_value(value, indent, text);
    }
}

/// Writes what comes after the name of a field, or after a dash.
fn field_value(value: &Value, indent: usize, text: &mut String) {
    let _ = match value {
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            for value in list {
                list_item(value, indent, text);
            }
            Ok(())
        }
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            object(fields, indent + 2, false, text);
            Ok(())
        }
        Value::String(lines) if is_literal(lines) => {
            let chomp = if lines.ends_with('\n') { "" } else { "-" };
            let _ = writeln!(text, " |{chomp}");
            let indent = indent + 2;
            for line in lines.lines() {
                let _ = writeln!(text, "{:indent$}{line}", "");
            }
            Ok(())
        }
        Value::String(string) => writeln!(text, " {}", scalar_text(string)),
        other => writeln!(text, " {other}"),
    };
}

/// Whether a text reads the same as a literal block: several plain lines, as PEM has.
fn is_literal(text: &str) -> bool {
    let is_plain = |line: &str| {
        !line.is_empty()
            && !line.starts_with(' ')
            && line.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n') && body.split('\n').all(is_plain)
}

/// A text as a scalar: plain where that cannot be read as anything else, else in double quotes, in
/// which YAML has the escapes of JSON.
fn scalar_text(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
        && !KEYWORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        let _ = match letter {
            '"' => write!(quoted, "\\\""),
            '\\' => write!(quoted, "\\\\"),
            '\n' => write!(quoted, "\\n"),
            '\t' => write!(quoted, "\\t"),
            // What YAML does not take as it is (YAML 1.2, 5.1), and what ends lines in YAML 1.1.
            letter
                if letter.is_control()
                    || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}') =>
            {
                write!(quoted, "\\U{:08x}", u32::from(letter))
            }
            letter => write!(quoted, "{letter}"),
        };
    }
    quoted.push('"');
    quoted
}

/// Plain words that are not texts in YAML 1.1.
const KEYWORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::declarative::syntax::{Syntax, Text};

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            "[a-z0-9:#~ \n'\"\\\\-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[ -~]{0,6}", inner), 0..4).prop_map(|fields| {
                    let fields = fields.into_iter().filter(|(name, _)| name != "<<");
                    Value::Object(fields.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(value in any_json()) {
            let mut text = String::from("value:");
            field_value(&value, 0, &mut text);
            let read = Text::read(&text, Syntax::Yaml);
            prop_assert!(read.is_ok(), "{:?} {}", read, text);
            prop_assert_eq!(&read.unwrap().value["value"], &value, "{}", text);
        }
    }
}
