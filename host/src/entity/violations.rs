//! The errors in a row, in Kong's form.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Row;

/// All errors in a row, in Kong's form: a message by field, messages for nested fields in objects
/// and arrays, and messages about the row as a whole.
#[derive(Debug, Default, PartialEq)]
pub struct Violations {
    entity: Vec<String>,
    pub(super) fields: BTreeMap<String, Value>,
    /// For a field that does not exist, by its name with those of the records around it: the one
    /// that is probably meant, or when it does exist. Only the message shows it.
    pub(super) hints: BTreeMap<String, String>,
    /// Whether the row is about something that Kong has and this gateway does not.
    pub(super) is_absent: bool,
}

/// The error in a field that does not exist.
pub(super) const UNKNOWN_FIELD: &str = "unknown field";

impl Violations {
    /// These errors in fields.
    pub(super) fn of_fields(fields: BTreeMap<String, Value>) -> Self {
        Self {
            fields,
            ..Self::default()
        }
    }

    /// Adds an error about the row as a whole.
    pub fn entity(&mut self, message: impl Into<String>) {
        let message = message.into();
        if !self.entity.contains(&message) {
            self.entity.push(message);
        }
    }

    /// Adds an error in a field. The name of a field inside a record has the names of all records
    /// around it: `config.redis.host`. An error about such a record as a whole stays in its place.
    pub fn field(&mut self, name: &str, message: impl Into<Value>) {
        let (first, inner) = match name.split_once('.') {
            Some((first, inner)) => (first, inner.split('.').collect()),
            None => (name, Vec::new()),
        };
        let entry = self.fields.entry(first.to_owned()).or_insert(Value::Null);
        let innermost = inner.iter().try_fold(entry, |value, name| {
            if value.is_null() {
                *value = Row::new().into();
            }
            let fields = value.as_object_mut()?;
            Some(fields.entry(*name).or_insert(Value::Null))
        });
        if let Some(innermost) = innermost {
            *innermost = message.into();
        }
    }

    /// Adds the error of Kong's rule that couples a field to the value of another.
    pub fn conditional(&mut self, given: &str, field: &str, message: impl Into<Value>) {
        let rule = format!("failed conditional validation given value of field '{given}'");
        self.coupled(rule, field, message);
    }

    /// Adds the error of such a rule that has a sentence of its own: the sentence is that of the
    /// entity, and the field has what is wrong with its value.
    pub fn coupled(&mut self, rule: impl Into<String>, field: &str, message: impl Into<Value>) {
        self.entity(rule);
        self.field(field, message);
    }

    /// Whether there is an error in a field.
    pub fn has(&self, name: &str) -> bool {
        let mut names = name.split('.');
        let first = names.next().and_then(|name| self.fields.get(name));
        let found = first.and_then(|first| names.try_fold(first, |value, name| value.get(name)));
        found.is_some()
    }

    /// Whether there are no errors.
    pub fn is_empty(&self) -> bool {
        self.entity.is_empty() && self.fields.is_empty()
    }

    /// Whether the row is about something that Kong has and this gateway does not.
    pub fn is_absent(&self) -> bool {
        self.is_absent
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

    /// For each field that does not exist, by its name with those of the records around it, what
    /// the message adds.
    pub fn hints(&self) -> impl Iterator<Item = (&str, &str)> {
        let hints = self.hints.iter();
        hints.map(|(field, hint)| (field.as_str(), hint.as_str()))
    }

    /// The `message` of Kong's error.
    pub fn message(&self) -> String {
        let mut messages = self.entity.clone();
        for (name, message) in &self.fields {
            self.flatten(name, message, &mut messages);
        }
        match messages.as_slice() {
            [one] => format!("schema violation ({one})"),
            many => format!("{} schema violations ({})", many.len(), many.join("; ")),
        }
    }

    fn flatten(&self, name: &str, message: &Value, messages: &mut Vec<String>) {
        match message {
            Value::String(text) => messages.push(match self.hints.get(name) {
                Some(hint) => format!("{name}: {text}, {hint}"),
                None => format!("{name}: {text}"),
            }),
            Value::Array(elements) => {
                for (number, element) in (1..).zip(elements) {
                    self.flatten(&format!("{name}.{number}"), element, messages);
                }
            }
            Value::Object(fields) => {
                let mut names: Vec<&String> = fields.keys().collect();
                names.sort();
                for inner in names {
                    self.flatten(&format!("{name}.{inner}"), &fields[inner], messages);
                }
            }
            _ => {}
        }
    }
}
