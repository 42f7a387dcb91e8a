//! The record `redis`: how to reach a Redis server. Source: Kong 3.9, `kong.tools.redis`.

use serde::Deserialize;

use crate::entity::field::{Check, Field, Preset, Shorthand};
use crate::entity::{EntityCheck, Match, check};

const LONGEST: i64 = (1 << 31) - 2;

/// The record.
pub(super) const RECORD: Field = Field::record(
    "redis",
    &[
        Field::string("host").check(&[Check::Text(check::host)]),
        Field::integer("port")
            .default(Preset::Integer(6379))
            .check(&[Check::Between(0, 65535)]),
        Field::integer("timeout")
            .default(Preset::Integer(2000))
            .check(&[Check::Between(0, LONGEST)]),
        Field::string("username").referenceable(),
        PASSWORD.referenceable(),
        Field::integer("database").default(Preset::Integer(0)),
        Field::boolean("ssl").default(Preset::Boolean(false)),
        Field::boolean("ssl_verify").default(Preset::Boolean(false)),
        Field::string("server_name").check(&[Check::Text(check::sni)]),
    ],
)
.required();

const PASSWORD: Field = Field::string("password").secret().may_be_empty();

/// The names that the fields of the record had beside it.
pub(super) const EARLIER_NAMES: &[Shorthand] = &[
    Shorthand {
        field: Field::string("redis_host"),
        path: &["redis", "host"],
        message: "config.redis_host is deprecated: use config.redis.host",
        is_echoed: true,
    },
    Shorthand {
        field: Field::integer("redis_port"),
        path: &["redis", "port"],
        message: "config.redis_port is deprecated: use config.redis.port",
        is_echoed: true,
    },
    Shorthand {
        field: Field::string("redis_password").secret().may_be_empty(),
        path: &["redis", "password"],
        message: "config.redis_password is deprecated: use config.redis.password",
        is_echoed: true,
    },
    Shorthand {
        field: Field::string("redis_username"),
        path: &["redis", "username"],
        message: "config.redis_username is deprecated: use config.redis.username",
        is_echoed: true,
    },
    Shorthand {
        field: Field::boolean("redis_ssl"),
        path: &["redis", "ssl"],
        message: "config.redis_ssl is deprecated: use config.redis.ssl",
        is_echoed: true,
    },
    Shorthand {
        field: Field::boolean("redis_ssl_verify"),
        path: &["redis", "ssl_verify"],
        message: "config.redis_ssl_verify is deprecated: use config.redis.ssl_verify",
        is_echoed: true,
    },
    Shorthand {
        field: Field::string("redis_server_name"),
        path: &["redis", "server_name"],
        message: "config.redis_server_name is deprecated: use config.redis.server_name",
        is_echoed: true,
    },
    Shorthand {
        field: Field::integer("redis_timeout"),
        path: &["redis", "timeout"],
        message: "config.redis_timeout is deprecated: use config.redis.timeout",
        is_echoed: true,
    },
    Shorthand {
        field: Field::integer("redis_database"),
        path: &["redis", "database"],
        message: "config.redis_database is deprecated: use config.redis.database",
        is_echoed: true,
    },
];

/// What the policy `redis` needs of the record.
pub(super) const HOST_NEEDED: EntityCheck = needed("config.redis.host");
/// As above.
pub(super) const PORT_NEEDED: EntityCheck = needed("config.redis.port");
/// As above.
pub(super) const TIMEOUT_NEEDED: EntityCheck = needed("config.redis.timeout");

const fn needed(field: &'static str) -> EntityCheck {
    EntityCheck::Conditional {
        if_field: "config.policy",
        if_match: Match::Is("redis"),
        then_field: field,
        then_match: Match::NotNull,
    }
}

/// How to reach a Redis server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Redis {
    /// Its name or address; given where the server is used.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// The longest time that connecting, sending or receiving may take, in milliseconds.
    pub timeout: u32,
    /// The user to authenticate as; Redis 6 and later know users.
    pub username: Option<String>,
    /// The password to authenticate with; no authentication if none.
    pub password: Option<String>,
    /// The number of the database.
    pub database: i64,
    /// Whether the connection is encrypted.
    pub ssl: bool,
    /// Whether the server's certificate is checked.
    pub ssl_verify: bool,
    /// The name that the server's certificate is for, if it is not `host`.
    pub server_name: Option<String>,
}
