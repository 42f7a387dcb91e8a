//! Vaults, for the references in settings of plugins.

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
    is_changed: bool,
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
        self.is_changed = true;
        self.changes += 1;
    }

    /// Whether one has changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// How often one has changed.
    pub(in super::super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The vaults, to resolve references elsewhere.
    pub(super) fn compiled(&self) -> vault::Vaults {
        self.compiled.clone()
    }

    /// Replaces the references in a row by the values that they name, and those without a value by
    /// empty texts, as Kong does.
    pub(in super::super) fn resolve(&self, kind: Kind, id: Uuid, row: &mut Row) {
        let fields = kind.declaration().fields_of(row, None);
        resolve_references(&fields, row, &mut |reference| {
            vault::resolve(reference, &self.compiled).unwrap_or_else(|why| {
                let entity = kind.name();
                tracing::warn!(entity, %id, "unable to resolve reference {reference} ({why})");
                String::new()
            })
        });
    }
}
