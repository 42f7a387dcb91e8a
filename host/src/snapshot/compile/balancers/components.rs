//! The components that upstreams may need now.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::super::context::Context;
use super::versions::Versions;
use crate::balancer::LoadedBalancer;
use crate::entity::balancer::Balancer;

/// The components by digest; none for one that could not be loaded.
#[derive(Default)]
pub(super) struct Components(HashMap<String, Option<Arc<LoadedBalancer>>>);

impl Components {
    pub(super) fn get(&self, digest: &str) -> Option<&Arc<LoadedBalancer>> {
        self.0.get(digest)?.as_ref()
    }

    /// Has those of `digests` that could not be loaded tried again. Returns whether there are any.
    pub(super) fn forget_failed(&mut self, digests: &[String]) -> bool {
        let mut any = false;
        for digest in digests {
            if let Some(None) = self.0.get(digest) {
                self.0.remove(digest);
                any = true;
            }
        }
        any
    }

    /// Loads what is needed and not loaded yet, and drops what is not needed. `needed` has the
    /// balancer of each digest.
    pub(super) async fn load(
        &mut self,
        context: &Context,
        balancers: &HashMap<Uuid, Balancer>,
        versions: &Versions,
        needed: HashMap<String, Uuid>,
    ) {
        self.0.retain(|digest, _| needed.contains_key(digest));
        for (digest, id) in needed {
            if self.0.contains_key(&digest) {
                continue;
            }
            let balancer = balancers.get(&id);
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
                    balancer = balancer.map(|balancer| &balancer.name),
                    version = digest,
                    "cannot load the component: {reason}"
                );
            }
            if let (Ok(plugin), Some(balancer)) = (&loaded, balancer) {
                context.engine.name_plugin(plugin, &balancer.name);
            }
            self.0.insert(digest, loaded.ok());
        }
    }
}
