//! From a document to rows that may be stored, or to all that is wrong with it.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use uuid::Uuid;

use super::check::Checking;
use super::collect::collect;
use super::configuration::{Configuration, DocumentPath, Entity};
use super::context::CheckContext;
use super::defaults::Info;
use super::ids;
use super::item::{Item, nested_names};
use super::mistakes::Mistakes;
use super::syntax::{Step, Text};
use super::workspaces;
use crate::entity::{
    Kind, Reference, ReferenceBy, Row, Shape, UniqueKey, Violation, did_you_mean, key_hash,
    nearest_name, uuid,
};

/// Most fields of an entity for which a hint is looked for among the lists inside it.
const HINTS: usize = 100;

/// Format versions. Documents of the first two are brought into the form of the last one.
const VERSIONS: [&str; 3] = ["1.1", "2.1", "3.0"];

/// Reads a document. Balancers, and the other entities that a document with select tags may refer
/// to, are found in `context`.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn read(text: &Text, context: &dyn CheckContext) -> Result<Configuration, Mistakes> {
    let Value::Object(document) = &text.value else {
        return Err(Mistakes::unreadable("expected an object"));
    };
    let mut document = document.clone();
    let mut mistakes = Mistakes::default();
    let header = Header::take(&mut document, &mut mistakes);
    let info = Info::take(&mut document, &mut mistakes);
    let mut items = collect(document, &info, &mut mistakes);
    if header.has_old_paths {
        items.iter_mut().for_each(mark_patterns);
    }
    ids::fill_in(&mut items);
    let mut reading = Reading {
        index: Index::new(&items),
        items: &items,
        context,
        is_partial: !info.select_tags.is_empty(),
        mistakes: &mut mistakes,
    };
    let rows: Vec<Option<Row>> = (0..items.len())
        .map(|place| reading.row(place, header.transform))
        .collect();
    reading.check_unique(&rows);
    reading.check_references(&rows);
    let mut checking = Checking {
        items: &items,
        rows: &rows,
        context,
        select_tags: &info.select_tags,
        mistakes: &mut mistakes,
    };
    checking.check();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let places: Vec<DocumentPath> = items.iter().map(|item| item.place(&items)).collect();
    let entities = items.into_iter().zip(rows).zip(places);
    let entities = entities.filter_map(|((item, row), place)| {
        let is_given = |field| item.input.get(field).is_some_and(|time| !time.is_null());
        Some(Entity {
            kind: item.kind,
            id: item.id,
            row: row?,
            has_times: ["created_at", "updated_at"].map(is_given),
            given: item.input,
            place,
        })
    });
    let mut entities: Vec<Entity> = entities.collect();
    entities.sort_by_cached_key(|entity| order(entity.kind));
    Ok(Configuration {
        entities,
        select_tags: info.select_tags,
    })
}

/// The place of a kind among all: it comes after those that it refers to.
pub(super) fn order(kind: Kind) -> Option<usize> {
    Kind::ALL.iter().position(|other| *other == kind)
}

/// What a document says of itself.
struct Header {
    /// Whether values are to be brought into the form in which they are stored, as passwords are
    /// hashed.
    transform: bool,
    /// Whether paths that are regular expressions are not marked as such.
    has_old_paths: bool,
}

impl Header {
    fn take(document: &mut Row, mistakes: &mut Mistakes) -> Self {
        let at = |name: &str| vec![Step::Name(name.to_owned())];
        document.shift_remove("_comment");
        document.shift_remove("_ignore");
        workspaces::take(document, mistakes);
        let mut version = "";
        match document.shift_remove("_format_version") {
            None | Some(Value::Null) => {
                mistakes.at(at("_format_version"), "required field missing");
            }
            Some(Value::String(given)) => match VERSIONS.iter().find(|known| **known == given) {
                Some(known) => version = known,
                None => {
                    let message = format!("expected one of: {}", VERSIONS.join(", "));
                    mistakes.at(at("_format_version"), message);
                }
            },
            Some(_) => mistakes.at(at("_format_version"), "expected a string"),
        }
        let transform = match document.shift_remove("_transform") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(transform)) => transform,
            Some(_) => {
                mistakes.at(at("_transform"), "expected a boolean");
                true
            }
        };
        Self {
            transform,
            has_old_paths: matches!(version, "1.1" | "2.1"),
        }
    }
}

/// Marks the paths of a route that are regular expressions: before version 3.0, a path with other
/// characters than those of a prefix was one. Source: Kong 3.9, `kong.db.declarative.migrations`.
fn mark_patterns(item: &mut Item) {
    let is_top = matches!(
        item.path.as_slice(),
        [("routes", _)] | [("services", _), ("routes", _)]
    );
    let paths = item.input.get_mut("paths").and_then(Value::as_array_mut);
    let Some(paths) = paths.filter(|_| is_top) else {
        return;
    };
    for path in paths {
        if let Value::String(text) = path {
            let is_prefix = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~/%".contains(&byte);
            if text.starts_with('/') && !text.bytes().all(is_prefix) {
                text.insert(0, '~');
            }
        }
    }
}

/// The items by what may name them.
struct Index {
    ids: HashMap<(Kind, Uuid), usize>,
    names: HashMap<(Kind, String), usize>,
}

impl Index {
    fn new(items: &[Item]) -> Self {
        let mut index = Self {
            ids: HashMap::new(),
            names: HashMap::new(),
        };
        for (place, item) in items.iter().enumerate() {
            index.ids.entry((item.kind, item.id)).or_insert(place);
            if let Some(key) = item.kind.declaration().endpoint_key
                && let Some(name) = item.text(key)
            {
                let name = (item.kind, name.to_owned());
                index.names.entry(name).or_insert(place);
            }
        }
        index
    }
}

struct Reading<'a> {
    items: &'a [Item],
    index: Index,
    context: &'a dyn CheckContext,
    /// Whether the document is about some entities alone.
    is_partial: bool,
    mistakes: &'a mut Mistakes,
}

impl Reading<'_> {
    /// The row of an item; none if something is wrong with it.
    fn row(&mut self, place: usize, transform: bool) -> Option<Row> {
        let item = &self.items[place];
        let declaration = item.kind.declaration();
        if item.kind == Kind::Balancer {
            return self.balancer(place);
        }
        let mut input = item.input.clone();
        let id = input.shift_remove("id").filter(|id| !id.is_null());
        let updated_at = input.get("updated_at").cloned();
        for field in declaration.fields {
            if let Shape::Reference(to) = field.shape {
                self.resolve(place, field.name, to, &mut input);
            }
        }
        // A password that is stored already stays as it is.
        let stored = (!transform && item.kind == Kind::BasicAuthCredential)
            .then(|| input.get("password").cloned())
            .flatten();
        // The lists of server names in a row of a certificate are rows of their own here.
        if item.kind == Kind::Certificate {
            input.shift_remove("snis");
        }
        let created = declaration.create(item.id, input);
        let mut row = match created {
            Ok(row) => Some(row),
            Err(Violation::Schema(violations)) => {
                self.mistakes.violations(self.items, place, &violations);
                // What may stand inside the entity is no field of its row.
                let wrong = item.input.keys().filter(|name| violations.has(name));
                for name in wrong.take(HINTS) {
                    if let Some(meant) = nearest_name(nested_names(item.kind), name) {
                        self.mistakes.hint(place, name, &did_you_mean(meant));
                    }
                }
                None
            }
            Err(Violation::Option { name, message }) => {
                self.mistakes.field(self.items, place, name, message.into());
                None
            }
        };
        if id.is_some() && item.given_id().is_none() {
            let message = "expected a valid UUID".into();
            self.mistakes.field(self.items, place, "id", message);
        }
        if let Some(row) = &mut row {
            declaration.remove_transient(row);
            if let Some(password) = stored {
                row.insert("password".into(), password);
            }
            if let Some(time) = updated_at.filter(|time| time.is_number())
                && row.contains_key("updated_at")
            {
                row.insert("updated_at".into(), time);
            }
        }
        row.filter(|_| !self.mistakes.has(place))
    }

    /// The fields of a balancer: its name, its version and its tags. A component that comes with
    /// the document says which version that is.
    fn balancer(&mut self, place: usize) -> Option<Row> {
        let item = &self.items[place];
        let known = [
            "id",
            "name",
            "digest",
            "component",
            "tags",
            "created_at",
            "updated_at",
        ];
        let mut row = item.input.clone();
        for field in item.input.keys() {
            if !known.contains(&field.as_str()) {
                let message = "unknown field".into();
                self.mistakes.field(self.items, place, field, message);
                if let Some(meant) = nearest_name(known.into_iter(), field) {
                    self.mistakes.hint(place, field, &did_you_mean(meant));
                }
            }
        }
        match item.input.get("component") {
            None | Some(Value::Null) => {}
            Some(Value::String(path)) => match self.context.component_digest(path) {
                Ok(digest) => match item.text("digest") {
                    Some(given) if given != digest => {
                        let message = format!("the component {path} has the digest {digest}");
                        let items = self.items;
                        self.mistakes.field(items, place, "digest", message.into());
                    }
                    _ => drop(row.insert("digest".into(), digest.into())),
                },
                Err(why) => {
                    let items = self.items;
                    self.mistakes.field(items, place, "component", why.into());
                }
            },
            Some(_) => {
                let message = "expected a string".into();
                self.mistakes.field(self.items, place, "component", message);
            }
        }
        for field in ["name", "digest"] {
            let has = |field| item.text(field).is_some();
            if !has(field) && (field == "name" || !has("component")) {
                let message = "required field missing".into();
                self.mistakes.field(self.items, place, field, message);
            }
        }
        (!self.mistakes.has(place)).then_some(row)
    }

    /// Replaces what the document has for a reference by the id of the row.
    fn resolve(&mut self, place: usize, field: &str, to: Kind, input: &mut Row) {
        let item = &self.items[place];
        if let Some((parent, of)) = item.parent
            && of == field
        {
            let id = self.items[parent].id;
            input.insert(field.into(), json!({ "id": id }));
            return;
        }
        let (found, shown) = match input.get(field) {
            None | Some(Value::Null) => return,
            Some(Value::String(text)) => (self.find(to, text), text.clone()),
            Some(Value::Object(key)) => {
                let name = to.declaration().endpoint_key.and_then(|name| key.get(name));
                let Some(text) = key.get("id").or(name).and_then(Value::as_str) else {
                    return;
                };
                let by_id = uuid(text).is_some() || !key.contains_key("id");
                if !by_id {
                    return;
                }
                (self.find(to, text), Value::from(key.clone()).to_string())
            }
            Some(_) => return,
        };
        match found {
            Some(id) => {
                input.insert(field.into(), json!({ "id": id }));
            }
            None => {
                // Kept out of the check of the fields, which has another message for it.
                input.insert(field.into(), json!({ "id": Uuid::nil() }));
                let to = to.name();
                let message =
                    format!("invalid reference '{field}: {shown}' (no such entry in '{to}')");
                self.mistakes.among(self.items, place, message);
            }
        }
    }

    /// The id of the entity that a text names.
    fn find(&self, kind: Kind, text: &str) -> Option<Uuid> {
        let by_id = uuid(text);
        let by_id = by_id.and_then(|id| self.index.ids.get(&(kind, id)));
        let name = || self.index.names.get(&(kind, text.to_owned()));
        let inside = by_id.or_else(name).map(|place| self.items[*place].id);
        let outside = || {
            let found = self.is_partial.then(|| self.context.find(kind, text));
            found.flatten()
        };
        inside.or_else(outside)
    }

    /// No two entities may have the same id, or the same values of a unique key.
    fn check_unique(&mut self, rows: &[Option<Row>]) {
        let mut ids = HashSet::new();
        let mut keys = HashSet::new();
        for (place, item) in self.items.iter().enumerate() {
            let kind = item.kind.name();
            let Some(row) = &rows[place] else {
                continue;
            };
            let mut twice = Vec::new();
            for key in item.kind.unique_keys() {
                if item.kind == Kind::Balancer && key.fields != ["name"] {
                    continue;
                }
                let Some(compared) = compared(item.kind, *key, row) else {
                    continue;
                };
                if !keys.insert((item.kind, key.fields, compared)) {
                    twice.push(key.fields);
                }
            }
            let is_known_id = !ids.insert((item.kind, item.id));
            let single = twice.iter().find(|fields| fields.len() == 1);
            let what = match single.or(twice.first()) {
                // A key of several fields is what the id was made of.
                Some(fields) if fields.len() == 1 || !is_known_id => {
                    let fields = fields.iter().map(|field| {
                        if item.kind.declaration().is_secret(field) {
                            return format!("the same {field}");
                        }
                        let value = row.get(*field).map(text).unwrap_or_default();
                        format!("{field} set to '{value}'")
                    });
                    Some(fields.collect::<Vec<_>>().join(" and "))
                }
                _ => is_known_id.then(|| format!("primary key set to '{}'", item.id)),
            };
            if let Some(what) = what {
                let message =
                    format!("uniqueness violation: '{kind}' entity with {what} already declared");
                self.mistakes.among(self.items, place, message);
            }
        }
    }

    /// References that are not links: plain ids and names have to lead to rows as well.
    fn check_references(&mut self, rows: &[Option<Row>]) {
        for (place, item) in self.items.iter().enumerate() {
            let Some(row) = &rows[place] else {
                continue;
            };
            for reference in item.kind.references() {
                if let ReferenceBy::Id = reference.by {
                    continue;
                }
                for value in reference.values(row) {
                    let named = value.as_str().unwrap_or_default();
                    if !self.leads(reference, named) {
                        let (field, to) = (reference.field, reference.to.name());
                        let message = format!(
                            "invalid reference '{field}: {named}' (no such entry in '{to}')"
                        );
                        self.mistakes.among(self.items, place, message);
                    }
                }
            }
        }
    }

    fn leads(&self, reference: &Reference, named: &str) -> bool {
        let is_reserved = match reference.by {
            ReferenceBy::Field { reserved, .. } => reserved.contains(&named),
            _ => false,
        };
        let is_balancer = reference.to == Kind::Balancer;
        is_reserved
            || self.find(reference.to, named).is_some()
            || is_balancer && self.context.find(reference.to, named).is_some()
    }
}

/// The values of a unique key, in the form in which they are compared.
fn compared(kind: Kind, key: UniqueKey, row: &Row) -> Option<String> {
    let values = key.values(row)?;
    let declaration = kind.declaration();
    let values = key.fields.iter().zip(values);
    let values = values.map(
        |(field, value)| match value.as_str().and_then(key_hash::text) {
            // A key in clear and its hash are the same key.
            Some(hash) if kind == Kind::KeyAuthCredential && *field == "key" => hash.into(),
            _ => declaration.compared(field, value),
        },
    );
    Some(Value::Array(values.collect()).to_string())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(key) => key.get("id").map(text).unwrap_or_default(),
        other => other.to_string(),
    }
}
