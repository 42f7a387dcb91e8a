//! `syslog`: sends a record of each request to the syslog of the machine (RFC 3164). Source: Kong
//! 3.9, `syslog`.

use serde::Deserialize;

use super::{PROTOCOLS, PluginKind, lua};
use crate::entity::field::{Check, Field, Preset};
use crate::entity::subschema::Subschema;

pub(super) static KIND: PluginKind = PluginKind {
    priority: 4,
    is_gate: false,
    schema: Subschema {
        name: "syslog",
        fields: &[
            PROTOCOLS,
            Field::record(
                "config",
                &[
                    severity("log_level"),
                    severity("successful_severity"),
                    severity("client_errors_severity"),
                    severity("server_errors_severity"),
                    lua::CUSTOM_FIELDS,
                    Field::string("facility")
                        .required()
                        .default(Preset::String("user"))
                        .check(&[Check::OneOf(&[
                            "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail",
                            "news", "syslog", "user", "uucp", "local0", "local1", "local2",
                            "local3", "local4", "local5", "local6", "local7",
                        ])]),
                ],
            )
            .required(),
        ],
        entity_checks: &[],
    },
};

const fn severity(name: &'static str) -> Field {
    Field::string(name)
        .required()
        .default(Preset::String("info"))
        .check(&[Check::OneOf(&[
            "debug", "info", "notice", "warning", "err", "crit", "alert", "emerg",
        ])])
}

/// The settings of `syslog`.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The least severity of a record that is sent.
    pub log_level: Severity,
    /// The severity of a record of a response with a status below 400.
    pub successful_severity: Severity,
    /// The severity of a record of a response with a status from 400 to 499.
    pub client_errors_severity: Severity,
    /// The severity of a record of a response with a status from 500 on.
    pub server_errors_severity: Severity,
    /// The facility.
    pub facility: Facility,
}

/// A severity; its number is that of RFC 3164, 4.1.1, so a lesser number is more severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Severity {
    Emerg = 0,
    Alert = 1,
    Crit = 2,
    Err = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// A facility; its number is that of RFC 3164, 4.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Facility {
    Kern = 0,
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Lpr = 6,
    News = 7,
    Uucp = 8,
    Cron = 9,
    Authpriv = 10,
    Ftp = 11,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}
