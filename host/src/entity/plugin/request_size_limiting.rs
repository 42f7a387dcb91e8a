//! `request-size-limiting`: refuses requests with large bodies. Source: Kong 3.9,
//! `request-size-limiting`.

use serde::Deserialize;

use super::{HTTP_PROTOCOLS, PluginKind, switch};
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 951,
    is_gate: false,
    schema: Subschema {
        name: "request-size-limiting",
        fields: &[
            HTTP_PROTOCOLS,
            Field::record(
                "config",
                &[
                    Field::integer("allowed_payload_size").default(Preset::Integer(128)),
                    Field::string("size_unit")
                        .required()
                        .default(Preset::String("megabytes"))
                        .check(&[Check::OneOf(&["megabytes", "kilobytes", "bytes"])]),
                    switch("require_content_length", false),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `request-size-limiting`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The largest body, in `size_unit`.
    pub allowed_payload_size: i64,
    /// The unit of `allowed_payload_size`.
    pub size_unit: SizeUnit,
    /// Whether a request without `Content-Length` and without chunks is refused.
    pub require_content_length: bool,
}

/// A unit of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeUnit {
    /// 1,048,576 bytes.
    Megabytes,
    /// 1,024 bytes.
    Kilobytes,
    /// One byte.
    Bytes,
}
