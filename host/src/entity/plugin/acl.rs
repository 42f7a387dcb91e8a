//! `acl`: lets consumers of some groups in, or keeps them out. Source: Kong 3.9, `acl`.

use serde::Deserialize;
use serde_json::Value;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind, switch};
use crate::entity::field::{Check, Field, Shape};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, Row};

const GROUP: Field = Field::element(Shape::String);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 950,
    is_gate: true,
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
                    switch("include_consumer_groups", false),
                    switch("always_use_authenticated_groups", false),
                ],
            )
            .required()
            .check(&[Check::Record(no_consumer_groups)]),
        ],
        entity_checks: &[
            EntityCheck::OnlyOneOf(&["config.allow", "config.deny"]),
            EntityCheck::AtLeastOneOf(&["config.allow", "config.deny"]),
        ],
    },
};

/// Consumer groups are a part of Kong Enterprise. Its clients send the switch in its default.
fn no_consumer_groups(config: &Row) -> Result<(), String> {
    match config.get("include_consumer_groups") {
        Some(Value::Bool(true)) => Err("consumer groups are a part of Kong Enterprise and do not \
             exist here: set include_consumer_groups to false, and give each consumer its groups \
             at /consumers/{consumer}/acls"
            .into()),
        _ => Ok(()),
    }
}

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
