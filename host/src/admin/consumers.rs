//! What consumers have beyond their declaration: they are found by their id in another system.

use super::Admin;
use super::error::Error;
use super::hooks::Hooks;
use crate::entity::{Kind, Row};

pub(super) const HOOKS: Hooks = Hooks {
    find: by_custom_id,
    ..Hooks::NONE
};

/// `GET /consumers?custom_id=x`. Source: Kong 3.9, `kong.api.routes.consumers`.
fn by_custom_id(admin: &Admin, query: &str) -> Result<Option<Vec<Row>>, Error> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, id)) = pairs.find(|(name, _)| name == "custom_id") else {
        return Ok(None);
    };
    if id.is_empty() {
        return Err(Error::bad_request("custom_id must be an unempty string"));
    }
    let found = (admin.store).find(Kind::Consumer, &["custom_id"], &[&(&*id).into()])?;
    Ok(Some(found.into_iter().map(|stored| stored.row).collect()))
}
