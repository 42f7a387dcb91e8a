//! The policies of routes, and the identities that they work with.

mod identities;
mod plugins;
mod referencing_rows;
mod rotation;
mod vaults;

use std::sync::Arc;

use super::Part;
use crate::entity::Kind;
use crate::policy::Resources;
use crate::policy::chain::Policies;
use identities::Identities;
use plugins::Plugins;
pub(super) use referencing_rows::ReferencingRows;
use rotation::References;
pub(super) use rotation::{Rotation, Rows};
pub(super) use vaults::Vaults;

/// What the compiler keeps of policies.
pub(super) struct PolicyParts {
    pub(super) plugins: Plugins,
    identities: Identities,
    /// The policies that were compiled last.
    compiled: Policies,
    /// The policies of streams that were compiled last; they have no identities.
    compiled_for_streams: Policies,
}

impl PolicyParts {
    pub(super) fn new(resources: Arc<Resources>) -> Self {
        Self {
            plugins: Plugins::new(resources),
            identities: Identities::default(),
            compiled: Policies::default(),
            compiled_for_streams: Policies::default(),
        }
    }

    /// The part of an entity; `None` if policies do not depend on it.
    pub(super) fn part(&mut self, kind: Kind) -> Option<&mut dyn Part> {
        match kind {
            Kind::Plugin => Some(&mut self.plugins),
            Kind::Vault => Some(&mut self.plugins.vaults),
            kind => self.identities.part(kind),
        }
    }

    /// The vaults.
    pub(super) fn vaults(&self) -> &Vaults {
        &self.plugins.vaults
    }

    /// What the next read of the vaults resolves: rows of plugins and certificates, and the vaults.
    /// `None` if no row has a reference.
    pub(super) fn references(&self, certificates: &ReferencingRows) -> Option<References> {
        let rows = [self.plugins.referencing.rows(), certificates.rows()];
        let rows: Vec<Rows> = rows.into_iter().flatten().collect();
        (!rows.is_empty()).then(|| References {
            rows,
            vaults: self.vaults().compiled(),
        })
    }

    /// The policies, as requests find them.
    pub(super) fn compiled(&self) -> &Policies {
        &self.compiled
    }

    /// The policies, as streams find them.
    pub(super) fn compiled_for_streams(&self) -> &Policies {
        &self.compiled_for_streams
    }

    /// Brings the policies up to date. Returns whether they have changed.
    pub(super) fn rebuild(&mut self) -> bool {
        let chains = self
            .plugins
            .rebuild(&mut self.compiled, &mut self.compiled_for_streams);
        let identities = self.identities.take_changed();
        if identities {
            self.compiled.identities = self.identities.compiled();
        }
        chains || identities
    }
}
