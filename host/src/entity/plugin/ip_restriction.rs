//! `ip-restriction`: lets clients of some addresses in, or keeps them out. Source: Kong 3.9,
//! `ip-restriction`.

use serde::Deserialize;

use super::{PluginKind, protocols};
use crate::entity::field::{Check, Field, Shape};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, check};

const RANGE: Field = Field::element(Shape::String).check(&[Check::Text(check::ip_or_cidr)]);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 990,
    is_gate: true,
    schema: Subschema {
        name: "ip-restriction",
        fields: &[
            protocols(&["http", "https", "tcp", "tls", "grpc", "grpcs"]),
            Field::record(
                "config",
                &[
                    Field::array("allow", &RANGE),
                    Field::array("deny", &RANGE),
                    Field::number("status"),
                    Field::string("message"),
                ],
            )
            .required(),
        ],
        entity_checks: &[EntityCheck::AtLeastOneOf(&["config.allow", "config.deny"])],
    },
};

/// The settings of `ip-restriction`: at least one of the lists is given.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The addresses and ranges of which a client must have one.
    pub allow: Option<Vec<String>>,
    /// The addresses and ranges of which a client must have none; they take precedence.
    pub deny: Option<Vec<String>>,
    /// The status of a refused request; 403 if none.
    pub status: Option<f64>,
    /// The message of a refused request.
    pub message: Option<String>,
}
