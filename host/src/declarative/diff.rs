//! What distinguishes a configuration from the rows that are stored.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::configuration::{Configuration, is_selected};
use super::item::kinds;
use crate::entity::plugin::acme;
use crate::entity::{Kind, OnDelete, Row};
use crate::store::{Stored, Write};

/// What an import does to an entity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// The collection.
    pub(crate) entity: &'static str,
    /// Primary key.
    pub(crate) id: Uuid,
    /// Its name, if it has one.
    pub(crate) name: Option<String>,
    /// What is done.
    pub(crate) change: ChangeKind,
    /// The fields that change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) fields: Vec<String>,
}

/// What is done to an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeKind {
    Create,
    Update,
    Delete,
}

/// Fields that the gateway sets.
const TIMES: [&str; 2] = ["created_at", "updated_at"];

/// The writes that make the stored rows those of the configuration, all at once, and what they
/// change. Balancers are not among them. An entity that is as it was is not written.
pub(crate) fn changes(
    configuration: &Configuration,
    mut stored: HashMap<Kind, Vec<Stored>>,
) -> (Vec<Write>, Vec<Difference>) {
    let (mut writes, mut differences) = (Vec::new(), Vec::new());
    let mut spared = Vec::new();
    let mut deleted = Vec::new();
    let mut wanted: HashMap<Kind, Vec<_>> = HashMap::new();
    for entity in &configuration.entities {
        wanted.entry(entity.kind).or_default().push(entity);
    }
    for kind in kinds().filter(|kind| *kind != Kind::Balancer) {
        let present = stored.remove(&kind).into_iter().flatten();
        let mut present: HashMap<Uuid, Stored> = present
            .filter_map(|stored| Some((id_of(&stored.row)?, stored)))
            .collect();
        let wanted = wanted.get(&kind).into_iter().flatten();
        for entity in wanted {
            let old = present.remove(&entity.id);
            let difference = |change, fields| Difference {
                entity: kind.name(),
                id: entity.id,
                name: name_of(kind, &entity.row),
                change,
                fields,
            };
            let Some(old) = old else {
                let row = entity.row.clone();
                differences.push(difference(ChangeKind::Create, Vec::new()));
                writes.push(Write::put(kind, entity.id, row, None, None));
                continue;
            };
            // Times that the document does not have are no difference.
            let times = TIMES.into_iter().zip(entity.has_times);
            let not_given: Vec<&str> = times
                .filter(|(_, is_given)| !is_given)
                .map(|(time, _)| time)
                .collect();
            let fields = different(&old.row, &entity.row, &not_given);
            if fields.is_empty() {
                continue;
            }
            let mut row = entity.row.clone();
            if !entity.has_times[0]
                && let Some(created) = old.row.get(TIMES[0])
            {
                row.insert(TIMES[0].into(), created.clone());
            }
            differences.push(difference(ChangeKind::Update, fields));
            writes.push(Write::put(kind, entity.id, row, None, Some(old.revision)));
        }
        for (id, Stored { row, .. }) in present {
            // What the gateway has requested itself is in no file, and an authority limits how
            // often it can be requested again.
            let is_requested = is_selected(&row, &[acme::TAG.to_owned()]);
            let is_deleted = is_selected(&row, &configuration.select_tags) && !is_requested;
            let list = if is_deleted {
                &mut deleted
            } else {
                &mut spared
            };
            list.push((kind, id, row));
        }
    }
    cascade(&mut deleted, spared);
    deleted.sort_by_key(|(kind, id, _)| (*kind, *id));
    for (kind, id, row) in deleted {
        writes.push(Write::Delete { kind, id });
        differences.push(Difference {
            entity: kind.name(),
            id,
            name: name_of(kind, &row),
            change: ChangeKind::Delete,
            fields: Vec::new(),
        });
    }
    (writes, differences)
}

/// Deletes with a row those that its deletion by the Admin API deletes as well, such as the
/// credentials of a consumer, although no tag selects them.
fn cascade(deleted: &mut Vec<(Kind, Uuid, Row)>, mut spared: Vec<(Kind, Uuid, Row)>) {
    let mut gone: HashSet<(Kind, Uuid)> =
        deleted.iter().map(|(kind, id, _)| (*kind, *id)).collect();
    loop {
        let goes = |(kind, _, row): &(Kind, Uuid, Row)| {
            let mut references = kind.references().iter();
            references.any(|reference| {
                reference.on_delete == OnDelete::Cascade
                    && reference
                        .values(row)
                        .into_iter()
                        .filter_map(|value| value["id"].as_str().or(value.as_str())?.parse().ok())
                        .any(|id| gone.contains(&(reference.to, id)))
            })
        };
        let (with_them, others): (Vec<_>, Vec<_>) = spared.into_iter().partition(goes);
        if with_them.is_empty() {
            return;
        }
        gone.extend(with_them.iter().map(|(kind, id, _)| (*kind, *id)));
        deleted.extend(with_them);
        spared = others;
    }
}

/// The fields in which two rows differ, without these. The seconds that a row still has are
/// compared with the time of its end only to the second, because a document has whole ones.
fn different(old: &Row, new: &Row, without: &[&str]) -> Vec<String> {
    let names = new
        .keys()
        .chain(old.keys().filter(|name| !new.contains_key(*name)));
    let differs = |name: &&String| {
        if without.contains(&name.as_str()) {
            return false;
        }
        let (old, new) = (old.get(*name), new.get(*name));
        let end = |value: Option<&Value>| value?.get("expires_at")?.as_f64();
        match (end(old), end(new)) {
            (Some(old), Some(new)) if *name == "ttl" => (old - new).abs() > 1.5,
            _ => old != new,
        }
    };
    names.filter(differs).cloned().collect()
}

fn id_of(row: &Row) -> Option<Uuid> {
    row.get("id")?.as_str()?.parse().ok()
}

/// What names a row, unless it is a secret.
fn name_of(kind: Kind, row: &Row) -> Option<String> {
    let declaration = kind.declaration();
    let key = declaration.nested_key().unwrap_or("name");
    let field = declaration.fields.iter().find(|field| field.name == key)?;
    let key = if field.secret { "id" } else { key };
    let name = row.get(key).and_then(Value::as_str);
    let name = name.or_else(|| row.get("name").and_then(Value::as_str));
    name.map(str::to_owned)
}
