//! An entity as a document has it, and the kinds of which a document has lists.

use serde_json::Value;
use uuid::Uuid;

use super::configuration::DocumentPath;
use super::syntax::Step;
use crate::entity::{Kind, Reference, ReferenceBy, Row, uuid};

/// The kinds that a document has lists of. Balancers have fields of their own there, and a rollout
/// is not a part of the configuration.
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    let kinds = Kind::ALL.into_iter();
    kinds.filter(|kind| ![Kind::BalancerVersion, Kind::Rollout].contains(kind))
}

/// The kind with this name.
pub(super) fn named(name: &str) -> Option<Kind> {
    kinds().find(|kind| kind.name() == name)
}

/// The kind of this name whose rows may stand inside rows of `parent`, with the reference that says
/// so.
pub(super) fn nested(parent: Kind, name: &str) -> Option<(Kind, &'static Reference)> {
    let kind = named(name)?;
    let mut references = kind.references().iter();
    let is_parent = |reference: &&Reference| {
        let by_id = matches!(reference.by, ReferenceBy::Id);
        reference.to == parent && by_id && !reference.is_array
    };
    Some((kind, references.find(is_parent)?))
}

/// The names under which rows may stand inside rows of `parent`.
pub(super) fn nested_names(parent: Kind) -> impl Iterator<Item = &'static str> {
    let names = kinds().map(Kind::name);
    names.filter(move |name| nested(parent, name).is_some())
}

/// An entity as a document has it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    /// Where it is: a list and a place in it, again for each entity around it.
    pub(super) path: Vec<(&'static str, usize)>,
    /// Its fields, without the entities inside it.
    pub(super) input: Row,
    /// The entity around it, by its place among all items, and the field that refers to it.
    pub(super) parent: Option<(usize, &'static str)>,
    /// Primary key. It is filled in by `ids.rs`.
    pub(super) id: Uuid,
}

impl Item {
    /// The text that the document has in a field, if it is not empty.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        let text = self.input.get(field).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    }

    /// Where the document has it.
    pub(super) fn place(&self, items: &[Self]) -> DocumentPath {
        let parent = self.parent.and_then(|(parent, field)| {
            let id = items[parent].given_id()?;
            Some((field, id))
        });
        DocumentPath {
            path: self.path.clone(),
            parent,
        }
    }

    /// The id that the document has, if it is one.
    pub(super) fn given_id(&self) -> Option<Uuid> {
        self.text("id").and_then(uuid)
    }
}

/// The steps to an entity.
pub(super) fn steps(path: &[(&'static str, usize)]) -> Vec<Step> {
    let list = |(name, index): &(&str, usize)| [Step::Name((*name).into()), Step::Index(*index)];
    path.iter().flat_map(list).collect()
}
