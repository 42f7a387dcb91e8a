//! `jwt`: a consumer is known by a signed token (RFC 7519). Source: Kong 3.9, `jwt`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, Match, check};

const NAME: Field = Field::element(Shape::String);

const CLAIM: Field = Field::element(Shape::String).check(&[Check::OneOf(&["exp", "nbf"])]);

/// One year, in seconds.
const YEAR: i64 = 31_536_000;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 1450,
    is_gate: true,
    schema: Subschema {
        name: "jwt",
        fields: &[
            NO_CONSUMER,
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::set("uri_param_names", &NAME).default(Preset::Strings(&["jwt"])),
                    Field::set("cookie_names", &NAME).default(Preset::Strings(&[])),
                    Field::string("key_claim_name").default(Preset::String("iss")),
                    switch("secret_is_base64", false),
                    Field::set("claims_to_verify", &CLAIM),
                    Field::string("anonymous"),
                    switch("run_on_preflight", true),
                    Field::number("maximum_expiration")
                        .default(Preset::Integer(0))
                        .check(&[Check::Between(0, YEAR)]),
                    Field::set("header_names", &NAME).default(Preset::Strings(&["authorization"])),
                    Field::string("realm").check(&[Check::Text(check::header_value)]),
                ],
            )
            .required(),
        ],
        entity_checks: &[EntityCheck::Conditional {
            if_field: "config.maximum_expiration",
            if_match: Match::GreaterThan(0),
            then_field: "config.claims_to_verify",
            then_match: Match::Contains("exp"),
        }],
    },
};

/// The settings of `jwt`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Names of query arguments that may have the token.
    pub uri_param_names: Vec<String>,
    /// Names of cookies that may have the token.
    pub cookie_names: Vec<String>,
    /// The claim, of the payload or else of the header, that names the credential by its key.
    pub key_claim_name: String,
    /// Whether secrets of credentials are written in base64.
    pub secret_is_base64: bool,
    /// The claims that a token must have and that must hold now.
    pub claims_to_verify: Option<Vec<Claim>>,
    /// The consumer, by id or username, of a request without a valid token; such a request is
    /// refused if none is named.
    pub anonymous: Option<String>,
    /// Whether an `OPTIONS` request needs a token.
    pub run_on_preflight: bool,
    /// The longest time that a token may still be valid, in seconds; any time if zero.
    pub maximum_expiration: f64,
    /// Names of headers that may have the token.
    pub header_names: Vec<String>,
    /// The realm that a refused client is told.
    pub realm: Option<String>,
}

/// A claim about when a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Until when it is.
    Exp,
    /// From when on it is.
    Nbf,
}
