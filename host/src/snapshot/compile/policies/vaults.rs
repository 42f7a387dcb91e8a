//! Vaults, for the references in settings of plugins and in certificates.

use std::collections::BTreeMap;

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

    /// Replaces the references in a row by the values that they name, and those without a value by
    /// empty texts, as Kong does. Returns whether all have a value.
    pub(super) fn resolve(&self, kind: Kind, id: Uuid, row: &mut Row) -> bool {
        resolve(&self.compiled, kind, row, |reference, why| {
            let entity = kind.name();
            tracing::warn!(entity, %id, "unable to resolve reference {reference} ({why})");
        })
    }
}

/// Replaces the references in a row by the values that they name, and those without a value by empty
/// texts, which `missing` is told with the reason. Returns whether all have a value.
pub(super) fn resolve(
    vaults: &vault::Vaults,
    kind: Kind,
    row: &mut Row,
    missing: impl Fn(&str, &str),
) -> bool {
    let mut is_resolved = true;
    let fields = kind.declaration().fields_of(row, None);
    resolve_references(&fields, row, &mut |reference| {
        vault::resolve(reference, vaults).unwrap_or_else(|why| {
            missing(reference, &why);
            is_resolved = false;
            String::new()
        })
    });
    is_resolved
}
