//! What an upstream does beyond its declaration: it relies on balancers.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::error::Error;
use super::hooks::Hooks;
use super::{Admin, settings, shadow};
use crate::entity::Row;
use crate::store::Write;

pub(super) const HOOKS: Hooks = Hooks {
    prepare: settings::pin_by_digest,
    check,
    ..Hooks::NONE
};

/// Checks the balancer and the shadow of an upstream. Its companions are the balancers that it
/// relies on from then on: see [`settings`].
fn check<'a>(admin: &'a Admin, upstream: &'a Row) -> BoxFuture<'a, Result<Vec<Write>, Error>> {
    async move {
        let mut companions = Vec::from_iter(settings::check(admin, upstream).await?);
        let shadow = shadow::check(admin, upstream).await?;
        let is_written = |write: &Write| companions.iter().any(|other| other.id() == write.id());
        let other = shadow.filter(|shadow| !is_written(shadow));
        companions.extend(other);
        Ok(companions)
    }
    .boxed()
}
