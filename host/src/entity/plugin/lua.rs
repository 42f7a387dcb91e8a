//! The field `custom_fields_by_lua` of policies that write logs. Source: Kong 3.9.

use crate::entity::field::{Check, Field, Shape};

const CODE: Field = Field::element(Shape::String).check(&[Check::Text(refused)]);

/// The field: no code can be given in it.
pub(super) const CUSTOM_FIELDS: Field =
    Field::map("custom_fields_by_lua", &[Check::Text(named)], &CODE);

fn named(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("length must be at least 1".into());
    }
    Ok(())
}

fn refused(_: &str) -> Result<(), String> {
    Err(
        "this gateway does not run Lua, so a log cannot have fields that Lua computes: leave \
         custom_fields_by_lua out, and add or remove fields where the log is received"
            .into(),
    )
}
