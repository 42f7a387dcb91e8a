//! Canaries: versions that take a share of the picks before they are made active.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::components::Components;
use crate::balancer::RunningCanary;
use crate::entity::balancer::Balancer;
use crate::snapshot::Published;

/// The canaries in progress, by balancer.
#[derive(Default)]
pub(super) struct Canaries(HashMap<Uuid, Arc<RunningCanary>>);

impl Canaries {
    /// The canary of a balancer, if one is in progress.
    pub(super) fn of(&self, balancer: Uuid) -> Option<&Arc<RunningCanary>> {
        self.0.get(&balancer)
    }

    /// Begins and ends canaries as the balancers' rows say. A canary that continues keeps its
    /// evidence, whichever client writes the row.
    pub(super) fn rebuild(
        &mut self,
        balancers: &HashMap<Uuid, Balancer>,
        components: &Components,
        published: &Published,
    ) {
        let mut canaries = HashMap::new();
        for (id, balancer) in balancers {
            let Some(wanted) = balancer.live_canary() else {
                continue;
            };
            let running = self.0.get(id);
            let running = running.filter(|canary| canary.settings.id == wanted.id);
            let canary = match (running, components.get(*id, &wanted.version)) {
                (Some(running), _) => Arc::clone(running),
                (None, Some(plugin)) => {
                    let (version, share) = (&*wanted.version, wanted.share_percent);
                    // The request that has started it is logged.
                    tracing::debug!(
                        balancer = balancer.name,
                        version,
                        "canary started: {share} % of the picks"
                    );
                    let (name, plugin) = (balancer.name.clone(), Arc::clone(plugin));
                    Arc::new(RunningCanary::new(wanted.clone(), *id, name, plugin))
                }
                // It does not load; the log has the reason.
                (None, None) => continue,
            };
            canaries.insert(*id, canary);
        }
        let before = std::mem::replace(&mut self.0, canaries);
        for (id, canary) in before {
            let goes_on = |now: &Arc<RunningCanary>| Arc::ptr_eq(now, &canary);
            if !self.0.get(&id).is_some_and(goes_on) {
                canary.end();
                let row = balancers.get(&id).and_then(|row| row.canary.as_ref());
                let own = row.filter(|row| row.id == canary.settings.id);
                let state = own.map_or("by the operator", |row| row.state.name());
                tracing::debug!(
                    balancer = canary.name,
                    version = canary.plugin.digest,
                    "canary ended: {state}"
                );
            }
        }
        published.set_canaries(self.0.values().cloned().collect());
    }
}
