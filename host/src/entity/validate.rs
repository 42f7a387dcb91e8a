//! From what a request carries to a row that may be stored, or to everything that is wrong with it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};
use uuid::Uuid;

use super::declaration::{Check, Declaration, Field, Shape};
use super::{Row, Violation};

/// All that is wrong with a row, in Kong's form: a message by field, deeper ones in objects and
/// arrays, and messages about the row as a whole.
#[derive(Debug, Default, PartialEq)]
pub struct Violations {
    entity: Vec<String>,
    fields: BTreeMap<String, Value>,
}

impl Violations {
    /// Says what is wrong with the row as a whole.
    pub fn entity(&mut self, message: impl Into<String>) {
        let message = message.into();
        if !self.entity.contains(&message) {
            self.entity.push(message);
        }
    }

    /// Says what is wrong with a field.
    pub fn field(&mut self, name: &str, message: impl Into<Value>) {
        self.fields.insert(name.to_owned(), message.into());
    }

    /// The rule of Kong that ties a field to the value of another.
    pub fn conditional(&mut self, given: &str, field: &str, message: impl Into<Value>) {
        self.entity(format!(
            "failed conditional validation given value of field '{given}'"
        ));
        self.field(field, message);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.entity.is_empty() && self.fields.is_empty()
    }

    /// The `fields` of Kong's error.
    pub fn fields(&self) -> Value {
        let mut fields = Row::new();
        if !self.entity.is_empty() {
            fields.insert("@entity".into(), self.entity.clone().into());
        }
        fields.extend(self.fields.clone());
        fields.into()
    }

    /// The `message` of Kong's error.
    pub fn message(&self) -> String {
        let mut messages = self.entity.clone();
        for (name, message) in &self.fields {
            flatten(name, message, &mut messages);
        }
        match messages.as_slice() {
            [one] => format!("schema violation ({one})"),
            many => format!("{} schema violations ({})", many.len(), many.join("; ")),
        }
    }
}

fn flatten(name: &str, message: &Value, messages: &mut Vec<String>) {
    match message {
        Value::String(text) => messages.push(format!("{name}: {text}")),
        Value::Array(elements) => {
            for (number, element) in (1..).zip(elements) {
                flatten(&format!("{name}.{number}"), element, messages);
            }
        }
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            for inner in names {
                flatten(&format!("{name}.{inner}"), &fields[inner], messages);
            }
        }
        _ => {}
    }
}

/// The fields of a request that is no entity's: what is not named has its default.
///
/// # Errors
/// All that is wrong.
pub(crate) fn read_fields(fields: &[Field], input: Row) -> Result<Row, Violations> {
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
        whole_numbers(self.fields, &mut input);
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
        whole_numbers(self.fields, &mut input);
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

/// A whole number is stored as one, however it was written: `80.0` and `8e1` are 80.
fn whole_numbers(fields: &[Field], row: &mut Row) {
    for field in fields {
        if let Some(value) = row.get_mut(field.name) {
            whole_number(&field.shape, value);
        }
    }
}

fn whole_number(shape: &Shape, value: &mut Value) {
    match (shape, &mut *value) {
        (Shape::Integer | Shape::Number, Value::Number(number)) => {
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                // Past it a float is no longer exact.
                && float.abs() < (1_u64 << 53) as f64
            {
                *value = (float as i64).into();
            }
        }
        (Shape::Array(element) | Shape::Set(element), Value::Array(values)) => {
            for value in values {
                whole_number(&element.shape, value);
            }
        }
        (Shape::Map { values: field, .. }, Value::Object(map)) => {
            for value in map.values_mut() {
                whole_number(&field.shape, value);
            }
        }
        (Shape::Record(fields), Value::Object(row)) => whole_numbers(fields, row),
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
            (Some(shape), value) => {
                row.insert(name, deduplicate(shape, value));
            }
            (None, value) => {
                row.insert(name, value);
            }
        }
    }
}

/// A set has each of its values once.
fn deduplicate(shape: &Shape, value: Value) -> Value {
    match (shape, value) {
        (Shape::Set(_), Value::Array(values)) => {
            let mut once: Vec<Value> = Vec::with_capacity(values.len());
            for value in values {
                if !once.contains(&value) {
                    once.push(value);
                }
            }
            once.into()
        }
        (_, value) => value,
    }
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
        Shape::Any => {}
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
        Shape::Reference(_) | Shape::AbsentReference(_) => check_reference(value)?,
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

fn check_reference(value: &Value) -> Result<(), Value> {
    let key = value.as_object().ok_or("expected a record")?;
    let id = key.get("id").ok_or("missing primary key")?;
    let id = id.as_str().and_then(|text| Uuid::try_parse(text).ok());
    id.ok_or_else(|| json!({"id": "expected a valid UUID"}))?;
    Ok(())
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
