//! What an entity does beyond its declaration. At each step handlers call the hooks of their
//! entity; `admin.rs` says which entity has which hooks.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use super::Admin;
use super::error::Error;
use super::key::Key;
use crate::entity::Row;
use crate::store::{Stored, Write};

/// The hooks of an entity.
pub(super) struct Hooks {
    /// The name that another row gives to a row of this entity.
    pub(super) alias: Option<Alias>,
    /// The error of a GET of a row that does not exist.
    pub(super) absent: fn(&Key) -> Error,
    /// Rewrites the input of a request where that depends on other rows.
    pub(super) prepare: fn(&Admin, &mut Row) -> Result<(), Error>,
    /// Checks the input of a POST before its fields are checked.
    pub(super) before_insert: fn(&Row) -> Result<(), Error>,
    /// Generates a value that the input of a POST or a PUT does not name and that only the answer
    /// to this request can show. Returns the field and the value.
    pub(super) shown_once: fn(&mut Row) -> Option<(&'static str, Value)>,
    /// Checks a whole row against other rows before it is written.
    pub(super) check: CheckHook,
    /// Finds rows by the query of a list, where it asks for them by a field.
    pub(super) find: FindHook,
    /// Adds fields to a row that a client is shown.
    pub(super) show: fn(&Admin, &mut Row) -> Result<(), Error>,
    /// The rows that a row is shown with.
    pub(super) parts: fn(&Admin, Uuid) -> Result<Vec<Stored>, Error>,
    /// Adds fields to the list of a parent's rows, beside the rows.
    pub(super) beside_list: fn(&Admin, Uuid, &mut Row),
}

/// Returns the rows that a query asks for; `None` if it asks for none by a field.
type FindHook = fn(&Admin, &str) -> Result<Option<Vec<Row>>, Error>;

/// How a path names a row of an entity by the name that another row gives to it.
pub(super) struct Alias {
    /// Finds the row with this name.
    pub(super) find: fn(&Admin, &str) -> Result<Option<Uuid>, Error>,
    /// The error if no row has the name.
    pub(super) absent: fn() -> Error,
    /// Adds the name to the input of a PUT.
    pub(super) put: fn(&mut Row, &str),
}

/// Returns the companions of the row: writes that are stored in one step with it. If another
/// request changes one of those rows meanwhile, the row is checked again.
type CheckHook = for<'a> fn(&'a Admin, &'a Row) -> BoxFuture<'a, Result<Vec<Write>, Error>>;

impl Hooks {
    /// The hooks of an entity that its declaration describes in full.
    pub(super) const NONE: Self = Self {
        alias: None,
        absent: |_| Error::not_found(),
        prepare: |_, _| Ok(()),
        before_insert: |_| Ok(()),
        shown_once: |_| None,
        check: |_, _| std::future::ready(Ok(Vec::new())).boxed(),
        find: |_, _| Ok(None),
        show: |_, _| Ok(()),
        parts: |_, _| Ok(Vec::new()),
        beside_list: |_, _, _| {},
    };
}
