//! The ids of entities for which a document has none: an entity that is stored under the same name,
//! or under another unique key, stays the one that it is.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use uuid::Uuid;

use super::super::rows::id_of;
use crate::declarative::{Configuration, Entity, is_selected};
use crate::entity::plugin::acme;
use crate::entity::{Kind, Reference, ReferenceBy, Row, basic_auth_credential, key_hash};
use crate::store::{self, Store};

/// Gives each entity without an id in the document the id of the stored entity with the same unique
/// key, as decK does. Only entities that the document is about are taken: with select tags, another
/// one of the name remains a contradiction. Without such an entity, the id stays as it was made of
/// the name.
pub(super) fn keep(
    configuration: &mut Configuration,
    store: &dyn Store,
) -> Result<(), store::Error> {
    let tags = &configuration.select_tags;
    let mut renamed = HashMap::new();
    // An entity comes after those that it refers to, so their ids are known.
    for entities in configuration
        .entities
        .chunk_by_mut(|one, other| one.kind == other.kind)
    {
        let mut taken: HashSet<Uuid> = entities
            .iter()
            .filter(|entity| has_id(entity))
            .map(|entity| entity.id)
            .collect();
        let mut others = Vec::new();
        for entity in entities {
            let consumer = basic_auth_credential::consumer_of(&entity.row);
            for reference in entity.kind.references() {
                redirect(&mut entity.row, reference, &renamed);
            }
            if entity.kind == Kind::BasicAuthCredential
                && let Some(before) = consumer
            {
                let given = entity.given.get("password");
                basic_auth_credential::bind_again(&mut entity.row, given, before);
            }
            if entity.kind == Kind::Balancer || has_id(entity) {
                continue;
            }
            match stored(entity, store, tags)?.filter(|id| !taken.contains(id)) {
                Some(id) => {
                    taken.insert(id);
                    give(entity, id, &mut renamed);
                }
                None => others.push(entity),
            }
        }
        // A stored entity whose id was made of this name may have another name now, and be one that
        // the document is not about.
        for entity in others {
            let present = store.get(entity.kind, entity.id)?;
            let is_foreign = present.is_some_and(|present| !is_about(tags, &present.row));
            if is_foreign || taken.contains(&entity.id) {
                give(entity, Uuid::new_v4(), &mut renamed);
            }
        }
    }
    Ok(())
}

/// Whether the document has the id of an entity.
fn has_id(entity: &Entity) -> bool {
    entity.given.get("id").is_some_and(|id| !id.is_null())
}

fn give(entity: &mut Entity, id: Uuid, renamed: &mut HashMap<(Kind, Uuid), Uuid>) {
    renamed.insert((entity.kind, entity.id), id);
    entity.id = id;
    entity.row.insert("id".into(), id.to_string().into());
}

/// The id of the stored entity that has a unique key of this one.
fn stored(
    entity: &Entity,
    store: &dyn Store,
    tags: &[String],
) -> Result<Option<Uuid>, store::Error> {
    for key in entity.kind.unique_keys() {
        let Some(values) = key.values(&entity.row) else {
            continue;
        };
        let found = match store.find(entity.kind, key.fields, &values)? {
            Some(found) => Some(found),
            None if entity.kind == Kind::KeyAuthCredential => {
                let hash = values.first().and_then(|key| key_hash::text(key.as_str()?));
                let hash = hash.map(Value::from);
                let found = hash.map(|hash| store.find(entity.kind, key.fields, &[&hash]));
                found.transpose()?.flatten()
            }
            None => None,
        };
        if let Some(found) = found.filter(|found| is_about(tags, &found.row)) {
            return Ok(Some(id_of(&found.row)));
        }
    }
    Ok(None)
}

/// Whether a document with these select tags is about a stored row. What the gateway has requested
/// itself is in no file.
fn is_about(tags: &[String], row: &Row) -> bool {
    is_selected(row, tags) && !is_selected(row, &[acme::TAG.to_owned()])
}

/// Has a reference name the new ids of rows.
fn redirect(row: &mut Row, reference: &Reference, renamed: &HashMap<(Kind, Uuid), Uuid>) {
    if matches!(reference.by, ReferenceBy::Field { .. }) {
        return;
    }
    let mut names = reference.field.split('.');
    let mut value = names.next().and_then(|name| row.get_mut(name));
    for name in names {
        value = value.and_then(|value| value.get_mut(name));
    }
    let values = match value {
        Some(Value::Array(elements)) => elements.iter_mut().collect(),
        value => Vec::from_iter(value),
    };
    for value in values {
        let id = match value {
            Value::Object(fields) => fields.get_mut("id"),
            value => Some(value),
        };
        let Some(Value::String(id)) = id else {
            continue;
        };
        let new = id
            .parse()
            .ok()
            .and_then(|old| renamed.get(&(reference.to, old)));
        if let Some(new) = new {
            *id = new.to_string();
        }
    }
}
