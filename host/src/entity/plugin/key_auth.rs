//! `key-auth`: a consumer is known by a key in a header, in the query or in the body. Source: Kong
//! 3.9, `key-auth`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind, switch};
use crate::entity::check;
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;

const NAME: Field = Field::element(Shape::String).check(&[Check::Text(check::header_name)]);

pub(super) static KIND: PluginKind = PluginKind {
    priority: 1250,
    is_gate: true,
    schema: Subschema {
        name: "key-auth",
        fields: &[
            NO_CONSUMER,
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::array("key_names", &NAME)
                        .required()
                        .default(Preset::Strings(&["apikey"])),
                    switch("hide_credentials", false),
                    Field::string("anonymous"),
                    switch("key_in_header", true),
                    switch("key_in_query", true),
                    switch("key_in_body", false),
                    switch("run_on_preflight", true),
                    Field::string("realm").check(&[Check::Text(check::header_value)]),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `key-auth`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Names of the header, of the query argument and of the field of a form that have the key.
    pub key_names: Vec<String>,
    /// Whether the endpoint does not see the key.
    pub hide_credentials: bool,
    /// The consumer, by id or username, of a request without a valid key; such a request is refused
    /// if none is named.
    pub anonymous: Option<String>,
    /// Whether a key may be in a header.
    pub key_in_header: bool,
    /// Whether a key may be in the query.
    pub key_in_query: bool,
    /// Whether a key may be in the body.
    pub key_in_body: bool,
    /// Whether an `OPTIONS` request needs a key.
    pub run_on_preflight: bool,
    /// The realm that a refused client is told.
    pub realm: Option<String>,
}
