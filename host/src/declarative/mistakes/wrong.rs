//! What is wrong with one entity.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::configuration::{DocumentPath, Entity};
use super::super::item::Item;
use super::super::syntax::Step;
use super::dotted;
use crate::entity::{Kind, Row, Shape, uuid};

/// What is wrong with an entity.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    pub(super) path: Vec<(&'static str, usize)>,
    pub(super) kind: Option<Kind>,
    /// What the document has, with references as ids.
    pub(super) entity: Row,
    /// Objects in fields that refer to another entity, by field, with the kind of that entity.
    referred: BTreeMap<&'static str, (Kind, Row)>,
    /// Messages by field, in Kong's form.
    pub(super) fields: Row,
    /// For a field that does not exist, by its name with those around it: the one that is probably
    /// meant.
    pub(super) hints: BTreeMap<String, String>,
    /// Messages about the entity among others: it is there twice, or what it refers to is not
    /// there.
    pub(super) messages: Vec<String>,
}

/// The key of messages about an entity as a whole.
pub(super) const ENTITY: &str = "@entity";

impl Wrong {
    pub(super) fn of(items: &[Item], item: &Item) -> Self {
        Self::new(item.kind, &item.input, item.place(items))
    }

    pub(super) fn of_entity(entity: &Entity) -> Self {
        Self::new(entity.kind, &entity.given, entity.place.clone())
    }

    fn new(kind: Kind, input: &Row, place: DocumentPath) -> Self {
        Self {
            kind: Some(kind),
            entity: shown(kind, input, &place),
            referred: referred(kind, input),
            path: place.path,
            ..Self::default()
        }
    }

    /// Adds a message about the entity among others. They are told apart by their ids, which Kong
    /// therefore shows even where the document has none.
    pub(super) fn among(&mut self, id: Uuid, message: String) {
        if self.fields.is_empty() {
            let own = self.entity.entry("id");
            own.or_insert_with(|| id.to_string().into());
        }
        self.messages.push(message);
    }

    /// The items of `flattened_errors`. What is wrong inside a field that refers to another entity
    /// is told as a mistake of that entity. Source: Kong.
    pub(super) fn flattened(&self) -> Vec<Value> {
        let mut fields = self.fields.clone();
        let mut items = Vec::new();
        for (field, (kind, entity)) in &self.referred {
            match fields.shift_remove(*field) {
                Some(Value::Object(wrong)) => {
                    items.push(flattened(Some(*kind), entity, &[], &wrong));
                }
                Some(message) => {
                    fields.insert((*field).into(), message);
                }
                None => {}
            }
        }
        if !fields.is_empty() || !self.messages.is_empty() {
            items.push(flattened(self.kind, &self.entity, &self.messages, &fields));
        }
        items
    }
}

/// An item of `flattened_errors`: an entity, messages about it as a whole, and messages by field.
fn flattened(kind: Option<Kind>, entity: &Row, messages: &[String], fields: &Row) -> Value {
    let kind = kind.map_or("", Kind::name);
    // The singular of Kong is the name of the collection without its last letter.
    let kind = kind.strip_suffix('s').unwrap_or(kind);
    let mut item = Row::from_iter([("entity_type".to_owned(), kind.into())]);
    let text = |field| entity.get(field).and_then(Value::as_str);
    if let Some(id) = text("id").filter(|id| uuid(id).is_some()) {
        item.insert("entity_id".into(), id.into());
    }
    if let Some(name) = text("name").filter(|name| !name.is_empty()) {
        item.insert("entity_name".into(), name.into());
    }
    if let Some(tags) = entity.get("tags").and_then(Value::as_array)
        && tags.iter().all(Value::is_string)
    {
        item.insert("entity_tags".into(), tags.clone().into());
    }
    item.insert("entity".into(), entity.clone().into());
    let about = |message: &Value| json!({ "type": "entity", "message": message });
    let mut errors: Vec<Value> = Vec::new();
    errors.extend(
        messages
            .iter()
            .map(|message| about(&message.as_str().into())),
    );
    let mut leaves = Vec::new();
    collect(fields, &mut Vec::new(), &mut leaves);
    for (field, message) in leaves {
        if field.first() == Some(&Step::Name(ENTITY.into())) {
            errors.push(about(&message.into()));
            continue;
        }
        let field = dotted(&field);
        errors.push(json!({ "type": "field", "field": field, "message": message }));
    }
    item.insert("errors".into(), errors.into());
    item.into()
}

/// Flattens messages by field: each with the steps to it from the entity.
pub(super) fn collect(fields: &Row, around: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, String)>) {
    for (name, message) in fields {
        around.push(Step::Name(name.clone()));
        collect_value(message, around, found);
        around.pop();
    }
}

fn collect_value(message: &Value, around: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, String)>) {
    match message {
        Value::String(text) => found.push((around.clone(), text.clone())),
        Value::Object(fields) => collect(fields, around, found),
        Value::Array(list) => {
            for (index, message) in list.iter().enumerate() {
                around.push(Step::Index(index));
                collect_value(message, around, found);
                around.pop();
            }
        }
        _ => {}
    }
}

/// The objects in the fields that refer to other entities.
fn referred(kind: Kind, input: &Row) -> BTreeMap<&'static str, (Kind, Row)> {
    let fields = kind.declaration().fields.iter();
    let referred = fields.filter_map(|field| match (field.shape, input.get(field.name)) {
        (Shape::Reference(to), Some(Value::Object(entity))) => {
            Some((field.name, (to, entity.clone())))
        }
        _ => None,
    });
    referred.collect()
}

/// An entity as an error shows it: references as ids, or not at all.
fn shown(kind: Kind, input: &Row, place: &DocumentPath) -> Row {
    let mut entity = input.clone();
    for field in kind.declaration().fields {
        if let (Shape::Reference(_), Some(Value::Object(key))) =
            (field.shape, entity.get(field.name))
        {
            let id = key.get("id").and_then(Value::as_str);
            let id = id.filter(|id| uuid(id).is_some()).map(str::to_owned);
            match id {
                Some(id) => entity.insert(field.name.into(), json!({ "id": id })),
                None => entity.shift_remove(field.name),
            };
        }
    }
    if let Some((field, id)) = place.parent {
        entity.insert(field.into(), json!({ "id": id }));
    }
    entity
}
