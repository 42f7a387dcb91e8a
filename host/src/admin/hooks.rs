//! What an entity does beyond its declaration. At each step handlers call the hooks of their
//! entity; `admin.rs` says which entity has which hooks.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::Admin;
use super::error::Error;
use crate::entity::Row;
use crate::store::Write;

/// The hooks of an entity.
pub(super) struct Hooks {
    /// Rewrites the input of a request where that depends on other rows.
    pub(super) prepare: fn(&Admin, &mut Row) -> Result<(), Error>,
    /// Checks the input of a POST before its fields are checked.
    pub(super) before_insert: fn(&Row) -> Result<(), Error>,
    /// Checks a whole row against other rows before it is written.
    pub(super) check: CheckHook,
    /// Finds rows by the query of a list, where it asks for them by a field.
    pub(super) find: fn(&Admin, &str) -> Result<Option<Vec<Row>>, Error>,
    /// Adds fields to the list of a parent's rows, beside the rows.
    pub(super) beside_list: fn(&Admin, Uuid, &mut Row),
}

/// Returns the companions of the row: writes that are stored in one step with it. If another
/// request changes one of those rows meanwhile, the row is checked again.
type CheckHook = for<'a> fn(&'a Admin, &'a Row) -> BoxFuture<'a, Result<Vec<Write>, Error>>;

impl Hooks {
    /// The hooks of an entity that its declaration describes in full.
    pub(super) const NONE: Self = Self {
        prepare: |_, _| Ok(()),
        before_insert: |_| Ok(()),
        check: |_, _| std::future::ready(Ok(Vec::new())).boxed(),
        find: |_, _| Ok(None),
        beside_list: |_, _, _| {},
    };
}
