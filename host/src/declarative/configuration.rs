//! A configuration that was read.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::entity::{Kind, Row};

/// A configuration that was read: rows that keep all rules among each other.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// The entities; one comes after those that it refers to.
    pub(crate) entities: Vec<Entity>,
    /// The tags of the entities that it is about; with none it is about all.
    pub(crate) select_tags: Vec<String>,
}

/// An entity of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Entity {
    pub(crate) kind: Kind,
    /// Primary key.
    pub(crate) id: Uuid,
    /// The row. That of a balancer has the fields of the document alone: all others are read from
    /// its component.
    pub(crate) row: Row,
    /// Whether the document has the time of the creation, and that of the last change.
    pub(crate) has_times: [bool; 2],
    /// The fields of the document. Kong's answer shows passwords from here, as they were sent.
    pub(crate) given: Row,
    /// Where the document has it.
    pub(super) place: DocumentPath,
}

/// Where a document has an entity.
#[derive(Debug, Clone, Default)]
pub(crate) struct DocumentPath {
    /// A list and a place in it, again for each entity around it.
    pub(super) path: Vec<(&'static str, usize)>,
    /// The field that refers to the entity around it, and the id that the document gives that one.
    pub(super) parent: Option<(&'static str, Uuid)>,
}

/// Whether a row has all of these tags.
pub(crate) fn is_selected(row: &Row, tags: &[String]) -> bool {
    let own = row.get("tags").and_then(Value::as_array);
    tags.iter()
        .all(|tag| own.is_some_and(|own| own.contains(&json!(tag))))
}
