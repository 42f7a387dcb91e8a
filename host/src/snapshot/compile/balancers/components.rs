//! The components that upstreams may need now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::super::context::Context;
use super::versions::Versions;
use crate::balancer::LoadedBalancer;
use crate::entity::balancer::Balancer;

/// A version of a balancer: the balancer, and the digest of the component.
pub(super) type VersionKey = (Uuid, String);

/// The components of the versions of balancers; none for one that could not be loaded. Balancers
/// that have a component in common share what it was compiled to.
#[derive(Default)]
pub(super) struct Components(HashMap<VersionKey, Option<Arc<LoadedBalancer>>>);

impl Components {
    pub(super) fn get(&self, balancer: Uuid, digest: &str) -> Option<&Arc<LoadedBalancer>> {
        self.0.get(&(balancer, digest.to_owned()))?.as_ref()
    }

    /// Tries to load those of `digests` again that could not be loaded. Returns whether there are
    /// any.
    pub(super) fn forget_failed(&mut self, digests: &[String]) -> bool {
        let mut any = false;
        self.0.retain(|(_, digest), loaded| {
            let is_forgotten = loaded.is_none() && digests.contains(digest);
            any |= is_forgotten;
            !is_forgotten
        });
        any
    }

    /// Loads what is needed and not loaded yet, and drops what is not needed.
    pub(super) async fn load(
        &mut self,
        context: &Context,
        balancers: &HashMap<Uuid, Balancer>,
        versions: &Versions,
        needed: HashSet<VersionKey>,
    ) {
        self.0.retain(|version, _| needed.contains(version));
        for (id, digest) in needed {
            let balancer = balancers.get(&id);
            let name = balancer.map_or("", |balancer| &*balancer.name);
            let has_name = |loaded: &Option<Arc<LoadedBalancer>>| {
                let mut plugins = loaded.iter();
                plugins.all(|plugin| plugin.identity.name == name)
            };
            if self.0.get(&(id, digest.clone())).is_some_and(has_name) {
                continue;
            }
            if let Some(plugin) = self.of_digest(&digest) {
                let plugin = context.engine.named(plugin, name);
                self.0.insert((id, digest), Some(plugin));
                continue;
            }
            // It is compiled already: the Admin API has checked it, so it comes from the cache.
            // This is slow only if the cache was lost.
            let loaded = match versions.component(&*context.store, id, &digest) {
                Ok(component) => {
                    let loaded = context.engine.load(component).await;
                    loaded.map_err(|error| error.to_string())
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = &loaded {
                tracing::error!(
                    balancer = name,
                    version = digest,
                    "cannot load the component: {reason}"
                );
            }
            let loaded = loaded
                .ok()
                .map(|plugin| context.engine.named(&plugin, name));
            self.0.insert((id, digest), loaded);
        }
    }

    /// A loaded component of this digest, of any balancer.
    fn of_digest(&self, digest: &str) -> Option<&Arc<LoadedBalancer>> {
        let mut all = self.0.iter();
        all.find_map(|((_, other), loaded)| loaded.as_ref().filter(|_| other == digest))
    }
}
