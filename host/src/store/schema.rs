//! The constraints of each kind: its unique keys and its references.

use crate::entity::{Kind, Reference, UniqueKey};

/// The constraints of the rows of a kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constraints {
    /// Fields whose values together may occur in one row only.
    pub(super) unique: &'static [UniqueKey],
    /// The fields that refer to other rows.
    pub(super) references: &'static [Reference],
}

/// The constraints of every kind. Tests of the rules pass constraints of their own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema(pub(super) fn(Kind) -> Constraints);

impl Schema {
    /// What the entities declare.
    pub(super) const DECLARED: Self = Self(|kind| Constraints {
        unique: kind.unique_keys(),
        references: kind.references(),
    });

    pub(super) fn unique_keys(self, kind: Kind) -> &'static [UniqueKey] {
        (self.0)(kind).unique
    }

    /// The unique key that is made of these fields.
    pub(super) fn unique_key(self, kind: Kind, fields: &[&str]) -> Option<UniqueKey> {
        let mut keys = self.unique_keys(kind).iter();
        keys.find(|key| key.fields == fields).copied()
    }

    pub(super) fn references(self, kind: Kind) -> &'static [Reference] {
        (self.0)(kind).references
    }

    /// The reference that a field of a kind holds.
    pub(super) fn reference(self, kind: Kind, field: &str) -> Option<&'static Reference> {
        let mut references = self.references(kind).iter();
        references.find(|reference| reference.field == field)
    }

    /// The references to rows of a kind, each with the kind that declares it.
    pub(super) fn references_to(
        self,
        to: Kind,
    ) -> impl Iterator<Item = (Kind, &'static Reference)> {
        let kinds = Kind::ALL.into_iter();
        let all = kinds.flat_map(move |kind| {
            let references = self.references(kind).iter();
            references.map(move |reference| (kind, reference))
        });
        all.filter(move |(_, reference)| reference.to == to)
    }
}
