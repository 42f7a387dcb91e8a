//! What an upstream does beyond its declaration: it relies on balancers.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::error::Error;
use super::hooks::Hooks;
use super::{Admin, settings, shadow};
use crate::balancer::Engine;
use crate::config;
use crate::entity::Row;
use crate::store::{Store, Write};

pub(super) const HOOKS: Hooks = Hooks {
    prepare: |admin, input| settings::pin_by_digest(&*admin.store, input),
    check,
    ..Hooks::NONE
};

fn check<'a>(admin: &'a Admin, upstream: &'a Row) -> BoxFuture<'a, Result<Vec<Write>, Error>> {
    let (store, engine) = (&admin.store, &admin.engine);
    check_with(store, engine, &admin.config.balancer, upstream, None)
}

/// Checks the balancer and the shadow of an upstream, with the digest of the version of its
/// balancer that will be the active one. Its companions are the balancers that it relies on from
/// then on: see [`settings`].
pub(super) fn check_with<'a>(
    store: &'a Arc<dyn Store>,
    engine: &'a Arc<Engine>,
    own: &'a config::Balancer,
    upstream: &'a Row,
    promoted: Option<&'a str>,
) -> BoxFuture<'a, Result<Vec<Write>, Error>> {
    async move {
        let relied_on = settings::check(store, engine, own, upstream, promoted).await?;
        let mut companions = Vec::from_iter(relied_on);
        let shadow = shadow::check(store, engine, upstream).await?;
        let is_written = |write: &Write| companions.iter().any(|other| other.id() == write.id());
        let other = shadow.filter(|shadow| !is_written(shadow));
        companions.extend(other);
        Ok(companions)
    }
    .boxed()
}
