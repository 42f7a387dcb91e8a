//! Entities of Kong that have a schema, although no list of theirs is stored here: clients read
//! the schemas of all entities. Source: Kong 3.9, `kong.db.schema.entities`.

use super::check;
use super::field::{Check, Field};
use super::subschema::Subschema;

/// The schema of such an entity, if the name is that of one.
pub fn schema_only(name: &str) -> Option<&'static Subschema> {
    [&TAGS, &WORKSPACES]
        .into_iter()
        .find(|schema| schema.name == name)
}

/// An item of `/tags`.
static TAGS: Subschema = Subschema {
    name: "tags",
    fields: &[
        Field::string("tag")
            .required()
            .check(&[Check::Text(check::tag)]),
        Field::string("entity_name").required(),
        Field::uuid("entity_id").required(),
    ],
    entity_checks: &[],
};

/// A workspace, of which there is only the one that Kong calls `default`.
pub static WORKSPACES: Subschema = Subschema {
    name: "workspaces",
    fields: &[
        Field::id(),
        Field::string("name")
            .required()
            .check(&[Check::Text(check::name)]),
        Field::string("comment"),
        Field::created_at(),
        Field::updated_at(),
        Field::record("meta", &[]),
        Field::record("config", &[]),
    ],
    entity_checks: &[],
};
