//! What an entity does beside what its declaration says. Each step that handlers take for an entity asks
//! its hooks; `admin.rs` says whose they are.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::Admin;
use super::error::Error;
use crate::entity::Row;
use crate::store::Write;

/// What an entity does beside what its declaration says.
pub(super) struct Hooks {
    /// Rewrites what a request carries where other rows have to be looked at for it.
    pub(super) prepare: fn(&Admin, &mut Row) -> Result<(), Error>,
    /// Looks at what a POST carries before its fields are checked.
    pub(super) before_insert: fn(&Row) -> Result<(), Error>,
    /// Checks a whole row beside all others before it is written.
    pub(super) check: CheckHook,
    /// Adds what a list of the rows of a parent shows beside them.
    pub(super) beside_list: fn(&Admin, Uuid, &mut Row),
}

/// Returns companions of the row: what is written in one step with it. Should one of them have been changed
/// by another request meanwhile, the row is checked again.
type CheckHook = for<'a> fn(&'a Admin, &'a Row) -> BoxFuture<'a, Result<Vec<Write>, Error>>;

impl Hooks {
    /// Those of an entity of which the declaration says everything.
    pub(super) const NONE: Self = Self {
        prepare: |_, _| Ok(()),
        before_insert: |_| Ok(()),
        check: |_, _| std::future::ready(Ok(Vec::new())).boxed(),
        beside_list: |_, _, _| {},
    };
}
