//! Why nothing of a document was imported.

use serde_json::Value;
use uuid::Uuid;

use super::super::changes::described;
use super::super::error::Error;
use crate::declarative::{Configuration, Entity, Mistakes};
use crate::entity::{Kind, Reference};
use crate::store::{self, Store};

/// Why nothing was imported.
pub(crate) enum Refused {
    /// What is wrong with the document.
    Mistakes(Mistakes),
    /// Something else is wrong.
    Other(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Why the store does not take the rows of a document, at the entity that is to blame.
pub(super) fn refused(
    store: &dyn Store,
    configuration: &Configuration,
    error: store::Error,
) -> Refused {
    let mut mistakes = Mistakes::default();
    let mut blame = |kind: Kind, is_it: &dyn Fn(&Entity) -> bool, message: String| {
        let mut all = configuration.entities.iter().enumerate();
        if let Some((number, entity)) = all.find(|(_, entity)| entity.kind == kind && is_it(entity))
        {
            mistakes.among_entities(number, entity, message);
        }
    };
    match &error {
        store::Error::UniqueKeyTaken { kind, values, .. } => {
            let declaration = kind.declaration();
            let told = values.iter().map(|(field, value)| match value {
                _ if declaration.is_secret(field) => format!("the same {field}"),
                Value::String(text) => format!("{field} set to '{text}'"),
                value => format!("{field} set to '{value}'"),
            });
            let told = told.collect::<Vec<_>>().join(" and ");
            let message = format!(
                "uniqueness violation: '{}' entity with {told} exists already",
                kind.name()
            );
            let has_all = |entity: &Entity| {
                values
                    .iter()
                    .all(|(field, value)| entity.row.get(field) == Some(value))
            };
            blame(*kind, &has_all, message);
        }
        store::Error::ReferenceMissing {
            kind,
            field,
            to,
            value,
        } => {
            let message = format!(
                "invalid reference '{field}: {value}' (no such entry in '{}')",
                to.name()
            );
            let refers = |entity: &Entity| {
                let mut references = kind.references().iter();
                let reference = references.find(|reference: &&Reference| reference.field == *field);
                reference.is_some_and(|reference| reference.values(&entity.row).contains(&value))
            };
            blame(*kind, &refers, message);
        }
        store::Error::StillReferenced {
            kind,
            id,
            by,
            referrer,
        } => {
            let named = |kind: Kind, id: Uuid| match store.get(kind, id) {
                Ok(Some(stored)) => described(kind, &stored.row),
                _ => format!("{} {id}", kind.declaration().singular),
            };
            return Refused::Other(Error::bad_request(format!(
                "the document is without the {}, to which the {} still refers: delete the latter first, \
                 or have it refer to another one",
                named(*kind, *id),
                named(*by, *referrer)
            )));
        }
        _ => {}
    }
    match mistakes.is_empty() {
        true => Refused::Other(error.into()),
        false => Refused::Mistakes(mistakes),
    }
}
