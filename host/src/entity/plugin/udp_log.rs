//! `udp-log`: sends a record of each request to a UDP server. Source: Kong 3.9, `udp-log`.

use serde::Deserialize;

use super::{PROTOCOLS, PluginKind, host, lua, port};
use crate::entity::field::{Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 8,
    is_gate: false,
    schema: Subschema {
        name: "udp-log",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    host().required(),
                    port().required(),
                    Field::number("timeout").default(Preset::Integer(10_000)),
                    lua::CUSTOM_FIELDS,
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `udp-log`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The name or address of the server.
    pub host: String,
    /// The port of the server.
    pub port: u16,
    /// The longest time that sending may take, in milliseconds.
    pub timeout: f64,
}
