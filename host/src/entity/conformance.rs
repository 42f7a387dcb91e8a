//! Checks values against the declarations of their fields, with Kong's messages.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::uuid;
use super::entity_check::{EntityCheck, Match, value_at};
use super::field::{Check, Field, Preset, Shape, field_at};
use super::violations::{UNKNOWN_FIELD, Violations};
use super::{Kind, Row};

/// Checks the fields of a row or a record, and records the errors by field.
pub(super) fn check_fields(fields: &[Field], row: &Row, wrong: &mut BTreeMap<String, Value>) {
    for field in fields {
        let value = row.get(field.name).unwrap_or(&Value::Null);
        if let Err(message) = check(field, value) {
            wrong.insert(field.name.into(), message);
        }
    }
    for name in row.keys() {
        if !fields.iter().any(|field| field.name == name) {
            wrong.insert(name.clone(), UNKNOWN_FIELD.into());
        }
    }
}

/// Checks one value. The error is a message, or messages by element or by field.
pub(super) fn check(field: &Field, value: &Value) -> Result<(), Value> {
    if value.is_null() {
        return if field.refuses_null() || matches!(field.default, Preset::Generated(_)) {
            Err("required field missing".into())
        } else {
            Ok(())
        };
    }
    if field.is_in_vault(value) {
        return Ok(());
    }
    match &field.shape {
        Shape::String => {
            let text = value.as_str().ok_or("expected a string")?;
            if text.is_empty() && !field.may_be_empty {
                return Err("length must be at least 1".into());
            }
        }
        Shape::Uuid | Shape::Id => {
            let text = value.as_str().ok_or("expected a string")?;
            uuid(text).ok_or("expected a valid UUID")?;
        }
        Shape::Integer => {
            // A whole number beyond the bounds of `i64` is refused as well.
            value.as_i64().ok_or("expected an integer")?;
        }
        Shape::Number | Shape::CreatedAt | Shape::UpdatedAt => {
            if !value.is_number() {
                return Err("expected a number".into());
            }
        }
        Shape::Boolean => {
            value.as_bool().ok_or("expected a boolean")?;
        }
        // Checked where it is read from the input.
        Shape::TimeToLive => {}
        Shape::Any | Shape::Settings => {}
        Shape::Array(element) => check_elements(element, value, "expected an array")?,
        Shape::Set(element) => check_elements(element, value, "expected a set")?,
        Shape::Map { names, values } => check_map(names, values, value)?,
        Shape::Record(fields) => {
            let row = value.as_object().ok_or("expected a record")?;
            let mut wrong = BTreeMap::new();
            check_fields(fields, row, &mut wrong);
            let mut violations = Violations::of_fields(wrong);
            for rule in field.entity_checks {
                if rule.runs_on_wrong_rows() || violations.is_empty() {
                    check_across(rule, fields, row, &mut violations);
                }
            }
            if !violations.is_empty() {
                return Err(violations.fields());
            }
        }
        Shape::Reference(to) => check_reference(*to, value)?,
    }
    for rule in field.checks {
        check_rule(rule, value)?;
    }
    Ok(())
}

fn check_elements(element: &Field, value: &Value, otherwise: &str) -> Result<(), Value> {
    let elements = value.as_array().ok_or(otherwise)?;
    let messages: Vec<Value> = elements
        .iter()
        .map(|value| check_element(element, value).err().unwrap_or(Value::Null))
        .collect();
    match messages.iter().rposition(|message| !message.is_null()) {
        Some(last) => Err(messages[..=last].into()),
        None => Ok(()),
    }
}

/// Checks an element of an array, a set or a map: an element must not be null.
fn check_element(element: &Field, value: &Value) -> Result<(), Value> {
    if value.is_null() {
        return Err("required field missing".into());
    }
    check(element, value)
}

/// Checks a map. The error is about the first name or value that is wrong, and does not say which
/// one that is. Source: Kong.
fn check_map(names: &[Check], values: &Field, value: &Value) -> Result<(), Value> {
    let map = value.as_object().ok_or("expected a map")?;
    for (name, value) in map {
        let name = Value::from(name.as_str());
        for rule in names {
            check_rule(rule, &name)?;
        }
        check_element(values, value)?;
    }
    Ok(())
}

/// Checks a reference. With a valid key, its other fields are not checked. Otherwise errors in the
/// other fields come first, and a missing key is reported only if there are none. Source: Kong.
fn check_reference(to: Kind, value: &Value) -> Result<(), Value> {
    let key = value.as_object().ok_or("expected a record")?;
    let message = match key.get("id") {
        None => "missing primary key",
        Some(Value::Null) => "required field missing",
        Some(Value::String(id)) if uuid(id).is_some() => return Ok(()),
        Some(Value::String(_)) => "expected a valid UUID",
        Some(_) => "expected a string",
    };
    let fields = to.declaration().fields;
    let mut wrong = Row::new();
    for (name, value) in key.iter().filter(|(name, _)| *name != "id") {
        let checked = match fields.iter().find(|field| field.name == name) {
            Some(field) => check(field, value),
            None => Err(UNKNOWN_FIELD.into()),
        };
        if let Err(message) = checked {
            wrong.insert(name.clone(), message);
        }
    }
    if wrong.is_empty() || key.contains_key("id") {
        wrong.insert("id".into(), message.into());
    }
    Err(wrong.into())
}

fn check_rule(rule: &Check, value: &Value) -> Result<(), Value> {
    match rule {
        Check::Between(least, most) => {
            let within = value
                .as_f64()
                .is_some_and(|n| n >= *least as f64 && n <= *most as f64);
            if !within {
                return Err(format!("value should be between {least} and {most}").into());
            }
        }
        Check::BetweenNumbers(least, most) => {
            if !value.as_f64().is_some_and(|n| n >= *least && n <= *most) {
                return Err(format!("value should be between {least} and {most}").into());
            }
        }
        Check::GreaterThan(bound) => {
            if !value.as_f64().is_some_and(|number| number > *bound as f64) {
                return Err(format!("value must be greater than {bound}").into());
            }
        }
        Check::NotOneOf(words) => {
            if value.as_str().is_some_and(|text| words.contains(&text)) {
                return Err(format!("must not be one of: {}", words.join(", ")).into());
            }
        }
        Check::OneOf(words) => {
            if !value.as_str().is_some_and(|text| words.contains(&text)) {
                return Err(format!("expected one of: {}", words.join(", ")).into());
            }
        }
        Check::OneOfIntegers(numbers) => {
            if !value.as_i64().is_some_and(|n| numbers.contains(&n)) {
                let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
                return Err(format!("expected one of: {}", numbers.join(", ")).into());
            }
        }
        Check::AtLeast(count) => {
            let list = value.as_array().map(Vec::len);
            let length = list.or_else(|| value.as_object().map(Row::len));
            if length.is_some_and(|length| length < *count) {
                return Err(format!("length must be at least {count}").into());
            }
        }
        Check::ExclusiveSubsets(subsets) => check_subsets(subsets, value)?,
        Check::Text(check) => check(value.as_str().unwrap_or_default())?,
        Check::Matches(pattern) => {
            let text = value.as_str().unwrap_or_default();
            if !(pattern.holds)(text) {
                let message = pattern.message.map(str::to_owned);
                return Err(message
                    .unwrap_or_else(|| format!("invalid value: {text}"))
                    .into());
            }
        }
        Check::Regex => {
            let text = value.as_str().unwrap_or_default();
            if crate::pattern::is_pattern(text).is_err() {
                return Err(format!("not a valid regex: {text}").into());
            }
        }
        Check::List(check) => check(value.as_array().map_or(&[], Vec::as_slice))?,
        Check::Record(check) => {
            if let Some(record) = value.as_object() {
                check(record)?;
            }
        }
        Check::Nothing(reason) => return Err((*reason).into()),
    }
    Ok(())
}

/// Checks a row or a record with these fields against a rule across them.
pub(super) fn check_across(
    rule: &EntityCheck,
    fields: &[Field],
    row: &Row,
    violations: &mut Violations,
) {
    let in_vault = |name: &&'static str| {
        let value = value_at(row, name);
        field_at(fields, name).is_some_and(|field| value.is_some_and(|v| field.is_in_vault(v)))
    };
    if rule.sources().iter().any(in_vault) {
        return;
    }
    let set = |names: &[&str]| names.iter().filter(|name| is_set(row, name)).count();
    let broken = |sentence: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        format!("{sentence}: {}", names.join(", "))
    };
    match *rule {
        EntityCheck::AtLeastOneOf(names) if set(names) == 0 => {
            let sentence = "at least one of these fields must be non-empty";
            violations.entity(broken(sentence, names));
        }
        EntityCheck::OnlyOneOf(names) if set(names) != 1 => {
            let sentence = "exactly one of these fields must be non-empty";
            violations.entity(broken(sentence, names));
        }
        EntityCheck::MutuallyRequired(names) if set(names) > 0 && set(names) < names.len() => {
            let sentence = "all or none of these fields must be set";
            violations.entity(broken(sentence, names));
        }
        EntityCheck::MutuallyExclusive(names) if set(names) > 1 => {
            let sentence = "only one or none of these fields must be set";
            violations.entity(broken(sentence, names));
        }
        EntityCheck::Distinct(names) if !are_distinct(row, names) => {
            let sentence = "values of these fields must be distinct";
            violations.entity(broken(sentence, names));
        }
        EntityCheck::Conditional {
            if_field,
            if_match,
            then_field,
            then_match,
        } => {
            if !violations.has(if_field)
                && if_match.holds(&given(fields, row, if_field))
                && let Some(message) = then_match.broken_by(&match then_match {
                    // Where a value is needed, null does not stand for the default.
                    Match::NotNull => value_at(row, then_field).cloned().unwrap_or_default(),
                    _ => given(fields, row, then_field),
                })
            {
                violations.conditional(if_field, then_field, message);
            }
        }
        EntityCheck::Custom { check, .. } => check(row, violations),
        _ => {}
    }
}

/// The value of a field; its default where it is null.
fn given(fields: &[Field], row: &Row, name: &str) -> Value {
    let value = value_at(row, name).filter(|value| !value.is_null());
    let value = value.cloned();
    let value = value.or_else(|| field_at(fields, name).map(Field::preset));
    value.unwrap_or_default()
}

/// Whether a field is set: neither null nor empty.
fn is_set(row: &Row, name: &str) -> bool {
    match value_at(row, name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

fn are_distinct(row: &Row, names: &[&str]) -> bool {
    let values = names.iter().filter_map(|name| value_at(row, name));
    let values: Vec<&Value> = values.filter(|value| !value.is_null()).collect();
    (1..values.len()).all(|place| !values[..place].contains(&values[place]))
}

/// Refuses a set with elements of more than one of these subsets.
fn check_subsets(subsets: &[&[&str]], value: &Value) -> Result<(), Value> {
    let elements = value.as_array().map_or(&[][..], Vec::as_slice);
    let mut used: Vec<&[&str]> = Vec::new();
    for element in elements.iter().filter_map(Value::as_str) {
        let subset = subsets.iter().find(|subset| subset.contains(&element));
        used.extend(subset.filter(|subset| !used.contains(subset)));
    }
    if used.len() < 2 {
        return Ok(());
    }
    let subsets = used.iter().map(|subset| {
        let quoted: Vec<String> = subset.iter().map(|text| format!("'{text}'")).collect();
        format!("({})", quoted.join(", "))
    });
    let subsets: Vec<String> = subsets.collect();
    Err(format!("these sets are mutually exclusive: {}", subsets.join(", ")).into())
}
