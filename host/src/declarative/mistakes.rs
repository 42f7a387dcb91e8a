//! What is wrong with a document: in the shape of the document itself, as a list by entity, and as
//! lines for people. Source: Kong 3.9, `declarative_config` and `kong.db.errors`.

mod lua;
mod wrong;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::configuration::Entity;
use super::item::{Item, steps};
use super::syntax::{Lines, Step};
use crate::entity::{Row, Violations, did_you_mean};
use lua::lua;
use wrong::{ENTITY, Wrong, collect};

/// How many mistakes are told at most. A document that is of another kind altogether may have one
/// in each line.
const MAX_MISTAKES: usize = 1000;

/// What is wrong with a document: all of it, as far as it is told.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    /// Errors that belong to no entity.
    loose: Vec<Loose>,
    /// Errors by entity, by its place among all items.
    items: BTreeMap<usize, Wrong>,
    /// Messages that are kept, at most [`MAX_MISTAKES`].
    count: usize,
    /// Entities of which a message was only counted.
    others: BTreeSet<usize>,
    /// Messages that were only counted.
    more: usize,
}

/// An error that belongs to no entity.
#[derive(Debug)]
struct Loose {
    steps: Vec<Step>,
    message: String,
    /// For a name that does not exist, the one that is probably meant.
    hint: Option<String>,
}

impl Mistakes {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.loose.is_empty() && self.items.is_empty()
    }

    /// Adds an error that belongs to no entity.
    pub(super) fn at(&mut self, steps: Vec<Step>, message: impl Into<String>) {
        if self.has_room() {
            self.loose.push(Loose {
                steps,
                message: message.into(),
                hint: None,
            });
        }
    }

    /// Adds the error that the document has a name that does not exist, with the one that is
    /// probably meant.
    pub(super) fn unknown<'n>(&mut self, name: &str, meant: impl FnOnce() -> Option<&'n str>) {
        if self.has_room() {
            self.loose.push(Loose {
                steps: vec![Step::Name(name.to_owned())],
                message: "unknown field".into(),
                hint: meant().map(did_you_mean),
            });
        }
    }

    /// Whether another message is told. It is counted in any case.
    fn has_room(&mut self) -> bool {
        let has_room = self.count < MAX_MISTAKES;
        *(if has_room {
            &mut self.count
        } else {
            &mut self.more
        }) += 1;
        has_room
    }

    /// The text is no document at all.
    pub(crate) fn unreadable(reason: &str) -> Self {
        let mut mistakes = Self::default();
        let message = format!("failed parsing declarative configuration: {reason}");
        mistakes.at(vec![Step::Name("error".into())], message);
        mistakes
    }

    /// Adds errors in fields of an entity.
    pub(super) fn violations(&mut self, items: &[Item], place: usize, wrong: &Violations) {
        if let Value::Object(fields) = wrong.fields() {
            for (name, message) in fields {
                self.field(items, place, &name, message);
            }
        }
        for (field, hint) in wrong.hints() {
            self.hint(place, field, hint);
        }
    }

    /// Adds a hint to the error about an unknown field: the field that is probably meant, or the
    /// condition under which the field exists.
    pub(super) fn hint(&mut self, place: usize, field: &str, hint: &str) {
        if let Some(wrong) = self.items.get_mut(&place) {
            wrong.hints.insert(field.to_owned(), hint.to_owned());
        }
    }

    /// Adds an error in a field of an entity, unless there is one.
    pub(super) fn field(&mut self, items: &[Item], place: usize, field: &str, message: Value) {
        if let Some(wrong) = self.wrong(place, || Wrong::of(items, &items[place])) {
            wrong.fields.entry(field).or_insert(message);
        }
    }

    /// Adds an error about an entity among others.
    pub(super) fn among(&mut self, items: &[Item], place: usize, message: String) {
        if let Some(wrong) = self.wrong(place, || Wrong::of(items, &items[place])) {
            wrong.among(items[place].id, message);
        }
    }

    /// Adds errors in fields of an entity that was read, which has this number among all.
    pub(crate) fn fields_of(&mut self, number: usize, entity: &Entity, fields: &Row) {
        for (name, message) in fields {
            if let Some(wrong) = self.wrong(number, || Wrong::of_entity(entity)) {
                wrong.fields.entry(name).or_insert(message.clone());
            }
        }
    }

    /// Adds an error about the relation of an entity that was read to others. `number` is its
    /// position among all entities.
    pub(crate) fn among_entities(&mut self, number: usize, entity: &Entity, message: String) {
        if let Some(wrong) = self.wrong(number, || Wrong::of_entity(entity)) {
            wrong.among(entity.id, message);
        }
    }

    /// Whether something is wrong with an entity.
    pub(super) fn has(&self, place: usize) -> bool {
        self.items.contains_key(&place) || self.others.contains(&place)
    }

    /// Where another message about an entity goes; none if it is only counted.
    fn wrong(&mut self, place: usize, new: impl FnOnce() -> Wrong) -> Option<&mut Wrong> {
        if !self.has_room() {
            self.others.insert(place);
            return None;
        }
        Some(self.items.entry(place).or_insert_with(new))
    }

    /// The errors in the shape of the document: `null` for what is right.
    pub(crate) fn fields(&self) -> Value {
        self.shaped(self.items.values())
    }

    fn shaped<'w>(&self, items: impl Iterator<Item = &'w Wrong>) -> Value {
        let mut fields = Value::Object(Row::new());
        for Loose { steps, message, .. } in &self.loose {
            *place(&mut fields, steps) = message.as_str().into();
        }
        for wrong in items {
            let at = place(&mut fields, &steps(&wrong.path));
            match (wrong.messages.as_slice(), wrong.fields.is_empty()) {
                ([message], true) if at.is_null() => *at = message.as_str().into(),
                (messages, _) => {
                    if !at.is_object() {
                        *at = Row::new().into();
                    }
                    if let Value::Object(at) = at {
                        at.extend(wrong.fields.clone());
                        for message in messages {
                            let all = at.entry(ENTITY).or_insert_with(|| json!([]));
                            if let Value::Array(all) = all {
                                all.push(message.as_str().into());
                            }
                        }
                    }
                }
            }
        }
        fields
    }

    /// The errors as a list by entity, and those that belong to none in the shape of the document.
    pub(crate) fn flattened(&self) -> (Vec<Value>, Value) {
        let list = self.items.values().flat_map(Wrong::flattened);
        (list.collect(), self.shaped(std::iter::empty()))
    }

    /// Kong's sentence about errors in the shape of the document.
    pub(crate) fn message(fields: &Value) -> String {
        let mut text = "declarative config is invalid: ".to_owned();
        lua(fields, &mut text);
        text
    }

    /// A line for each error: the line of the text, the entity, the field, and what is wrong.
    pub(crate) fn told(&self, lines: &Lines) -> Vec<String> {
        let texts = self.texts().into_iter().map(|(steps, text)| {
            let at = steps.and_then(|steps| lines.of(&steps)).unwrap_or(0);
            (at, format!("{}{text}", numbered(at)))
        });
        let mut told: Vec<(usize, String)> = texts.collect();
        told.sort_by_key(|(line, _)| *line);
        self.bounded(told.into_iter().map(|(_, text)| text).collect())
    }

    /// A line for each error, with what a caller says of its place in place of its line.
    pub(super) fn told_of(&self, origin: impl Fn(&[Step]) -> String) -> Vec<String> {
        let texts = self.texts().into_iter();
        let told = texts.map(|(steps, text)| origin(&steps.unwrap_or_default()) + &text);
        self.bounded(told.collect())
    }

    /// The errors with the place of each one, unless it is about the whole text.
    fn texts(&self) -> Vec<(Option<Vec<Step>>, String)> {
        let mut texts = Vec::new();
        for loose in &self.loose {
            let message = format!("{}{}", loose.message, hinted(loose.hint.as_ref()));
            if loose.steps == [Step::Name("error".into())] {
                texts.push((None, message));
            } else {
                let text = format!("{}: {message}", shown_steps(&loose.steps));
                texts.push((Some(loose.steps.clone()), text));
            }
        }
        for wrong in self.items.values() {
            let own = steps(&wrong.path);
            let place = shown_steps(&own);
            let name = ["name", "username", "prefix", "target", "kid", "id"];
            let name = name
                .iter()
                .find_map(|field| wrong.entity.get(*field).and_then(Value::as_str));
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            for message in &wrong.messages {
                texts.push((Some(own.clone()), format!("{place}{name}: {message}")));
            }
            let mut leaves = Vec::new();
            collect(&wrong.fields, &mut Vec::new(), &mut leaves);
            for (field, message) in leaves {
                let steps: Vec<Step> = own.iter().chain(&field).cloned().collect();
                let field = dotted(&field);
                let hint = hinted(wrong.hints.get(&field));
                let field = match field.strip_prefix(ENTITY) {
                    Some(_) => String::new(),
                    None => format!(" {field}:"),
                };
                texts.push((
                    Some(steps),
                    format!("{place}{name}:{field} {message}{hint}"),
                ));
            }
        }
        texts
    }

    /// The first ones of these lines, and how many more there are.
    fn bounded(&self, mut told: Vec<String>) -> Vec<String> {
        // Until here, all messages inside one field were counted as one.
        let more = self.more + told.len().saturating_sub(MAX_MISTAKES);
        told.truncate(MAX_MISTAKES);
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told
    }
}

/// The hint as the end of a message; empty without one.
fn hinted(hint: Option<&String>) -> String {
    let hint = hint.map(|hint| format!(", {hint}"));
    hint.unwrap_or_default()
}

/// The names of a field and of those around it, with dots between; places in lists count from 1.
fn dotted(field: &[Step]) -> String {
    let names = field.iter().map(|step| match step {
        Step::Name(name) => name.clone(),
        Step::Index(index) => (index + 1).to_string(),
    });
    names.collect::<Vec<_>>().join(".")
}

fn numbered(line: usize) -> String {
    if line == 0 {
        String::new()
    } else {
        format!("line {line}: ")
    }
}

/// Steps as people read them: `services[0].routes[1]`.
pub(super) fn shown_steps(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let _ = match step {
            Step::Name(name) if text.is_empty() => write!(text, "{name}"),
            Step::Name(name) => write!(text, ".{name}"),
            Step::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}

/// The value at these steps, which is made if it is not there.
fn place<'v>(value: &'v mut Value, steps: &[Step]) -> &'v mut Value {
    let Some((first, rest)) = steps.split_first() else {
        return value;
    };
    let inner = match first {
        Step::Name(name) => {
            // What is wrong with an entity as a whole is beside what is wrong inside it.
            if let Value::String(message) = value {
                *value = json!({ ENTITY: [message] });
            } else if !value.is_object() {
                *value = Row::new().into();
            }
            &mut value[name.as_str()]
        }
        Step::Index(index) => {
            if !value.is_array() {
                *value = json!([]);
            }
            if let Value::Array(list) = value
                && list.len() <= *index
            {
                list.resize(index + 1, Value::Null);
            }
            &mut value[*index]
        }
    };
    place(inner, rest)
}
