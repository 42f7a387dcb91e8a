//! Balancers that decide beside others.

use super::{Compiler, complete};
use crate::balancer::{Shadow, ShadowSettings};
use crate::entity::upstream::Upstream as Entity;
use crate::upstream::Upstream;

impl Compiler {
    /// Gives an upstream the shadow that it asks for. One that is what is asked for goes on; what it has
    /// compared stays.
    pub(super) fn set_shadow(&self, upstream: &Upstream, entity: &Entity) {
        let balancer = upstream.balancer();
        let wanted = self.shadow_of(entity);
        if let (Some(wanted), Some(running)) = (&wanted, upstream.shadow())
            && running.is(balancer, wanted)
        {
            return;
        }
        let shadow = wanted.and_then(|wanted| {
            Shadow::new(
                &self.shadows,
                &self.engine,
                &upstream.name,
                balancer,
                wanted,
            )
        });
        upstream.set_shadow(shadow);
    }

    fn shadow_of(&self, entity: &Entity) -> Option<ShadowSettings> {
        let shadow = entity.pointsman.shadow.as_ref()?;
        let name = shadow.balancer.clone()?;
        let version = shadow.version.as_ref();
        let Some(plugin) = self.plugin(&name, version) else {
            tracing::warn!(
                upstream = entity.name,
                version,
                "no balancer {name:?} is loaded: the upstream has no shadow"
            );
            return None;
        };
        Some(ShadowSettings {
            limits: self.engine.limits_for(&entity.pointsman.balancer_limits),
            config: complete(shadow.config.clone(), entity.slots, &plugin),
            plugin,
            name,
            sample_percent: shadow.sample_percent,
        })
    }
}
