//! Versions that take a share of the picks before they are made active.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Compiler, complete};
use crate::balancer::Canary;
use crate::entity::upstream::Upstream as Entity;
use crate::upstream::Upstream;

impl Compiler {
    /// Begins and ends canaries as the balancers' rows say. One that is going on does so with all that it
    /// has come to, whoever writes the row.
    pub(super) fn set_canaries(&mut self) {
        let mut canaries = HashMap::new();
        for (id, balancer) in &self.balancers {
            let Some(wanted) = balancer.live_canary() else {
                continue;
            };
            let running = self.canaries.get(id);
            let running = running.filter(|canary| canary.settings.id == wanted.id);
            let canary = match (running, self.plugins.get(&wanted.version)) {
                (Some(running), _) => Arc::clone(running),
                (None, Some(Some(plugin))) => {
                    let (version, share) = (&*wanted.version, wanted.share_percent);
                    tracing::info!(
                        balancer = balancer.name,
                        version,
                        "canary started: {share} % of the picks"
                    );
                    let (name, plugin) = (balancer.name.clone(), Arc::clone(plugin));
                    Arc::new(Canary::new(wanted.clone(), *id, name, plugin))
                }
                // It does not load, which the log says.
                (None, _) => continue,
            };
            canaries.insert(*id, canary);
        }
        let before = std::mem::replace(&mut self.canaries, canaries);
        for (id, canary) in before {
            let goes_on = |now: &Arc<Canary>| Arc::ptr_eq(now, &canary);
            if !self.canaries.get(&id).is_some_and(goes_on) {
                canary.end();
                let row = self.balancers.get(&id).and_then(|row| row.canary.as_ref());
                let own = row.filter(|row| row.id == canary.settings.id);
                let state = own.map_or("by the operator", |row| row.state.name());
                tracing::info!(
                    balancer = canary.name,
                    version = canary.plugin.digest,
                    "canary ended: {state}"
                );
            }
        }
        let canaries = self.canaries.values().cloned().collect();
        self.published.set_canaries(canaries);
    }

    /// Gives an upstream its part of the canary of its balancer, unless it pins a version.
    pub(super) fn set_canary(&self, upstream: &Upstream, entity: &Entity) {
        let follows = entity.pointsman.balancer_version.is_none();
        let balancer = self.balancer(&entity.algorithm).filter(|_| follows);
        let canary = balancer.and_then(|balancer| self.canaries.get(&balancer.id));
        let part = canary.map(|canary| {
            let given = entity.pointsman.balancer_config.clone();
            (
                Arc::clone(canary),
                complete(given, entity.slots, &canary.plugin),
                self.engine.limits_for(&entity.pointsman.balancer_limits),
            )
        });
        upstream.balancer().set_canary(part);
    }
}
