//! A service: where the requests of a route are sent. Source: Kong 3.9, `services`.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::check;
use super::declaration::Declaration;
use super::field::{Check, Field, Preset, Shape};
use super::{EntityCheck, ForeignKey, Kind, Match, ReferenceBy, Row, UniqueKey};
use crate::authority::Host;

const TIMEOUT: &[Check] = &[Check::Between(1, 2_147_483_646)];

const CA_CERTIFICATE: Field =
    Field::element(Shape::Uuid).refers_to(Kind::CaCertificate, ReferenceBy::PlainId);

/// The extensions beyond Kong.
const EXTENSION: &[Field] = &[
    super::retry::FIELD,
    Field::boolean("http2").default(Preset::Boolean(false)),
    Field::optional_record(
        "http2_keepalive",
        &[
            Field::number("interval")
                .default(Preset::Integer(0))
                .check(&[Check::Between(0, 65_535)]),
            Field::number("timeout")
                .default(Preset::Integer(20))
                .check(&[Check::Between(0, 65_535)]),
        ],
    ),
];

/// Where the requests of a route are sent.
pub static DECLARATION: Declaration = Declaration {
    unique: &[UniqueKey::of(&["name"])],
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::string("name").check(&[Check::Text(check::name)]),
        Field::created_at(),
        Field::updated_at(),
        Field::string("protocol")
            .required()
            .default(Preset::String("http"))
            .check(&[Check::OneOf(&[
                "grpc",
                "grpcs",
                "http",
                "https",
                "tcp",
                "tls",
                "tls_passthrough",
                "udp",
            ])]),
        Field::string("host")
            .required()
            .check(&[Check::Text(check::host)]),
        Field::integer("port")
            .required()
            .default(Preset::Integer(80))
            .check(&[Check::Between(0, 65_535)]),
        Field::string("path").check(&[Check::Text(check::path)]),
        Field::integer("retries")
            .default(Preset::Integer(5))
            .check(&[Check::Between(0, 32_767)]),
        Field::integer("connect_timeout")
            .default(Preset::Integer(60_000))
            .check(TIMEOUT),
        Field::integer("write_timeout")
            .default(Preset::Integer(60_000))
            .check(TIMEOUT),
        Field::integer("read_timeout")
            .default(Preset::Integer(60_000))
            .check(TIMEOUT),
        Field::reference("client_certificate", Kind::Certificate),
        Field::boolean("tls_verify"),
        Field::integer("tls_verify_depth").check(&[Check::Between(0, 64)]),
        Field::array("ca_certificates", &CA_CERTIFICATE),
        Field::boolean("enabled")
            .required()
            .default(Preset::Boolean(true)),
        Field::record("pointsman", EXTENSION).extension(),
        Field::tags(),
    ],
    expand: expand_url,
    entity_checks: &[
        EntityCheck::Conditional {
            if_field: "protocol",
            if_match: Match::OneOf(&["tcp", "tls", "udp", "grpc", "grpcs"]),
            then_field: "path",
            then_match: Match::Null,
        },
        needs_tls("client_certificate"),
        needs_tls("tls_verify"),
        needs_tls("tls_verify_depth"),
        needs_tls("ca_certificates"),
    ],
    ..Declaration::of(Kind::Service, "services", "service")
};

/// `url` stands for protocol, host, port and path, and takes precedence over them.
fn expand_url(input: &mut Row, _: Option<&Row>) {
    let Some(url) = input.shift_remove("url") else {
        return;
    };
    let Some(text) = url.as_str() else {
        // A null sets nothing. Any other value is not a URL: the missing host is then reported.
        if !url.is_null() {
            input.insert("host".into(), Value::Null);
        }
        return;
    };
    // RFC 3986, 3: the text before the first colon is a scheme, and without `//` the rest has no
    // host.
    let is_scheme = |text: &&str| {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let scheme = scheme.filter(is_scheme);
    let rest = scheme.map_or(text, |scheme| &text[scheme.len() + 1..]);
    let scheme = scheme.map(str::to_ascii_lowercase);
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = port.map(|port| port.parse::<u64>().map_or(Value::from(port), Value::from));
    let protocol = scheme.unwrap_or_else(|| {
        let https = port.as_ref() == Some(&Value::from(443));
        if https { "https" } else { "http" }.into()
    });
    let default_port = if protocol == "https" { 443 } else { 80 };
    let text_or_null = |text: &str| match text {
        "" => Value::Null,
        text => text.into(),
    };
    input.insert("host".into(), text_or_null(host.trim_matches(['[', ']'])));
    input.insert("port".into(), port.unwrap_or(default_port.into()));
    input.insert("path".into(), text_or_null(path));
    input.insert("protocol".into(), protocol.into());
}

/// A field that applies only to connections over TLS.
const fn needs_tls(field: &'static str) -> EntityCheck {
    EntityCheck::Conditional {
        if_field: "protocol",
        if_match: Match::NotOneOf(&["https", "tls"]),
        then_field: field,
        then_match: Match::Null,
    }
}

/// What the data plane reads of a service.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// Primary key.
    pub id: Uuid,
    /// Unique name.
    pub name: Option<String>,
    /// `http`, `https`, `grpc` and so on.
    pub protocol: String,
    /// Name of an upstream, an address or a host name.
    pub host: Host<'static>,
    /// Port of `host`; not used where `host` names an upstream.
    pub port: u16,
    /// Prefix for the path of each request.
    pub path: Option<String>,
    /// Further tries after the first one failed.
    pub retries: Option<u32>,
    /// Longest time to connect, in milliseconds.
    pub connect_timeout: Option<u64>,
    /// Longest time between two writes, in milliseconds.
    pub write_timeout: Option<u64>,
    /// Longest time between two reads, in milliseconds.
    pub read_timeout: Option<u64>,
    /// Whether the certificates of endpoints are verified, where the protocol is `https`.
    pub tls_verify: Option<bool>,
    /// How many certificates may be between that of an endpoint and that of an authority; none for
    /// no limit.
    pub tls_verify_depth: Option<u32>,
    /// The certificate that endpoints are shown; none if none is.
    pub client_certificate: Option<ForeignKey>,
    /// The authorities by which the certificates of endpoints are verified; none for those of the
    /// system.
    pub ca_certificates: Option<Vec<Uuid>>,
    /// Whether its routes are served.
    pub enabled: bool,
    /// The extensions beyond Kong.
    #[serde(default)]
    pub pointsman: Extension,
}

/// The extensions beyond Kong.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Which tries are repeated.
    pub retry: super::retry::Retry,
    /// Whether endpoints are spoken to over HTTP/2, where the protocol is `http` or `https`.
    pub http2: bool,
    /// How often an endpoint is asked whether it still answers.
    pub http2_keepalive: Http2Keepalive,
}

/// How often an endpoint is asked by a PING whether it still answers, on each connection over
/// HTTP/2. Source: Envoy, `connection_keepalive`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Http2Keepalive {
    /// Seconds between two PINGs; with 0 there are none.
    pub interval: f64,
    /// Longest time until the answer, in seconds.
    pub timeout: f64,
}
