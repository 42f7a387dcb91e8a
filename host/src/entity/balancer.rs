//! A balancer: a component that chooses among the targets of an upstream. Pointsman's own entity.

use serde::Deserialize;
use uuid::Uuid;

use super::declaration::{Check, Declaration, Field, Shape, stores_it_as_it_is, takes_it_as_it_is};
use super::{Kind, check};

pub(super) const TEXT: Field = Field::element(Shape::String);

/// What a component says of itself.
pub(super) const DESCRIPTION: &[Field] = &[
    Field::string("name").required(),
    Field::string("version").required(),
    Field::any("config_schema").required(),
    Field::array("columns", &TEXT).required(),
];

/// A component that chooses among the targets of an upstream. `digest` says which of its versions is
/// active, and `previous_digest` which one was before; size, description and exports are copied from
/// the active one in the step that makes it active.
pub static DECLARATION: Declaration = Declaration {
    kind: Kind::Balancer,
    unique: &[&["name"]],
    references: &[],
    endpoint_key: "name",
    precise_times: false,
    fields: &[
        Field::id(),
        Field::string("name")
            .required()
            .check(&[Check::Text(check::name)]),
        Field::created_at(),
        Field::updated_at(),
        Field::string("source")
            .required()
            .check(&[Check::OneOf(&["shipped", "uploaded"])]),
        Field::string("digest").required(),
        Field::integer("size").required(),
        Field::record("description", DESCRIPTION),
        Field::array("exports", &TEXT).required(),
        Field::string("previous_digest"),
        Field::tags(),
    ],
    expand: takes_it_as_it_is,
    normalize: stores_it_as_it_is,
    rules: &[],
};

/// What the data plane reads of a balancer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Balancer {
    /// Primary key.
    pub id: Uuid,
    /// Unique name, as `upstream.algorithm` gives it.
    pub name: String,
    /// SHA-256 of the active version's component, in lower-case hex.
    pub digest: String,
}
