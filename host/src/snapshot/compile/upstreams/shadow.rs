//! Shadows: balancers that decide beside others.

use super::super::balancers::{Balancers, complete};
use super::super::context::Context;
use crate::balancer::{Shadow, ShadowSettings};
use crate::entity::upstream::Upstream as Entity;
use crate::upstream::Upstream;

/// Gives an upstream the shadow that it asks for. A shadow that is already the right one continues,
/// with what it has compared.
pub(super) fn set(context: &Context, balancers: &Balancers, upstream: &Upstream, entity: &Entity) {
    let balancer = upstream.balancer();
    let wanted = settings(context, balancers, entity);
    if let (Some(wanted), Some(running)) = (&wanted, upstream.shadow())
        && running.is(balancer, wanted)
    {
        return;
    }
    let shadow = wanted.and_then(|wanted| {
        Shadow::new(
            &context.shadows,
            &context.engine,
            &upstream.name,
            balancer,
            wanted,
        )
    });
    upstream.set_shadow(shadow);
}

fn settings(context: &Context, balancers: &Balancers, entity: &Entity) -> Option<ShadowSettings> {
    let shadow = entity.pointsman.shadow.as_ref()?;
    let name = shadow.balancer.clone()?;
    let version = shadow.version.as_ref();
    let Some(plugin) = balancers.plugin(&name, version) else {
        tracing::warn!(
            upstream = entity.name,
            version,
            "no balancer {name:?} is loaded: the upstream has no shadow"
        );
        return None;
    };
    Some(ShadowSettings {
        limits: context.engine.limits_for(&entity.pointsman.balancer_limits),
        config: complete(shadow.config.clone(), entity.slots, &plugin),
        plugin,
        name,
        sample_percent: shadow.sample_percent,
    })
}
