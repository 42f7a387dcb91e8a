//! The policies of routes, and who the consumers are.

use uuid::Uuid;

use super::Part;
use crate::entity::Row;

/// The policies.
#[derive(Default)]
pub(super) struct Policies {}

impl Part for Policies {
    fn put(&mut self, _: Uuid, _: Row) {}

    fn delete(&mut self, _: Uuid) {}
}
