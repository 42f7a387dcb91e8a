//! `tcp-log`: sends a record of each request to a TCP server. Source: Kong 3.9, `tcp-log`.

use serde::Deserialize;

use super::{PROTOCOLS, PluginKind, host, lua, port, switch};
use crate::entity::field::{Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 7,
    is_gate: false,
    schema: Subschema {
        name: "tcp-log",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    host().required(),
                    port().required(),
                    Field::number("timeout").default(Preset::Integer(10_000)),
                    Field::number("keepalive").default(Preset::Integer(60_000)),
                    switch("tls", false),
                    Field::string("tls_sni"),
                    lua::CUSTOM_FIELDS,
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

/// The settings of `tcp-log`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The name or address of the server.
    pub host: String,
    /// The port of the server.
    pub port: u16,
    /// The longest time that connecting or sending may take, in milliseconds.
    pub timeout: f64,
    /// How long an idle connection is kept, in milliseconds.
    pub keepalive: f64,
    /// Whether connections are encrypted. The server's certificate is not checked.
    pub tls: bool,
    /// The name that the server is asked for in the TLS handshake.
    pub tls_sni: Option<String>,
}
