//! `acme`: certificates from an authority that speaks ACME (RFC 8555). Source: Kong 3.9, `acme`.
//!
//! It is for the whole gateway. The certificates are rows of `certificates` and `snis`, so the
//! fields that say where Kong keeps them have no effect.

use serde::Deserialize;
use serde_json::Value;

use super::{HTTP_PROTOCOLS, NO_CONSUMER, PluginKind};
use crate::entity::field::{Check, Field, Preset, Shape};
use crate::entity::subschema::Subschema;
use crate::entity::{EntityCheck, Kind, Row, Violations, check};

/// The name of the plugin.
pub const NAME: &str = "acme";

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where Let's Encrypt issues certificates, and where it does so for trials.
const LETS_ENCRYPT_HOSTS: [&str; 2] = [
    "https://acme-v02.api.letsencrypt.org",
    "https://acme-staging-v02.api.letsencrypt.org",
];

const DOMAIN: Field = Field::element(Shape::String).check(&[Check::Text(domain)]);

/// The tag of the rows that the gateway has written itself: the account, and what was issued.
pub const TAG: &str = "managed-by-acme";

/// What a redis, a consul or a vault for the certificates would be told.
const STORAGE_CONFIG: Field = Field::any("storage_config").secret();

pub(super) static KIND: PluginKind = PluginKind {
    priority: 1705,
    is_gate: false,
    schema: Subschema {
        name: NAME,
        fields: &[
            HTTP_PROTOCOLS,
            NO_CONSUMER,
            Field::reference("service", Kind::Service)
                .check(&[Check::Nothing("value must be null")]),
            Field::reference("route", Kind::Route).check(&[Check::Nothing("value must be null")]),
            Field::record(
                "config",
                &[
                    Field::string("account_email")
                        .required()
                        .referenceable()
                        .check(&[Check::Text(email)]),
                    Field::any("account_key").check(&[Check::Nothing(
                        "the gateway makes the key of its account, and keeps it in 'keys': leave \
                         'account_key' out",
                    )]),
                    Field::string("api_uri")
                        .default(Preset::String(LETS_ENCRYPT))
                        .check(&[Check::Text(check::url)]),
                    Field::boolean("tos_accepted").default(Preset::Boolean(false)),
                    Field::string("eab_kid").referenceable().secret(),
                    Field::string("eab_hmac_key").referenceable().secret(),
                    Field::string("cert_type")
                        .default(Preset::String("ecc"))
                        .check(&[Check::OneOf(&["ecc"])]),
                    Field::integer("rsa_key_size")
                        .default(Preset::Integer(4096))
                        .check(&[Check::OneOfIntegers(&[2048, 3072, 4096])]),
                    Field::number("renew_threshold_days")
                        .default(Preset::Integer(14))
                        .check(&[Check::BetweenNumbers(0.0, 36_500.0)]),
                    Field::array("domains", &DOMAIN),
                    Field::boolean("allow_any_domain").default(Preset::Boolean(false)),
                    Field::number("fail_backoff_minutes")
                        .default(Preset::Integer(5))
                        .check(&[Check::BetweenNumbers(0.0, 1_440.0)]),
                    Field::string("storage")
                        .default(Preset::String("shm"))
                        .check(&[Check::OneOf(&["kong", "shm", "redis", "consul", "vault"])]),
                    STORAGE_CONFIG,
                    Field::string("preferred_chain").check(&[Check::Nothing(
                        "the authority's own chain is used: leave 'preferred_chain' out",
                    )]),
                    Field::boolean("enable_ipv4_common_name").default(Preset::Boolean(true)),
                ],
            )
            .required(),
        ],
        entity_checks: &[
            EntityCheck::MutuallyRequired(&["config.eab_kid", "config.eab_hmac_key"]),
            EntityCheck::Custom {
                fields: &["config.api_uri", "config.tos_accepted"],
                check: terms,
            },
            EntityCheck::Custom {
                fields: &["config.allow_any_domain"],
                check: listed_domains,
            },
        ],
    },
};

/// The settings of `acme`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// Whom the authority writes to.
    pub account_email: String,
    /// The directory of the authority.
    pub api_uri: String,
    /// Whether the operator agrees to the authority's terms of service.
    pub tos_accepted: bool,
    /// The operator's account with the authority besides ACME, if it asks for one.
    pub eab_kid: Option<String>,
    /// The key of that account, in base64.
    pub eab_hmac_key: Option<String>,
    /// How many days a certificate is valid when it is renewed, at least.
    pub renew_threshold_days: f64,
    /// The names that get certificates.
    pub domains: Option<Vec<String>>,
    /// Time until a failed name is tried again the first time.
    pub fail_backoff_minutes: f64,
}

fn email(text: &str) -> Result<(), String> {
    let parts = text.split_once('@');
    let is_email = parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    let is_plain = text
        .chars()
        .all(|c| c.is_ascii_graphic() && c != ',' && c != '?');
    match is_email && is_plain {
        true => Ok(()),
        false => Err(format!("invalid value: {text}")),
    }
}

fn domain(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err(format!(
            "{text} has a wildcard, for which authorities ask for the challenge dns-01, and the gateway \
             writes no DNS: list the names instead"
        ));
    }
    check::sni(text)
}

fn config<'r>(row: &'r Row, field: &str) -> Option<&'r Value> {
    row.get("config")?.get(field)
}

fn terms(row: &Row, violations: &mut Violations) {
    let uri = config(row, "api_uri").and_then(Value::as_str);
    let accepted = config(row, "tos_accepted").and_then(Value::as_bool);
    let is_lets_encrypt = |uri: &str| LETS_ENCRYPT_HOSTS.iter().any(|host| uri.starts_with(host));
    if uri.is_some_and(is_lets_encrypt) && accepted != Some(true) {
        violations.coupled(
            "terms of service must be accepted, see https://letsencrypt.org/repository/",
            "config.tos_accepted",
            "value must be true",
        );
    }
}

fn listed_domains(row: &Row, violations: &mut Violations) {
    if config(row, "allow_any_domain").and_then(Value::as_bool) == Some(true) {
        violations.field(
            "config.allow_any_domain",
            "certificates are requested for the names in 'domains' only: list them there",
        );
    }
}
