//! Balancers, their versions, and the components that are loaded for them.

mod canaries;
mod components;
mod versions;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::context::Context;
use super::{Part, view};
use crate::balancer::{LoadedBalancer, RunningCanary};
use crate::entity::balancer::Balancer;
use crate::entity::{Kind, Row};
use canaries::Canaries;
use components::{Components, VersionKey};
use versions::Versions;

/// Name of the balancer that serves if the configured one is not loaded.
pub(super) const DEFAULT_BALANCER: &str = "round-robin";

/// The balancers that upstreams can be given, and what belongs to them.
#[derive(Default)]
pub(super) struct Balancers {
    rows: HashMap<Uuid, Balancer>,
    pub(super) versions: Versions,
    components: Components,
    canaries: Canaries,
    /// Whether a row has changed since the last rebuild.
    changed: bool,
}

impl Part for Balancers {
    fn put(&mut self, id: Uuid, row: Row) {
        if let Some(balancer) = view::<Balancer>(Kind::Balancer, id, row) {
            // The row of a balancer is written again whenever an upstream comes to rely on it.
            self.changed |= self.rows.get(&id) != Some(&balancer);
            self.rows.insert(id, balancer);
        }
    }

    fn delete(&mut self, id: Uuid) {
        self.changed = true;
        self.rows.remove(&id);
    }
}

impl Balancers {
    /// Loads what is active, a canary, or named in `pinned` with its balancer, and begins and ends
    /// canaries. `pins_changed` is whether `pinned` may have changed. Returns whether the version
    /// that a balancer's name stands for may have changed.
    pub(super) async fn rebuild<'a>(
        &mut self,
        context: &Context,
        pins_changed: bool,
        pinned: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> bool {
        let written = self.versions.take_written();
        let mut changed = std::mem::take(&mut self.changed);
        changed |= self.components.forget_failed(&written);
        if changed || pins_changed {
            let needed = self.needed(pinned);
            self.components
                .load(context, &self.rows, &self.versions, needed)
                .await;
            self.canaries
                .rebuild(&self.rows, &self.components, &context.published);
        }
        changed
    }

    /// The versions that upstreams may need now.
    fn needed<'a>(
        &self,
        pinned: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> HashSet<VersionKey> {
        let active = self.rows.iter();
        let active = active.map(|(id, balancer)| (*id, balancer.digest.clone()));
        let canaries = self.rows.iter().filter_map(|(id, balancer)| {
            let canary = balancer.live_canary()?;
            Some((*id, canary.version.clone()))
        });
        let pinned =
            pinned.filter_map(|(name, digest)| Some((self.by_name(name)?.id, digest.clone())));
        active.chain(canaries).chain(pinned).collect()
    }

    fn by_name(&self, name: &str) -> Option<&Balancer> {
        self.rows.values().find(|balancer| balancer.name == name)
    }

    /// The version of a balancer that is pinned, or the active one.
    pub(super) fn plugin(&self, name: &str, pin: Option<&String>) -> Option<Arc<LoadedBalancer>> {
        let balancer = self.by_name(name)?;
        let digest = pin.unwrap_or(&balancer.digest);
        self.components.get(balancer.id, digest).cloned()
    }

    /// The balancer that serves if the configured one is not loaded.
    pub(super) fn default_plugin(&self, context: &Context) -> Arc<LoadedBalancer> {
        let default = self.plugin(DEFAULT_BALANCER, None);
        default.unwrap_or_else(|| Arc::clone(&context.default))
    }

    /// The canary of a balancer, if one is in progress.
    pub(super) fn canary(&self, name: &str) -> Option<&Arc<RunningCanary>> {
        self.canaries.of(self.by_name(name)?.id)
    }
}

/// The settings of a balancer. Kong's only field that is a setting is passed to a balancer that has
/// a setting of that name.
pub(crate) fn complete(given: Option<Value>, slots: u32, plugin: &LoadedBalancer) -> String {
    let mut config = given.unwrap_or_else(|| json!({}));
    let known = plugin.config_schema.pointer("/properties/slots");
    if let (Some(fields), Some(_)) = (config.as_object_mut(), known) {
        fields.entry("slots").or_insert(slots.into());
    }
    config.to_string()
}
