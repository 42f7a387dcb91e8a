//! `grpc-web`: lets browsers call gRPC services. Source: Kong 3.9, `grpc-web`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, PluginKind};
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;

const NO_PROTO: &str = "messages in JSON are not transcoded: leave 'proto' out, and have clients \
     send application/grpc-web+proto or application/grpc-web-text+proto";

pub(super) static KIND: PluginKind = PluginKind {
    priority: 3,
    is_gate: false,
    schema: Subschema {
        name: "grpc-web",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("proto").check(&[Check::Nothing(NO_PROTO)]),
                    Field::boolean("pass_stripped_path"),
                    Field::string("allow_origin_header").default(Preset::String("*")),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `grpc-web`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Whether the path of a call is sent without the prefix that the route strips.
    pub pass_stripped_path: Option<bool>,
    /// The `Access-Control-Allow-Origin` of every response.
    pub allow_origin_header: String,
}
