//! `acl`: lets consumers of some groups in, or keeps them out. Source: Kong 3.9, `acl`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind, switch};
use crate::entity::EntityCheck;
use crate::entity::field::{Field, Shape};
use crate::entity::subschema::Subschema;

const GROUP: Field = Field::element(Shape::String);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 950,
    schema: Subschema {
        name: "acl",
        fields: &[
            NO_CONSUMER,
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::array("allow", &GROUP),
                    Field::array("deny", &GROUP),
                    switch("hide_groups_header", false),
                    switch("always_use_authenticated_groups", false),
                ],
            )
            .required(),
        ],
        entity_checks: &[
            EntityCheck::OnlyOneOf(&["config.allow", "config.deny"]),
            EntityCheck::AtLeastOneOf(&["config.allow", "config.deny"]),
        ],
    },
};

/// The settings of `acl`: of the two lists of groups, one is given.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The groups of which a consumer must be in one.
    pub allow: Option<Vec<String>>,
    /// The groups of which a consumer must be in none.
    pub deny: Option<Vec<String>>,
    /// Whether the endpoint is not told the groups of the consumer.
    pub hide_groups_header: bool,
    /// Whether the groups that an authentication policy has found count even if there is a
    /// consumer.
    pub always_use_authenticated_groups: bool,
}
