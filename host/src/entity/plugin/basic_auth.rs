//! `basic-auth`: a consumer is known by a username and a password (RFC 7617). Source: Kong 3.9,
//! `basic-auth`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind, switch};
use crate::entity::check;
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 1100,
    is_gate: true,
    schema: Subschema {
        name: "basic-auth",
        fields: &[
            NO_CONSUMER,
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::string("anonymous"),
                    switch("hide_credentials", false),
                    Field::string("realm")
                        .required()
                        .default(Preset::String("service"))
                        .check(&[Check::Text(check::header_value)]),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `basic-auth`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The consumer, by id or username, of a request without valid credentials; such a request is
    /// refused if none is named.
    pub anonymous: Option<String>,
    /// Whether the endpoint does not see the credentials.
    pub hide_credentials: bool,
    /// The realm that a refused client is told.
    pub realm: String,
}
