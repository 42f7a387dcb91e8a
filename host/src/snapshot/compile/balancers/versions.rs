//! The versions of balancers.

use std::collections::HashMap;

use bytes::Bytes;
use uuid::Uuid;

use super::super::{Part, view};
use crate::entity::version::Version;
use crate::entity::{Kind, Row};
use crate::store::Store;

/// The versions of all balancers.
#[derive(Default)]
pub(in super::super) struct Versions {
    rows: HashMap<Uuid, Version>,
    /// The digests of the versions that were written since these were last taken.
    written: Vec<String>,
}

impl Part for Versions {
    fn put(&mut self, id: Uuid, row: Row) {
        if let Some(version) = view::<Version>(Kind::BalancerVersion, id, row) {
            self.written.push(version.digest.clone());
            self.rows.insert(id, version);
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.rows.remove(&id);
    }
}

impl Versions {
    /// The digests of the versions that were written since these were last taken.
    pub(super) fn take_written(&mut self) -> Vec<String> {
        std::mem::take(&mut self.written)
    }

    /// The component of a version.
    pub(super) fn component(
        &self,
        store: &dyn Store,
        balancer: Uuid,
        digest: &str,
    ) -> Result<Bytes, String> {
        let mut versions = self.rows.iter();
        let id = versions
            .find(|(_, version)| version.balancer.id == balancer && version.digest == digest)
            .map(|(id, _)| *id);
        let blob = id.map(|id| store.blob(Kind::BalancerVersion, id));
        let blob = blob.transpose().map_err(|error| error.to_string())?;
        Ok(blob.flatten().ok_or("it is not in the store")?)
    }
}
