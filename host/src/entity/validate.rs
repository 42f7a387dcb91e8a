//! From what a request carries to a row that may be stored, or to everything that is wrong with it.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use serde_json::{Value, json};
use uuid::Uuid;

use super::declaration::Declaration;
use super::field::{Check, Field, Shape};
use super::violations::Violations;
use super::{Kind, Row, Violation};

/// The fields of a request that is no entity's: what is not named has its default.
///
/// # Errors
/// All that is wrong.
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

impl Declaration {
    /// The row that a POST or a PUT asks for: what is not named has its default.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn create(&self, id: Uuid, mut input: Row) -> Result<Row, Violation> {
        (self.expand)(&mut input, None);
        input.insert("id".into(), id.to_string().into());
        one_form_of_values(self.fields, &mut input);
        let filled = fill(self.fields, input);
        self.finish(filled)
    }

    /// The row that a PATCH asks for: what is not named stays, records are merged, all else is
    /// replaced.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn update(&self, old: &Row, mut input: Row) -> Result<Row, Violation> {
        (self.expand)(&mut input, Some(old));
        let mut row = old.clone();
        // An id cannot be changed, and a time of change is not the client's to set.
        input.remove("id");
        one_form_of_values(self.fields, &mut input);
        merge(self.fields, &mut row, input);
        self.finish(row)
    }

    fn finish(&self, mut row: Row) -> Result<Row, Violation> {
        self.stamp(&mut row);
        for field in self.fields.iter().filter(|field| field.extension) {
            let value = row.get(field.name);
            if value.is_some_and(|value| value.is_null() || *value == field.preset()) {
                row.shift_remove(field.name);
            }
        }
        let mut violations = Violations::default();
        check_fields(self.fields, &row, &mut violations.fields);
        self.check_times(&row, &mut violations);
        for rule in self.conditionals {
            rule(&row, &mut violations);
        }
        if violations.is_empty() {
            one_form_of_references(self.fields, &mut row);
            (self.normalize)(&mut row);
            for rule in self.rules {
                rule(&row, &mut violations);
            }
        }
        if !violations.is_empty() {
            return Err(Violation::Schema(violations));
        }
        for field in self.fields {
            if let Shape::AbsentReference(to) = field.shape
                && let Some(key @ Value::Object(_)) = row.get(field.name)
            {
                let (field, key) = (field.name, key.clone());
                return Err(Violation::ForeignKey { field, to, key });
            }
        }
        Ok(row)
    }

    /// Checks the text by which a path names a row: what the field cannot be names none.
    ///
    /// # Errors
    /// What is said of the field.
    pub fn check_key(&self, text: &str) -> Result<(), String> {
        let field = self.fields.iter().find(|f| f.name == self.endpoint_key);
        let checked = field.map_or(Ok(()), |field| check(field, &text.into()));
        checked.map_err(|message| message.as_str().unwrap_or_default().to_owned())
    }

    /// Checks the times that a request may set: seconds, whole ones for most entities.
    fn check_times(&self, row: &Row, violations: &mut Violations) {
        for field in self.fields {
            if let Shape::CreatedAt = field.shape
                && let Some(time) = row.get(field.name)
            {
                if !self.precise_times && !time.is_i64() {
                    violations.field(field.name, "expected an integer");
                } else if time.as_f64().is_some_and(|time| time <= 0.0) {
                    violations.field(field.name, "expected a valid timestamp");
                }
            }
        }
    }

    /// Sets the times that the server sets.
    fn stamp(&self, row: &mut Row) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = if self.precise_times {
            json!(now.as_millis() as f64 / 1000.0)
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

/// The same row is referred to by the same value, however its id was written.
fn one_form_of_references(fields: &[Field], row: &mut Row) {
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
fn one_form_of_values(fields: &[Field], row: &mut Row) {
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

fn entry<'r>(row: &'r mut Row, name: &str) -> &'r mut Value {
    row.entry(name).or_insert(Value::Null)
}

/// The fields in their order, with defaults where the input names none, then what is unknown.
fn fill(fields: &[Field], mut input: Row) -> Row {
    let mut row = Row::new();
    for field in fields {
        let value = match (input.shift_remove(field.name), &field.shape) {
            (Some(Value::Object(inner)), Shape::Record(fields)) => fill(fields, inner).into(),
            (Some(value), shape) => deduplicate(shape, value),
            (None, _) if field.extension => continue,
            (None, _) => field.preset(),
        };
        row.insert(field.name.into(), value);
    }
    row.extend(input);
    row
}

fn merge(fields: &[Field], row: &mut Row, input: Row) {
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
                row.insert(name, deduplicate(shape, value));
            }
            (None, value) => {
                row.insert(name, value);
            }
        }
    }
}

/// Merges settings: an object into an object, and what is null is taken out (RFC 7396). Nesting is bounded
/// where input is decoded.
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

/// A set has each of its values once.
fn deduplicate(shape: &Shape, mut value: Value) -> Value {
    if let (Shape::Set(_), Value::Array(values)) = (shape, &mut value) {
        let mut seen = HashSet::with_capacity(values.len());
        let first: Vec<bool> = values.iter().map(|value| seen.insert(value)).collect();
        let mut first = first.into_iter();
        values.retain(|_| first.next().unwrap_or(true));
    }
    value
}

fn check_fields(fields: &[Field], row: &Row, wrong: &mut BTreeMap<String, Value>) {
    for field in fields {
        let value = row.get(field.name).unwrap_or(&Value::Null);
        if let Err(message) = check(field, value) {
            wrong.insert(field.name.into(), message);
        }
    }
    for name in row.keys() {
        if !fields.iter().any(|field| field.name == name) {
            wrong.insert(name.clone(), "unknown field".into());
        }
    }
}

/// Checks one value. The error is a message, or messages by element or by field.
fn check(field: &Field, value: &Value) -> Result<(), Value> {
    if value.is_null() {
        return if field.required {
            Err("required field missing".into())
        } else {
            Ok(())
        };
    }
    match &field.shape {
        Shape::String => {
            let text = value.as_str().ok_or("expected a string")?;
            if text.is_empty() {
                return Err("length must be at least 1".into());
            }
        }
        Shape::Uuid | Shape::Id => {
            let uuid = value.as_str().and_then(|text| Uuid::try_parse(text).ok());
            uuid.ok_or("expected a valid UUID")?;
        }
        Shape::Integer => {
            // One that is whole and beyond these bounds fits no integer of ours.
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
        Shape::Any | Shape::Settings => {}
        Shape::Array(element) => check_elements(element, value, "expected an array")?,
        Shape::Set(element) => check_elements(element, value, "expected a set")?,
        Shape::Map { names, values } => check_map(names, values, value)?,
        Shape::Record(fields) => {
            let row = value.as_object().ok_or("expected a record")?;
            let mut wrong = BTreeMap::new();
            check_fields(fields, row, &mut wrong);
            if !wrong.is_empty() {
                return Err(wrong.into_iter().collect::<Row>().into());
            }
        }
        Shape::Reference(to) => check_reference(Some(*to), value)?,
        Shape::AbsentReference(_) => check_reference(None, value)?,
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

/// Checks an element of an array, a set or a map: what is there is something.
fn check_element(element: &Field, value: &Value) -> Result<(), Value> {
    if value.is_null() {
        return Err("required field missing".into());
    }
    check(element, value)
}

fn check_map(names: &[Check], values: &Field, value: &Value) -> Result<(), Value> {
    let map = value.as_object().ok_or("expected a map")?;
    let mut wrong = Row::new();
    for (name, value) in map {
        let name_value = Value::from(name.as_str());
        let checked = names
            .iter()
            .try_for_each(|rule| check_rule(rule, &name_value))
            .and_then(|()| check_element(values, value));
        if let Err(message) = checked {
            wrong.insert(name.clone(), message);
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.into())
    }
}

/// Checks a reference. What else it says of the row is looked at before what is wrong with its key, and not
/// at all where nothing is. Source: Kong.
fn check_reference(to: Option<Kind>, value: &Value) -> Result<(), Value> {
    let key = value.as_object().ok_or("expected a record")?;
    let message = match key.get("id") {
        None => "missing primary key",
        Some(Value::Null) => "required field missing",
        Some(id) if id.as_str().is_some_and(|id| Uuid::try_parse(id).is_ok()) => return Ok(()),
        Some(_) => "expected a valid UUID",
    };
    let fields = to.map_or(&[][..], |to| to.declaration().fields);
    let mut wrong = Row::new();
    if !fields.is_empty() {
        for (name, value) in key.iter().filter(|(name, _)| *name != "id") {
            let checked = match fields.iter().find(|field| field.name == name) {
                Some(field) => check(field, value),
                None => Err("unknown field".into()),
            };
            if let Err(message) = checked {
                wrong.insert(name.clone(), message);
            }
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
            if value.as_array().is_some_and(|values| values.len() < *count) {
                return Err(format!("length must be at least {count}").into());
            }
        }
        Check::Text(check) => check(value.as_str().unwrap_or_default())?,
        Check::List(check) => check(value.as_array().map_or(&[], Vec::as_slice))?,
        Check::Nothing(reason) => return Err((*reason).into()),
    }
    Ok(())
}
