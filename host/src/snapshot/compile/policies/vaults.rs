//! Vaults, for the references in settings of plugins and in certificates.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::super::{Part, view};
use crate::entity::vault::Vault;
use crate::entity::{Kind, Row, resolve_references};
use crate::vault;

/// The vaults.
#[derive(Default)]
pub(in super::super) struct Vaults {
    all: BTreeMap<Uuid, Vault>,
    compiled: vault::Vaults,
    changes: u64,
}

impl Part for Vaults {
    fn put(&mut self, id: Uuid, row: Row) {
        match view(Kind::Vault, id, row) {
            Some(vault) => self.all.insert(id, vault),
            None => self.all.remove(&id),
        };
        self.change();
    }

    fn delete(&mut self, id: Uuid) {
        self.all.remove(&id);
        self.change();
    }
}

impl Vaults {
    fn change(&mut self) {
        self.compiled = self.all.values().cloned().collect();
        self.changes += 1;
    }

    /// How often one has changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The vaults, to resolve references elsewhere.
    pub(super) fn compiled(&self) -> vault::Vaults {
        self.compiled.clone()
    }

    /// Replaces the references in a row by the values that they name: see [`resolve`].
    pub(super) fn resolve(&self, kind: Kind, id: Uuid, row: &mut Row, values: &mut Values) {
        resolve(&self.compiled, kind, row, values, |reference, why| {
            let entity = kind.name();
            tracing::warn!(entity, %id, "unable to resolve reference {reference} ({why})");
        });
    }
}

/// The values that the references of a row had last.
pub(super) type Values = HashMap<String, String>;

/// Replaces the references in a row by the values that they name, and updates `values` to them. A
/// reference without a value, which `missing` is told with the reason, keeps its last one: its file
/// may be about to be replaced, and the value in effect is better than none. One that never had a
/// value is an empty text, as in Kong.
pub(super) fn resolve(
    vaults: &vault::Vaults,
    kind: Kind,
    row: &mut Row,
    values: &mut Values,
    missing: impl Fn(&str, &str),
) {
    let last = std::mem::take(values);
    let fields = kind.declaration().fields_of(row, None);
    resolve_references(&fields, row, &mut |reference| {
        let value = vault::resolve(reference, vaults).or_else(|why| {
            missing(reference, &why);
            last.get(reference).cloned().ok_or(())
        });
        match value {
            Ok(value) => {
                values.insert(reference.to_owned(), value.clone());
                value
            }
            Err(()) => String::new(),
        }
    });
}
